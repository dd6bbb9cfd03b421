"""`rocmforge run`, and what it shares with the others: which word is the model, and exit codes."""

from __future__ import annotations

import os
import signal

import pytest

import rocmforge as api
from rocmforge.cli import terminal
from rocmforge.cli.main import main
from rocmforge.cli.options import split_model
from rocmforge.errors import InternalError, InvalidConfiguration, InvalidRequest
from rocmforge.request import SamplingParams

QUESTION = "What is 12 + 30?"


def answer(path, prompt, *, system=None, n=20):
    """What `run --temperature 0 --min-p 0 -n 20` should say."""
    messages = [{"role": "system", "content": system}] if system else []
    messages += [{"role": "user", "content": prompt}]
    with api.load(path) as model:
        params = SamplingParams(temperature=0.0, max_tokens=n)
        if model.has_chat_template:
            return model.chat(messages, params).text + "\n"
        return model.generate(prompt, params).text + "\n"


def test_one_word_is_the_prompt_two_are_model_and_prompt():
    assert split_model(["hello"]) == (None, "hello")
    assert split_model(["model.gguf", "hello"]) == ("model.gguf", "hello")
    for words in ([], ["a", "b", "c"]):
        with pytest.raises(InvalidConfiguration, match=r"\[MODEL\] PROMPT"):
            split_model(words)


def test_one_word_asks_the_embedded_model(rocmforge):
    done = rocmforge("run", QUESTION, "--temperature", "0")
    assert (done.returncode, done.stderr) == (0, "")
    assert "42" in done.stdout


def test_two_words_ask_that_model_through_its_template(invoke, tiny_path):
    greedy = ("--temperature", "0", "-n", "20")
    assert invoke("run", tiny_path, "hello", *greedy).stdout == answer(tiny_path, "hello")
    said = invoke("run", tiny_path, "hello", "--system", "Be brief.", *greedy).stdout
    assert said == answer(tiny_path, "hello", system="Be brief.")
    assert said != answer(tiny_path, "hello")


def test_without_template_the_prompt_is_continued(invoke, plain_path):
    result = invoke("run", plain_path, "hello", "--temperature", "0", "-n", "20")
    assert result.stdout == answer(plain_path, "hello")
    with pytest.raises(InvalidRequest, match="no chat template"):
        invoke("run", plain_path, "hello", "--system", "Be brief.")


def test_a_dash_reads_the_prompt_from_stdin(invoke, tiny_path):
    result = invoke("run", tiny_path, "-", "--temperature", "0", "-n", "20", text="hello\n")
    assert result.stdout == answer(tiny_path, "hello")


def test_sampling_options_arrive(invoke, tiny_path):
    options = ("--temperature", "0.9", "--top-k", "9", "--top-p", "0.8", "--min-p", "0.01")
    params = SamplingParams(
        temperature=0.9, top_k=9, top_p=0.8, min_p=0.01, seed=6, max_tokens=30, stop=("e",)
    )
    with api.load(tiny_path) as model:
        expected = model.chat([{"role": "user", "content": "hello"}], params).text
    run = ("run", tiny_path, "hello", *options, "--seed", "6", "-n", "30", "--stop", "e")
    assert invoke(*run).stdout == expected + "\n"


# ---------------------------------------------------------------------- where the model comes from


def test_environment_file_and_command_line_name_the_model(
    invoke, tiny_path, plain_path, tmp_path, monkeypatch
):
    config = tmp_path / "rocmforge.toml"
    config.write_text(f'model = "small"\n[aliases]\nsmall = "{tiny_path}"\nbig = "{plain_path}"\n')
    greedy = ("--temperature", "0", "-n", "20")
    from_tiny, from_plain = answer(tiny_path, "hello"), answer(plain_path, "hello")
    # The file's model, by the alias that the same file defines.
    assert invoke("run", "hello", *greedy, "--config", config).stdout == from_tiny
    monkeypatch.setenv("ROCMFORGE_CONFIG", str(config))
    assert invoke("run", "hello", *greedy).stdout == from_tiny
    # The environment is stronger than the file, the command line than both.
    monkeypatch.setenv("ROCMFORGE_MODEL", "big")
    assert invoke("run", "hello", *greedy).stdout == from_plain
    assert invoke("run", "small", "hello", *greedy).stdout == from_tiny
    assert invoke("run", tiny_path, "hello", *greedy).stdout == from_tiny


