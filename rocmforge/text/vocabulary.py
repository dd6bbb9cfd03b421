"""The vocabulary of a model file: tokens, scores, types and special ids, each value checked.

Read from `tokenizer.ggml.*`; which texts mean "end of generation" and which token types they get
are llama.cpp's rules. Everything in a model file is hostile until checked: a wrong value raises
InvalidModelFile naming the key.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum

from rocmforge.errors import InvalidModelFile, UnsupportedModelFormat
from rocmforge.gguf.metadata import StringArray

PREFIX = "tokenizer.ggml."
MAX_TOKENS = 4_000_000
MAX_TOKEN_BYTES = 16_384
"""Longest token text; the longest ones in public use are runs of blanks of a few hundred bytes."""
_NO_ID = 0xFFFF_FFFF  # how some converters write "no such token"

SUPPORTED_MODELS = ("gpt2", "llama")


class TokenType(IntEnum):
    """`tokenizer.ggml.token_type`: how a token is parsed from text and shown."""

    Undefined = 0
    Normal = 1
    Unknown = 2
    Control = 3
    UserDefined = 4
    Unused = 5
    Byte = 6


_EOT_TEXTS = (
    "<|eot_id|>",
    "<|im_end|>",
    "<|end|>",
    "<end_of_turn>",
    "<|endoftext|>",
    "<|end_of_text|>",
    "<EOT>",
    "_<EOT>",
    "[EOT]",
    "<｜end▁of▁sentence｜>",
    "<end_of_utterance>",
)
_END_TOKENS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("eot_token_id", _EOT_TEXTS),
    ("eom_token_id", ("<|eom_id|>",)),
)
_EOG_TEXTS = (
    *_EOT_TEXTS,
    "<|return|>",
    "<|call|>",
    "<|flush|>",
    "<|calls|>",
    "</s>",
    "<|eom_id|>",
    "[EOS]",
    "<eos>",
    "<turn|>",
    "<|tool_response>",
    "[e~[",
)
# Tokens of fill-in-the-middle prompts: control tokens, by text where no key names them.
_FIM_PRE_TEXTS = (
    "<|fim_prefix|>",
    "<fim-prefix>",
    "<fim_prefix>",
    "<｜fim▁begin｜>",
    "<PRE>",
    "▁<PRE>",
    "<|code_prefix|>",
    "<|prefix|>",
)
_FIM_SUF_TEXTS = (
    "<|fim_suffix|>",
    "<fim-suffix>",
    "<fim_suffix>",
    "<｜fim▁hole｜>",
    "<SUF>",
    "▁<SUF>",
    "<|code_suffix|>",
    "<|suffix|>",
)
_FIM_MID_TEXTS = (
    "<|fim_middle|>",
    "<fim-middle>",
    "<fim_middle>",
    "<｜fim▁end｜>",
    "<MID>",
    "▁<MID>",
    "<|code_middle|>",
    "<|middle|>",
)
_FIM_PAD_TEXTS = ("<|fim_pad|>", "<fim-pad>", "<fim_pad>", "<PAD>", "[PAD]")
_FIM_REP_TEXTS = ("<|fim_repo|>", "<|repo_name|>", "<fim-repo>", "<REPO>", "<reponame>")
_FIM_SEP_TEXTS = ("<|file_sep|>",)
# key suffixes, texts, whether generation ends at the token
_FIM_TOKENS: tuple[tuple[tuple[str, ...], tuple[str, ...], bool], ...] = (
    (("fim_pre_token_id", "prefix_token_id"), _FIM_PRE_TEXTS, False),
    (("fim_suf_token_id", "suffix_token_id"), _FIM_SUF_TEXTS, False),
    (("fim_mid_token_id", "middle_token_id"), _FIM_MID_TEXTS, False),
    (("fim_pad_token_id",), _FIM_PAD_TEXTS, True),
    (("fim_rep_token_id",), _FIM_REP_TEXTS, True),
    (("fim_sep_token_id",), _FIM_SEP_TEXTS, True),
)
# Parts of the harmony format that clients must see.
_SHOWN_TEXTS = ("<|channel|>", "<|message|>", "<|start|>", "<|constrain|>")


@dataclass(frozen=True)
class Vocabulary:
    """A checked vocabulary of V tokens.

    tokens: V distinct texts as in the file. ids: text → id. scores: V floats, empty when the file
    has none. types: V token types after the rules above. *_id: None when the model has no such
    token. eog_ids: ids that end a generation.
    """

    model: str
    tokens: Sequence[str]
    ids: dict[str, int]
    scores: Sequence[float]
    types: Sequence[TokenType]
    bos_id: int | None
    eos_id: int | None
    unk_id: int | None
    eog_ids: frozenset[int]

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, object]) -> Vocabulary:
        """Read and check `tokenizer.ggml.*`.

        Raises InvalidModelFile naming the key, or UnsupportedModelFormat for a tokenizer model that
        is not supported (the Python API can still use such a file by token ids).
        """
        model = metadata.get(PREFIX + "model")
        if not isinstance(model, str):
            raise InvalidModelFile(
                f"the file has no tokenizer: {PREFIX}model is missing or not a string"
            )
        if model not in SUPPORTED_MODELS:
            raise UnsupportedModelFormat(
                f"{PREFIX}model is {model[:100]!r}; supported are {' and '.join(SUPPORTED_MODELS)}"
            )
        tokens = _read_tokens(metadata)
        ids = dict(zip(tokens, range(len(tokens)), strict=True))
        if len(ids) != len(tokens):
            raise _duplicate(tokens, ids)
        types = _read_types(metadata, len(tokens))
        scores = _read_scores(metadata, len(tokens), required=model == "llama")
        return _with_special_ids(cls, metadata, model, tokens, ids, scores, types)


def read_id(
    metadata: Mapping[str, object], name: str, n_tokens: int, default: int | None
) -> int | None:
    """The token id `tokenizer.ggml.<name>`, or `default` (None when that is not in the
    vocabulary).
    """
    value = metadata.get(PREFIX + name)
    if value is None:
        return default if default is not None and default < n_tokens else None
    if not isinstance(value, int) or isinstance(value, bool):
        raise InvalidModelFile(f"{PREFIX}{name} must be a token id, got {_short(value)}")
    if value in (-1, _NO_ID):
        return None
    if not 0 <= value < n_tokens:
        raise InvalidModelFile(
            f"{PREFIX}{name} is {value}, but the vocabulary has {n_tokens} tokens"
        )
    return value


def read_bool(metadata: Mapping[str, object], name: str, default: bool) -> bool:
    """The flag `tokenizer.ggml.<name>`, or `default`."""
    value = metadata.get(PREFIX + name, default)
    if not isinstance(value, bool):
        raise InvalidModelFile(f"{PREFIX}{name} must be true or false, got {_short(value)}")
    return value


def read_strings(metadata: Mapping[str, object], name: str) -> Sequence[object] | None:
    """The array of strings `tokenizer.ggml.<name>`, not checked yet; None when it is missing."""
    array = read_array(metadata, name)
    if isinstance(array, StringArray):
        # Iterating replaces what is no UTF-8; the bytes themselves tell whether that happened.
        return [array.raw(index) if "\ufffd" in text else text for index, text in enumerate(array)]
    return array


def read_array(metadata: Mapping[str, object], name: str) -> Sequence[object] | None:
    """The array `tokenizer.ggml.<name>` as a list of Python values; None when it is missing."""
    value = metadata.get(PREFIX + name)
    if value is None:
        return None
    # numpy arrays become plain lists: indexing them gives numpy scalars, which are not ints or
    # floats.
    value = value.tolist() if hasattr(value, "tolist") else value
    if isinstance(value, (str, bytes)) or not isinstance(value, Sequence):
        raise InvalidModelFile(f"{PREFIX}{name} must be an array, got {_short(value)}")
    return value


def checked_text(value: object, name: str, index: int) -> str:
    """One string of the array `tokenizer.ggml.<name>`: UTF-8, at most MAX_TOKEN_BYTES long."""
    if isinstance(value, str):
        if value.isascii() and len(value) <= MAX_TOKEN_BYTES:
            return value
        data = value.encode("utf-8", "surrogatepass")
    elif isinstance(value, bytes):
        data = value
    else:
        raise InvalidModelFile(f"{PREFIX}{name}[{index}] must be a string, got {_short(value)}")
    if len(data) > MAX_TOKEN_BYTES:
        raise InvalidModelFile(
            f"{PREFIX}{name}[{index}] is {len(data)} bytes long; at most {MAX_TOKEN_BYTES}"
        )
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise InvalidModelFile(f"{PREFIX}{name}[{index}] is not valid UTF-8") from None


def _short(value: object) -> str:
    text = repr(value) if isinstance(value, (int, float, str)) else type(value).__name__
    return text[:60]


def _read_tokens(metadata: Mapping[str, object]) -> list[str]:
    raw = metadata.get(PREFIX + "tokens")
    if isinstance(raw, StringArray) and 0 < len(raw) <= MAX_TOKENS:
        # At once, when none needs a closer look: one by one takes five times as long.
        texts = raw.decoded() if raw.lengths.max() <= MAX_TOKEN_BYTES else None
    else:
        texts = None
    texts = _checked_tokens(metadata) if texts is None else texts
    if "" not in texts:
        return texts
    # An empty text can never be parsed or shown; the name keeps the ids apart.
    return [text or f"[EMPTY_{index}]" for index, text in enumerate(texts)]


def _checked_tokens(metadata: Mapping[str, object]) -> list[str]:
    raw = read_strings(metadata, "tokens")
    if raw is None:
        raise InvalidModelFile(f"the file has no vocabulary: {PREFIX}tokens is missing")
    if not 0 < len(raw) <= MAX_TOKENS:
        raise InvalidModelFile(
            f"{PREFIX}tokens must have 1 to {MAX_TOKENS} entries, got {len(raw)}"
        )
    return [checked_text(value, "tokens", index) for index, value in enumerate(raw)]


def _duplicate(tokens: Sequence[str], ids: Mapping[str, int]) -> InvalidModelFile:
    first, text = next((i, t) for i, t in enumerate(tokens) if ids[t] != i)
    return InvalidModelFile(
        f"{PREFIX}tokens has {text[:60]!r} twice, as {first} and {ids[text]}: "
        "token texts must differ"
    )


def _read_types(metadata: Mapping[str, object], n_tokens: int) -> list[TokenType]:
    raw = read_array(metadata, "token_type")
    if raw is None:
        return [TokenType.Normal] * n_tokens
    _check_length("token_type", len(raw), n_tokens)
    by_value: dict[object, TokenType] = {int(kind): kind for kind in TokenType}
    if set(map(type, raw)) != {int} or not by_value.keys() >= set(raw):
        index = next(i for i, v in enumerate(raw) if type(v) is not int or v not in by_value)
        raise InvalidModelFile(
            f"{PREFIX}token_type[{index}] must be 0 to 6, got {_short(raw[index])}"
        )
    return list(map(by_value.__getitem__, raw))


def _read_scores(metadata: Mapping[str, object], n_tokens: int, *, required: bool) -> list[float]:
    raw = read_array(metadata, "scores")
    if raw is None:
        if required:
            raise InvalidModelFile(f"{PREFIX}scores is missing: this tokenizer merges by score")
        return []
    _check_length("scores", len(raw), n_tokens)
    for index, value in enumerate(raw):
        if type(value) not in (float, int) or not math.isfinite(value):  # type: ignore[arg-type]
            raise InvalidModelFile(
                f"{PREFIX}scores[{index}] must be a finite number, got {_short(value)}"
            )
    return [float(value) for value in raw]  # type: ignore[arg-type]


def _check_length(name: str, length: int, n_tokens: int) -> None:
    if length != n_tokens:
        raise InvalidModelFile(
            f"{PREFIX}{name} has {length} entries, but {PREFIX}tokens has {n_tokens}"
        )


def _first_id(ids: Mapping[str, int], texts: Iterable[str]) -> int | None:
    return next((ids[text] for text in texts if text in ids), None)


def _with_special_ids(
    cls: type[Vocabulary],
    metadata: Mapping[str, object],
    model: str,
    tokens: list[str],
    ids: dict[str, int],
    scores: list[float],
    types: list[TokenType],
) -> Vocabulary:
    """Find the special ids and correct the types of tokens that files commonly mislabel."""
    n = len(tokens)
    spm = model == "llama"
    bos_id = read_id(metadata, "bos_token_id", n, 1 if spm else None)
    eos_id = read_id(metadata, "eos_token_id", n, 2 if spm else None)
    unk_id = read_id(metadata, "unknown_token_id", n, 0 if spm else None)
    eog: set[int] = {eos_id} if eos_id is not None else set()
    for name, texts in _END_TOKENS:
        found = read_id(metadata, name, n, None)
        if found is not None:
            eog.add(found)
        else:
            _make_control(types, _first_id(ids, texts))
    for names, texts, ends in _FIM_TOKENS:
        keyed = [read_id(metadata, name, n, None) for name in names]
        found = next((i for i in keyed if i is not None), None)
        if found is None:
            found = _first_id(ids, texts)
            _make_control(types, found)
        if ends and found is not None:
            eog.add(found)
    for text in _EOG_TEXTS:
        if text in ids:
            eog.add(ids[text])
            _make_control(types, ids[text])
    for text in _SHOWN_TEXTS:
        if text in ids:
            types[ids[text]] = TokenType.UserDefined
    _apply_exceptions(ids, types, eog)
    return cls(model, tokens, ids, scores, types, bos_id, eos_id, unk_id, frozenset(eog))


def _make_control(types: list[TokenType], token_id: int | None) -> None:
    if token_id is not None:
        types[token_id] = TokenType.Control


def _apply_exceptions(ids: Mapping[str, int], types: list[TokenType], eog: set[int]) -> None:
    """Two families where a text that usually ends a generation does not."""

    def ends(text: str) -> bool:
        return ids.get(text) in eog

    called = ends("<|call|>") or ends("<|calls|>")
    if ends("<|end|>") and called and (ends("<|return|>") or ends("<|flush|>")):
        # harmony: `<|end|>` closes one message of several.
        eog.discard(ids["<|end|>"])
        types[ids["<|end|>"]] = TokenType.UserDefined
    if ends("</s>") and (ends("<|tool_response>") or ends("<|plamo:eos|>")):
        eog.discard(ids["</s>"])
        types[ids["</s>"]] = TokenType.Normal
