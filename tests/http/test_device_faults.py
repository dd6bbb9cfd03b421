"""A device that fails by a plan, under a real server: retries are in the path of every token."""

from __future__ import annotations

import json

import httpx

from tests.support.live_server import live_server

ASK = {"prompt": "Once upon a time", "max_tokens": 40, "temperature": 0}
# The first two launches of an engine are its warm-up.
TWO_LAUNCHES_FAIL = "launch:device_error@n=3x2"
EVERYWHERE = "allocate:out_of_memory@p=0.1; copy:copy_failed@p=0.1; launch:device_error@p=0.1"
AT_ONCE = {"retry_config_initial_delay_ms": 0.1, "retry_config_max_retries": 20}
IMPATIENT = {"supervisor_max_restarts": 1, "supervisor_restart_delay_s": 0.01}


def stream(server):
    """Text of a stream, and the error that ended it, or came in its place, if one did."""
    text, error, event = "", None, None
    with httpx.stream(
        "POST", server.url + "/generate/stream", json=ASK | {"stream": True}, timeout=60
    ) as answer:
        if answer.status_code != 200:
            return text, json.loads(answer.read())
        for line in answer.iter_lines():
            if line.startswith("event: "):
                event = line.removeprefix("event: ")
            elif line.startswith("data: {"):
                data = json.loads(line.removeprefix("data: "))
                if event == "error":
                    error = data
                else:
                    text += data["text"]
    return text, error


def retries(server, name, operation):
    return server.metric(f'rocmforge_gpu_retry_{name}{{operation="{operation}"}}')


def test_device_calls_grow_with_every_token_and_without_faults_nothing_is_retried():
    with live_server() as server:
        server.wait_ready()
        server.post("/generate", ASK)
        before = server.metric("rocmforge_gpu_calls_total")
        steps = server.metric("rocmforge_engine_steps_total")
        assert server.post("/generate", ASK).json()["finish_reason"] == "length"
        n_steps = server.metric("rocmforge_engine_steps_total") - steps
        assert n_steps >= ASK["max_tokens"]
        # Allocate, launch, copy.
        assert server.metric("rocmforge_gpu_calls_total") - before == 3 * n_steps
        for operation in ("allocate_buffer", "launch", "copy_from_device"):
            assert retries(server, "attempts_total", operation) == 0
        assert server.metric("rocmforge_faults_injected_total") == 0


def test_faults_everywhere_change_no_token():
    with live_server() as server:
        undisturbed = stream(server.wait_ready())
    with live_server(faults_plan=EVERYWHERE, **AT_ONCE) as server:
        assert stream(server.wait_ready()) == undisturbed
        assert undisturbed[1] is None
        props = server.props()
        assert props["engine"]["restarts"] == 0
        assert props["engine"]["facts"]["device"] == "cpu+faults"
        assert server.metric("rocmforge_faults_injected_total") > 3
        attempts = sum(
            retries(server, "attempts_total", operation)
            for operation in ("allocate_buffer", "launch", "copy_from_device")
        )
        # Those of the load are counted under names of their own.
        assert 3 < attempts <= server.metric("rocmforge_faults_injected_total")
        assert retries(server, "failed_total", "launch") == 0
        assert server.events("gpu_retry_succeeded")
        assert server.events("faults_injected")


def test_a_fault_that_passes_is_retried_and_the_stream_does_not_notice():
    with live_server(faults_plan=TWO_LAUNCHES_FAIL, **IMPATIENT) as server:
        _, error = stream(server.wait_ready())
        assert error is None
        assert server.props()["engine"]["restarts"] == 0
        assert retries(server, "attempts_total", "launch") == 2
        assert retries(server, "success_total", "launch") == 1
        histogram = "rocmforge_gpu_retry_attempt_histogram_bucket"
        assert server.metric(f'{histogram}{{le="1.0",operation="launch"}}') == 0
        assert server.metric(f'{histogram}{{le="2.0",operation="launch"}}') == 1


def test_without_retries_the_same_fault_makes_the_stream_fail():
    settings = {"faults_plan": TWO_LAUNCHES_FAIL, "retry_config_max_retries": 0} | IMPATIENT
    with live_server(**settings) as server:
        text, error = stream(server.wait_ready())
        assert text == ""
        assert error["status"] == "error"
        assert "engine" in error["error"]
        (last,) = {crash["detail"] for crash in server.props()["engine"]["crashes"]}
        assert last == "injected into launch: device_error"
        # What an engine counted before it gave up is not lost with it.
        assert retries(server, "failed_total", "launch") >= 1


def test_a_sticky_fault_restarts_the_engine_at_once_and_the_stream_goes_on():
    with live_server() as server:
        undisturbed = stream(server.wait_ready())
    with live_server(faults_plan="launch:device_lost@n=30", **IMPATIENT) as server:
        assert stream(server.wait_ready()) == undisturbed
        assert server.props()["engine"]["restarts_by_cause"] == {"failed": 1}
        assert retries(server, "attempts_total", "launch") == 0
