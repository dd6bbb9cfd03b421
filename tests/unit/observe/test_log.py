"""One JSON object a line, or lines for people; request ids in, prompts out."""

from __future__ import annotations

import asyncio
import json
import logging

import pytest
import structlog

from rocmforge.config import LogConfig
from rocmforge.observe.log import configure_logging, get_logger, http_log_context


@pytest.fixture(autouse=True)
def restore_logging():
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()


def lines(capsys) -> list[dict]:
    return [json.loads(line) for line in capsys.readouterr().err.splitlines()]


def test_off_a_terminal_every_line_is_a_json_object(capsys):
    configure_logging(LogConfig(format="auto"))
    get_logger("rocmforge.x").info("engine_ready", pid=5)
    logging.getLogger("uvicorn.error").warning("a library says %s", "hello")
    ours, theirs = lines(capsys)
    assert ours["event"] == "engine_ready"
    assert (ours["pid"], ours["level"], ours["logger"]) == (5, "info", "rocmforge.x")
    assert ours["timestamp"].endswith("Z")
    assert (theirs["event"], theirs["level"]) == ("a library says hello", "warning")


def test_people_get_readable_lines(capsys):
    configure_logging(LogConfig(format="human"))
    get_logger("x").warning("engine_restart", delay_s=0.1)
    text = capsys.readouterr().err
    assert "engine_restart" in text
    assert "delay_s=0.1" in text
    with pytest.raises(json.JSONDecodeError):
        json.loads(text)


def test_lines_below_the_level_are_not_written(capsys):
    configure_logging(LogConfig(level="warning", format="json"))
    get_logger("x").info("quiet")
    logging.getLogger("lib").info("quiet")
    get_logger("x").error("loud")
    assert [line["event"] for line in lines(capsys)] == ["loud"]


async def test_the_request_id_is_in_every_line_of_its_tasks_only(capsys):
    configure_logging(LogConfig(format="json"))

    async def work(name: str) -> None:
        with http_log_context(name):
            await asyncio.sleep(0)
            get_logger("x").info("working", name=name)

    await asyncio.gather(work("a"), work("b"))
    get_logger("x").info("outside")
    *inside, outside = lines(capsys)
    assert sorted((line["name"], line["http_request_id"]) for line in inside) == [
        ("a", "a"),
        ("b", "b"),
    ]
    assert "http_request_id" not in outside


@pytest.mark.parametrize("log_format", ["json", "human"])
def test_prompts_are_not_logged_not_even_with_a_traceback(capsys, log_format):
    configure_logging(LogConfig(format=log_format))
    prompt = "my secret question"
    try:
        raise ValueError("bad")
    except ValueError:
        get_logger("x").exception("failed", prompt=prompt, messages=[prompt], text=prompt)
    written = capsys.readouterr().err
    assert "secret" not in written
    assert "<18 hidden>" in written
    assert "ValueError: bad" in written


def test_configuring_twice_writes_once(capsys):
    configure_logging(LogConfig(format="json"))
    configure_logging(LogConfig(format="json"))
    get_logger("x").info("once")
    assert len(lines(capsys)) == 1
