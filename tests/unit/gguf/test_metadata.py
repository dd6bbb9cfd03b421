"""Typed getters: ranges, wrong types, defaults; every message names the key."""

from __future__ import annotations

import math

import numpy as np
import pytest

from rocmforge.errors import InvalidModelFile
from rocmforge.gguf.metadata import Metadata
from tests.support.gguf_files import string_array


def strings(*words):
    """A StringArray over these words."""
    return string_array([word.encode() for word in words])


METADATA = Metadata(
    {
        "int": 7,
        "negative": -1,
        "huge": 2**63,
        "float": 0.5,
        "nan": math.nan,
        "inf": math.inf,
        "flag": True,
        "text": "seven",
        "words": strings("a", "bc"),
        "ints": np.array([1, 2], np.int32),
        "floats": np.array([0.5], np.float32),
        "flags": np.array([True]),
        "nested": [np.array([1])],
    }
)


def test_it_is_a_mapping():
    assert len(METADATA) == 13
    assert list(METADATA)[:2] == ["int", "negative"]
    assert "int" in METADATA
    assert METADATA.get("missing") is None


def test_values_of_the_right_type():
    assert METADATA.int_("int") == 7
    assert METADATA.int_("negative", minimum=-1) == -1
    assert METADATA.float_("float") == 0.5
    assert METADATA.float_("int") == 7.0
    assert METADATA.bool_("flag") is True
    assert METADATA.str_("text") == "seven"
    assert list(METADATA.array("words", "str")) == ["a", "bc"]
    assert METADATA.array("ints", "int").tolist() == [1, 2]
    assert METADATA.array("floats", "float").tolist() == [0.5]
    assert METADATA.array("flags", "bool").tolist() == [True]


GETTERS = {
    "int": METADATA.int_,
    "float": METADATA.float_,
    "bool": METADATA.bool_,
    "str": METADATA.str_,
}


@pytest.mark.parametrize(
    ("getter", "key"),
    [
        ("int", "float"),
        ("int", "flag"),
        ("int", "text"),
        ("int", "ints"),
        ("float", "flag"),
        ("float", "text"),
        ("bool", "int"),
        ("bool", "text"),
        ("str", "int"),
        ("str", "words"),
    ],
)
@pytest.mark.parametrize("default", [(), (None,)])
def test_values_of_another_type(getter, key, default):
    with pytest.raises(InvalidModelFile, match=f"^{key} should be"):
        GETTERS[getter](key, *default)


@pytest.mark.parametrize(
    ("kind", "key"),
    [
        ("str", "text"),
        ("str", "ints"),
        ("int", "words"),
        ("int", "floats"),
        ("int", "flags"),
        ("float", "ints"),
        ("bool", "ints"),
        ("int", "nested"),
        ("int", "int"),
    ],
)
def test_arrays_of_another_type(kind, key):
    with pytest.raises(InvalidModelFile, match=f"^{key} should be an array of {kind}"):
        METADATA.array(key, kind)


def test_missing_keys():
    for getter in (*GETTERS.values(), lambda key, *rest: METADATA.array(key, "int", *rest)):
        with pytest.raises(InvalidModelFile, match="lacks the metadata key missing"):
            getter("missing")
        assert getter("missing", None) is None
        assert getter("missing", 5) == 5


def test_ranges():
    with pytest.raises(InvalidModelFile, match="negative is -1, expected 0 to"):
        METADATA.int_("negative")
    with pytest.raises(InvalidModelFile, match=f"huge is {2**63}, expected"):
        METADATA.int_("huge")
    with pytest.raises(InvalidModelFile, match="int is 7, expected 0 to 6"):
        METADATA.int_("int", 3, maximum=6)
    for key in ("nan", "inf"):
        with pytest.raises(InvalidModelFile, match=f"{key} is {key}, expected"):
            METADATA.float_(key)


def test_string_arrays_compare_with_sequences():
    assert strings("a", "bc") == ["a", "bc"]
    assert strings("a", "bc") == strings("a", "bc")
    assert strings("a") != ["b"]
    assert strings("a") != "a"
    assert strings("ab")[0:1] == ["ab"]
    assert repr(strings("a", "b")) == "<StringArray of 2>"
    with pytest.raises(IndexError):
        strings("a")[1]