def test_engine_options_are_stronger_than_the_environment(invoke, tiny_path, monkeypatch):
    monkeypatch.setenv("ROCMFORGE_MAX_SEQUENCE_LENGTH", "8")
    with pytest.raises(InvalidRequest, match="holds 8"):
        invoke("run", tiny_path, "hello hello hello")
    assert invoke("run", tiny_path, "hello hello hello", "-c", "64", "-n", "3").exit_code == 0
    monkeypatch.setenv("ROCMFORGE_ISA", "scalar")
    assert invoke("run", tiny_path, "hello", "-c", "64", "-n", "3").exit_code == 0
    for option, value in (("--isa", "sse"), ("--device", "tpu"), ("--kv-type", "q2"), ("-t", "0")):
        with pytest.raises(Exception, match=value):
            invoke("run", tiny_path, "hello", option, value)


def test_the_log_level_of_the_settings_counts(rocmforge, tiny_path):
    quiet = rocmforge("run", tiny_path, "hello", "-n", "1")
    assert quiet.stderr == ""
    loud = rocmforge("run", tiny_path, "hello", "-n", "1", env={"ROCMFORGE_LOG_LEVEL": "info"})
    assert "backend_chosen" in loud.stderr


# ---------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["run", "nowhere.gguf", "hello"], "nowhere.gguf"),
        (["run", "a", "b", "c"], "[MODEL] PROMPT"),
        (["run", "hello", "--temperature", "-1"], "temperature"),
        (["run", "hello", "--config", "nowhere.toml"], "nowhere.toml"),
        (["run", "hello", "--isa", "sse9"], "sse9"),
        (["chat", "nowhere.gguf"], "nowhere.gguf"),
        (["generate"], "[MODEL] PROMPT"),
        (["bench", "-p", "0"], "-p must be positive"),
        (["inspect", "nowhere.gguf"], "nowhere.gguf"),
        (["serve", "nowhere.gguf"], "nowhere.gguf"),
    ],
)
def test_input_at_fault_is_one_line_and_status_2(args, message, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["rocmforge", *args])
    with pytest.raises(SystemExit) as left:
        main()
    out, err = capsys.readouterr()
    assert (left.value.code, out) == (2, "")
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert message in err


def test_unknown_options_and_variables_are_status_2(rocmforge):
    assert rocmforge("run", "hello", "--temprature", "1").returncode == 2
    assert rocmforge("run").returncode == 2
    done = rocmforge("run", "hello", env={"ROCMFORGE_THREADS": "1"})
    assert done.returncode == 2
    assert "ROCMFORGE_THREADS" in done.stderr


def test_other_failures_are_status_1(monkeypatch, capsys):
    def fail(*_args, **_kwargs):
        raise InternalError("a defect")

    monkeypatch.setattr("rocmforge.cli.options.open_model", fail)
    monkeypatch.setattr("sys.argv", ["rocmforge", "run", "hello"])
    with pytest.raises(SystemExit) as left:
        main()
    assert left.value.code == 1
    assert capsys.readouterr().err == "error: a defect\n"


# ---------------------------------------------------------------------- the terminal


def test_ctrl_c_stops_the_answer_between_two_steps(invoke, tiny_path, monkeypatch):
    polls = []
    poll = api.api.GenerationStream.poll

    def interrupted(stream):
        polls.append(stream)
        if len(polls) == 4:
            os.kill(os.getpid(), signal.SIGINT)
        return poll(stream)

    monkeypatch.setattr(api.api.GenerationStream, "poll", interrupted)
    before = signal.getsignal(signal.SIGINT)
    result = invoke("run", tiny_path, "hello", "--seed", "1", "--temperature", "2")
    assert (result.exit_code, len(polls)) == (130, 4)
    assert result.stdout.endswith("\n")
    assert signal.getsignal(signal.SIGINT) is before


def test_the_second_ctrl_c_is_a_keyboard_interrupt():
    with terminal.ctrl_c_stops() as interrupt:
        os.kill(os.getpid(), signal.SIGINT)
        assert interrupt.is_set
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
        interrupt.is_set = False
        os.kill(os.getpid(), signal.SIGINT)
        assert interrupt.is_set


def test_a_terminal_is_not_steered_by_answers(monkeypatch, capsys):
    terminal.write("a\x1b[2Jb\n\tc\x9b")
    assert capsys.readouterr().out == "a\x1b[2Jb\n\tc\x9b"
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    terminal.write("a\x1b[2Jb\n\tc\x9b\r")
    assert capsys.readouterr().out == "a\ufffd[2Jb\n\tc\ufffd\ufffd"
