"""Tool calls: reading a function's schema, filling its arguments, and answering from its result.

Held out are the argument values. Parameter names vary, so that a call has to follow the schema.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Any

from training import pools, skills_chat
from training.exchange import Exchange, Message
from training.pools import Split
from training.skills_numbers import pair_split

Draw = Callable[[Random, Split], Any]


def _number(low: int, high: int) -> Draw:
    def make(rng: Random, split: Split) -> int:
        return int(pools.draw(rng, split, lambda: str(rng.randint(low, high))))

    return make


def _choice(*values: str) -> Draw:
    return lambda rng, split: rng.choice(values)


@dataclass(frozen=True)
class Parameter:
    """One argument: the names a schema may use for it, its JSON type and its values."""

    names: tuple[str, ...]
    type: str
    draw: Draw
    enum: tuple[str, ...] = ()


@dataclass(frozen=True)
class Function:
    """One function: names, purposes, how a user asks for it, what it returns, and the reply."""

    names: tuple[str, ...]
    descriptions: tuple[str, ...]
    parameters: tuple[Parameter, ...]
    questions: tuple[str, ...]
    result: Callable[[Random, list[Any]], dict[str, Any]]
    reply: str


SKIES = ["sunny", "cloudy", "rainy", "windy", "snowy", "foggy"]
UNITS = ("celsius", "fahrenheit")
CITY = Parameter(("city", "location", "city", "place", "town"), "string", pools.place_name)

FUNCTIONS: tuple[Function, ...] = (
    Function(
        ("get_weather", "get_weather", "get_current_weather", "weather"),
        (
            "Get the weather",
            "Get the current weather in a city",
            "Get current temperature for a location.",
        ),
        (CITY,),
        (
            "What is the weather in {0}?",
            "What's the weather like in {0}?",
            "How is the weather in {0} today?",
            "Weather in {0}?",
            "Tell me the weather in {0}.",
            "Is it raining in {0}?",
            "what is the weather in {0}",
        ),
        lambda rng, args: {"temperature": rng.randint(-9, 39), "sky": rng.choice(SKIES)},
        "It is {temperature} degrees and {sky} in {0}.",
    ),
    Function(
        ("get_weather", "get_current_weather"),
        ("Get the weather in a given unit", "Get the current weather"),
        (CITY, Parameter(("unit", "units"), "string", _choice(*UNITS), UNITS)),
        ("What is the weather in {0} in {1}?", "How warm is it in {0} in {1}?"),
        lambda rng, args: {"temperature": rng.randint(-9, 39), "sky": rng.choice(SKIES)},
        "It is {temperature} degrees and {sky} in {0}.",
    ),
    Function(
        ("add", "add_numbers", "sum", "calculate_sum"),
        ("Add two numbers", "Return the sum of two integers"),
        (
            Parameter(("a", "x", "first"), "integer", _number(0, 999)),
            Parameter(("b", "y", "second"), "integer", _number(0, 999)),
        ),
        (
            "Add {0} and {1}.",
            "What is {0} + {1}?",
            "What is {0} plus {1}?",
            "Use the tool to add {0} and {1}.",
        ),
        lambda rng, args: {"result": args[0] + args[1]},
        "The result is {result}.",
    ),
    Function(
        ("get_time", "get_current_time", "current_time"),
        ("Get the current time in a city", "Tell the time"),
        (CITY,),
        ("What time is it in {0}?", "Tell me the time in {0}.", "What is the time in {0}?"),
        lambda rng, args: {"time": f"{rng.randint(0, 23):02}:{rng.randint(0, 59):02}"},
        "It is {time} in {0}.",
    ),
    Function(
        ("set_timer", "start_timer"),
        ("Set a timer", "Start a timer for some minutes"),
        (Parameter(("minutes", "duration"), "integer", _number(1, 180)),),
        ("Set a timer for {0} minutes.", "Start a {0} minute timer.", "Wake me in {0} minutes."),
        lambda rng, args: {"status": "ok"},
        "The timer is set to {0} minutes.",
    ),
    Function(
        ("send_message", "send_email"),
        ("Send a message to a person",),
        (
            Parameter(("to", "recipient", "name"), "string", pools.person_name),
            Parameter(("text", "message", "body"), "string", pools.phrase),
        ),
        ('Send "{1}" to {0}.', 'Send a message to {0}: "{1}"', 'Write to {0}: "{1}"'),
        lambda rng, args: {"status": rng.choice(("sent", "sent", "failed"))},
        "The message to {0} was {status}.",
    ),
    Function(
        ("search", "web_search", "search_documents"),
        ("Search for documents", "Search the web"),
        (Parameter(("query", "q"), "string", lambda rng, split: pools.phrase(rng, split, 1, 4)),),
        ('Search for "{0}".', "Search for {0}.", 'Find documents about "{0}".'),
        lambda rng, args: {"title": f"{rng.choice(pools.WORDS)} {rng.choice(pools.WORDS)}"},
        "I found this: {title}.",
    ),
    Function(
        ("get_price", "lookup_price"),
        ("Get the price of an item",),
        (Parameter(("item", "product"), "string", lambda rng, split: rng.choice(pools.OBJECTS)),),
        ("How much does a {0} cost?", "What is the price of a {0}?", "Look up the price of a {0}."),
        lambda rng, args: {"price": rng.randint(1, 99)},
        "The price is {price}.",
    ),
    Function(
        ("book_table", "reserve_table"),
        ("Book a table for some people",),
        (
            Parameter(("name", "guest"), "string", pools.person_name),
            Parameter(("people", "guests", "seats"), "integer", _number(1, 30)),
        ),
        ("Book a table for {1} people for {0}.", "Reserve a table for {1} in the name of {0}."),
        lambda rng, args: {"table": rng.randint(1, 40)},
        "Table {table} is booked for {0}.",
    ),
    Function(
        ("turn_on", "switch_on"),
        ("Turn on a device",),
        (
            Parameter(
                ("device", "name"), "string", lambda rng, split: pools.phrase(rng, split, 1, 2)
            ),
        ),
        ("Turn on the {0}.", "Switch on the {0}.", "Please turn on the {0}."),
        lambda rng, args: {"status": "ok"},
        "The {0} is on.",
    ),
)


@dataclass(frozen=True)
class Offer:
    """A function under the names that one conversation gives it."""

    function: Function
    name: str
    parameter_names: tuple[str, ...]
    schema: dict[str, Any]


def offer(rng: Random, function: Function) -> Offer:
    """Choose names and write the schema in one of the shapes that clients send."""
    name = rng.choice(function.names)
    names = tuple(rng.choice(parameter.names) for parameter in function.parameters)
    properties: dict[str, Any] = {}
    for parameter, parameter_name in zip(function.parameters, names, strict=True):
        properties[parameter_name] = {"type": parameter.type}
        if parameter.enum:
            properties[parameter_name]["enum"] = list(parameter.enum)
    parameters: dict[str, Any] = {"type": "object", "properties": properties}
    if rng.random() < 0.8:
        parameters["required"] = list(names)
    if rng.random() < 0.15:
        parameters["additionalProperties"] = False
    schema: dict[str, Any] = {"name": name}
    if rng.random() < 0.8:
        schema["description"] = rng.choice(function.descriptions)
    schema["parameters"] = parameters
    return Offer(function, name, names, {"type": "function", "function": schema})


def offers(rng: Random, wanted: Function | None) -> list[Offer]:
    """One to three functions with different names, the wanted one among them."""
    chosen = [wanted] if wanted else []
    while len(chosen) < rng.choice((1, 1, 2, 3)):
        chosen.append(rng.choice(FUNCTIONS))
    result: list[Offer] = []
    for function in chosen:
        candidate = offer(rng, function)
        if all(candidate.name not in other.function.names for other in result):
            result.append(candidate)
    rng.shuffle(result)
    return result


def call_message(calls: list[tuple[str, dict[str, Any]]]) -> Message:
    """The assistant turn that calls functions, as the OpenAI API writes it."""
    return {
        "role": "assistant",
        "content": None,
        "tool_calls": [
            {"type": "function", "function": {"name": name, "arguments": arguments}}
            for name, arguments in calls
        ],
    }


def draw_values(rng: Random, split: Split, function: Function) -> list[Any]:
    """Arguments of the split; no held-out pair of summands slips into training by way of a tool."""
    while True:
        values = [parameter.draw(rng, split) for parameter in function.parameters]
        is_sum = len(values) == 2 and all(
            isinstance(value, int) and value < 100 for value in values
        )
        if not is_sum or pair_split(*values) is split:
            return values


def tool_call(rng: Random, split: Split) -> Exchange:
    """A question that a tool answers: the call, and perhaps its result and the reply."""
    function = rng.choice(FUNCTIONS)
    offered = offers(rng, function)
    chosen = next(item for item in offered if item.function is function)
    values = draw_values(rng, split, function)
    question = rng.choice(function.questions).format(*values)
    arguments = dict(zip(chosen.parameter_names, values, strict=True))
    messages: list[Message] = [
        {"role": "user", "content": question},
        call_message([(chosen.name, arguments)]),
    ]
    if split is Split.HELD_OUT or rng.random() < 0.5:
        messages += result_messages(rng, function, values)
    return Exchange(messages, tools=[item.schema for item in offered])


def result_messages(rng: Random, function: Function, values: list[Any]) -> list[Message]:
    """What the tool returned and the assistant's reply."""
    result = function.result(rng, values)
    content = json.dumps(result)
    if len(result) == 1 and rng.random() < 0.25:
        content = str(next(iter(result.values())))
    reply = function.reply.format(*values, **result)
    return [{"role": "tool", "content": content}, {"role": "assistant", "content": reply}]


def double_call(rng: Random, split: Split) -> Exchange:
    """The weather in two cities, asked with two calls at once."""
    chosen = offer(rng, FUNCTIONS[0])
    cities = [pools.place_name(rng, split), pools.place_name(rng, split)]
    text = rng.choice(("What is the weather in {} and {}?", "Weather in {} and {}?"))
    calls = [(chosen.name, {chosen.parameter_names[0]: city}) for city in cities]
    return Exchange(
        [{"role": "user", "content": text.format(*cities)}, call_message(calls)],
        tools=[chosen.schema],
    )


def unused_tools(rng: Random, split: Split) -> Exchange:
    """Tools are there, but the question needs none."""
    makers = (skills_chat.greeting, skills_chat.identity, skills_chat.fact, skills_chat.echo)
    exchange = rng.choice(makers)(rng, split)
    exchange.tools = [item.schema for item in offers(rng, None)]
    return exchange
