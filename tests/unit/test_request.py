"""Sampling parameters: bad values are refused by name; requests cross the wire unchanged."""

from __future__ import annotations

import math

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rocmforge.errors import InvalidRequest, InvalidTemperature, InvalidTopK, InvalidTopP
from rocmforge.request import Request, RequestId, SamplingParams


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ({"temperature": -0.1}, InvalidTemperature),
        ({"temperature": math.nan}, InvalidTemperature),
        ({"temperature": math.inf}, InvalidTemperature),
        ({"top_k": -1}, InvalidTopK),
        ({"top_k": 2**31}, InvalidTopK),
        ({"top_p": 0.0}, InvalidTopP),
        ({"top_p": 1.1}, InvalidTopP),
        ({"top_p": math.nan}, InvalidTopP),
        ({"min_p": -0.1}, InvalidRequest),
        ({"min_p": math.nan}, InvalidRequest),
        ({"repetition_penalty": 0.0}, InvalidRequest),
        ({"presence_penalty": 2.1}, InvalidRequest),
        ({"frequency_penalty": -2.1}, InvalidRequest),
        ({"n": 0}, InvalidRequest),
        ({"n": 33}, InvalidRequest),
        ({"max_tokens": 0}, InvalidRequest),
        ({"min_tokens": -1}, InvalidRequest),
        ({"logprobs": 21}, InvalidRequest),
        ({"seed": 2**64}, InvalidRequest),
        ({"stop": ("",)}, InvalidRequest),
        ({"stop": ("x" * 1025,)}, InvalidRequest),
        ({"stop": ("x",) * 17}, InvalidRequest),
        ({"logit_bias": {1: 101.0}}, InvalidRequest),
        ({"logit_bias": {1: math.nan}}, InvalidRequest),
        ({"logit_bias": dict.fromkeys(range(1025), 0.0)}, InvalidRequest),
    ],
)
def test_bad_values_are_named(fields, error):
    with pytest.raises(error) as caught:
        SamplingParams(**fields)
    if error is InvalidRequest:
        assert caught.value.param == next(iter(fields))
    assert caught.value.is_user_error() or caught.value.param


@given(
    st.builds(
        SamplingParams,
        max_tokens=st.none() | st.integers(1, 2**31 - 1),
        temperature=st.floats(0, 100),
        top_k=st.integers(0, 2**31 - 1),
        top_p=st.floats(0.001, 1),
        logit_bias=st.dictionaries(st.integers(0, 2**31 - 1), st.floats(-100, 100), max_size=5),
        seed=st.none() | st.integers(-(2**63), 2**64 - 1),
        n=st.integers(1, 32),
        stop=st.lists(st.text(min_size=1, max_size=9), max_size=3).map(tuple),
    )
)
def test_requests_cross_the_wire_unchanged(params):
    request = Request(
        request_id=RequestId("r"), prompt_ids=(1, 2), params=params, generated=((3,), ())
    )
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(request), type=Request) == request
