"""What the tokenizer promises beyond the equality with llama.cpp that the goldens show."""

from __future__ import annotations

import threading
import time

import pytest

from rocmforge.errors import InvalidRequest
from rocmforge.text import tokenizer as module
from rocmforge.text.byte_level_bpe import byte_level_bytes
from rocmforge.text.pre_tokenizers import PRE_TOKENIZERS
from rocmforge.text.tokenizer import Tokenizer

G = "tokenizer.ggml."
BYTES = [f"<0x{byte:02X}>" for byte in range(256)]
SPM_TOKENS = ["<unk>", "<s>", "</s>", *BYTES, "▁", "▁hello", "hello", "h", "<turn>", "<tool>"]


def spm(**changes: object) -> Tokenizer:
    n_words = len(SPM_TOKENS) - 259 - 2
    metadata = {
        G + "model": "llama",
        G + "tokens": SPM_TOKENS,
        G + "scores": [-float(i) for i in range(len(SPM_TOKENS))],
        G + "token_type": [2, 3, 3] + [6] * 256 + [1] * n_words + [3, 4],
        **{G + key: value for key, value in changes.items()},
    }
    return Tokenizer.from_metadata(metadata)


def bpe(pre: str = "gpt-2", **changes: object) -> Tokenizer:
    table = [chr(b) for b in [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]]
    table += [chr(0x100 + i) for i in range(256 - len(table))]
    tokens = [*table, "ab", "<s>", "</s>"]
    metadata = {
        G + "model": "gpt2",
        G + "pre": pre,
        G + "tokens": tokens,
        G + "token_type": [1] * 257 + [3, 3],
        G + "merges": ["a b"],
        G + "bos_token_id": 257,
        G + "eos_token_id": 258,
        **{G + key: value for key, value in changes.items()},
    }
    return Tokenizer.from_metadata(metadata)


def test_bos_is_not_doubled():
    tokenizer = spm()
    ids = tokenizer.encode("<s><turn>", parse_special=True)
    assert ids == [1, SPM_TOKENS.index("<turn>")]
    # Ordinary text never counts as BOS.
    assert tokenizer.encode("<s>")[0] == 1
    assert len(tokenizer.encode("<s>")) > 1
    assert tokenizer.encode("", parse_special=True) == [1]
    assert tokenizer.encode("", add_special=False) == []


def test_eos_is_added_when_asked_for_and_not_doubled():
    tokenizer = bpe(add_bos_token=True, add_eos_token=True)
    assert tokenizer.encode("ab") == [257, 256, 258]
    assert tokenizer.encode("<s>ab</s>", parse_special=True) == [257, 256, 258]


def test_defaults_of_bos():
    assert spm().add_bos
    assert not spm().add_eos
    assert not spm(add_bos_token=False).add_bos
    assert not bpe().add_bos
    assert bpe("llama-bpe").add_bos
    assert bpe("tekken").add_bos
    assert not bpe("llama-bpe", add_bos_token=False).add_bos
    assert not bpe("llama-bpe", bos_token_id=0xFFFFFFFF).add_bos


def test_control_texts_are_text_unless_parsed():
    tokenizer = spm()
    turn, tool = SPM_TOKENS.index("<turn>"), SPM_TOKENS.index("<tool>")
    assert turn not in tokenizer.encode("<turn>")
    assert turn in tokenizer.encode("<turn>", parse_special=True)
    assert tool in tokenizer.encode("<tool>")
    assert tokenizer.decode(tokenizer.encode("a<turn>b")) == "a<turn>b"
    assert tokenizer.without_control_texts("a<tu<turn>rn>b<tool>") == "ab<tool>"


def test_nested_control_texts_are_taken_out_in_linear_time():
    # Cut level by level, this takes hours; the suite's time-out is the limit.
    n = 200_000
    assert spm().without_control_texts("a" + "<tu" * n + "rn>" * n + "b") == "ab"


