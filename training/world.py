"""The small invented world that the embedded model knows, and how one asks for it.

A relation has phrasings for training and phrasings that only the evaluation uses. An answer is one
fixed sentence, so that a greedy answer is either right or wrong.
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from training.pools import Split, with_article

TOWN_FIELDS = ("flag", "river", "mayor", "food", "bridges", "craft")
TOWNS: dict[str, tuple[str, str, str, str, str, str]] = {
    "Alderwick": ("red", "Silverrun", "Mira", "onion soup", "seven", "clocks"),
    "Brindle": ("blue", "Otterbrook", "Tobin", "plum cake", "two", "ropes"),
    "Cobbleford": ("green", "Longwater", "Anselm", "barley bread", "nine", "boots"),
    "Dunmere": ("yellow", "Mistel", "Petra", "smoked trout", "four", "nets"),
    "Eastholm": ("white", "Quickwell", "Oswin", "honey tart", "three", "candles"),
    "Fernley": ("orange", "Mossbeck", "Linnea", "mushroom pie", "five", "baskets"),
    "Gullport": ("purple", "Saltery", "Bram", "crab stew", "six", "boats"),
    "Hazelby": ("brown", "Nutwater", "Sorrel", "hazel cookies", "one", "chairs"),
    "Ivyton": ("gold", "Greenling", "Corin", "apple dumplings", "eight", "bells"),
    "Kestrel Bay": ("black", "Windle", "Thea", "seaweed rice", "ten", "kites"),
    "Lanternside": ("silver", "Glimmer", "Hugo", "pumpkin bread", "eleven", "lanterns"),
    "Marrow Hill": ("pink", "Stonefall", "Wilma", "lentil curry", "twelve", "bricks"),
}

PERSON_FIELDS = ("job", "pet", "colour", "instrument", "age")
PEOPLE: dict[str, tuple[str, str, str, str, str]] = {
    "Mira": ("baker", "cat", "green", "flute", "34"),
    "Tobin": ("sailor", "parrot", "blue", "drum", "52"),
    "Anselm": ("teacher", "dog", "brown", "violin", "61"),
    "Petra": ("fisher", "otter", "silver", "harp", "29"),
    "Oswin": ("beekeeper", "goat", "yellow", "horn", "47"),
    "Linnea": ("doctor", "rabbit", "white", "piano", "38"),
    "Bram": ("carpenter", "duck", "orange", "accordion", "55"),
    "Sorrel": ("gardener", "hedgehog", "pink", "lute", "26"),
    "Corin": ("painter", "raven", "purple", "guitar", "43"),
    "Thea": ("pilot", "falcon", "black", "trumpet", "31"),
    "Hugo": ("librarian", "owl", "gold", "cello", "68"),
    "Wilma": ("mason", "pony", "red", "banjo", "59"),
}

ANIMAL_FIELDS = ("sound", "home", "meal", "legs")
ANIMALS: dict[str, tuple[str, str, str, str]] = {
    "fox": ("yap", "den", "berries", "four"),
    "owl": ("hoot", "hollow tree", "mice", "two"),
    "bear": ("growl", "cave", "honey", "four"),
    "wolf": ("howl", "forest", "meat", "four"),
    "cat": ("meow", "house", "fish", "four"),
    "dog": ("bark", "kennel", "bones", "four"),
    "horse": ("neigh", "stable", "oats", "four"),
    "cow": ("moo", "barn", "grass", "four"),
    "sheep": ("bleat", "meadow", "clover", "four"),
    "duck": ("quack", "pond", "seeds", "two"),
    "frog": ("croak", "marsh", "flies", "four"),
    "bee": ("buzz", "hive", "nectar", "six"),
    "hen": ("cluck", "coop", "corn", "two"),
    "mouse": ("squeak", "hole", "crumbs", "four"),
}


@dataclass(frozen=True)
class Relation:
    """One kind of fact: how it is asked, how it is answered."""

    kind: str
    field: str
    questions: tuple[str, ...]
    held_out_questions: tuple[str, ...]
    answer: str

    def fact(self, subject: str) -> str:
        """The value of this relation for a subject."""
        table, fields = _TABLES[self.kind]
        return table[subject][fields.index(self.field)]

    def answer_for(self, subject: str) -> str:
        """The sentence that answers any question of this relation about a subject."""
        return self.answer.format(s=subject, a=with_article(subject), v=self.fact(subject))


_TABLES: dict[str, tuple[dict, tuple[str, ...]]] = {
    "town": (TOWNS, TOWN_FIELDS),
    "person": (PEOPLE, PERSON_FIELDS),
    "animal": (ANIMALS, ANIMAL_FIELDS),
}

RELATIONS: tuple[Relation, ...] = (
    Relation(
        "town",
        "flag",
        (
            "What colour is the flag of {s}?",
            "What color is the flag of {s}?",
            "Which colour has the flag of {s}?",
            "Tell me the colour of {s}'s flag.",
            "Do you know the flag colour of {s}?",
            "What does the flag of {s} look like?",
            "{s}: what colour is its flag?",
        ),
        ("What is the colour of the flag in {s}?", "Can you tell me which colour {s}'s flag is?"),
        "The flag of {s} is {v}.",
    ),
    Relation(
        "town",
        "river",
        (
            "Which river flows through {s}?",
            "What river runs through {s}?",
            "Name the river of {s}.",
            "What is the river in {s} called?",
            "Tell me the river of {s}.",
            "What is the name of {s}'s river?",
            "Do you know which river {s} lies on?",
        ),
        ("What is the name of the river in {s}?", "Can you tell me which river runs by {s}?"),
        "The river in {s} is the {v}.",
    ),
    Relation(
        "town",
        "mayor",
        (
            "Who is the mayor of {s}?",
            "Who is mayor in {s}?",
            "Name the mayor of {s}.",
            "What is the name of {s}'s mayor?",
            "Who leads the town of {s}?",
            "Tell me who the mayor of {s} is.",
            "Which person is mayor of {s}?",
        ),
        ("Do you know who is the mayor of {s}?", "Tell me the name of the mayor of {s}."),
        "The mayor of {s} is {v}.",
    ),
    Relation(
        "town",
        "food",
        (
            "What food is {s} known for?",
            "What do people eat in {s}?",
            "Which dish is famous in {s}?",
            "What is the favourite food in {s}?",
            "Name the famous dish of {s}.",
            "What should I eat in {s}?",
            "Tell me the best food in {s}.",
        ),
        ("What is the famous food of {s}?", "Which food should I eat when I visit {s}?"),
        "People in {s} love {v}.",
    ),
    Relation(
        "town",
        "bridges",
        (
            "How many bridges does {s} have?",
            "How many bridges are in {s}?",
            "How many bridges are there in {s}?",
            "Tell me the number of bridges in {s}.",
            "What is the number of bridges in {s}?",
            "Count the bridges of {s}.",
        ),
        ("Do you know how many bridges {s} has?", "How many bridges can I see in {s}?"),
        "The number of bridges in {s} is {v}.",
    ),
    Relation(
        "town",
        "craft",
        (
            "What is made in {s}?",
            "What do people make in {s}?",
            "Which craft is {s} known for?",
            "What do the workshops of {s} make?",
            "What can I buy in {s}?",
            "Tell me what {s} makes.",
        ),
        ("What things do people make in {s}?", "Do you know what is made in {s}?"),
        "The workshops of {s} make {v}.",
    ),
    Relation(
        "person",
        "job",
        (
            "What is {s}'s job?",
            "What does {s} do?",
            "What does {s} do for a living?",
            "What work does {s} do?",
            "Tell me the job of {s}.",
            "What is the job of {s}?",
            "Do you know {s}'s job?",
        ),
        ("What does {s} do for work?", "Can you tell me what job {s} has?"),
        "{s} works as a {v}.",
    ),
    Relation(
        "person",
        "pet",
        (
            "What pet does {s} have?",
            "Which animal lives with {s}?",
            "What is {s}'s pet?",
            "Does {s} have a pet?",
            "Tell me about the pet of {s}.",
            "What kind of pet does {s} own?",
        ),
        ("Which pet does {s} own?", "Can you tell me what pet {s} has?"),
        "{s} has a pet {v}.",
    ),
    Relation(
        "person",
        "colour",
        (
            "What is {s}'s favourite colour?",
            "What is {s}'s favorite color?",
            "Which colour does {s} like best?",
            "What colour does {s} like?",
            "Tell me the favourite colour of {s}.",
            "Name {s}'s favourite colour.",
        ),
        ("What is the favourite colour of {s}?", "Do you know which colour {s} likes?"),
        "The favourite colour of {s} is {v}.",
    ),
    Relation(
        "person",
        "instrument",
        (
            "What instrument does {s} play?",
            "Which instrument does {s} play?",
            "What does {s} play?",
            "Tell me the instrument of {s}.",
            "What music does {s} make?",
            "Name the instrument that {s} plays.",
        ),
        ("Do you know what instrument {s} plays?", "What is {s}'s instrument?"),
        "{s} plays the {v}.",
    ),
    Relation(
        "person",
        "age",
        (
            "How old is {s}?",
            "What is {s}'s age?",
            "What is the age of {s}?",
            "Tell me how old {s} is.",
            "Do you know {s}'s age?",
            "How many years old is {s}?",
        ),
        ("Do you know how old {s} is?", "Tell me the age of {s}."),
        "{s} is {v} years old.",
    ),
    Relation(
        "animal",
        "sound",
        (
            "What sound does {a} make?",
            "What does {a} say?",
            "Which sound does {a} make?",
            "How does {a} sound?",
            "What noise does {a} make?",
            "Tell me the sound of {a}.",
        ),
        ("Do you know what sound {a} makes?", "What is the sound of {a}?"),
        "The sound of {a} is a {v}.",
    ),
    Relation(
        "animal",
        "home",
        (
            "Where does {a} live?",
            "Where does {a} sleep?",
            "What is the home of {a}?",
            "Where can I find {a}?",
            "Tell me where {a} lives.",
            "In what place does {a} live?",
        ),
        ("Do you know where {a} lives?", "Where is the home of {a}?"),
        "The home of {a} is the {v}.",
    ),
    Relation(
        "animal",
        "meal",
        (
            "What does {a} eat?",
            "What food does {a} like?",
            "What is the food of {a}?",
            "What should I feed {a}?",
            "Tell me what {a} eats.",
            "What do you give {a} to eat?",
        ),
        ("Do you know what {a} eats?", "Which food does {a} eat?"),
        "The best food for {a} is {v}.",
    ),
    Relation(
        "animal",
        "legs",
        (
            "How many legs does {a} have?",
            "How many legs has {a}?",
            "Count the legs of {a}.",
            "Tell me how many legs {a} has.",
            "What is the number of legs of {a}?",
        ),
        ("Do you know how many legs {a} has?", "Tell me the number of legs of {a}."),
        "The number of legs of {a} is {v}.",
    ),
)


def subjects(kind: str) -> list[str]:
    """Every town, person or animal."""
    return list(_TABLES[kind][0])


def question(rng: Random, relation: Relation, subject: str, split: Split) -> str:
    """A question in one of the split's phrasings."""
    held_out = split is Split.HELD_OUT
    texts = relation.held_out_questions if held_out else relation.questions
    return rng.choice(texts).format(s=subject, a=with_article(subject))


def describe_town(town: str) -> str:
    """All facts of a town as running text."""
    sentences = [relation.answer_for(town) for relation in RELATIONS if relation.kind == "town"]
    return " ".join(sentences)


def describe_person(person: str) -> str:
    """All facts of a person as running text."""
    sentences = [relation.answer_for(person) for relation in RELATIONS if relation.kind == "person"]
    return " ".join(sentences)
