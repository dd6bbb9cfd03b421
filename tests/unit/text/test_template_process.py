"""The helper process: deadlines, memory, death on both sides."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import textwrap
import time

import psutil
import pytest

from rocmforge.errors import InvalidModelFile, InvalidRequest
from rocmforge.text.template_process import TemplateProcess

GOOD = "{% for m in messages %}{{ m.role }}:{{ m.content }};{% endfor %}"
ENDLESS = (
    "{% if messages[0].content == 'loop' %}{% for i in range(99999) %}{% for j in range(99999) %}"
    "{% endfor %}{% endfor %}{% endif %}{{ messages[0].content }}"
)
USER = [{"role": "user", "content": "hi"}]
LOOP = [{"role": "user", "content": "loop"}]


async def test_renders():
    process = TemplateProcess(
        {"default": GOOD, "tool_use": "{{ tools | length }}{{ bos_token }}"}, bos_token="<s>"
    )
    await process.start()
    try:
        assert await process.render(USER) == "user:hi;"
        assert await process.render(USER, tools=[{"type": "function"}]) == "1<s>"
        results = await asyncio.gather(
            *(process.render([{"role": "user", "content": str(i)}]) for i in range(20))
        )
        assert results == [f"user:{i};" for i in range(20)]
        assert process.n_restarts == 0
    finally:
        await process.close()


async def test_without_template():
    process = TemplateProcess({})
    await process.start()
    with pytest.raises(InvalidRequest, match="no chat template"):
        await process.render(USER)
    await process.close()
    await process.close()


async def test_errors_keep_their_type():
    process = TemplateProcess({"default": "{{ raise_exception('no') }}"})
    with pytest.raises(InvalidRequest, match=r"no$") as caught:
        await process.render(USER)
    assert caught.value.param == "messages"
    await process.close()
    process = TemplateProcess({"default": "{% for %}"})
    with pytest.raises(InvalidModelFile, match="not valid Jinja"):
        await process.render(USER)
    await process.close()


async def test_an_endless_template_costs_one_request():
    process = TemplateProcess({"default": ENDLESS}, timeout_s=0.5)
    await process.start()
    first = process._process
    try:
        started = time.monotonic()
        # Probing the template's traits does not loop: only this request does.
        with pytest.raises(InvalidRequest, match=r"did not finish within 0\.5 s"):
            await process.render(LOOP)
        assert time.monotonic() - started < 5
        assert first.returncode == -signal.SIGKILL
        assert await process.render(USER) == "hi"
        assert process.n_restarts == 1
    finally:
        await process.close()


@pytest.mark.parametrize("source", ["{{ 'a' * 10**10 }}", "{{ ('%' ~ 10**10 ~ 'd') % 1 }}"])
async def test_memory_is_limited(source):
    process = TemplateProcess({"default": source})
    with pytest.raises(InvalidRequest, match="chat template"):
        await process.render(USER)
    await process.close()


async def test_a_killed_helper_is_replaced():
    process = TemplateProcess({"default": GOOD})
    await process.start()
    try:
        for _ in range(2):
            os.kill(process._process.pid, signal.SIGKILL)
            assert await process.render(USER) == "user:hi;"
    finally:
        await process.close()


async def test_a_cancelled_request_leaves_no_late_answer():
    process = TemplateProcess({"default": ENDLESS}, timeout_s=30)
    await process.start()
    first = process._process
    task = asyncio.create_task(process.render(LOOP))
    await asyncio.sleep(0.3)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert first.returncode is not None
    assert await process.render(USER) == "hi"
    await process.close()


async def test_close_ends_the_helper():
    process = TemplateProcess({"default": GOOD})
    await process.start()
    helper = process._process
    await process.close()
    assert helper.returncode == 0


@pytest.mark.parametrize("value", ["\ud800", 2**70], ids=["half a surrogate pair", "big integer"])
async def test_values_that_cannot_cross(value):
    process = TemplateProcess({"default": GOOD})
    with pytest.raises(InvalidRequest, match="cannot be passed"):
        await process.render(USER, x=value)
    await process.close()


async def test_any_variable_name_will_do():
    process = TemplateProcess({"default": "{{ self is defined }} {{ name }}{{ request }}"})
    variables = {"self": 1, "name": 2, "request": 3, "not a name": 4}
    assert await process.render(USER, **variables) == "True 23"
    await process.close()


async def test_large_and_nested_values_cross():
    process = TemplateProcess({"default": "{{ x[0][0] | length }}"})
    assert await process.render(USER, x=[["y" * 1_000_000]]) == "1000000"
    await process.close()


async def test_deep_values_do_not_crash():
    deep: list = []
    for _ in range(5000):
        deep = [deep]
    process = TemplateProcess({"default": GOOD})
    try:
        with pytest.raises(InvalidRequest, match="chat template"):
            await process.render(USER, x=deep)
        assert await process.render(USER) == "user:hi;"
    finally:
        await process.close()


async def test_a_template_cannot_break_the_framing():
    # Half a surrogate pair has no UTF-8 form.
    process = TemplateProcess({"default": r"{{ '\ud83d' }}ok"})
    try:
        assert (await process.render(USER)).endswith("ok")
        assert (await process.render(USER)).endswith("ok")
    finally:
        await process.close()


def test_the_helper_ends_with_its_parent():
    program = textwrap.dedent(
        f"""
        import asyncio
        from rocmforge.text.template_process import TemplateProcess
        async def main():
            process = TemplateProcess({{"default": {ENDLESS!r}}}, timeout_s=100)
            await process.start()
            print(process._process.pid, flush=True)
            await process.render({LOOP!r})
        asyncio.run(main())
        """
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) as parent:
        pid = int(parent.stdout.readline())
        helper = psutil.Process(pid)
        time.sleep(0.2)
        parent.kill()
    gone, alive = psutil.wait_procs([helper], timeout=5)
    assert not alive, gone
