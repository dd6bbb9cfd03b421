"""`rocmforge.load`: what it finds, what a model can do, and what it refuses."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import structlog

import rocmforge
from rocmforge.embedded import EMBEDDED_MODEL_PATH
from rocmforge.errors import (
    ContextLengthExceeded,
    InvalidConfiguration,
    InvalidModelFile,
    InvalidRequest,
    ModelLoadFailed,
    UnsupportedModelFormat,
)
from rocmforge.gguf.writer import GGUFWriter
from rocmforge.request import SamplingParams
from tests.support.gguf_files import tokenizer_metadata, write_tiny_model

GREEDY = SamplingParams(temperature=0.0, max_tokens=24)
QUESTION = [{"role": "user", "content": "What is 12 + 30?"}]


@pytest.fixture(scope="module")
def embedded():
    with rocmforge.load() as model:
        yield model


def write_metadata(path, metadata):
    writer = GGUFWriter(path)
    for key, value in metadata.items():
        writer.add(key, value)
    writer.write()
    return path


def test_public_names():
    assert set(rocmforge.__all__) <= set(dir(rocmforge))
    assert rocmforge.__version__[0].isdigit()
    with pytest.raises(AttributeError, match="nothing_like_it"):
        rocmforge.nothing_like_it  # noqa: B018


def test_no_path_is_the_embedded_model_and_it_answers(embedded):
    assert embedded.path == EMBEDDED_MODEL_PATH
    assert embedded.has_chat_template
    assert "42" in embedded.chat(QUESTION, GREEDY).text


def test_chat_is_the_template_s_prompt_continued(embedded):
    prompt = embedded.chat_prompt(QUESTION)
    assert "What is 12 + 30?" in prompt
    assert embedded.generate(prompt, GREEDY).token_ids == embedded.chat(QUESTION, GREEDY).token_ids
    ids = embedded.tokenize(prompt, parse_special=True)
    assert embedded.generate(ids, GREEDY) == embedded.generate(np.array(ids), GREEDY)
    assert embedded.chat(QUESTION, GREEDY).usage.prompt_tokens == len(ids)


def test_models_are_found_as_on_the_command_line(tmp_path, monkeypatch, bare_path):
    config = tmp_path / "rocmforge.toml"
    config.write_text(
        f'model = "mine"\n[aliases]\nmine = "{bare_path}"\n[engine]\nmax_sequence_length = 40\n'
    )
    monkeypatch.setenv("ROCMFORGE_CONFIG", str(config))
    monkeypatch.setenv("ROCMFORGE_N_THREADS", "1")
    for name in (None, "mine", str(bare_path)):
        with rocmforge.load(name) as model:
            assert model.path == bare_path
            assert (model.n_ctx, model.facts.n_threads) == (40, 1)
    with rocmforge.load("mine", device="cpu", threads=2, n_ctx=50) as model:
        assert (model.n_ctx, model.facts.n_threads) == (50, 2)
        assert model.facts.backend == "cpu"


def test_what_cannot_be_loaded_is_refused(tmp_path, tiny_path):
    with pytest.raises(ModelLoadFailed, match=r"nowhere\.gguf"):
        rocmforge.load(tmp_path / "nowhere.gguf")
    damaged = tmp_path / "damaged.gguf"
    damaged.write_bytes(b"GGUF" + bytes(100))
    for vocab_only in (False, True):
        with pytest.raises((InvalidModelFile, UnsupportedModelFormat)):
            rocmforge.load(damaged, vocab_only=vocab_only)
    with pytest.raises(InvalidConfiguration, match="device"):
        rocmforge.load(tiny_path, device="tpu")
    with pytest.raises(InvalidConfiguration, match="n_threads"):
        rocmforge.load(tiny_path, threads=0)


# ---------------------------------------------------------------------- text


def test_tokenize_and_detokenize(tiny):
    ids = tiny.tokenize("hello world")
    assert tiny.detokenize(ids) == tiny.detokenize(np.array(ids)) == "hello world"
    end = tiny.tokenizer.eos_token
    assert tiny.tokenize(end, parse_special=True) == [tiny.tokenizer.eos_id]
    assert len(tiny.tokenize(end)) > 1
    assert tiny.detokenize([tiny.tokenizer.eos_id]) == ""
    assert tiny.detokenize([tiny.tokenizer.eos_id], skip_special=False) == end
    with pytest.raises(InvalidRequest, match="vocabulary"):
        tiny.detokenize([10**6])


def test_add_special_adds_bos_where_the_model_wants_it(tmp_path):
    metadata = tokenizer_metadata() | {
        "general.architecture": "llama",
        "tokenizer.ggml.add_bos_token": True,
        "tokenizer.ggml.bos_token_id": tokenizer_metadata()["tokenizer.ggml.padding_token_id"],
    }
    path = write_metadata(tmp_path / "bos.gguf", metadata)
    with rocmforge.load(path, vocab_only=True) as model:
        with_bos = model.tokenize("hello")
        assert with_bos == [model.tokenizer.bos_id, *model.tokenize("hello", add_special=False)]


def test_vocab_only_reads_a_file_without_weights(tmp_path, tiny):
    metadata = tokenizer_metadata() | {"general.architecture": "llama"}
    path = write_metadata(tmp_path / "vocabulary.gguf", metadata)
    with rocmforge.load(path, vocab_only=True) as model:
        assert model.tokenize("hello world") == tiny.tokenize("hello world")
        assert model.chat_prompt(QUESTION) == tiny.chat_prompt(QUESTION)
        for run in (
            lambda: model.logits([1]),
            lambda: model.generate("hello"),
            lambda: model.generate_batch(["hello"]),
            lambda: model.chat(QUESTION),
            lambda: model.n_ctx,
            lambda: model.facts,
        ):
            with pytest.raises(InvalidRequest, match="vocab_only"):
                run()
    with pytest.raises(InvalidModelFile):
        rocmforge.load(path)


def test_without_tokenizer_ids_work_and_text_is_refused(bare, bare_path):
    result = bare.generate([1, 2, 3], SamplingParams(temperature=0.0, max_tokens=5))
    assert (result.text, len(result.token_ids), result.finish_reason) == ("", 5, "length")
    assert not bare.has_chat_template
    for use in (
        lambda: bare.tokenize("hello"),
        lambda: bare.detokenize([1]),
        lambda: bare.generate("hello"),
        lambda: bare.chat(QUESTION),
        lambda: bare.generate([1], SamplingParams(stop=("x",))),
        lambda: rocmforge.load(bare_path, vocab_only=True),
    ):
        with pytest.raises(InvalidRequest, match="no tokenizer"):
            use()


def test_a_tokenizer_of_an_unknown_kind_leaves_ids_to_work_with(tmp_path):
    path = write_tiny_model(
        tmp_path / "t5.gguf", n_ctx=64, metadata={"tokenizer.ggml.model": "rwkv"}
    )
    with rocmforge.load(path) as model:
        assert model.logits([1, 2]).shape[0] == 2
        assert len(model.generate([1], SamplingParams(max_tokens=3)).token_ids) == 3
        with pytest.raises(UnsupportedModelFormat, match="rwkv"):
            model.tokenize("hello")


def test_no_chat_template_is_said(tmp_path):
    path = write_tiny_model(
        tmp_path / "plain.gguf", n_ctx=64, metadata={"tokenizer.chat_template": None}
    )
    with rocmforge.load(path) as model:
        assert not model.has_chat_template
        with pytest.raises(InvalidRequest, match="no chat template"):
            model.chat(QUESTION)
        two_tokens = SamplingParams(max_tokens=2, ignore_eos=True)
        assert model.generate("hello", two_tokens).usage.completion_tokens == 2


# ---------------------------------------------------------------------- its end


def test_a_closed_model_says_so(tiny_path):
    model = rocmforge.load(tiny_path)
    stream = model.stream("hello", GREEDY)
    next(stream)
    model.close()
    model.close()
    for use in (
        lambda: model.logits([1]),
        lambda: model.tokenize("hello"),
        lambda: model.detokenize([1]),
        lambda: model.generate("hello"),
        lambda: model.generate_batch(["hello"]),
        lambda: model.chat(QUESTION),
        lambda: model.facts,
        lambda: model.has_chat_template,
        lambda: next(stream),
    ):
        with pytest.raises(InvalidRequest, match="closed"):
            use()


def test_bad_prompts_are_refused_before_anything_runs(tiny):
    for prompt, error, message in (
        ([], InvalidRequest, "no tokens"),
        ([1, tiny.n_vocab], InvalidRequest, "token"),
        ([-1], InvalidRequest, "token"),
        ([1.5], InvalidRequest, "integers"),
        ([[1]], InvalidRequest, "integers"),
        ([1] * tiny.n_ctx, ContextLengthExceeded, "context_length_exceeded"),
    ):
        with pytest.raises(error, match=message):
            tiny.generate(prompt)
    with pytest.raises(InvalidRequest, match=r"^prompt 1: .*no tokens"):
        tiny.generate_batch(["hello", []])
    with pytest.raises(InvalidRequest, match="2 prompts and 1 params"):
        tiny.generate_batch(["a", "b"], [GREEDY])
    assert tiny.generate_batch([]) == []


def test_events_go_to_the_host_s_loggers(tiny_path, caplog):
    structlog.reset_defaults()
    with caplog.at_level("INFO", logger="rocmforge"):
        rocmforge.load(tiny_path).close()
    assert [r.name for r in caplog.records if "backend_chosen" in r.message] == [
        "rocmforge.engine.start"
    ]


def test_a_library_prints_nothing(tiny_path):
    code = (
        "import sys, rocmforge\n"
        "with rocmforge.load(sys.argv[1]) as model:\n"
        "    model.generate('hello', rocmforge.SamplingParams(max_tokens=2))\n"
        "    model.logits([1])"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code, str(tiny_path)],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert (done.stdout, done.stderr) == ("", "")
