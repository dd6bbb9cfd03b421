"""Words that fill the examples, and the split that keeps some values out of the training text."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from enum import Enum
from random import Random


class Split(Enum):
    """Which side of the held-out border an example is drawn from."""

    TRAIN = "train"
    HELD_OUT = "held-out"


HELD_OUT_BUCKETS = 8


def words(text: str) -> list[str]:
    """The words of a text; keeps the long lists below readable."""
    return text.split()


ANIMALS = words(
    """
    fox owl bear wolf deer hare otter badger heron frog cat dog horse cow sheep goat duck hen
    mouse bee
    """
)
COLOURS = words(
    """
    red blue green yellow white black orange purple brown grey pink gold silver teal violet
    amber
    """
)
FRUITS = words(
    """
    apple pear plum cherry grape lemon peach fig melon orange berry quince banana mango
    """
)
OBJECTS = words(
    """
    lantern key map bell boat kite drum ladder basket mirror coat ring clock book candle rope
    cup stone hat door table chair lamp pen box bottle wheel flag coin letter
    """
)
REAL_NAMES = words(
    """
    Alice Bob Carol David Emma Frank Grace Henry Iris Jack Kate Leo Maria Nina Oscar Paul Rosa
    Sam Tom Vera Will Zoe Anna Ben Clara Daniel Eva Felix Hannah Ivan Julia Karl Laura Max
    Nora Peter Ruth Simon Tina Victor John Jane Ada Alan Mary James Linda Mike Sarah Ahmed
    Chen Yuki Priya Omar Lena
    """
)
REAL_CITIES = words(
    """
    Paris London Berlin Rome Madrid Oslo Vienna Prague Lisbon Dublin Athens Tokyo Cairo Delhi
    Boston Chicago Toronto Sydney Seoul Lima Warsaw Zurich Geneva Munich Milan Austin Denver
    Seattle Dallas Helsinki Stockholm Copenhagen Brussels Budapest Istanbul Beijing Mumbai
    Nairobi Moscow Havana
    """
)
WORDS = words(
    """
    hello world yes no thanks good morning night sun moon star river stone tree house road
    winter summer spring autumn rain snow wind fire water bread milk apple song music story
    game work day week year happy quiet small large fast slow bright dark warm cold new old
    first last left right north south east west open close start stop test one two three four
    five six seven eight nine ten this is a the and to of in on at big little friend city
    garden window paper pencil ship train
    """
)
KEYS = words(
    """
    name age city town color colour size count price total id title status active weight
    height width label kind level score email country language year month day animal food item
    code value x y z a b c
    """
)

_ONSETS = words(
    """
    b br c ch d dr f fl g gr h j k kl l m n p pr r s sh st t tr v w z
    """
)
_VOWELS = words(
    """
    a e i o u ai ea ie o a e i
    """
)
_CODAS = ["", "", "n", "r", "l", "s", "m", "th", "ck", "nd", "rt", "x", "lo", "na", "ry", "ton"]


def is_held_out(value: str) -> bool:
    """Whether a value never appears where the training text asks for it."""
    return zlib.crc32(value.encode()) % HELD_OUT_BUCKETS == 0


def belongs(value: str, split: Split) -> bool:
    """Whether a value may be used in this split."""
    return is_held_out(value) == (split is Split.HELD_OUT)


def draw(rng: Random, split: Split, make: Callable[[], str]) -> str:
    """The first made value that belongs to the split."""
    while True:
        value = make()
        if belongs(value, split):
            return value


def pick(rng: Random, split: Split, values: Sequence[str]) -> str:
    """One of the values that belong to the split."""
    return rng.choice([value for value in values if belongs(value, split)])


def invented_word(rng: Random) -> str:
    """A pronounceable word that no list holds."""
    syllables = rng.choice((1, 2, 2, 2, 3))
    return "".join(
        rng.choice(_ONSETS) + rng.choice(_VOWELS) for _ in range(syllables)
    ) + rng.choice(_CODAS)


def person_name(rng: Random, split: Split) -> str:
    """A common or an invented first name."""
    if rng.random() < 0.5:
        return pick(rng, split, REAL_NAMES)
    return draw(rng, split, lambda: invented_word(rng).capitalize())


def place_name(rng: Random, split: Split) -> str:
    """A real or an invented town."""
    if rng.random() < 0.5:
        return pick(rng, split, REAL_CITIES)
    return draw(rng, split, lambda: invented_word(rng).capitalize())


def phrase(
    rng: Random, split: Split, low: int = 2, high: int = 6, invented_share: float = 0.0
) -> str:
    """A few words in a random order, some of them invented."""

    def word() -> str:
        return invented_word(rng) if rng.random() < invented_share else rng.choice(WORDS)

    return draw(rng, split, lambda: " ".join(word() for _ in range(rng.randint(low, high))))


def with_article(noun: str) -> str:
    """The noun behind "a" or "an"."""
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


def join_words(words: Sequence[str]) -> str:
    """Words as an English enumeration: "a, b and c"."""
    if len(words) == 1:
        return words[0]
    return f"{', '.join(words[:-1])} and {words[-1]}"
