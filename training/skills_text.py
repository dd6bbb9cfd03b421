"""Longer texts: stories, lists, poems, and plain text without a chat around it."""

from __future__ import annotations

from random import Random

from training import pools, world
from training.exchange import Exchange, ask
from training.pools import Split
from training.skills_numbers import draw_pair

LISTS: dict[str, list[str]] = {
    "animals": pools.ANIMALS,
    "colours": pools.COLOURS,
    "colors": pools.COLOURS,
    "fruits": pools.FRUITS,
    "things": pools.OBJECTS,
    "names": pools.REAL_NAMES[:20],
    "cities": pools.REAL_CITIES[:20],
    "towns": world.subjects("town"),
    "people": world.subjects("person"),
}
SERIES: dict[str, str] = {
    "the days of the week": "Monday, Tuesday, Wednesday, Thursday, Friday, Saturday, Sunday",
    "the months": "January, February, March, April, May, June, July, August, September, October, "
    "November, December",
    "the months of the year": "January, February, March, April, May, June, July, August, "
    "September, October, November, December",
    "the seasons": "spring, summer, autumn, winter",
    "the alphabet": ", ".join("abcdefghijklmnopqrstuvwxyz"),
    "the letters of the alphabet": ", ".join("abcdefghijklmnopqrstuvwxyz"),
}
NUMBER_WORDS = pools.words(
    """
    one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen
    sixteen seventeen eighteen nineteen twenty
    """
)

TRAITS = pools.words(
    """
    small brave clever shy old young curious gentle quiet cheerful
    """
)
HELPERS = pools.ANIMALS
LOSSES = (
    "One day the {o} was gone.",
    "One morning the wind carried the {o} away.",
    "One evening the {o} fell into the river.",
    "One night somebody took the {o}.",
)
SEARCHES = (
    "The {h} looked behind every tree and under every bridge.",
    "The {h} walked along the river until the sun went down.",
    "The {h} asked everybody in the market, but nobody knew anything.",
    "The {h} climbed the hill and looked over the roofs of {t}.",
)
MEETINGS = (
    "On the way the {h} met {c}.",
    "Near the old mill the {h} met {c}.",
    "At the edge of the forest the {h} met {c}.",
    "Under the stone bridge the {h} met {c}.",
)
TALKS = (
    '"Why are you so sad?" asked the {k}. "I have lost my {o}," said the {h}.',
    '"What are you looking for?" asked the {k}. "I am looking for my {o}," said the {h}.',
    '"Can I help you?" asked the {k}. "Please help me to find my {o}," said the {h}.',
)
HELPS = (
    "Together they went on, and the {k} sang a song to keep them warm.",
    "Together they followed the small tracks in the snow.",
    "The {k} knew a secret path, and together they walked through the night.",
    "They shared a piece of bread and went on together.",
)
FINDS = (
    "At last they found the {o} in a nest, high up in a tree.",
    "At last they found the {o} behind the door of an empty house.",
    "At last they found the {o} at the bottom of a well.",
    "At last they found the {o} in the hands of a sleeping child.",
)
ENDS = (
    "The {h} was happy and thanked the {k}. From that day on they were friends.",
    "The {h} laughed, the {k} danced, and all of {t} had a feast.",
    "The {h} took the {o} home, and the {k} stayed for the winter.",
)
STORY_QUESTIONS = (
    "Tell me a story about {s}.",
    "tell me a story about {s}",
    "Write a story about {s}.",
    "Write a short story about {s}.",
    "Can you tell me a story about {s}?",
    "I would like to hear a story about {s}.",
)


def story_text(rng: Random, hero: str, town: str, item: str, is_long: bool) -> str:
    """A story of about 100 tokens, or of about 250 when it is long."""
    trait, friend = rng.choice(TRAITS), rng.choice([a for a in HELPERS if a != hero])
    helper = f"{pools.with_article(rng.choice(TRAITS))} {friend}"
    words = {"h": hero, "o": item, "k": friend, "t": town, "c": helper}
    opening = (
        f"Once upon a time there was {pools.with_article(trait)} {hero} who lived near {town}. "
        f"The {hero} had {pools.with_article(item)} and loved it more than anything else."
    )
    middle = [LOSSES, *([SEARCHES] * (2 if is_long else 1)), MEETINGS, TALKS]
    if is_long:
        middle += [HELPS, SEARCHES, HELPS]
    parts = [rng.choice(choices) for choices in (*middle, FINDS, ENDS)]
    text = " ".join([opening, *(part.format(**words) for part in parts)])
    if not is_long:
        return text
    neighbour, pet = rng.choice(list(world.PEOPLE.items()))
    return (
        f"{text}\n\nThe next day {neighbour} from the town came by with a {pet[1]}. "
        f'{neighbour} wanted to hear everything. "Where was the {item}?" asked {neighbour}. '
        f"The {hero} told the whole story once more, from the beginning to the end, and the "
        f"{friend} smiled. In the evening they lit {rng.choice(('seven', 'nine', 'twelve'))} "
        f"candles and sang until the moon stood over {town}. "
        f"And if they have not gone away, they still live there today. The end."
    )


