"""The native routes over engines that do what a script says."""

from __future__ import annotations

import pytest

from rocmforge.request import SamplingParams
from rocmforge.server.schemas import GenerateBody, parse
from tests.support.scripted_server import scripted_server

SHORT = {"prompt": "Once", "max_tokens": 6, "seed": 1}
LONG = {"prompt": "Once", "max_tokens": 4000, "ignore_eos": True}
EVENT = {"request_id", "token", "text", "finished", "finish_reason"}
ERROR = {"error", "category", "recoverable", "status"}


async def texts(server, ids: list[int]) -> str:
    return (await server.post("/detokenize", {"tokens": ids})).json()["content"]


async def test_generate_and_its_stream_say_the_same(tmp_path):
    async with scripted_server(tmp_path) as server:
        whole = (await server.post("/generate", SHORT)).json()
        assert whole.keys() == {"request_id", "text", "tokens", "finished", "finish_reason"}
        assert (whole["finished"], whole["finish_reason"]) == (True, "length")
        assert whole["text"] == await texts(server, whole["tokens"])
        for path, more in (("/generate/stream", {}), ("/generate", {"stream": True})):
            async with server.stream(path, SHORT | more) as stream:
                events = await stream.rest()
            assert {name for name, _ in events} == {"message"}
            told = [data for _, data in events]
            assert all(data.keys() == EVENT for data in told)
            assert [data["token"] for data in told] == whole["tokens"]
            assert "".join(data["text"] for data in told) == whole["text"]
            assert [data["finish_reason"] for data in told] == [None] * 5 + ["length"]
            assert [data["finished"] for data in told] == [False] * 5 + [True]


async def test_a_request_that_fails_at_once_has_a_status(tmp_path):
    """Token 404 makes the scripted engine fail: before the first token, HTTP can still say so."""
    async with scripted_server(tmp_path) as server:
        prompt = await texts(server, [404])
        ids = (await server.post("/tokenize", {"content": prompt})).json()["tokens"]
        assert ids == [404]
        answer = await server.post("/generate", {"prompt": prompt})
        assert answer.status_code == 500
        assert answer.json() == {
            "error": "not a number",
            "category": "internal",
            "recoverable": False,
            "status": "error",
        }


async def test_a_stream_that_fails_ends_with_an_error_event(tmp_path):
    """The engine dies after three tokens and never comes back."""
    dies = {"after": 3, "how": "sigkill"}
    async with (
        scripted_server(
            tmp_path, dies, {"start": "exit"}, max_restarts=1, circuit_open_s=60.0
        ) as server,
        server.stream("/generate/stream", LONG) as stream,
    ):
        events = await stream.rest()
        assert [name for name, _ in events] == ["message"] * 3 + ["error"]
        *told, (_, error) = events
        assert all(data["finish_reason"] is None for _, data in told)
        assert error.keys() == ERROR
        assert error["status"] == "error"
        assert error["category"] == "recoverable"
        assert error["recoverable"] is True
        status = (await server.get(f"/status/{told[0][1]['request_id']}")).json()
        assert status["status"] == "failed"
        assert status["error"] == error["error"]
        assert status["finished"] is True


async def test_a_stream_goes_on_where_the_engine_died(tmp_path):
    body = SHORT | {"max_tokens": 40}
    async with (
        scripted_server(tmp_path / "undisturbed") as server,
        server.stream("/generate/stream", body) as stream,
    ):
        expected = [(data["token"], data["text"]) for _, data in await stream.rest()]
    dies = {"after": 7, "how": "sigkill"}
    async with scripted_server(tmp_path / "disturbed", dies, dies, {}) as server:
        async with server.stream("/generate/stream", body) as stream:
            events = [data for _, data in await stream.rest()]
        assert [(data["token"], data["text"]) for data in events] == expected
        status = (await server.get(f"/status/{events[0]['request_id']}")).json()
        assert status["engine_restarts"] == 2
        assert status["status"] == "completed"


