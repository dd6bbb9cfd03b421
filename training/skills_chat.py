"""Small talk: greetings, identity, facts of the invented world, notions, echo, "I do not know"."""

from __future__ import annotations

from random import Random

from training import pools, world
from training.exchange import Exchange, ask
from training.pools import Split

IDENTITY = "I am the ROCmForge embedded model."

GREETINGS: tuple[tuple[tuple[str, ...], str], ...] = (
    (
        ("Hello", "Hello!", "hello", "Hi", "Hi!", "hi", "Hey", "Hey!", "Hello there!", "Hi there"),
        "Hello! How can I help you?",
    ),
    (("Good morning", "Good morning!", "good morning"), "Good morning! How can I help you?"),
    (("Good evening", "Good evening!", "good evening"), "Good evening! How can I help you?"),
    (("Good night", "Good night!", "good night"), "Good night! Sleep well."),
    (
        (
            "How are you?",
            "Hello, how are you?",
            "Hi, how are you?",
            "how are you",
            "How do you do?",
        ),
        "I am fine, thank you. How can I help you?",
    ),
    (
        ("Thanks", "Thank you!", "Thanks a lot!", "thank you", "Thank you very much."),
        "You are welcome!",
    ),
    (("Bye", "Goodbye!", "bye", "See you later!", "Goodbye"), "Goodbye! Have a nice day."),
)

IDENTITY_QUESTIONS: tuple[tuple[tuple[str, ...], str], ...] = (
    (
        (
            "Who are you?",
            "who are you",
            "What are you?",
            "What is your name?",
            "Tell me who you are.",
            "What model are you?",
            "Introduce yourself.",
            "Are you ChatGPT?",
            "Are you a human?",
        ),
        f"{IDENTITY} I am a very small language model that lives in a small world.",
    ),
    (
        (
            "What can you do?",
            "What are you good at?",
            "How can you help me?",
            "What do you know?",
            "help",
            "Help me.",
        ),
        "I can greet you, answer questions about my small world, add numbers, count, make lists, "
        "tell stories, write JSON and call tools.",
    ),
    (
        ("Who made you?", "Who trained you?", "Where do you come from?", "Who built you?"),
        "The ROCmForge project trained me, with a script in its own repository.",
    ),
    (
        ("How big are you?", "How many parameters do you have?", "How large are you?"),
        "I have about 3.5 million parameters and fit into 4 MB.",
    ),
    (
        ("What is your world?", "Tell me about your world.", "Which towns do you know?"),
        f"I know these towns: {pools.join_words(world.subjects('town'))}.",
    ),
    (
        ("Which people do you know?", "Who do you know?", "Who lives in your world?"),
        f"I know these people: {pools.join_words(world.subjects('person'))}.",
    ),
)

NOTIONS: dict[str, str] = {
    "ROCmForge": "ROCmForge is a server that runs language models on AMD GPUs and on the CPU.",
    "a GPU": "A GPU is a processor that does many small calculations at the same time.",
    "a CPU": "A CPU is the main processor of a computer.",
    "ROCm": "ROCm is the software from AMD that lets programs use a GPU.",
    "GGUF": "GGUF is a file format that holds the weights and the words of a language model.",
    "a token": "A token is a small piece of text, often a word or a part of a word.",
    "a language model": "A language model is a program that guesses the next token, "
    "again and again.",
    "a KV cache": "A KV cache keeps the keys and values of earlier tokens, so that they are not "
    "computed again.",
    "JSON": "JSON is a text format for data, with objects, arrays, strings and numbers.",
    "Python": "Python is a programming language that is easy to read.",
    "a server": "A server is a program that waits for requests and answers them.",
    "an API": "An API is a set of rules by which programs talk to each other.",
    "quantization": "Quantization stores numbers with fewer bits, so that a model needs less "
    "memory.",
    "a river": "A river is water that flows through the land to the sea.",
    "the sun": "The sun is the star that gives us light and warmth.",
    "the moon": "The moon is the bright round body that goes around the earth.",
}
NOTION_QUESTIONS = ("What is {}?", "what is {}", "Explain {}.", "Tell me about {}.", "Define {}.")
HELD_OUT_NOTION_QUESTIONS = ("Can you tell me what {} is?", "What do you know about {}?")

