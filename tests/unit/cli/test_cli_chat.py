"""`rocmforge chat`: a conversation from a pipe and on a terminal."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import signal
import subprocess
import sys
import termios

import pytest

import rocmforge as api
from rocmforge.errors import ContextLengthExceeded, InvalidRequest
from rocmforge.request import SamplingParams

PATIENCE_S = 30
GREEDY = ("--temperature", "0", "-n", "12")


def user(text):
    return {"role": "user", "content": text}


def conversation(path, *lines, system=None):
    """The answers to the lines, each with all that came before it; None begins anew."""
    head = [{"role": "system", "content": system}] if system else []
    answers, messages = [], list(head)
    with api.load(path) as model:
        for line in lines:
            if line is None:
                messages = list(head)
                continue
            messages.append(user(line))
            params = SamplingParams(temperature=0.0, max_tokens=12)
            answers.append(model.chat(messages, params).text)
            messages.append({"role": "assistant", "content": answers[-1]})
    return "".join(answer + "\n" for answer in answers)


def test_answers_know_what_was_said_before(invoke, tiny_path):
    result = invoke("chat", tiny_path, *GREEDY, text="hello\n\n  the world  \n")
    assert result.stdout == conversation(tiny_path, "hello", "the world")
    assert result.stdout != conversation(tiny_path, "hello", None, "the world")
    assert result.stderr == ""


def test_reset_system_and_exit(invoke, tiny_path):
    lines = "hello\n/reset\nhello\n/system Be brief.\nhello\n/system\nhello\n/exit\nhello\n"
    result = invoke("chat", tiny_path, *GREEDY, text=lines)
    plain = conversation(tiny_path, "hello")
    brief = conversation(tiny_path, "hello", system="Be brief.")
    assert brief != plain
    assert result.stdout == plain + plain + brief + plain
    started = invoke("chat", tiny_path, *GREEDY, "--system", "Be brief.", text="hello\n")
    assert started.stdout == brief


def test_unknown_commands_and_help_go_to_stderr(invoke, tiny_path):
    result = invoke("chat", tiny_path, text="/rest\n/help\n")
    assert result.stdout == ""
    assert "there is no command /rest" in result.stderr
    assert "/system TEXT" in result.stderr


def test_what_cannot_go_on_fails_in_a_pipe(invoke, tiny_path, plain_path):
    with pytest.raises(ContextLengthExceeded, match="context_length_exceeded"):
        invoke("chat", tiny_path, *GREEDY, "-c", "48", text="hello " * 60 + "\n")
    with pytest.raises(InvalidRequest, match="no chat template"):
        invoke("chat", plain_path, text="")


class Terminal:
    """`rocmforge chat` on a terminal of its own."""

    def __init__(self, *args):
        self._screen, terminal = pty.openpty()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "rocmforge.cli.main", "chat", *map(str, args)],
            stdin=terminal,
            stdout=terminal,
            stderr=terminal,
            start_new_session=True,
            preexec_fn=take_terminal,
            env=os.environ | {"TERM": "dumb"},
        )
        os.close(terminal)
        self.shown = ""

    def wait_for(self, text):
        """Read until the text shows up behind what was waited for before."""
        while text not in self.shown:
            assert self._can_read(PATIENCE_S), f"{text!r} did not come: {self.shown!r}"
            self._read()
        before, _, self.shown = self.shown.partition(text)
        return before

    def type(self, text):
        os.write(self._screen, text.encode())

    def interrupt(self, expected):
        """Press Ctrl-C until the text shows up: Python can miss a signal in the instant before it
        waits for a key.
        """
        for _ in range(PATIENCE_S):
            self.type("\x03")
            if self._can_read(1) and expected in self._read():
                break
        self.wait_for(expected)

    def _can_read(self, timeout_s):
        return bool(select.select([self._screen], [], [], timeout_s)[0])

    def _read(self):
        self.shown += os.read(self._screen, 4096).decode()
        return self.shown

    def leave(self):
        """Its exit status, once it has left by itself."""
        return self._process.wait(PATIENCE_S)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._process.kill()
        self._process.wait()
        os.close(self._screen)


def take_terminal():
    """Make stdin the controlling terminal, so that its Ctrl-C becomes a signal."""
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


def test_on_a_terminal(tiny_path):
    with Terminal(tiny_path, *GREEDY, "-c", "64") as chat:
        chat.wait_for("/help lists the commands.")
        chat.wait_for("> ")
        chat.type("hello\n")
        chat.wait_for("> ")
        # Too long: a person is told, and goes on.
        chat.type("hello " * 40 + "\n")
        chat.wait_for("context_length_exceeded")
        chat.wait_for("> ")
        chat.interrupt("Ctrl-D leaves.")
        chat.wait_for("> ")
        chat.type("\x04")
        assert chat.leave() == 0


def test_ctrl_c_on_a_terminal_stops_the_answer_only():
    # At this temperature every token is as likely as any: only Ctrl-C ends the answer soon.
    with Terminal("--temperature", "100", "--min-p", "0", "--seed", "1") as chat:
        chat.wait_for("> ")
        chat.type("hello\n")
        chat.wait_for("hello\r\n")
        chat.type("\x03")
        chat.wait_for("\n> ")
        chat.type("/exit\n")
        assert chat.leave() == 0


@pytest.mark.parametrize("n_before", [0, 3])
def test_what_was_said_before_ctrl_c_is_remembered(invoke, tiny_path, monkeypatch, n_before):
    asked, polls = [], []
    poll, stream_chat = api.api.GenerationStream.poll, api.Model.stream_chat

    def interrupted(stream):
        polls.append(stream)
        if len(polls) == n_before + 1:
            os.kill(os.getpid(), signal.SIGINT)
            return None
        return poll(stream)

    def note(model, messages, params):
        asked.append(messages)
        return stream_chat(model, messages, params)

    monkeypatch.setattr(api.api.GenerationStream, "poll", interrupted)
    monkeypatch.setattr(api.Model, "stream_chat", note)
    result = invoke("chat", tiny_path, *GREEDY, text="hello\nthe world\n")
    said, _, _ = result.stdout.partition("\n")
    first, second = asked
    if n_before == 0:
        assert (said, second) == ("", [user("the world")])
    else:
        assert said
        answer = {"role": "assistant", "content": said}
        assert second == [*first, answer, user("the world")]
