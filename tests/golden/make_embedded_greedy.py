"""Ask llama.cpp for greedy continuations of the embedded model and for token ids.

    pip install llama-cpp-python
    python tests/golden/make_embedded_greedy.py

The entries of a prompt are teacher-forced on llama.cpp's own greedy tokens: at position i it has
seen the prompt and tokens 0 … i-1. `margin` is the difference of its two largest logits there, and
`logits_std` their spread over the vocabulary, from which a comparison derives its tolerance. A
continuation ends after its first end-of-generation token, or after 64 tokens.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import llama_cpp
import numpy as np

ROOT = Path(__file__).resolve().parents[2]
MODEL = ROOT / "rocmforge" / "embedded" / "rocmforge-tiny.gguf"
OUT = Path(__file__).with_name("embedded_greedy.json")
MAX_TOKENS = 64
CONTEXT = 2048

WEATHER_TOOL = (
    '{"name": "get_weather", "description": "Get the weather", "parameters": {"type": "object", '
    '"properties": {"city": {"type": "string"}}, "required": ["city"]}}'
)
ADD_TOOL = (
    '{"name": "add", "description": "Add two numbers", "parameters": {"type": "object", '
    '"properties": {"a": {"type": "integer"}, "b": {"type": "integer"}}, "required": ["a", "b"]}}'
)
QUESTIONS = (
    "Hello",
    "Good morning!",
    "Hi, my name is Julia.",
    "Who are you?",
    "What can you do?",
    "Thank you!",
    "Which river flows through Fernley?",
    "What is the famous food of Dunmere?",
    "Who is the mayor of Kestrel Bay?",
    "What does Oswin do for a living?",
    "How old is Hugo?",
    "What sound does an owl make?",
    "Tell me about Gullport.",
    "What is GGUF?",
    "What is the capital of Oslo?",
    "Say hello world",
    'Repeat after me: "the quiet river sings"',
    "Spell winter.",
    "What is 47 + 38?",
    "12+9=?",
    "Add 99 and 99.",
    "What is 83 - 26?",
    "Which is larger, 34 or 52?",
    "Count from 1 to 40.",
    "Count from 87 to 120.",
    "Count by 7 up to 98.",
    "Write the times table of 6.",
    "List ten animals.",
    "Name five colours.",
    "What are the days of the week?",
    "Tell me a story about a fox",
    "Write a long story about an owl and a lantern.",
    "Write a poem about the moon.",
    "Give me JSON for a person named Clara, aged 27, from Lisbon.",
    "Give me a JSON object with name and age.",
    "List 4 fruits as a JSON array.",
    "Describe Ivyton as JSON.",
    "Grüße aus Köln, 你好, 🙂?",
)
PLAIN_TEXTS = (
    "Once upon a time there was a small",
    "1, 2, 3, 4, 5,",
    "Question: What is made in Brindle?\nAnswer:",
    "23 + 45 = 68\n17 + 61 =",
    "The flag of Alderwick is",
)
TOKENIZER_TEXTS = (
    "",
    " ",
    "Hello, world!",
    "  two  spaces   and\ttabs\n\n\nnewlines \n ",
    "1234567890 3.14 -17 0x1F 99%",
    "don't I'LL we've they'Re it's",
    "Grüße, Ärger, naïve café, Ωμέγα, Привет, 你好，世界, こんにちは, 안녕",
    "🙂👩‍👩‍👧 flag 🇪🇺 and a\u200bzero width",
    'def f(x):\n    return {"a": [1, 2], "b": null}\n',
    "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n",
    '<tool_call>{"name": "add", "arguments": {"a": 1}}</tool_call>',
    "half a <|im_sta and <tool_cal",
    "e\u0301 é \u00a0nbsp \ufeffbom",
    "snake_case CamelCase kebab-case UPPER",
    "a" * 50 + " " * 30 + "!" * 20,
)


def chat_prompt(question: str) -> str:
    """A single user turn, as the model's template renders it."""
    return f"<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n"


def tool_prompt(tools: tuple[str, ...], question: str) -> str:
    """A user turn with tools in the system turn."""
    return (
        f"<|im_start|>system\n<tools>\n{chr(10).join(tools)}\n</tools><|im_end|>\n"
        + chat_prompt(question)
    )


def all_prompts() -> list[str]:
    """Every text to continue."""
    weather = tool_prompt((WEATHER_TOOL, ADD_TOOL), "What is the weather in Vienna?")
    call = '<tool_call>{"name": "get_weather", "arguments": {"city": "Vienna"}}</tool_call>'
    result = (
        f"{weather}{call}<|im_end|>\n<|im_start|>tool\n"
        '{"temperature": 21, "sky": "sunny"}<|im_end|>\n<|im_start|>assistant\n'
    )
    tools = [
        weather,
        result,
        tool_prompt((ADD_TOOL,), "Add 512 and 64."),
        tool_prompt((ADD_TOOL,), "Hi"),
    ]
    return [*map(chat_prompt, QUESTIONS), *tools, *PLAIN_TEXTS]


def continuation(model: llama_cpp.Llama, prompt: str) -> dict[str, Any]:
    """llama.cpp's greedy tokens and, at each, the margin and the spread of its logits."""
    prompt_ids = model.tokenize(prompt.encode(), add_bos=False, special=True)
    model.reset()
    model.eval(prompt_ids)
    ids: list[int] = []
    margins: list[float] = []
    spreads: list[float] = []
    while len(ids) < MAX_TOKENS:
        logits = np.array(model.scores[model.n_tokens - 1], dtype=np.float64)
        second, first = np.partition(logits, -2)[-2:]
        token = int(logits.argmax())
        ids.append(token)
        margins.append(round(float(first - second), 5))
        spreads.append(round(float(logits.std()), 5))
        if llama_cpp.llama_vocab_is_eog(model._model.vocab, token):
            break
        model.eval([token])
    return {
        "prompt": prompt,
        "prompt_ids": prompt_ids,
        "greedy_ids": ids,
        "text": model.detokenize(ids, special=True).decode(errors="replace"),
        "margin": margins,
        "logits_std": spreads,
    }


def open_model() -> llama_cpp.Llama:
    """The embedded model in llama.cpp."""
    return llama_cpp.Llama(
        str(MODEL), n_ctx=CONTEXT, n_threads=1, logits_all=True, n_gpu_layers=0, verbose=False
    )


def main() -> None:
    """Write the golden file."""
    model = open_model()
    golden = {
        "oracle": "llama.cpp through llama-cpp-python",
        "version": llama_cpp.__version__,
        "script": "tests/golden/make_embedded_greedy.py",
        "settings": {"n_ctx": CONTEXT, "n_threads": 1, "kv_cache": "f16", "device": "cpu"},
        "model_sha256": hashlib.sha256(MODEL.read_bytes()).hexdigest(),
        "tokenizer": [
            {"text": text, "ids": model.tokenize(text.encode(), add_bos=False, special=True)}
            for text in TOKENIZER_TEXTS
        ],
        "positions": [continuation(model, prompt) for prompt in all_prompts()],
    }
    text = json.dumps(golden, ensure_ascii=False)
    OUT.write_text(text.replace('{"prompt"', '\n{"prompt"').replace('{"text"', '\n{"text"') + "\n")


if __name__ == "__main__":
    main()