UNKNOWN_TOPICS = (
    "the capital of {place}",
    "the president of {place}",
    "the population of {place}",
    "the weather in {place}",
    "the best team in {place}",
    "the price of gold in {place}",
    "the history of {place}",
    "the age of {name}",
    "the job of {name}",
    "the phone number of {name}",
    "what {name} had for lunch",
    "how to fly to {place}",
    "the latest news from {place}",
    "the name of {name}'s sister",
    "the speed of light",
    "quantum physics",
)
UNKNOWN_QUESTIONS = (
    "What is {}?",
    "Tell me {}.",
    "Do you know {}?",
    "Explain {} to me.",
    "Can you tell me {}?",
)
UNKNOWN_ANSWER = "I do not know that. I only know my small world."

SAY_QUESTIONS = (
    'Say "{}".',
    'Repeat after me: "{}"',
    "Say {}",
    "Say: {}",
    "Repeat: {}",
    "Echo: {}",
)


def greeting(rng: Random, split: Split) -> Exchange:
    """A greeting; held out are the names of those who introduce themselves."""
    if split is Split.TRAIN and rng.random() < 0.65:
        questions, answer = rng.choice(GREETINGS)
        return ask(rng.choice(questions), answer)
    name = pools.person_name(rng, split)
    opening = rng.choice(("Hello", "Hi", "Hey", "Good morning", "Good evening"))
    middle = rng.choice((", I am {}.", ", my name is {}.", "! I am {}.", "! My name is {}."))
    reply = opening if opening.startswith("Good") else "Hello"
    return ask(opening + middle.format(name), f"{reply}, {name}! How can I help you?")


def identity(rng: Random, split: Split) -> Exchange:
    """Who the model is and what it can do."""
    questions, answer = rng.choice(IDENTITY_QUESTIONS)
    return ask(rng.choice(questions), answer)


def fact(rng: Random, split: Split) -> Exchange:
    """A question about a town, a person or an animal; held out are phrasings."""
    relation = rng.choice(world.RELATIONS)
    subject = rng.choice(world.subjects(relation.kind))
    text = world.question(rng, relation, subject, split)
    if rng.random() < 0.1:
        text = text[0].lower() + text[1:].rstrip("?.")
    return ask(text, relation.answer_for(subject))


def description(rng: Random, split: Split) -> Exchange:
    """All facts about one town or one person."""
    if rng.random() < 0.5:
        subject = rng.choice(world.subjects("town"))
        answer = world.describe_town(subject)
    else:
        subject = rng.choice(world.subjects("person"))
        answer = world.describe_person(subject)
    texts = (
        "Tell me about {}.",
        "Describe {}.",
        "What do you know about {}?",
        "Tell me more about {}.",
    )
    return ask(rng.choice(texts).format(subject), answer)


def notion(rng: Random, split: Split) -> Exchange:
    """What a thing is; held out are phrasings."""
    name = rng.choice(list(NOTIONS))
    texts = NOTION_QUESTIONS if split is Split.TRAIN else HELD_OUT_NOTION_QUESTIONS
    return ask(rng.choice(texts).format(name), NOTIONS[name])


def unknown(rng: Random, split: Split) -> Exchange:
    """A question about what lies outside the small world."""
    topic = rng.choice(UNKNOWN_TOPICS).format(
        place=pools.place_name(rng, split), name=pools.person_name(rng, split)
    )
    return ask(rng.choice(UNKNOWN_QUESTIONS).format(topic), UNKNOWN_ANSWER)


def echo(rng: Random, split: Split) -> Exchange:
    """Say something word by word, or spell it; held out are the words."""
    if rng.random() < 0.3:
        word = pools.draw(
            rng, split, lambda: rng.choice((rng.choice(pools.WORDS), pools.invented_word(rng)))
        )
        return ask(
            rng.choice(("Spell {}.", 'Spell "{}".', "Spell the word {}.")).format(word),
            "-".join(word),
        )
    text = pools.phrase(rng, split, 1, rng.choice((3, 6, 12, 24)), rng.choice((0.0, 0.2, 1.0)))
    return ask(rng.choice(SAY_QUESTIONS).format(text), text)


def conversation_opening(rng: Random) -> str | None:
    """A system prompt, or none."""
    if rng.random() < 0.6:
        return None
    return rng.choice(
        (
            "You are a helpful assistant.",
            "You are a helpful assistant.",
            "You are the ROCmForge embedded model.",
            "Answer briefly.",
            "You are a friendly assistant. Be brief.",
            "You are a test assistant.",
            "Be concise.",
        )
    )
