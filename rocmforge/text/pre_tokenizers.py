r"""How text is cut into words before byte-level BPE, by the name in `tokenizer.ggml.pre`.

A scheme is a sequence of cuts; each one cuts every piece left by the one before it, and both the
matches and the gaps between them become pieces. The facts (which name means which cuts, and what
else the name implies) are llama.cpp's, because that program defined the key: where it simplifies a
model's original pattern, for instance `\p{Lu}` to `\p{L}` in tiny_aya, the simplification is kept,
so that both programs give the same tokens.

Patterns are in Oniguruma's syntax, as the `tokenizers` library reads them. Two things that it
expresses badly are plain functions instead (`cut`): digits grouped in threes from the right need a
look-ahead over the rest of the number at every digit, which is quadratic on a long number.
"""

from __future__ import annotations

import difflib
import re
import unicodedata
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

from rocmforge.errors import UnsupportedModelFormat

PRE_KEY = "tokenizer.ggml.pre"


@dataclass(frozen=True)
class PreTokenizer:
    """What a pre-tokenizer name means.

    cut: pieces of a text, before `patterns` are applied (None: the text is one piece). patterns:
    applied in order. ignore_merges: a word that is a token is taken whole, without asking the
    merges. add_bos: the default of `tokenizer.ggml.add_bos_token`. needs_merges: False where a file
    without `tokenizer.ggml.merges` is sound.
    """

    patterns: tuple[str, ...]
    cut: Callable[[str], Iterator[str]] | None = None
    ignore_merges: bool = False
    add_bos: bool = False
    needs_merges: bool = True


def _is_number(char: str) -> bool:
    # str.isnumeric() alone also says yes to Han numerals, which are letters to a regex.
    return char.isnumeric() and unicodedata.category(char)[0] == "N"


def _number_runs(text: str) -> Iterator[tuple[int, int]]:
    """Spans of maximal runs of \\p{N}."""
    start = -1
    for at, char in enumerate(text):
        if _is_number(char):
            start = at if start < 0 else start
        elif start >= 0:
            yield start, at
            start = -1
    if start >= 0:
        yield start, len(text)


def _cut_threes_with_text(text: str) -> Iterator[str]:
    """Numbers in threes from the right; what precedes a number stays with its leading group."""
    done = 0
    for start, end in _number_runs(text):
        lead = start + (end - start) % 3
        if lead > start:
            yield text[done:lead]
            done = lead
        for at in range(lead, end, 3):
            yield text[done : at + 3]
            done = at + 3
    if done < len(text):
        yield text[done:]


def _cut_threes(text: str) -> Iterator[str]:
    """Runs of numbers alone, and ASCII digits within them in threes from the right."""
    done = 0
    for start, end in _number_runs(text):
        if start > done:
            yield text[done:start]
        yield from _threes_within(text[start:end])
        done = end
    if done < len(text):
        yield text[done:]


def _threes_within(run: str) -> Iterator[str]:
    done = 0
    for match in re.finditer(r"[0-9]+", run):
        first = match.start() + (match.end() - match.start()) % 3
        for at in range(first, match.end(), 3):
            if at > done:
                yield run[done:at]
            done = at
    if done < len(run):
        yield run[done:]


