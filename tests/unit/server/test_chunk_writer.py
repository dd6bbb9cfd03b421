"""The short cut writes what encoding each chunk would."""

from __future__ import annotations

import json

import pytest

from rocmforge.request import FinishReason, SamplingParams, TokenLogprob, Usage
from rocmforge.server.chunk_writer import ChunkWriter
from rocmforge.server.generation import ChoiceDelta, TokenText
from rocmforge.server.openai_format import ChatFormat, CompletionFormat
from rocmforge.server.stream import DONE, event

TEXTS = ("a", ' "quoted"\n', "é\u2028", "\x00", "\x00text\x00", "😀")
USAGE = Usage(prompt_tokens=3, completion_tokens=4, cached_tokens=1)


class OneByteTokens:
    """As much of a tokenizer as log-probabilities need."""

    def token_text(self, token_id):
        return chr(token_id)

    def token_bytes(self, token_id):
        return bytes([token_id])


def make(kind, *, logprobs=None, n=1):
    params = SamplingParams(logprobs=logprobs, n=n)
    return kind("id-1", 'a "model"', 12, OneByteTokens(), params)


def text(piece, choice=0, reason=None, tokens=()):
    return ChoiceDelta(choice, piece, 65, tokens, reason)


def events(data):
    return data.decode().removesuffix("\n\n").split("\n\n")


@pytest.mark.parametrize("with_usage", [True, False])
@pytest.mark.parametrize("kind", [ChatFormat, CompletionFormat])
def test_text_is_written_as_if_the_whole_chunk_were_encoded(kind, with_usage):
    shape = make(kind, n=2)
    more = {"usage": None} if with_usage else {}
    writer = ChunkWriter(shape, with_usage=with_usage)
    for generation in (0, 1):
        for choice in (1, 0):
            for piece in TEXTS:
                delta = text(piece, choice)
                expected = event(shape.chunk(generation, delta) | more)
                assert writer.deltas(generation, [delta]) == expected


def test_deltas_follow_one_another():
    writer = ChunkWriter(make(CompletionFormat), with_usage=False)
    both = [text("a"), text("b", reason=FinishReason.length)]
    assert writer.deltas(0, both) == writer.deltas(0, both[:1]) + writer.deltas(0, both[1:])
    last = json.loads(events(writer.deltas(0, both))[-1].removeprefix("data: "))
    assert last["choices"][0]["finish_reason"] == "length"


def test_what_has_nothing_to_say_is_not_written():
    writer = ChunkWriter(make(ChatFormat), with_usage=False)
    assert writer.deltas(0, []) == b""
    assert writer.deltas(0, [text("")]) == b""


def test_log_probabilities_are_not_cut_short():
    shape = make(CompletionFormat, logprobs=1)
    token = TokenText(65, 0, -0.5, (TokenLogprob(66, -1.0),))
    delta = text("A", tokens=(token,))
    written = ChunkWriter(shape, with_usage=False).deltas(0, [delta])
    assert written == event(shape.chunk(0, delta))
    assert b"token_logprobs" in written


def test_openings_and_endings():
    shape = make(ChatFormat, n=2)
    writer = ChunkWriter(shape, with_usage=True)
    openings = [json.loads(e.removeprefix("data: ")) for e in events(writer.openings(1))]
    assert [o["choices"][0]["delta"]["role"] for o in openings] == ["assistant"] * 2
    assert all(o["usage"] is None for o in openings)
    usage, done = events(writer.ending(USAGE))
    assert json.loads(usage.removeprefix("data: "))["usage"]["total_tokens"] == 7
    assert done + "\n\n" == DONE.decode()
    assert ChunkWriter(shape, with_usage=False).ending(USAGE) == DONE
