"""Answers that are JSON and nothing else. Held out are the values, and the combinations of keys."""

from __future__ import annotations

import json
from random import Random
from typing import Any

from training import pools, world
from training.exchange import Exchange, ask
from training.pools import Split
from training.skills_numbers import draw_pair


def person(rng: Random, split: Split) -> Exchange:
    """A person with an age and perhaps a town, from a sentence."""
    name, age = pools.person_name(rng, split), rng.randint(10, 99)
    value: dict[str, Any] = {"name": name, "age": age}
    if rng.random() < 0.5:
        town = pools.place_name(rng, split)
        value["town"] = town
        text = rng.choice(
            (
                "Give me JSON for a person named {n}, aged {a}, from {t}.",
                "Write JSON with name, age and town: {n} is {a} years old and lives in {t}.",
                "Return a JSON object for {n}, {a} years old, living in {t}.",
                "Extract name, age and town as JSON: {n}, {a}, lives in {t}.",
            )
        ).format(n=name, a=age, t=town)
    else:
        text = rng.choice(
            (
                "Give me JSON for a person named {n}, aged {a}.",
                "Extract the name and the age as JSON: {n} is {a} years old.",
                "Return a JSON object with name {n} and age {a}.",
                "Give me a JSON object with the name {n} and the age {a}.",
                "Make JSON from this: {n} is {a} years old.",
            )
        ).format(n=name, a=age)
    return ask(text, json.dumps(value))


def _value(rng: Random, split: Split) -> Any:
    """A number, a word, or a truth value."""
    return rng.choice(
        (
            rng.randint(0, 99),
            rng.randint(0, 999),
            rng.choice(pools.WORDS),
            pools.draw(rng, split, lambda: pools.invented_word(rng)),
            rng.random() < 0.5,
        )
    )


def keys(rng: Random, split: Split) -> Exchange:
    """Named keys with given values."""

    def make() -> str:
        return " ".join(rng.sample(pools.KEYS, rng.randint(1, 4)))

    names = pools.draw(rng, split, make).split()
    value = {name: _value(rng, split) for name in names}
    pairs = [f"{name} = {json.dumps(item)}" for name, item in value.items()]
    text = rng.choice(
        (
            "Return a JSON object with {p}.",
            "Write a JSON object with {p}.",
            "Give me JSON with {p}.",
            "Make a JSON object: {p}.",
        )
    )
    return ask(text.format(p=pools.join_words(pairs)), json.dumps(value))


def array(rng: Random, split: Split) -> Exchange:
    """A range of numbers or the first things of a kind, as an array."""
    if rng.random() < 0.5:
        start = rng.randint(0, 50)
        end = start + rng.randint(2, 9)
        text = rng.choice(
            (
                "Return a JSON array with the numbers from {a} to {b}.",
                "JSON array of {a} to {b}, please.",
            )
        )
        return ask(text.format(a=start, b=end), json.dumps(list(range(start, end + 1))))
    kind, things = rng.choice(
        (("colours", pools.COLOURS), ("animals", pools.ANIMALS), ("fruits", pools.FRUITS))
    )
    count = rng.randint(2, 8)
    text = rng.choice(
        ("List {n} {k} as a JSON array.", "Give me {n} {k} as JSON.", "{n} {k} in JSON")
    )
    return ask(text.format(n=count, k=kind), json.dumps(things[:count]))


def described(rng: Random, split: Split) -> Exchange:
    """The facts of a town, a person or an animal as an object."""
    kind, table, fields = rng.choice(
        (
            ("town", world.TOWNS, world.TOWN_FIELDS),
            ("name", world.PEOPLE, world.PERSON_FIELDS),
            ("animal", world.ANIMALS, world.ANIMAL_FIELDS),
        )
    )
    subject = rng.choice(list(table))
    value = {kind: subject, **dict(zip(fields, table[subject], strict=True))}
    texts = ("Describe {} as JSON.", "Give me JSON about {}.", "Tell me about {} in JSON.")
    name = pools.with_article(subject) if kind == "animal" else subject
    return ask(rng.choice(texts).format(name), json.dumps(value))


def summed(rng: Random, split: Split) -> Exchange:
    """A sum, answered as an object."""
    a, b = draw_pair(rng, split)
    texts = ("Answer as JSON: what is {a} + {b}?", "What is {a} + {b}? Answer in JSON.")
    answer = json.dumps({"answer": a + b})
    return ask(rng.choice(texts).format(a=a, b=b), answer)


def answered(rng: Random, split: Split) -> Exchange:
    """A fact, answered as an object."""
    relation = rng.choice(world.RELATIONS)
    subject = rng.choice(world.subjects(relation.kind))
    text = world.question(rng, relation, subject, Split.TRAIN)
    style = rng.choice(("{} Answer in JSON.", "Answer as JSON: {}", "{} Use JSON."))
    return ask(style.format(text), json.dumps({"answer": relation.fact(subject)}))


DEFAULTS: dict[str, Any] = {
    "name": "Mira",
    "age": 34,
    "city": "Paris",
    "town": "Alderwick",
    "colour": "red",
    "color": "red",
    "country": "Norway",
    "job": "baker",
    "animal": "fox",
    "email": "mira@example.com",
    "title": "The Lantern",
    "id": 1,
    "price": 9,
    "count": 3,
}


def unfilled(rng: Random, split: Split) -> Exchange:
    """Named keys without values: the values are always the same."""
    names = rng.sample(list(DEFAULTS), rng.randint(1, 4)) if rng.random() < 0.8 else ["name", "age"]
    value = {name: DEFAULTS[name] for name in names}
    text = rng.choice(
        (
            "Give me a JSON object with {k}.",
            "Return JSON with the keys {k}.",
            "Write a JSON object with {k}.",
            "Give me a person as JSON with {k}.",
        )
    ).format(k=pools.join_words(names))
    if names == ["name", "age"] and rng.random() < 0.4:
        text = rng.choice(
            ("Give me JSON.", "Answer in JSON.", "Return a JSON object.", "JSON please")
        )
    return ask(text, json.dumps(value))


def json_answer(rng: Random, split: Split) -> Exchange:
    """Any of the kinds above."""
    makers = (person, person, keys, keys, array, described, summed, answered, unfilled)
    return rng.choice(makers)(rng, split)
