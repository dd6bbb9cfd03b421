"""Token ids into text, one token at a time.

The pieces that `push` and `flush` return join to exactly what `Tokenizer.decode` makes of the
tokens pushed, cut at the first stop string. Until then two kinds of text are held back: bytes that
may still become a character (bytes that never can are U+FFFD, as in `bytes.decode("utf-8",
"replace")`), and characters that may be the beginning of a stop string.
"""

from __future__ import annotations

import codecs
from collections import deque
from collections.abc import Sequence

import msgspec

from rocmforge.errors import InvalidRequest
from rocmforge.text.tokenizer import Tokenizer


class TokenSpan(msgspec.Struct, frozen=True):
    """Which part of the text a token made: the characters that its bytes completed.

    index: the token's place among those pushed. start, end: character offsets into the text of the
    choice; equal when it completed none.
    """

    index: int
    token_id: int
    start: int
    end: int


class TextDelta(msgspec.Struct, frozen=True):
    """New text, for good.

    text: may be empty. tokens: the tokens whose text is now out in full, in order; over a whole
    stream each pushed token comes once, but for those wholly behind a stop string. stop: the stop
    string that ended the text (it is not part of it), or None.
    """

    text: str
    tokens: tuple[TokenSpan, ...] = ()
    stop: str | None = None

    @property
    def stopped(self) -> bool:
        """True when a stop string was found: nothing follows."""
        return self.stop is not None


class Detokenizer:
    """The growing text of one choice.

    stop: texts that end it. skip_special: leave control tokens out. continuation: the text follows
    a prompt that it is shown with, so that a leading blank is kept (see Tokenizer.decode): True for
    completions, False for chat.

    Raises InvalidRequest (param `stop`) when a stop string is empty.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        stop: Sequence[str] = (),
        *,
        skip_special: bool = True,
        continuation: bool = False,
    ) -> None:
        if not all(stop):
            raise InvalidRequest("a stop string must not be empty", param="stop")
        self._tokenizer = tokenizer
        self._skip_special = skip_special
        self._may_strip = tokenizer.add_space_prefix and not continuation
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        # Whether the bytes so far end within a character.
        self._is_inside = False
        self._matchers = [_StopMatcher(text) for text in dict.fromkeys(stop)]
        self._parts: list[str] = []
        self._n_out = 0
        self._held = ""
        self._waiting: deque[TokenSpan] = deque()
        self._n_pushed = 0
        self._ended = False

    @property
    def text(self) -> str:
        """All text given out so far."""
        if len(self._parts) > 1:
            self._parts = ["".join(self._parts)]
        return self._parts[0] if self._parts else ""

    def push(self, token_id: int) -> TextDelta:
        """Take a token; what it makes certain is returned. After a stop string or `flush`, nothing
        is.

        Raises InvalidRequest on an id outside the vocabulary.
        """
        if self._ended:
            return TextDelta("")
        piece = self._tokenizer.piece(token_id, skip_special=self._skip_special)
        if self._may_strip and piece:
            self._may_strip = False
            piece = piece.removeprefix(b" ")
        start = self._n_out + len(self._held)
        added = self._decode(piece)
        span = TokenSpan(self._n_pushed, token_id, start, start + len(added))
        self._n_pushed += 1
        if not self._is_inside and not self._matchers and not self._waiting:
            # Nothing is held back, and nothing was: by far the most tokens.
            if added:
                self._parts.append(added)
                self._n_out = span.end
            return TextDelta(added, (span,))
        self._waiting.append(span)
        return self._take(added)

    def flush(self) -> TextDelta:
        """The end of the tokens: what was held back, unfinished characters as U+FFFD."""
        if self._ended:
            return TextDelta("")
        added = self._decoder.decode(b"", final=True)
        self._is_inside = False
        if added and self._waiting:
            last = self._waiting.pop()
            self._waiting.append(
                TokenSpan(last.index, last.token_id, last.start, last.end + len(added))
            )
        delta = self._take(added)
        if self._ended:
            return delta
        self._ended = True
        rest, self._held = self._held, ""
        tokens = delta.tokens + self._give_out(rest)
        return TextDelta(delta.text + rest, tokens)

    def _decode(self, piece: bytes) -> str:
        """The characters that the bytes complete."""
        if not self._is_inside:
            try:
                return piece.decode()
            except UnicodeDecodeError:
                pass  # half a character, or none at all: the decoder knows
        added = self._decoder.decode(piece)
        self._is_inside = bool(self._decoder.getstate()[0])
        return added

    def _take(self, added: str) -> TextDelta:
        """Search the new text for stop strings, and give out what cannot be part of one."""
        offset = len(self._held)
        self._held += added
        cut: int | None = None
        stop: str | None = None
        n_suspect = 0
        for matcher in self._matchers:
            end = matcher.feed(added)
            if end >= 0:
                start = offset + end - len(matcher.text)
                if cut is None or start < cut:
                    cut, stop = start, matcher.text
            n_suspect = max(n_suspect, matcher.n_matched)
        if cut is not None:
            self._ended = True
            out, self._held = self._held[:cut], ""
            return TextDelta(out, self._give_out(out, cut=True), stop)
        n_safe = len(self._held) - n_suspect
        out, self._held = self._held[:n_safe], self._held[n_safe:]
        return TextDelta(out, self._give_out(out))

    def _give_out(self, out: str, *, cut: bool = False) -> tuple[TokenSpan, ...]:
        """Note the text as given out; the tokens that it completes."""
        if out:
            self._parts.append(out)
            self._n_out += len(out)
        # The latest token may still get the character that its last bytes begin.
        n_open = 1 if self._is_inside and not self._ended else 0
        done = []
        while len(self._waiting) > n_open and self._waiting[0].end <= self._n_out:
            done.append(self._waiting.popleft())
        if cut and self._waiting and self._waiting[0].start < self._n_out:
            last = self._waiting[0]
            done.append(TokenSpan(last.index, last.token_id, last.start, self._n_out))
        return tuple(done)


class _StopMatcher:
    """Finds one stop string in a text that comes in parts (Knuth, Morris and Pratt).

    n_matched: how many characters at the end of the text so far are a beginning of the stop string.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        self.n_matched = 0
        self._fallback = [0] * len(text)
        n = 0
        for at in range(1, len(text)):
            while n and text[at] != text[n]:
                n = self._fallback[n - 1]
            n += text[at] == text[n]
            self._fallback[at] = n

    def feed(self, added: str) -> int:
        """Where in `added` the first occurrence ends; -1 when there is none."""
        text, n = self.text, self.n_matched
        for at, char in enumerate(added):
            while n and char != text[n]:
                n = self._fallback[n - 1]
            n += char == text[n]
            if n == len(text):
                return at + 1
        self.n_matched = n
        return -1