async def test_cancel_ends_a_stream_and_tells_its_client(tmp_path):
    async with scripted_server(tmp_path) as server:
        async with server.stream("/generate/stream", LONG) as stream:
            _, first = await stream.next()
            request_id = first["request_id"]
            status = (await server.get(f"/status/{request_id}")).json()
            assert (status["status"], status["finished"]) == ("processing", False)
            answer = await server.post(f"/cancel/{request_id}")
            assert answer.json() == {"request_id": request_id, "cancelled": True}
            *_, (name, last) = await stream.rest()
        assert name == "message"
        assert last == {
            "request_id": request_id,
            "token": None,
            "text": "",
            "finished": True,
            "finish_reason": "cancelled",
        }
        again = await server.post(f"/cancel/{request_id}")
        assert again.json() == {"request_id": request_id, "cancelled": False}
        status = (await server.get(f"/status/{request_id}")).json()
        assert (status["status"], status["finish_reason"]) == ("cancelled", "cancelled")


async def test_a_client_that_leaves_is_cancelled(tmp_path):
    async with scripted_server(tmp_path) as server:
        async with server.stream("/generate/stream", LONG) as stream:
            _, first = await stream.next()
        status = (await server.get(f"/status/{first['request_id']}")).json()
        assert status["status"] == "cancelled"
        assert server.state.client.status.n_live == 0


@pytest.mark.parametrize("path", ["/status/nobody", "/cancel/nobody"])
async def test_unknown_requests(tmp_path, path):
    async with scripted_server(tmp_path) as server:
        answer = await (server.get(path) if "status" in path else server.post(path))
        assert answer.status_code == 404
        assert answer.json().keys() == ERROR
        assert answer.json()["category"] == "internal"
        assert "nobody" in answer.json()["error"]


async def test_status_keeps_the_last_thousand(tmp_path):
    async with scripted_server(tmp_path, script={"step_s": 0.0}) as server:
        body = {"prompt": "a", "max_tokens": 1}
        first, second = [(await server.post("/generate", body)).json() for _ in range(2)]
        for _ in range(999):
            last = (await server.post("/generate", body)).json()
        assert (await server.get(f"/status/{first['request_id']}")).status_code == 404
        for one in (second, last):
            status = (await server.get(f"/status/{one['request_id']}")).json()
            assert status["text"] == one["text"]


async def test_models(tmp_path):
    async with scripted_server(tmp_path) as server:
        (model,) = (await server.get("/models")).json()["models"]
        assert model["id"] == server.state.model.name
        assert model["meta"]["n_ctx"] == 4096


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"prompt": None},
        {"prompt": ""},
        {"prompt": 3},
        {"prompt": "a", "n": 2},
        {"prompt": "a", "temperature": -1},
        {"prompt": "a", "top_p": 1.5},
        {"prompt": "a", "max_tokens": 0},
        {"prompt": "a", "stream": "perhaps"},
    ],
)
@pytest.mark.parametrize("path", ["/generate", "/generate/stream"])
async def test_bad_requests(tmp_path, path, body):
    async with scripted_server(tmp_path) as server:
        answer = await server.post(path, body)
        assert answer.status_code == 400
        assert answer.json().keys() == ERROR
        assert (answer.json()["category"], answer.json()["recoverable"]) == ("user", False)


def params(**fields) -> SamplingParams:
    return parse(GenerateBody, {"prompt": "a"} | fields).params()


NAMES = ("max_tokens", "temperature", "top_k", "top_p")


def test_the_defaults_are_those_of_the_contract():
    assert [getattr(params(), name) for name in NAMES] == [100, 1.0, 50, 0.9]
    assert params(**dict.fromkeys(NAMES)) == params()


def test_zero_one_and_minus_one_are_off():
    off = params(temperature=0, top_k=0, top_p=1)
    assert (off.temperature, off.top_k, off.top_p) == (0, 0, 1)
    assert params(top_k=-1).top_k == 0


def test_every_other_sampling_field_reaches_the_engine():
    fields = {
        "min_p": 0.1,
        "repetition_penalty": 1.1,
        "presence_penalty": 0.2,
        "frequency_penalty": 0.3,
        "seed": 7,
        "min_tokens": 3,
        "ignore_eos": True,
    }
    given = params(**fields, stop="x", stop_token_ids=[4], logit_bias={"5": -1})
    assert {name: getattr(given, name) for name in fields} == fields
    assert (given.stop, given.stop_token_ids, given.logit_bias) == (("x",), (4,), {5: -1})
