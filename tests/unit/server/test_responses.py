from __future__ import annotations

import json

import pytest

from rocmforge import errors
from rocmforge.config import ServerConfig
from rocmforge.errors import ErrorCategory, RocmForgeError
from rocmforge.server.responses import (
    error_response,
    headers_of,
    native_body,
    openai_body,
    status_of,
)
from tests.support.source_tree import modules

CONFIG = ServerConfig()


def all_errors() -> list[type[RocmForgeError]]:
    found, queue = [], [RocmForgeError]
    while queue:
        cls = queue.pop()
        found.append(cls)
        queue += cls.__subclasses__()
    return found


@pytest.mark.parametrize("cls", all_errors(), ids=lambda cls: cls.__name__)
def test_every_error_has_a_status_by_its_category(cls):
    error = cls("what to do")
    by_category = {
        ErrorCategory.User: 400,
        ErrorCategory.Model: 400,
        ErrorCategory.Recoverable: 503,
        ErrorCategory.Backend: 503,
        ErrorCategory.Internal: 500,
    }
    precise = {401, 404, 405, 408, 413, 415, 429, 431}
    status = status_of(error)
    assert status == by_category[error.category()] or status in precise
    assert status != 422
    retry_after = headers_of(error, CONFIG).get("Retry-After")
    assert (retry_after is not None) == error.is_recoverable()
    assert retry_after in (None, "60")


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (errors.CacheCapacityExceeded("full"), 503, "cache_capacity_exceeded"),
        (errors.QueueCapacityExceeded("full"), 503, "server_overloaded"),
        (errors.ModelLoading("3 %"), 503, "model_loading"),
        (errors.EngineRecovering("wait"), 503, "engine_recovering"),
        (errors.GpuKernelLaunchFailed("x"), 503, "engine_recovering"),
        (errors.RateLimitExceeded("x"), 429, "rate_limit_exceeded"),
        (errors.DeadlineExceeded("x"), 503, "deadline_exceeded"),
        (errors.PoisonRequest("x"), 500, "poison_request"),
        (errors.UploadTimedOut("x"), 408, "upload_timed_out"),
        (errors.HeadersTooLarge("x"), 431, "headers_too_large"),
        (errors.InvalidApiKey("x"), 401, "invalid_api_key"),
        (errors.ModelNotFound("x"), 404, "model_not_found"),
        (errors.RequestNotFound("x"), 404, "request_not_found"),
        (errors.ContextLengthExceeded("x"), 400, "context_length_exceeded"),
        (errors.UnsupportedParameter("x", param="tools"), 400, "unsupported_parameter"),
        (errors.InternalError("x"), 500, "internal_error"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, RocmForgeError) else str(value),
)
def test_openai_shape(error, status, code):
    response = error_response(error, "/v1/completions", CONFIG)
    body = json.loads(response.body)["error"]
    assert response.status_code == status
    assert body["code"] == code
    assert isinstance(body["code"], str)
    assert body["message"] == error.message
    assert body["param"] == error.param
    assert body["category"] == str(error.category())
    assert body["recoverable"] == error.is_recoverable()


def test_native_shape():
    error = errors.CacheCapacityExceeded("full")
    response = error_response(error, "/generate", CONFIG)
    assert json.loads(response.body) == {
        "error": "full",
        "category": "recoverable",
        "recoverable": True,
        "status": "error",
    }
    assert native_body(error)["error"] == openai_body(error)["error"]["message"]


def test_context_length_tells_both_lengths():
    error = errors.ContextLengthExceeded("x", n_prompt_tokens=5000, n_ctx=4096)
    body = openai_body(error)["error"]
    assert (body["n_prompt_tokens"], body["n_ctx"]) == (5000, 4096)


@pytest.mark.parametrize(
    ("configured", "drain_s", "expected"),
    [(60, None, "60"), (60, 2.5, "3"), (60, 0.01, "1"), (60, 500.0, "60"), (600, None, "120")],
)
def test_retry_after_of_a_full_queue(configured, drain_s, expected):
    config = ServerConfig(retry_after_s=min(configured, 120))
    error = errors.QueueCapacityExceeded("full")
    assert headers_of(error, config, drain_s)["Retry-After"] == expected


def test_retry_after_is_configurable():
    assert headers_of(errors.ModelLoading("x"), ServerConfig(retry_after_s=7))["Retry-After"] == "7"


@pytest.mark.parametrize("kind", list(errors.HipErrorKind))
def test_retry_after_asks_the_category_not_the_device(kind):
    """A permanent device error is no reason to retry the call, but another engine may serve."""
    error = errors.HipError("x", kind=kind)
    response = error_response(error, "/v1/completions", CONFIG)
    assert (response.status_code, response.headers["Retry-After"]) == (503, "60")
    assert json.loads(response.body)["error"]["recoverable"] is True
    assert native_body(error)["recoverable"] is True


def test_a_missed_deadline_is_not_retried_by_clients_themselves():
    headers = headers_of(errors.DeadlineExceeded("x"), CONFIG)
    assert headers == {"x-should-retry": "false", "Retry-After": "60"}


def test_a_request_that_kills_engines_is_not_to_be_sent_again():
    error = errors.GenerationFailed("it crashed the engine each time")
    assert status_of(error) == 500
    assert headers_of(error, CONFIG) == {"x-should-retry": "false"}


def test_only_responses_knows_statuses_of_errors():
    """One home: no other server file maps errors to statuses."""
    users = [
        m.name
        for m in modules()
        if m.layer == "server" and ("_STATUS:" in m.text or "http_status" in m.text)
    ]
    assert users == ["rocmforge.server.responses"]