_CONTRACTION = "'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD]"
_WORD = r"[^\r\n\p{L}\p{N}]?\p{L}+"
_WORD_OR_MARKS = r"[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+"
_SIGNS_THEN_LINES = r" ?[^\s\p{L}\p{N}]+[\r\n]*"
_BLANKS = r"\s*[\r\n]+|\s+(?!\S)|\s+"
_PUNCTUATED = (
    r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"
)
_CJK = "[一-龥぀-ゟ゠-ヿ]+"
# Blanks are left out of both, as the program that defined the scheme does.
_CJK_WIDE = r"[[一-龥ࠀ-一가-퟿]&&[^\s]]+"
_WIDE_SIGNS = r"\s?[!-/:-~！-／：-～‘-‟、-。]+"
# Cased letters, as ranges of code points: several of them look alike, and editors normalise some.
_CASED_LETTERS = (
    "B5 C0-D6 D8-F6 F8-1BA 1BC-1BF 1C4-293 295-2AF 370-373 376 377 37B-37D 37F 386 388-38A "
    "38C 38E-3A1 3A3-3F5 3F7-481 48A-52F 531-556 10A0-10C5 13A0-13F5 13F8-13FD 1C90-1CBA "
    "1CBD-1CBF 1D00-1D2B 1D6B-1D77 1D79-1D9A 1E00-1F15 1F18-1F1D 1F20-1F45 1F48-1F4D "
    "1F50-1F57 1F59 1F5B 1F5D 1F5F-1F7D 1F80-1FB4 1FB6-1FBC 1FBE 1FC2-1FC4 1FC6-1FCC "
    "1FD0-1FD3 1FD6-1FDB 1FE0-1FEC 1FF2-1FF4 1FF6-1FFC 2102 2107 210A-2113 2115 2119-211D "
    "2124 2126 2128 212A-212D 212F-2134 2139 213C-213F 2145-2149 214E 2183 2184 2C00-2C7B "
    "2C7E-2CE4 2CEB-2CEE 2CF2 2CF3 A640-A66D A680-A69B A722-A76F A771-A787 A78B-A78E "
    "AB70-ABBF FB00-FB06 FB13-FB17 FF21-FF3A FF41-FF5A 10400-1044F 104B0-104D3 104D8-104FB "
    "10C80-10CB2 10CC0-10CF2 118A0-118DF 1E900-1E943 "
)


def _character_class(ranges: str) -> str:
    return "".join(
        "-".join(rf"\x{{{point}}}" for point in part.split("-")) for part in ranges.split()
    )


_ALPHABETS = rf"\s?[A-Za-z{_character_class(_CASED_LETTERS)}]+"
_HAN = _character_class("3400-4DBF 4E00-9FFF F900-FAFF 20000-2A6DF 2A700-2EBEF 2F800-2FA1F")

_GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_LLAMA3 = rf"(?:{_CONTRACTION})|{_WORD}|\p{{N}}{{1,3}}|{_SIGNS_THEN_LINES}|{_BLANKS}"
_QWEN2 = rf"(?:{_CONTRACTION})|{_WORD}|\p{{N}}|{_SIGNS_THEN_LINES}|{_BLANKS}"


def _cased(letters: str, digits: str, tail: str) -> str:
    """Words whose capitals come first: capitals* small+ or capitals+ small*, ASCII case only."""
    capital, small = rf"(?=[{letters}])[^a-z]", rf"(?=[{letters}])[^A-Z]"
    lead = r"[^\r\n\p{L}\p{N}]?"
    return (
        rf"{lead}(?:{capital})*(?:{small})+{tail}|{lead}(?:{capital})+(?:{small})*{tail}"
        rf"|{digits}| ?[^\s\p{{L}}\p{{N}}]+[\r\n/]*|{_BLANKS}"
    )


_OPTIONAL_CONTRACTION = f"(?:{_CONTRACTION})?"
_MARKED_WORDS = rf"{_WORD_OR_MARKS}{_OPTIONAL_CONTRACTION}"
_GPT4O = PreTokenizer((_cased(r"\p{L}", r"\p{N}{1,3}", _OPTIONAL_CONTRACTION),))
_GPT2_STYLE = PreTokenizer((_GPT2,))
_DIGITS_GPT2 = PreTokenizer((r"\p{N}", _GPT2))
_LLAMA3_STYLE = PreTokenizer((_LLAMA3,), ignore_merges=True, add_bos=True)
_QWEN2_STYLE = PreTokenizer((_QWEN2,))
_PLAIN_LLAMA3 = PreTokenizer((_LLAMA3,))
_BLOOM = PreTokenizer((r" ?[^(\s|.,!?…。，、।۔،)]+",))
_DEEPSEEK3 = PreTokenizer(
    (r"\p{N}{1,3}", _CJK, rf"{_PUNCTUATED}| ?[\p{{P}}\p{{S}}]+[\r\n]*|{_BLANKS}")
)
_DEFAULT = PreTokenizer((r"[\p{P}\$\+<=>\^~\|]+", _GPT2, r"\p{N}+", "[0-9][0-9][0-9]"))
_TINY_AYA = PreTokenizer(
    (rf"{_MARKED_WORDS}|\p{{N}}{{1,3}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n/]*|{_BLANKS}",),
    cut=_cut_threes_with_text,
)
_KIMI = PreTokenizer(
    (
        rf"[{_HAN}]+|[^\r\n\p{{L}}\p{{N}}]?(?:(?![{_HAN}])\p{{L}})+{_OPTIONAL_CONTRACTION}"
        rf"|\p{{N}}{{1,3}}|{_SIGNS_THEN_LINES}|{_BLANKS}",
    ),
    needs_merges=False,
)

