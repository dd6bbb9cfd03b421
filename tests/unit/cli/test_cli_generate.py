"""`rocmforge generate`: prompts from everywhere, every sampling option, text and JSON."""

from __future__ import annotations

import json

import pytest

import rocmforge as api
from rocmforge.errors import InvalidConfiguration, InvalidRequest, IoError
from rocmforge.request import SamplingParams

GREEDY = ("--temperature", "0", "-n", "10")


@pytest.fixture(scope="module")
def model(tiny_path):
    with api.load(tiny_path) as loaded:
        yield loaded


def continued(model, prompt, **params):
    return model.generate(
        prompt, SamplingParams(**({"temperature": 0.0, "max_tokens": 10} | params))
    )


def test_a_prompt_from_an_argument_stdin_or_a_file(invoke, tiny_path, tmp_path, model):
    expected = continued(model, "hello world").text + "\n"
    file = tmp_path / "prompt.txt"
    file.write_text("hello world\n")
    assert invoke("generate", tiny_path, "hello world", *GREEDY).stdout == expected
    assert invoke("generate", tiny_path, "-", *GREEDY, text="hello world\n").stdout == expected
    assert invoke("generate", tiny_path, "-f", file, *GREEDY).stdout == expected
    assert invoke("generate", tiny_path, "-f", "-", *GREEDY, text="hello world").stdout == expected
    assert invoke("generate", tiny_path, "-p", "hello world", *GREEDY).stdout == expected


def test_no_chat_template_is_used(invoke, model, tiny_path):
    assert (
        continued(model, "hello").text
        != model.chat(
            [{"role": "user", "content": "hello"}], SamplingParams(temperature=0.0, max_tokens=10)
        ).text
    )


def test_one_word_continues_with_the_configured_model(invoke, tiny_path, model, monkeypatch):
    monkeypatch.setenv("ROCMFORGE_MODEL", str(tiny_path))
    expected = continued(model, "hello").text + "\n"
    assert invoke("generate", "hello", *GREEDY).stdout == expected
    assert invoke("generate", "-p", "hello", *GREEDY).stdout == expected


def test_several_prompts_and_choices(invoke, tiny_path, tmp_path, model):
    file = tmp_path / "prompt.txt"
    file.write_text("the world")
    result = invoke("generate", tiny_path, "-p", "hello", "-p", "in", "-f", file, *GREEDY)
    texts = [continued(model, p).text for p in ("hello", "in", "the world")]
    assert result.stdout == "".join(
        f"==> prompt {i + 1} <==\n{text}\n" for i, text in enumerate(texts)
    )
    result = invoke("generate", tiny_path, "hello", "--choices", "2", "--seed", "1", "-n", "10")
    choices = continued(model, "hello", temperature=1.0, n=2, seed=1).choices
    assert result.stdout == "".join(
        f"==> prompt 1, choice {i + 1} <==\n{c.text}\n" for i, c in enumerate(choices)
    )


def test_json_has_text_ids_logprobs_and_usage(invoke, tiny_path, model):
    args = ("-p", "hello", "-p", "in", "--json", "--logprobs", "2", *GREEDY)
    lines = invoke("generate", tiny_path, *args).stdout.splitlines()
    assert len(lines) == 2
    for number, (line, prompt) in enumerate(zip(lines, ("hello", "in"), strict=True)):
        got, expected = json.loads(line), continued(model, prompt, logprobs=2)
        assert got["prompt"] == number
        (choice,) = got["choices"]
        assert choice["text"] == expected.text
        assert choice["token_ids"] == list(expected.token_ids)
        assert choice["finish_reason"] == "length"
        assert choice["logprobs"][0]["logprob"] == expected.logprobs[0].logprob
        assert len(choice["logprobs"][0]["top"]) == 2
        assert got["usage"]["completion_tokens"] == 10


OPTIONS = {
    "max_tokens": (("-n", "33"), 33),
    "temperature": (("--temperature", "0.7"), 0.7),
    "top_k": (("--top-k", "20"), 20),
    "top_p": (("--top-p", "0.9"), 0.9),
    "min_p": (("--min-p", "0.1"), 0.1),
    "repetition_penalty": (("--repetition-penalty", "1.1"), 1.1),
    "presence_penalty": (("--presence-penalty", "0.5"), 0.5),
    "frequency_penalty": (("--frequency-penalty", "0.4"), 0.4),
    "logit_bias": (("--logit-bias", "5=-100", "--logit-bias", "6=1.5"), {5: -100.0, 6: 1.5}),
    "seed": (("--seed", "9"), 9),
    "n": (("--choices", "2"), 2),
    "logprobs": (("--logprobs", "3"), 3),
    "stop": (("--stop", "a", "--stop", "b"), ("a", "b")),
    "stop_token_ids": (("--stop-token-id", "7", "--stop-token-id", "8"), (7, 8)),
    "min_tokens": (("--min-tokens", "4"), 4),
    "ignore_eos": (("--ignore-eos",), True),
}


def test_every_sampling_option_arrives(invoke, tiny_path, monkeypatch):
    assert OPTIONS.keys() == set(SamplingParams.__struct_fields__)
    asked = []

    def note(_model, _prompts, params):
        asked.append(params)
        return []

    monkeypatch.setattr(api.Model, "generate_batch", note)
    for name, (args, value) in OPTIONS.items():
        invoke("generate", tiny_path, "hello", "--json", *args)
        assert asked.pop() == SamplingParams(**{name: value})
    invoke(
        "generate", tiny_path, "hello", "--json", *(a for args, _ in OPTIONS.values() for a in args)
    )
    assert asked.pop() == SamplingParams(**{name: value for name, (_, value) in OPTIONS.items()})


def test_bad_input_is_refused(invoke, tiny_path, tmp_path):
    with pytest.raises(IoError, match=r"nowhere\.txt"):
        invoke("generate", tiny_path, "-f", tmp_path / "nowhere.txt")
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9")
    with pytest.raises(InvalidRequest, match="UTF-8"):
        invoke("generate", tiny_path, "-f", tmp_path / "latin.txt")
    for bias in ("5", "x=1", "5=", "5=1=2"):
        with pytest.raises(InvalidRequest, match="ID=BIAS"):
            invoke("generate", tiny_path, "hello", "--logit-bias", bias)
    with pytest.raises(InvalidConfiguration, match="beside"):
        invoke("generate", tiny_path, "hello", "-p", "hello")
    with pytest.raises(InvalidConfiguration, match="0 words"):
        invoke("generate")
    with pytest.raises(InvalidRequest, match="prompt 1: "):
        invoke("generate", tiny_path, "-p", "a", "-p", "b " * 400)
