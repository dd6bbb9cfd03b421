"""Streams of text; the general case is tests/property/test_text_properties.py."""

from __future__ import annotations

import pytest

from rocmforge.errors import InvalidRequest
from rocmforge.text.detokenizer import Detokenizer, TokenSpan
from rocmforge.text.tokenizer import Tokenizer

G = "tokenizer.ggml."
WORDS = ["▁Hello", "▁wor", "ld", "END", "EN", "D!", "▁", "a"]
HELLO, WOR, LD, END, EN, D, BLANK, A = range(259, 267)


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{b:02X}>" for b in range(256)), *WORDS]
    return Tokenizer.from_metadata(
        {
            G + "model": "llama",
            G + "tokens": tokens,
            G + "scores": [0.0] * len(tokens),
            G + "token_type": [2, 3, 3] + [6] * 256 + [1] * len(WORDS),
        }
    )


def stream(detokenizer: Detokenizer, ids: list[int]) -> list[str]:
    return [*(detokenizer.push(i).text for i in ids), detokenizer.flush().text]


def test_half_characters_wait(tokenizer):
    bird = [3 + byte for byte in "é日👍".encode()]
    texts = stream(Detokenizer(tokenizer), bird)
    assert texts == ["", "é", "", "", "日", "", "", "", "👍", ""]


def test_bytes_that_never_complete(tokenizer):
    assert stream(Detokenizer(tokenizer), [3 + 0xE6, A]) == ["", "\ufffda", ""]
    assert stream(Detokenizer(tokenizer), [3 + 0xE6, 3 + 0x97]) == ["", "", "\ufffd"]
    assert stream(Detokenizer(tokenizer), [3 + 0xFF]) == ["\ufffd", ""]


def test_leading_blank(tokenizer):
    assert stream(Detokenizer(tokenizer), [HELLO, WOR, LD]) == ["Hello", " wor", "ld", ""]
    kept = Detokenizer(tokenizer, continuation=True)
    assert stream(kept, [HELLO, WOR]) == [" Hello", " wor", ""]
    assert stream(Detokenizer(tokenizer), [1, BLANK, HELLO]) == ["", "", " Hello", ""]


def test_stop_across_tokens(tokenizer):
    detokenizer = Detokenizer(tokenizer, ("END",))
    assert detokenizer.push(HELLO).text == "Hello"
    assert detokenizer.push(EN).text == ""
    delta = detokenizer.push(D)
    assert (delta.text, delta.stopped, delta.stop) == ("", True, "END")
    assert detokenizer.push(A).text == ""
    assert detokenizer.flush().text == ""
    assert detokenizer.text == "Hello"


def test_false_alarm_is_given_out(tokenizer):
    detokenizer = Detokenizer(tokenizer, ("END",))
    assert stream(detokenizer, [EN, A, EN]) == ["", "ENa", "", "EN"]


def test_earliest_stop_wins(tokenizer):
    delta = Detokenizer(tokenizer, ("D", "END")).push(END)
    assert (delta.text, delta.stop) == ("", "END")
    delta = Detokenizer(tokenizer, ("lo", "el")).push(HELLO)
    assert (delta.text, delta.stop) == ("H", "el")


def test_overlapping_prefixes(tokenizer):
    # After "aab" fails at the third a, two of them still count.
    detokenizer = Detokenizer(tokenizer, ("aaD",))
    assert stream(detokenizer, [A, A, A, D]) == ["", "", "a", "", ""]
    assert detokenizer.text == "a"


def test_spans_tell_which_token_made_which_text(tokenizer):
    detokenizer = Detokenizer(tokenizer, ("END",))
    assert detokenizer.push(HELLO).tokens == (TokenSpan(0, HELLO, 0, 5),)
    assert detokenizer.push(3 + 0xC3).tokens == ()
    delta = detokenizer.push(3 + 0xA9)
    assert delta.tokens == (TokenSpan(1, 3 + 0xC3, 5, 5), TokenSpan(2, 3 + 0xA9, 5, 6))
    assert detokenizer.push(EN).tokens == ()
    delta = detokenizer.push(A)
    assert delta.text == "ENa"
    assert delta.tokens == (TokenSpan(3, EN, 6, 8), TokenSpan(4, A, 8, 9))
    # A token that the stop string cuts counts up to the cut; tokens behind it do not count.
    cut = Detokenizer(tokenizer, ("loEN",))
    assert cut.push(HELLO).tokens == ()
    assert cut.push(EN).tokens == (TokenSpan(0, HELLO, 0, 3),)


def test_control_tokens(tokenizer):
    assert stream(Detokenizer(tokenizer), [A, 2]) == ["a", "", ""]
    assert stream(Detokenizer(tokenizer, skip_special=False), [A, 2]) == ["a", "</s>", ""]
    stopped = Detokenizer(tokenizer, ("</s>",), skip_special=False)
    assert stream(stopped, [A, 2]) == ["a", "", ""]


def test_empty_stop_is_refused(tokenizer):
    with pytest.raises(InvalidRequest) as caught:
        Detokenizer(tokenizer, ("",))
    assert caught.value.param == "stop"


def test_long_stop_strings_are_linear(tokenizer):
    detokenizer = Detokenizer(tokenizer, tuple("a" * n + "!" for n in range(1000, 1016)))
    for _ in range(5000):
        detokenizer.push(A)
    assert len(detokenizer.text + detokenizer.flush().text) == 5000


def test_a_character_in_parts_between_whole_ones(tokenizer):
    """Whole characters take a short cut; what follows half of one may not."""
    detokenizer = Detokenizer(tokenizer)
    pushed = [HELLO, 3 + 0xE2, 3 + 0x82, A, 3 + 0xC3, 3 + 0xA9, LD]
    deltas = [detokenizer.push(token_id) for token_id in pushed]
    assert [delta.text for delta in deltas] == ["Hello", "", "", "\ufffda", "", "é", "ld"]
    assert detokenizer.text == "Hello\ufffdaéld"
    spans = [span for delta in deltas for span in delta.tokens]
    assert [span.index for span in spans] == list(range(len(pushed)))
    assert [(span.start, span.end) for span in spans[-2:]] == [(7, 8), (8, 10)]
