"""Text round trips over random tokens, texts and stop strings."""

from __future__ import annotations

import contextlib
import string

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rocmforge.errors import InvalidModelFile, InvalidRequest, UnsupportedModelFormat
from rocmforge.text.chat_template import ChatTemplate
from rocmforge.text.detokenizer import Detokenizer
from rocmforge.text.special_tokens import SpecialTokens
from rocmforge.text.tokenizer import Tokenizer

BYTE_TOKENS = [f"<0x{byte:02X}>" for byte in range(256)]
WORDS = ["▁", "a", "b", "ab", "▁a", "ba", "▁▁", "é", "日本", "👍", "a▁b", "\n", "aab", "bab"]


def spm(words: list[str], **extra: object) -> Tokenizer:
    tokens = ["<unk>", "<s>", "</s>", *BYTE_TOKENS, *words]
    return Tokenizer.from_metadata(
        {
            "tokenizer.ggml.model": "llama",
            "tokenizer.ggml.tokens": tokens,
            "tokenizer.ggml.scores": [-float(i % 5) for i in range(len(tokens))],
            "tokenizer.ggml.token_type": [2, 3, 3] + [6] * 256 + [1] * len(words),
            **extra,
        }
    )


TOKENIZERS = {
    "prefix": spm(WORDS),
    "no prefix": spm(WORDS, **{"tokenizer.ggml.add_space_prefix": False}),
    "by word": spm([word for word in WORDS if word != "a▁b"]),
}
N_VOCAB = TOKENIZERS["by word"].n_vocab  # the smallest
# Mostly tokens from a small alphabet, so that stop strings are met, and bytes that break
# characters.
TOKEN_IDS = st.one_of(
    st.integers(259, N_VOCAB - 1), st.integers(0, N_VOCAB - 1), st.integers(3 + 0xC0, 3 + 0xFF)
)
STOPS = st.lists(st.text(alphabet=" ab\né日本👍", min_size=1, max_size=4), max_size=3)
names = st.sampled_from(sorted(TOKENIZERS))


def expected(tokenizer: Tokenizer, ids: list[int], stops: list[str], **flags: bool) -> str:
    """One-shot: decode as many tokens as it takes to see a stop string, and cut there."""
    for n in range(len(ids) + 1):
        text = tokenizer.decode(ids[:n], **flags)
        cuts = [text.find(stop) for stop in stops if stop in text]
        if cuts:
            return text[: min(cuts)]
    return text


@settings(max_examples=400, deadline=None)
@given(
    name=names,
    ids=st.lists(TOKEN_IDS, max_size=30),
    stops=STOPS,
    skip_special=st.booleans(),
    continuation=st.booleans(),
)
def test_stream_equals_one_shot(name, ids, stops, skip_special, continuation):
    tokenizer = TOKENIZERS[name]
    flags = {"skip_special": skip_special, "continuation": continuation}
    detokenizer = Detokenizer(tokenizer, stops, **flags)
    deltas = [detokenizer.push(token_id) for token_id in ids]
    deltas.append(detokenizer.flush())
    whole = "".join(delta.text for delta in deltas)
    assert whole == expected(tokenizer, ids, stops, **flags)
    assert detokenizer.text == whole
    stopped = [delta.stop for delta in deltas if delta.stopped]
    assert len(stopped) <= 1
    assert not any(stop in whole for stop in stops)

    spans = [span for delta in deltas for span in delta.tokens]
    assert [span.index for span in spans] == list(range(len(spans)))
    assert [span.token_id for span in spans] == ids[: len(spans)]
    assert "".join(whole[span.start : span.end] for span in spans) == whole
    if not stopped:
        assert len(spans) == len(ids)
    out = 0
    for delta in deltas:
        out += len(delta.text)
        assert all(span.end <= out for span in delta.tokens)


@settings(max_examples=300, deadline=None)
@given(name=names, text=st.text(alphabet=st.one_of(st.sampled_from("ab  \n▁é日"), st.characters())))
def test_sentencepiece_round_trip(name, text):
    tokenizer = TOKENIZERS[name]
    text = text.replace("▁", " ").encode("utf-8", "replace").decode()
    ids = tokenizer.encode(text)
    assert ids[0] == tokenizer.bos_id
    assert tokenizer.decode(ids) == text
    assert tokenizer.min_token_count(text) <= len(ids)


