"""Arithmetic and counting. Held out are pairs of summands and ranges to count through."""

from __future__ import annotations

from random import Random

from training import pools
from training.exchange import Exchange, ask
from training.pools import Split

ADD_QUESTIONS = (
    "What is {a} + {b}?",
    "What is {a} plus {b}?",
    "Add {a} and {b}.",
    "{a} + {b}",
    "{a} + {b} =",
    "{a}+{b}",
    "{a}+{b}=?",
    "How much is {a} + {b}?",
    "Calculate {a} + {b}.",
    "What is the sum of {a} and {b}?",
    "Please add {a} and {b}.",
)
SUBTRACT_QUESTIONS = (
    "What is {a} - {b}?",
    "What is {a} minus {b}?",
    "Subtract {b} from {a}.",
    "{a} - {b}",
    "How much is {a} - {b}?",
)
COUNT_QUESTIONS = (
    "Count from {a} to {b}.",
    "Count from {a} to {b}",
    "Please count from {a} to {b}.",
    "count from {a} to {b}",
    "Write the numbers from {a} to {b}.",
)


def pair_split(a: int, b: int) -> Split:
    """The side on which a pair of summands lies, in either order."""
    held_out = pools.is_held_out(f"{min(a, b)}+{max(a, b)}")
    return Split.HELD_OUT if held_out else Split.TRAIN


def draw_pair(rng: Random, split: Split) -> tuple[int, int]:
    """Two summands of the split; the held-out ones have two digits each."""
    while True:
        low = 10 if split is Split.HELD_OUT or rng.random() < 0.85 else 0
        a, b = rng.randint(low, 99), rng.randint(low, 99)
        if pair_split(a, b) is split:
            return a, b


def addition(rng: Random, split: Split) -> Exchange:
    """The sum of two numbers below 100."""
    a, b = draw_pair(rng, split)
    text = rng.choice(ADD_QUESTIONS).format(a=a, b=b)
    return ask(text, f"{a} + {b} = {a + b}")


def subtraction(rng: Random, split: Split) -> Exchange:
    """The difference of two numbers below 100, never negative."""
    a, b = sorted(draw_pair(rng, split), reverse=True)
    return ask(rng.choice(SUBTRACT_QUESTIONS).format(a=a, b=b), f"{a} - {b} = {a - b}")


def comparison(rng: Random, split: Split) -> Exchange:
    """Which of two numbers is larger."""
    a, b = draw_pair(rng, split)
    if a == b:
        b += 1
    text = rng.choice(
        (
            "Which is larger, {a} or {b}?",
            "Which number is bigger: {a} or {b}?",
            "Compare {a} and {b}.",
        )
    )
    return ask(text.format(a=a, b=b), f"{max(a, b)} is larger than {min(a, b)}.")


def counting(rng: Random, split: Split) -> Exchange:
    """All numbers of a range, upwards or downwards."""

    def make() -> str:
        length = rng.choice((4, 6, 9, 12, 20, 30, 40, 50, 60))
        start = rng.choice((1, 1, 1, rng.randint(0, 60), rng.randint(0, 140)))
        return f"{start} {start + rng.randint(2, length)}"

    start, end = (int(part) for part in pools.draw(rng, split, make).split())
    if rng.random() < 0.2:
        text = rng.choice(("Count down from {b} to {a}.", "Count backwards from {b} to {a}."))
        numbers = range(end, start - 1, -1)
    else:
        text = rng.choice(COUNT_QUESTIONS)
        numbers = range(start, end + 1)
    return ask(text.format(a=start, b=end), ", ".join(map(str, numbers)))


def stepping(rng: Random, split: Split) -> Exchange:
    """Multiples: counting by a step, or a table of a number, one product per line."""
    step = rng.randint(2, 10)
    if rng.random() < 0.5:
        end = step * rng.randint(3, 20)
        text = rng.choice(("Count by {s} up to {e}.", "Count in steps of {s} to {e}."))
        return ask(text.format(s=step, e=end), ", ".join(map(str, range(step, end + 1, step))))
    lines = "\n".join(f"{i} x {step} = {i * step}" for i in range(1, 11))
    texts = (
        "Write the times table of {}.",
        "What is the times table of {}?",
        "Multiplication table of {}",
    )
    return ask(rng.choice(texts).format(step), lines)
