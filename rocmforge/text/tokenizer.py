"""Text to token ids and back, from a model file's own metadata.

Special tokens. `encode(parse_special=True)` turns the texts of control tokens found in the input
into those tokens; that is for rendered chat templates and for raw prompts of people who own the
server. With parse_special=False (the default) such texts are ordinary text; user-defined tokens are
found either way. A rendered chat template is parsed as a whole, as llama.cpp does it: a message
that contains `<|im_end|>` ends its turn. A server that must not allow this removes the texts first,
with `without_control_texts`.

BOS and EOS are added when the model wants them and `add_special` is True, but not a second time
when the parsed text already begins or ends with them, as templates commonly make it.

Decoding. `token_bytes` are what a token adds to the text; they may be part of a character. Clean-up
of blanks before punctuation, which some converters ask for, is never done: it would change text
that models wrote.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Set

from rocmforge.errors import InvalidModelFile, InvalidRequest
from rocmforge.text.byte_level_bpe import ByteLevelBpe, byte_level_bytes
from rocmforge.text.pre_tokenizers import PRE_KEY, pre_tokenizer_by_name
from rocmforge.text.sentencepiece import SentencePieceBpe, parse_byte_token, piece_bytes
from rocmforge.text.special_tokens import SpecialTokens
from rocmforge.text.vocabulary import PREFIX, TokenType, Vocabulary, read_bool

MAX_TEXT_CHARS = 10_000_000
"""Longest text that `encode` takes; the regular-expression engine's own limits lie above it."""

_HIDDEN = frozenset({TokenType.Control, TokenType.Unknown})
_EMPTY = frozenset({TokenType.Unused, TokenType.Undefined})
_SURROGATE = re.compile("[\ud800-\udfff]")


