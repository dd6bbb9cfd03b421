"""The small vocabularies and hard texts behind the tokenizer goldens, as GGUF metadata.

The vocabularies are made so that a wrong cut shows: merges are trained on the hard texts without
any pre-tokenizer, so that tokens span digits, blanks, signs and scripts wherever a cut does not
forbid it.
"""

from __future__ import annotations

import itertools
import json
import random
from collections import Counter
from pathlib import Path

HERE = Path(__file__).parent
BPE_GOLDEN = HERE / "tokenizer_bpe.json"
SPM_GOLDEN = HERE / "tokenizer_spm.json"

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6

TEXTS = (
    "",
    " ",
    "Hello world",
    " Hello  world ",
    "\n",
    "\n\n\nHello\r\n\r\n  world\t\t!\n ",
    "I'm, you're; WE'VE he'Ll it'S 'twas o'clock d'accord 'd",
    "1 12 123 1234 12345 1234567890 3.14159 1,000,000 ½¾ ٣٤٥ Ⅻ ²³",
    "abc123def4567 x1y22z333 007 v1.2.3",
    "def f(x):\n    if x > 10:\n\t\treturn x**2  # ok\n\n\n    pass\n",
    "HelloWorld helloWORLD HELLOworld iPhone XMLHttpRequest ÉcoleÉlan élanÉcole",
    "The quick (brown) fox... can't jump 32.3 feet, right?! [yes] {no} <maybe> `a|b` ~^$+=",
    "   leading and trailing   ",
    "a\u00a0b\u2003c\u3000d\u2028e\u0085f",
    "你好，世界！这是一个测试。漢字かなカタカナ ひらがな123",
    "한국어 텍스트 가나다 ㄱㄴㄷ ㅏㅑ ｱｲｳ ㄅㄆㄇ",
    "Привет, мир! Это тест. ЁЛКА ёлка Ґанок",
    "مرحبا بالعالم ١٢٣ שלום עולם ९८७",
    "हिन्दी में कृपया नमस्ते क्षत्रिय ภาษาไทย ગુજરાતી",
    "e\u0301cole cafe\u0301 n\u0303 Z\u0351\u036bA\u0334L\u0321G\u0489O",
    "👍 👩‍👩‍👧‍👦 🇩🇪 🏳️‍🌈 👋🏽 emoji😀text ☃ ©®™",
    "\x00\x01\x7f control \x1b[31m \u200b\u200d\ufeff zero",
    "<|im_start|>user\nhi<|im_end|>\n<|im_start|>",
    "x<tool>y</tool> <tool><tool>  <tool>z<|endoftext|>",
    "<<|im_end|>> <|im_ <|im_end|>|> <s> </s> <unk> <0x41>",
    "https://example.com/a?b=c&d=%20#frag user@mail.org C:\\dir\\file.txt",
    '{"name": "get_weather", "arguments": {"city": "Zürich", "n": [1, 2, 33]}}',
    "a/b//c///d\n/e\n\n//f -/- **bold** __it__ ---\n===\n",
    "！？。，、「引用」（括号）《书》…“”‘’—：； １２３ ＡＢＣ ａｂｃ",
    "é è ê ö ß Ω ω ﬁ ﬀ ǅ ǆ ʰ ª º ŉ İ ı",
    "word  two   three    four     five\n six\n  seven \n eight",
    "\t\tx\n\t y\r\nz \r w\v\f",
    "!!!??? ... ,,, ;;; ''' \"\"\" 's 'S ''s s's",
    "<sentinel:12>IMGIMGABCZ and (parenthetical)|pipe",
    "Ｈｅｌｌｏ Ⅷ ① ㊙ 𝐇𝐞𝐥𝐥𝐨 𝟙𝟚𝟛 𐐀𐐨 𞤀 ᏸ ꭰ Ა",
    "ab ab ab abab aab bba a b aa bb  ab\n",
    "don't. She said: 'I'd've gone' 1st 2nd 33rd 1'000",
    "ſ 'ſ K'S 5's x'T 中's'字",
    "'twas 'tis it'sabre 'msg 'reveal 'llama 'dog 'twas",
    "end!\nend?\n\nend.\r\nend;\n==\n-\n)\nend!\n",
    "a zebra zebra\tzebra  12   345",
)

# Tokens that no merge makes: only a scheme that ignores the merges for whole words finds them.
UNMERGED = ("Ġzebra", "zebra")

SPECIAL = (
    ("<|im_start|>", CONTROL),
    ("<|im_end|>", CONTROL),
    ("<|endoftext|>", CONTROL),
    ("<s>", CONTROL),
    ("</s>", CONTROL),
    ("<unk>", UNKNOWN),
    ("<tool>", USER_DEFINED),
    ("</tool>", USER_DEFINED),
    ("  <tool>", USER_DEFINED),
    ("<unused_7>", UNUSED),
)


