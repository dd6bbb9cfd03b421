"""Merges as they lie in a file mean the same as merges read one by one."""

from __future__ import annotations

import pytest

from rocmforge.errors import InvalidModelFile
from rocmforge.text import merges
from rocmforge.text.merges import PlainMerges, read_merges
from rocmforge.text.tokenizer import Tokenizer
from tests.support.gguf_files import string_array

G = "tokenizer.ggml."
TOKENS = ["a", "b", "c", "ab", "bc", "abc", "Ġ", "Ġa", " ", " a", "é", "éa"]
IDS = {text: index for index, text in enumerate(TOKENS)}


def metadata(*lines: bytes) -> dict[str, object]:
    return {
        G + "model": "gpt2",
        G + "pre": "gpt-2",
        G + "tokens": string_array([text.encode() for text in TOKENS]),
        G + "merges": string_array(list(lines)),
    }


SOUND = [b"a b", b"ab c", b"b c", b"a bc", "Ġ a".encode(), "é a".encode()]


@pytest.mark.parametrize("chunk", [1, 2, 100])
def test_plain_merges_are_those_read_one_by_one(monkeypatch, chunk):
    monkeypatch.setattr(merges, "_CHUNK", chunk)
    plain = PlainMerges.of(metadata(*SOUND))
    assert plain is not None
    assert len(plain) == len(SOUND)
    assert list(plain) == read_merges(metadata(*SOUND), IDS, required=True)
    assert plain[0] == ("a", "b")


@pytest.mark.parametrize(
    "lines",
    [
        [b"a b", b"ab"],
        [b"a b", b"a b c"],
        # As many blanks as merges, but not one each.
        [b"ab", b"a b c"],
        [b"a b c", b"ab"],
        # A token that is a blank.
        [b"  a", b"a b"],
        [b"a b", b"a b"],
        [b"a b\0", b"b c"],
        [],
    ],
)
def test_what_is_not_plain_is_read_one_by_one(lines):
    assert PlainMerges.of(metadata(*lines)) is None


def test_merges_that_are_missing_or_come_as_a_list_are_not_plain():
    assert PlainMerges.of({}) is None
    assert PlainMerges.of({G + "merges": ["a b"]}) is None


def test_a_blank_may_be_a_token_and_the_first_of_equal_merges_counts():
    tokenizer = Tokenizer.from_metadata(metadata(b"b c", b"a b", b"ab c", b"a bc", b"b c"))
    assert tokenizer.encode("abc") == [IDS["abc"]]
    assert read_merges(metadata(b"  a", b"a b", b"a b"), IDS, required=True) == [
        (" ", "a"),
        ("a", "b"),
    ]


@pytest.mark.parametrize("bad", [b"a x", b"x a", b"b a", b" a", b"a ", b"a \xff", b"\xff a"])
def test_a_merge_that_is_not_of_tokens_is_named(bad):
    with pytest.raises(InvalidModelFile, match=r"merges\[6\]"):
        Tokenizer.from_metadata(metadata(*SOUND, bad))


def test_ranks_are_the_order_in_the_file():
    left = Tokenizer.from_metadata(metadata(b"a b", b"b c"))
    right = Tokenizer.from_metadata(metadata(b"b c", b"a b"))
    assert left.encode("abc") == [IDS["ab"], IDS["c"]]
    assert right.encode("abc") == [IDS["a"], IDS["bc"]]