def test_decode_shows_and_hides_control_tokens():
    tokenizer = spm()
    turn = SPM_TOKENS.index("<turn>")
    hello = SPM_TOKENS.index("▁hello")
    assert tokenizer.decode([1, hello, turn]) == "hello"
    assert tokenizer.decode([hello, turn], skip_special=False) == "hello<turn>"
    assert tokenizer.decode([hello], continuation=True) == " hello"
    assert tokenizer.token_bytes(turn) == b""
    assert tokenizer.token_text(turn) == "<turn>"
    assert tokenizer.token_text(hello) == " hello"
    assert tokenizer.token_bytes(3 + 0xE3) == b"\xe3"
    assert tokenizer.is_control(turn)
    assert not tokenizer.is_control(hello)


def test_decode_keeps_blanks_before_punctuation():
    tokenizer = bpe("llama-bpe")
    text = "a , b ! 's  ."
    assert tokenizer.decode(tokenizer.encode(text)) == text


@pytest.mark.parametrize("token_id", [-1, 10**6])
def test_ids_outside_the_vocabulary(token_id):
    tokenizer = spm()
    for call in (tokenizer.token_bytes, tokenizer.token_text, tokenizer.is_control):
        with pytest.raises(InvalidRequest, match="not in the vocabulary"):
            call(token_id)
    with pytest.raises(InvalidRequest, match="not in the vocabulary"):
        tokenizer.decode([token_id])


@pytest.mark.parametrize("make", [spm, bpe])
def test_surrogates_are_replaced(make):
    tokenizer = make()
    assert tokenizer.decode(tokenizer.encode("a\ud800b")) == "a\ufffdb"


def test_long_text_is_refused(monkeypatch):
    monkeypatch.setattr(module, "MAX_TEXT_CHARS", 10)
    with pytest.raises(InvalidRequest, match="at most 10"):
        spm().encode("x" * 11)


def test_min_token_count_is_a_lower_bound():
    for tokenizer in (spm(), bpe()):
        for text in ("", "hello", "ab" * 1000, "é" * 333, "\ud800"):
            assert tokenizer.min_token_count(text) <= len(tokenizer.encode(text))
        assert tokenizer.min_token_count("x" * 100_000) > 1000
    # Without every byte text may vanish, so that nothing is known.
    few = {
        G + "model": "gpt2",
        G + "tokens": ["a", "b", "ab"],
        G + "merges": ["a b"],
    }
    tokenizer = Tokenizer.from_metadata(few)
    assert tokenizer.encode("xyz") == []
    assert tokenizer.min_token_count("xyz" * 1000) == 0


def test_unknown_bytes_become_the_unknown_token():
    metadata = {
        G + "model": "llama",
        G + "tokens": ["<unk>", "<s>", "</s>", "▁", "a"],
        G + "scores": [0.0] * 5,
    }
    assert Tokenizer.from_metadata(metadata).encode("aé") == [1, 3, 4, 0, 0]


def test_texts_outside_the_byte_table_stand_for_themselves():
    assert byte_level_bytes("Ġa") == b" a"
    assert byte_level_bytes("日本") == "日本".encode()
    assert byte_level_bytes("a b") == b"a b"


@pytest.mark.parametrize("name", ["superbpe", "tiny_aya", "afmoe"])
def test_digit_groups_take_linear_time(name):
    assert PRE_TOKENIZERS[name].cut is not None
    tokenizer = bpe(name)
    assert len(tokenizer.encode("1" * 200_000)) == 200_000


def test_threads_get_the_same_ids():
    tokenizer = spm()
    texts = [f"hello {'h' * n} hello" for n in range(40)]
    expected = [spm().encode(text) for text in texts]
    results: list[list[list[int]]] = []
    threads = [
        threading.Thread(target=lambda: results.append([tokenizer.encode(t) for t in texts]))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [expected] * 4


def test_encoding_lets_other_threads_run():
    tokenizer = bpe("qwen2")
    thread = threading.Thread(target=tokenizer.encode, args=("Hello world 123 " * 50_000,))
    thread.start()
    n_turns = 0
    while thread.is_alive():
        time.sleep(0.001)
        n_turns += 1
    # Were the interpreter held, this thread would get about one turn.
    assert n_turns >= 10