class Tokenizer:
    """The tokenizer of one model; safe to use from several threads.

    n_vocab: number of tokens V. bos_id, eos_id: None when the model has none. eog_ids: ids that end
    a generation. add_bos, add_eos: whether `encode` adds them. add_space_prefix: whether a text
    (and the text behind each special token) is encoded with a blank in front, which `decode` takes
    away again.
    """

    def __init__(self, vocabulary: Vocabulary, metadata: Mapping[str, object]) -> None:
        self.vocabulary = vocabulary
        self.n_vocab = len(vocabulary.tokens)
        self.bos_id = vocabulary.bos_id
        self.eos_id = vocabulary.eos_id
        self.eog_ids = vocabulary.eog_ids
        self._is_spm = vocabulary.model == "llama"
        self._model: SentencePieceBpe | ByteLevelBpe
        if self._is_spm:
            self._model, add_bos = SentencePieceBpe(vocabulary), True
        else:
            scheme = pre_tokenizer_by_name(_pre_name(metadata))
            self._model, add_bos = ByteLevelBpe(vocabulary, metadata, scheme), scheme.add_bos
        wants_bos = read_bool(metadata, "add_bos_token", add_bos)
        wants_eos = read_bool(metadata, "add_eos_token", False)
        self.add_bos = wants_bos and self.bos_id is not None
        self.add_eos = wants_eos and self.eos_id is not None
        prefix = read_bool(metadata, "add_space_prefix", self._is_spm)
        self.add_space_prefix = prefix and self._is_spm
        self._pieces: list[bytes | None] = [None] * self.n_vocab
        self._longest = max(map(len, map(str.encode, vocabulary.tokens)))
        hidden = _texts(vocabulary, _HIDDEN)
        user_defined = _texts(vocabulary, {TokenType.UserDefined})
        trim_after = _ids_that_trim(vocabulary, metadata, hidden | user_defined)
        self._may_drop_text = bool(trim_after) or not self._model.has_every_byte
        self._special = SpecialTokens(hidden | user_defined, trim_after)
        self._user_defined = SpecialTokens(user_defined, trim_after)
        self._controls = SpecialTokens(hidden)

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, object]) -> Tokenizer:
        """Build the tokenizer from the keys `tokenizer.ggml.*` of a model file.

        Raises InvalidModelFile naming the key, or UnsupportedModelFormat for an unknown tokenizer
        model or pre-tokenizer.
        """
        vocabulary = Vocabulary.from_metadata(metadata)
        for text, index in _texts(vocabulary, {TokenType.Byte}).items():
            if parse_byte_token(text) < 0:
                raise InvalidModelFile(
                    f"{PREFIX}tokens[{index}] is of type byte, but its text "
                    f"{text[:60]!r} is not of the form <0xNN>"
                )
        return cls(vocabulary, metadata)

    @property
    def bos_token(self) -> str:
        """The text of BOS, for chat templates; empty when the model has none."""
        return "" if self.bos_id is None else self.vocabulary.tokens[self.bos_id]

    @property
    def eos_token(self) -> str:
        """The text of EOS, for chat templates; empty when the model has none."""
        return "" if self.eos_id is None else self.vocabulary.tokens[self.eos_id]

    def encode(
        self, text: str, *, add_special: bool = True, parse_special: bool = False
    ) -> list[int]:
        """The token ids of a text (see the module's docstring for both flags).

        Unpaired surrogates, which JSON can carry, are read as U+FFFD. Raises InvalidRequest when
        the text is longer than MAX_TEXT_CHARS.
        """
        if len(text) > MAX_TEXT_CHARS:
            raise InvalidRequest(
                f"the text has {len(text)} characters; at most {MAX_TEXT_CHARS} can be tokenized",
                param="prompt",
            )
        text = _SURROGATE.sub("�", text)
        fragments = (self._special if parse_special else self._user_defined).split(text)
        ids: list[int] = []
        behind_special = True
        for fragment in fragments:
            if isinstance(fragment, int):
                ids.append(fragment)
            else:
                prefix = " " if self.add_space_prefix and behind_special else ""
                ids.extend(self._model.encode(prefix + fragment))
            behind_special = isinstance(fragment, int)
        if add_special:
            # Compared as fragments: ordinary text never counts as BOS or EOS.
            if self.add_bos and self.bos_id is not None and fragments[:1] != [self.bos_id]:
                ids.insert(0, self.bos_id)
            if self.add_eos and self.eos_id is not None and fragments[-1:] != [self.eos_id]:
                ids.append(self.eos_id)
        return ids

    def min_token_count(self, text: str) -> int:
        """A lower bound of `len(encode(text))`, cheap enough to refuse a hopeless prompt before
        encoding it.
        """
        if self._may_drop_text:
            return 0
        n_bytes = len(text) if text.isascii() else len(text.encode("utf-8", "replace"))
        return -(-n_bytes // self._longest)

    def without_control_texts(self, text: str) -> str:
        """The text without the texts of control tokens: for users who must not open or close
        turns.
        """
        return self._controls.without(text)

    def decode(
        self, ids: Iterable[int], *, skip_special: bool = True, continuation: bool = False
    ) -> str:
        """The text of token ids; bytes that are no UTF-8 become U+FFFD.

        skip_special: leave control tokens out. continuation: the ids follow on a text, so that the
        blank in front of the first word belongs to them (see add_space_prefix). Raises
        InvalidRequest on an id outside the vocabulary.
        """
        parts = [self.piece(token_id, skip_special=skip_special) for token_id in ids]
        data = b"".join(parts)
        if self.add_space_prefix and not continuation and data.startswith(b" "):
            data = data[1:]
        return data.decode("utf-8", "replace")

    def piece(self, token_id: int, *, skip_special: bool = True) -> bytes:
        """What a token adds to the text; control tokens are empty, or their name with
        skip_special=False.
        """
        self._check_id(token_id)
        if not skip_special and self.is_control(token_id):
            return self.vocabulary.tokens[token_id].encode()
        piece = self._pieces[token_id]
        if piece is None:
            piece = self._pieces[token_id] = self._piece(token_id)
        return piece

    def token_bytes(self, token_id: int) -> bytes:
        """What a token adds to the text, b"" for control tokens; may be part of a character."""
        return self.piece(token_id)

    def token_text(self, token_id: int) -> str:
        """A token for people and for logprobs: its text, the name of a control token; U+FFFD for
        half characters.
        """
        return self.piece(token_id, skip_special=False).decode("utf-8", "replace")

    def is_control(self, token_id: int) -> bool:
        """True for tokens that are not part of the text (control and unknown tokens)."""
        self._check_id(token_id)
        return self.vocabulary.types[token_id] in _HIDDEN

    def _piece(self, token_id: int) -> bytes:
        kind = self.vocabulary.types[token_id]
        text = self.vocabulary.tokens[token_id]
        if kind in _EMPTY or kind in _HIDDEN:
            return b""
        if self._is_spm or kind is TokenType.Byte:
            return piece_bytes(text, kind)
        return text.encode() if kind is TokenType.UserDefined else byte_level_bytes(text)

    def _check_id(self, token_id: int) -> None:
        if not 0 <= token_id < self.n_vocab:
            raise InvalidRequest(
                f"token id {token_id} is not in the vocabulary (0 to {self.n_vocab - 1})"
            )


def _pre_name(metadata: Mapping[str, object]) -> str:
    name = metadata.get(PRE_KEY, "")
    if not isinstance(name, str):
        raise InvalidModelFile(f"{PRE_KEY} must be a string")
    return name


def _texts(vocabulary: Vocabulary, kinds: Set[TokenType]) -> dict[str, int]:
    """Text → id of the tokens of these types."""
    pairs = zip(vocabulary.tokens, vocabulary.types, strict=True)
    return {text: index for index, (text, kind) in enumerate(pairs) if kind in kinds}


def _ids_that_trim(
    vocabulary: Vocabulary, metadata: Mapping[str, object], special: Mapping[str, int]
) -> frozenset[int]:
    """Phi-3's special tokens swallow the blanks behind them; no key says so, only the model's
    name.
    """
    name = metadata.get("general.name")
    if not isinstance(name, str) or not re.search("phi-?3", name.lower()):
        return frozenset()
    ids = set(special.values())
    ids.update(i for i in (vocabulary.ids.get("</s>"),) if i is not None)
    ids.difference_update(
        vocabulary.ids[text] for text in ("<unk>", "<s>", "<|endoftext|>") if text in vocabulary.ids
    )
    return frozenset(ids)