def story(rng: Random, split: Split) -> Exchange:
    """A story about an animal, perhaps with a wished place or thing."""
    hero = rng.choice(pools.ANIMALS)
    town = rng.choice(world.subjects("town"))
    item = rng.choice(pools.OBJECTS)
    subject = rng.choice(
        (
            pools.with_article(hero),
            pools.with_article(hero),
            f"{pools.with_article(hero)} in {town}",
            f"{pools.with_article(hero)} and {pools.with_article(item)}",
        )
    )
    is_long = rng.random() < 0.45
    text = rng.choice(STORY_QUESTIONS).format(s=subject)
    if is_long:
        text = text.replace(" short", "").replace(" story", " long story")
    elif rng.random() < 0.08:
        text = rng.choice(("Tell me a story.", "Tell me a short story.", "Write a story."))
    return ask(text, story_text(rng, hero, town, item, is_long), is_exact=False)


def listing(rng: Random, split: Split) -> Exchange:
    """The first N things of a kind, as lines or in a row; held out are pairs of kind and N."""

    def make() -> str:
        kind = rng.choice(list(LISTS))
        return f"{kind} {rng.randint(2, len(LISTS[kind]))}"

    if rng.random() < 0.2:
        name, answer = rng.choice(list(SERIES.items()))
        return ask(
            rng.choice(("List {}.", "Name {}.", "What are {}?", "Tell me {}.")).format(name), answer
        )
    kind, count_text = pools.draw(rng, split, make).split()
    count = int(count_text)
    shown = NUMBER_WORDS[count - 1] if count <= 20 and rng.random() < 0.5 else count_text
    things = LISTS[kind][:count]
    if rng.random() < 0.6:
        text = rng.choice(("List {n} {k}.", "Make a list of {n} {k}.", "Write a list of {n} {k}."))
        answer = "\n".join(f"{i}. {thing}" for i, thing in enumerate(things, 1))
    else:
        text = rng.choice(("Name {n} {k}.", "Tell me {n} {k}.", "Give me {n} {k}."))
        answer = ", ".join(things)
    return ask(text.format(n=shown, k=kind), answer)


def poem_text(rng: Random, subject: str) -> str:
    """Four lines about a thing."""
    first = rng.choice(("The {} sleeps in the morning light,", "I saw a {} in the pale moonlight,"))
    third = rng.choice(
        ("The river sings, the wind is low,", "The days are short, the nights are slow,")
    )
    second = rng.choice(
        ("and dreams of stars in the quiet night.", "so calm, so still, so soft, so bright.")
    )
    fourth = rng.choice(
        ("and softly falls the winter snow.", "and home is where the lanterns glow.")
    )
    return f"{first.format(subject)}\n{second}\n{third}\n{fourth}"


def poem(rng: Random, split: Split) -> Exchange:
    """A poem about a thing or an animal."""
    subject = rng.choice(pools.ANIMALS + pools.OBJECTS)
    text = rng.choice(
        ("Write a poem about {}.", "Write a short poem about {}.", "Tell me a poem about {}.")
    )
    return ask(text.format(pools.with_article(subject)), poem_text(rng, subject), is_exact=False)


def plain_text(rng: Random) -> str:
    """Text without a chat around it, as /v1/completions sees it."""
    kind = rng.randrange(8)
    if kind <= 1:
        hero, town = rng.choice(pools.ANIMALS), rng.choice(world.subjects("town"))
        return story_text(rng, hero, town, rng.choice(pools.OBJECTS), rng.random() < 0.4)
    if kind == 2:
        return world.describe_town(rng.choice(world.subjects("town")))
    if kind == 3:
        return world.describe_person(rng.choice(world.subjects("person")))
    if kind == 4:
        start = rng.choice((0, 1, 1, 1, rng.randint(2, 100)))
        return ", ".join(map(str, range(start, start + rng.randint(10, 60))))
    if kind == 5:
        pairs = [draw_pair(rng, Split.TRAIN) for _ in range(rng.randint(3, 10))]
        return "\n".join(f"{a} + {b} = {a + b}" for a, b in pairs)
    if kind == 6:
        relation = rng.choice(world.RELATIONS)
        names = world.subjects(relation.kind)
        chosen = rng.sample(names, rng.randint(1, min(4, len(names))))
        return "\n".join(
            f"Question: {world.question(rng, relation, name, Split.TRAIN)}\n"
            f"Answer: {relation.answer_for(name)}"
            for name in chosen
        )
    return poem_text(rng, rng.choice(pools.ANIMALS + pools.OBJECTS))