@settings(max_examples=300, deadline=None)
@given(text=st.text(alphabet="ab ▁", max_size=40))
def test_words_alone_give_the_same_ids(text):
    by_word = TOKENIZERS["by word"]
    model = by_word._model
    assert model._by_word
    assert model.encode(text) == model._merge(text.replace(" ", "▁"))


@settings(max_examples=300, deadline=None)
@given(
    texts=st.lists(st.text(alphabet="ab<>", min_size=1, max_size=4), min_size=1, unique=True),
    text=st.text(alphabet="ab<>", max_size=30),
)
def test_special_tokens_longest_first(texts, text):
    ids = {special: index for index, special in enumerate(texts)}
    fragments: list = [text] if text else []
    for special in sorted(texts, key=lambda t: (-len(t), ids[t])):
        result: list = []
        for fragment in fragments:
            if isinstance(fragment, int):
                result.append(fragment)
                continue
            for number, part in enumerate(fragment.split(special)):
                result += [ids[special]] * bool(number) + [part] * bool(part)
        fragments = result
    assert SpecialTokens(ids).split(text) == fragments


@pytest.mark.parametrize("unit", ["a", "ab", " ", "a ", "é", "\x00", "👍", "aab"])
def test_long_input_is_not_quadratic(unit):
    # Quadratic work on this many characters would take minutes; the suite's time-out is the limit.
    text = unit * (100_000 // len(unit))
    tokenizer = TOKENIZERS["prefix"]
    assert tokenizer.decode(tokenizer.encode(text)) == text


@settings(max_examples=100, deadline=None)
@given(st.text(alphabet=string.printable + "éß日👍"))
def test_control_texts_can_be_taken_out(text):
    tokenizer = TOKENIZERS["prefix"]
    kept = tokenizer.without_control_texts("<<s>s>" + text + "</s><unk>")
    assert not any(special in kept for special in ("<s>", "</s>", "<unk>"))


JUNK = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-5, 300),
    st.floats(),
    st.text(max_size=5),
    st.binary(max_size=5),
    st.lists(
        st.one_of(st.integers(-1, 7), st.text("ab ▁<>0xÿ", max_size=6), st.floats()), max_size=8
    ),
)
KEYS = (
    "model pre tokens scores token_type merges bos_token_id eos_token_id eot_token_id eom_token_id "
    "unknown_token_id fim_pad_token_id add_bos_token add_eos_token add_space_prefix"
)


@settings(max_examples=500, deadline=None)
@given(
    model=st.sampled_from(["llama", "gpt2"]),
    changes=st.dictionaries(st.sampled_from(KEYS.split()), JUNK, max_size=3),
    text=st.text(max_size=10),
)
def test_hostile_metadata_raises_only_our_errors(model, changes, text):
    tokens = ["a", "b", "ab", "<s>", "</s>"]
    metadata = {
        "tokenizer.ggml.model": model,
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.scores": [0.0, -1.0, -2.0, 0.0, 0.0],
        "tokenizer.ggml.token_type": [1, 1, 1, 3, 3],
        "tokenizer.ggml.merges": ["a b"],
        **{f"tokenizer.ggml.{key}": value for key, value in changes.items()},
    }
    try:
        tokenizer = Tokenizer.from_metadata(metadata)
    except (InvalidModelFile, UnsupportedModelFormat):
        return
    ids = tokenizer.encode("ab<s>" + text, parse_special=True)
    assert all(0 <= token_id < tokenizer.n_vocab for token_id in ids)
    tokenizer.decode(ids, skip_special=False)


VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.text(max_size=5)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=4), inner, max_size=3)
    ),
    max_leaves=8,
)
MESSAGES = st.lists(
    st.one_of(
        VALUES,
        st.fixed_dictionaries(
            {"role": st.sampled_from(["user", "assistant", "developer"]) | VALUES},
            optional={"content": VALUES, "tool_calls": VALUES},
        ),
    ),
    max_size=3,
)
TEMPLATE = ChatTemplate(
    "{% for m in messages %}{{ m.role }}:{{ m.content }}{{ m.tool_calls | tojson }}{% endfor %}"
)


@settings(max_examples=300, deadline=None)
@given(messages=MESSAGES, tools=st.none() | st.lists(VALUES, max_size=2))
def test_hostile_messages_raise_only_our_errors(messages, tools):
    with contextlib.suppress(InvalidRequest):
        assert isinstance(TEMPLATE.render(messages, tools=tools), str)