# Vocabularies of special tokens: (texts, types, ids by key), for which ids end a generation and
# which are control tokens.
MARKED: dict[str, tuple[tuple[str, ...], tuple[int, ...], dict[str, int]]] = {
    "by text": (
        ("<|eot_id|>", "<|im_end|>", "<|end|>", "<end_of_turn>", "<|endoftext|>", "</s>", "<eos>"),
        (NORMAL,) * 7,
        {},
    ),
    "more texts": (
        ("<|end_of_text|>", "<EOT>", "_<EOT>", "[EOT]", "[EOS]", "<|eom_id|>", "[e~[", "<turn|>"),
        (CONTROL, NORMAL, USER_DEFINED, CONTROL, NORMAL, CONTROL, NORMAL, UNUSED),
        {},
    ),
    "deepseek": (
        ("<｜end▁of▁sentence｜>", "<end_of_utterance>", "<｜fim▁begin｜>", "<|User|>"),
        (NORMAL, NORMAL, NORMAL, CONTROL),
        {},
    ),
    "by key": (
        ("<a>", "<b>", "<c>", "<d>"),
        (NORMAL, CONTROL, NORMAL, NORMAL),
        {"eot": 0, "eom": 1},
    ),
    "fill in": (
        ("<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>", "<|fim_pad|>", "<|repo_name|>"),
        (NORMAL,) * 5,
        {},
    ),
    "files": (("<|file_sep|>", "<x>", "<y>"), (NORMAL, NORMAL, CONTROL), {"fim_pre": 1}),
    "harmony": (
        ("<|end|>", "<|return|>", "<|call|>", "<|channel|>", "<|message|>", "<|start|>"),
        (CONTROL,) * 6,
        {},
    ),
    "solar": (("<|end|>", "<|flush|>", "<|calls|>", "<|constrain|>"), (CONTROL,) * 4, {}),
    "half harmony": (("<|end|>", "<|return|>", "<|constrain|>"), (CONTROL,) * 3, {}),
    "plain s": (("</s>", "<|tool_response>", "<eos>"), (CONTROL, CONTROL, CONTROL), {}),
}


def marked_metadata(name: str) -> dict[str, object]:
    """Metadata of a byte-level vocabulary with these special tokens."""
    texts, types, keys = MARKED[name]
    tokens = [*texts, *byte_characters(), "!!"]
    return {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "gpt-2",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": [*types, *[NORMAL] * 257],
        "tokenizer.ggml.merges": ["! !"],
        # llama.cpp takes token 11 where no key names these.
        "tokenizer.ggml.bos_token_id": 0,
        "tokenizer.ggml.eos_token_id": 0,
        **{f"tokenizer.ggml.{key}_token_id": value for key, value in keys.items()},
    }


def byte_characters() -> list[str]:
    """GPT-2's 256 printable characters, by byte."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    table = {byte: chr(byte) for byte in printable}
    extra = 0x100
    for byte in range(256):
        if byte not in table:
            table[byte], extra = chr(extra), extra + 1
    return [table[byte] for byte in range(256)]


def train_merges(words: list[list[str]], n_merges: int) -> list[tuple[str, str]]:
    """Plain BPE training: the most frequent pair first, ties by text."""
    merges = []
    for _ in range(n_merges):
        pairs = Counter(pair for word in words for pair in itertools.pairwise(word))
        if not pairs:
            break
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        merges.append(best)
        words = [_merged(word, best) for word in words]
    return merges


def _merged(word: list[str], pair: tuple[str, str]) -> list[str]:
    result, at = [], 0
    while at < len(word):
        if at + 1 < len(word) and (word[at], word[at + 1]) == pair:
            result.append(word[at] + word[at + 1])
            at += 2
        else:
            result.append(word[at])
            at += 1
    return result


def bpe_metadata(pre: str, merges: list[str], **extra: object) -> dict[str, object]:
    """A byte-level vocabulary: 256 bytes, the results of the merges, special tokens."""
    tokens = byte_characters()
    tokens += dict.fromkeys(merge.replace(" ", "") for merge in merges)
    tokens += UNMERGED
    types = [NORMAL] * len(tokens)
    tokens += [text for text, _ in SPECIAL]
    types += [kind for _, kind in SPECIAL]
    return {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": pre,
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": types,
        "tokenizer.ggml.merges": merges,
        "tokenizer.ggml.bos_token_id": tokens.index("<s>"),
        "tokenizer.ggml.eos_token_id": tokens.index("<|im_end|>"),
        **extra,
    }


def spm_metadata(pieces: list[tuple[str, float]], **extra: object) -> dict[str, object]:
    """A vocabulary with scores: <unk> <s> </s>, 256 byte tokens, pieces, special tokens."""
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    scores = [0.0] * len(tokens)
    types = [UNKNOWN, CONTROL, CONTROL] + [BYTE] * 256
    tokens += [text for text, _ in pieces]
    scores += [score for _, score in pieces]
    types += [NORMAL] * len(pieces)
    for text, kind in SPECIAL:
        if text not in tokens:
            tokens.append(text)
            scores.append(-1000.0)
            types.append(kind)
    return {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.scores": scores,
        "tokenizer.ggml.token_type": types,
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
        "tokenizer.ggml.unknown_token_id": 0,
        **extra,
    }


SPM_VARIANTS: dict[str, dict[str, object]] = {
    "default": {},
    "no prefix": {"tokenizer.ggml.add_space_prefix": False},
    "prefix and eos": {
        "tokenizer.ggml.add_space_prefix": True,
        "tokenizer.ggml.add_eos_token": True,
    },
    "no bos": {"tokenizer.ggml.add_bos_token": False},
    "phi-3": {"general.name": "Phi-3 mini"},
}


def spm_pieces(golden: dict[str, object], *, across_words: bool) -> list[tuple[str, float]]:
    """The committed pieces; with `across_words`, also tokens that hold a blank inside."""
    pieces = [(str(text), float(score)) for text, score in golden["pieces"]]  # type: ignore[attr-defined]
    inside = [(text, score) for text, score in pieces if "▁" in text.lstrip("▁")]
    return pieces if across_words else [piece for piece in pieces if piece not in inside]


def random_text(rng: random.Random) -> str:
    """Pieces of the hard texts, glued at random."""
    parts = []
    for _ in range(rng.randrange(1, 8)):
        text = rng.choice(TEXTS)
        start = rng.randrange(len(text) + 1)
        parts.append(text[start : start + rng.randrange(12)])
    return "".join(parts)


def load(path: Path) -> dict[str, object]:
    """A golden file."""
    return json.loads(path.read_text(encoding="utf-8"))  # type: ignore[no-any-return]