_BY_SCHEME: tuple[tuple[str, PreTokenizer], ...] = (
    ("default", _DEFAULT),
    (
        "llama3 llama-v3 llama-bpe falcon3 falcon-h1 pixtral midm-2.0 lfm2 jina-v5-nano",
        _LLAMA3_STYLE,
    ),
    ("dbrx smaug-bpe chatglm-bpe", _PLAIN_LLAMA3),
    ("glm4 glm5", replace(_PLAIN_LLAMA3, ignore_merges=True)),
    (
        "jais-2",
        PreTokenizer(
            (
                rf"(?:{_CONTRACTION})|{_WORD}|\p{{N}}{{1,3}}|{_SIGNS_THEN_LINES}|\s*[\r\n]+|"
                + "|".join(rf"\s{{{n}}}(?!\S)" for n in (512, 256, 128, 64, 32, 16, 8, 4, "1,2"))
                + r"|\s",
            )
        ),
    ),
    (
        "deepseek-llm",
        PreTokenizer((r"[\r\n]", _ALPHABETS, _WIDE_SIGNS, r"\s+\z", _CJK_WIDE, r"\p{N}+")),
    ),
    (
        "deepseek-coder",
        PreTokenizer((r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", _CJK_WIDE, r"\p{N}")),
    ),
    ("deepseek-v3 hunyuan-dense joyai-llm hy_v4", _DEEPSEEK3),
    (
        "spark2_5",
        PreTokenizer(
            (
                r"\p{N}{1,3}",
                _CJK,
                rf"{_PUNCTUATED}| ?[\p{{P}}\p{{S}}]+|[\r\n]|\s+(?!\S)|\s+",
                r"\p{N}",
            )
        ),
    ),
    (
        "youtu",
        PreTokenizer(
            (
                "[가-힣ㄱ-ㆎ]+|[！…“”‘’—：；，、-〿︰-﹏]+|[ㄅ-ㄯ]+|" + _CJK,
                rf"{_MARKED_WORDS}|\p{{N}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n/]*|{_BLANKS}",
            ),
            ignore_merges=True,
        ),
    ),
    (
        "falcon",
        PreTokenizer((r"[\p{P}\$\+<=>\^~\|`]+", _GPT2, "[0-9][0-9][0-9]")),
    ),
    ("starcoder refact command-r smollm codeshell exaone minerva-7b mellum2", _DIGITS_GPT2),
    (
        "gpt-2 phi-2 jina-es jina-de gigachat jina-v2-es jina-v2-de a.x-4.0 mellum modern-bert "
        "jina-v1-en jina-v2-code roberta-bpe mpt olmo jais trillion granite-docling exaone4",
        _GPT2_STYLE,
    ),
    (
        "qwen2 deepseek-r1-qwen kormo f2llmv2 megrez stablelm2 hunyuan solar-open grok-2 "
        "bailingmoe bailingmoe2 llada-moe",
        _QWEN2_STYLE,
    ),
    (
        "qwen35",
        PreTokenizer(
            (
                rf"(?:{_CONTRACTION})|{_WORD_OR_MARKS}|\p{{N}}"
                rf"| ?[^\s\p{{L}}\p{{M}}\p{{N}}]+[\r\n]*|{_BLANKS}",
            )
        ),
    ),
    ("poro-chat bloom gpt3-finnish", _BLOOM),
    ("viking", PreTokenizer((*_BLOOM.patterns, r"\p{N}"))),
    (
        "tekken",
        PreTokenizer((_cased(r"\p{L}", r"\p{N}", ""),), ignore_merges=True, add_bos=True),
    ),
    (
        "chameleon",
        PreTokenizer(
            (
                "<sentinel:[0-9]+>",
                "IMGIMG[A-I]{1,4}Z",
                r"[\t\n]|    |  ",
                r"\p{N}",
                r"[\p{P}!-/:-@\[-`{-~]",
                _GPT2,
            ),
            add_bos=True,
        ),
    ),
    ("gpt-4o llama4 kanana2 talkie minimax-m2", _GPT4O),
    (
        "granite-embed-multi-97m",
        PreTokenizer(
            (_cased(r"\p{L}\p{M}", r"\p{N}{1,3}", _OPTIONAL_CONTRACTION),), ignore_merges=True
        ),
    ),
    ("tiny_aya cohere2moe", _TINY_AYA),
    ("superbpe", PreTokenizer((), cut=_cut_threes)),
    (
        "seed-coder",
        PreTokenizer(
            (rf"(?:{_CONTRACTION})|{_WORD}|\p{{N}}| ?[^\s\p{{L}}\p{{N}}\r\n]+|{_BLANKS}",)
        ),
    ),
    ("ufakzeka", PreTokenizer((rf"{_WORD}|\p{{N}}|{_SIGNS_THEN_LINES}|{_BLANKS}",))),
    ("kimi-k2", _KIMI),
    (
        "afmoe",
        PreTokenizer(
            (
                "[一-鿿㐀-䶿豈-﫿぀-ゟ゠-ヿ･-ﾟ⼀-⿟เ-๿຀-໿ក-៿က-႟ꩠ-ꩿꧠ-꧿가-힯ᄀ-ᇿ]+",
                rf"{_PUNCTUATED}| ?[\p{{P}}\p{{S}}]+[\r\n]*|{_BLANKS}",
            ),
            cut=_cut_threes_with_text,
        ),
    ),
    ("laguna", PreTokenizer((r"[^\n]+|\n+", _QWEN2))),
    (
        "exaone-moe",
        PreTokenizer(
            (
                rf"(?:{_CONTRACTION})"
                r"|[^\r\n\p{L}\p{N}]?(?:\p{L}\p{M}*(?: \p{L}\p{M}*)*)+"
                r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]?|\s*[\r\n]|\s+(?!\S)|\s+",
            )
        ),
    ),
    (
        "minicpm5",
        PreTokenizer(
            (
                r"\p{N}{1,3}",
                rf"(?:{_CONTRACTION})|{_WORD}|\p{{N}}+|{_SIGNS_THEN_LINES}|{_BLANKS}",
            ),
            ignore_merges=True,
        ),
    ),
)

PRE_TOKENIZERS: Mapping[str, PreTokenizer] = {
    name: scheme for names, scheme in _BY_SCHEME for name in names.split()
}


def pre_tokenizer_by_name(name: str) -> PreTokenizer:
    """The scheme that `tokenizer.ggml.pre` names; an empty name means `default`.

    Raises UnsupportedModelFormat, listing the nearest known names.
    """
    found = PRE_TOKENIZERS.get(name or "default")
    if found is None:
        near = difflib.get_close_matches(name[:100], PRE_TOKENIZERS, n=5, cutoff=0.0)
        raise UnsupportedModelFormat(
            f"{PRE_KEY} is {name[:100]!r}, a pre-tokenizer that is not known here (nearest: "
            f"{', '.join(near)}); convert the model again with a known one, or write the name of "
            "an equal scheme into the file"
        )
    return found
