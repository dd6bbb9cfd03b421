"""Held-out accuracy of every skill, measured on the exported GGUF file with greedy decoding.

    python -m training.evaluate --results training/results.json

An answer counts only when it equals the expected one: character by character, or as parsed JSON
for JSON answers and tool calls.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import torch
from tokenizers import Tokenizer

from training import skills_chat, skills_json, skills_numbers, skills_text, skills_tools
from training.corpus import Renderer, Skill
from training.exchange import Message
from training.gguf_model import load_gguf
from training.pools import Split
from training.tiny_llama import TinyLlama
from training.tokenizer import END_OF_TEXT, TURN_END, load_tokenizer

SEED = 77
MAX_ANSWER_TOKENS = 320

# What is kept out of training, per skill; a skill with nothing to keep out is asked as in training.
CHECKS: dict[str, tuple[Skill, Split, str]] = {
    "greeting": (skills_chat.greeting, Split.HELD_OUT, "names of those who introduce themselves"),
    "identity": (skills_chat.identity, Split.TRAIN, "nothing: the questions are those of training"),
    "fact": (skills_chat.fact, Split.HELD_OUT, "phrasings of the questions"),
    "notion": (skills_chat.notion, Split.HELD_OUT, "phrasings of the questions"),
    "unknown": (skills_chat.unknown, Split.HELD_OUT, "names and places"),
    "echo": (skills_chat.echo, Split.HELD_OUT, "the words to repeat or to spell"),
    "addition": (
        skills_numbers.addition,
        Split.HELD_OUT,
        "pairs of two-digit summands, in both orders",
    ),
    "subtraction": (skills_numbers.subtraction, Split.HELD_OUT, "pairs of two-digit numbers"),
    "comparison": (skills_numbers.comparison, Split.HELD_OUT, "pairs of two-digit numbers"),
    "counting": (skills_numbers.counting, Split.HELD_OUT, "ranges"),
    "listing": (skills_text.listing, Split.HELD_OUT, "pairs of a kind and a length"),
    "json": (skills_json.json_answer, Split.HELD_OUT, "values, and combinations of keys"),
    "tool_call": (skills_tools.tool_call, Split.HELD_OUT, "argument values"),
    "unused_tools": (skills_tools.unused_tools, Split.HELD_OUT, "as of the skill that is asked"),
}


@dataclass
class Score:
    """Right answers among those asked."""

    right: int = 0
    asked: int = 0

    def add(self, is_right: bool) -> None:
        """Count one answer."""
        self.right += is_right
        self.asked += 1

    @property
    def accuracy(self) -> float:
        """Share of right answers."""
        return self.right / self.asked


class Chat:
    """Greedy answers of a model."""

    def __init__(self, model: TinyLlama, tokenizer: Tokenizer) -> None:
        self._model = model
        self._tokenizer = tokenizer
        self._renderer = Renderer()
        self._stops = {tokenizer.token_to_id(TURN_END), tokenizer.token_to_id(END_OF_TEXT)}

    def answer(self, messages: list[Message], tools: list[dict[str, Any]] | None = None) -> str:
        """The assistant's next turn."""
        return self.continue_text(self._renderer.chat(messages, tools, add_generation_prompt=True))

    @torch.inference_mode()
    def continue_text(self, text: str, max_tokens: int = MAX_ANSWER_TOKENS) -> str:
        """Greedy continuation of a text, without its stop token."""
        caches, start, produced = self._model.new_caches(), 0, []
        ids = self._tokenizer.encode(text).ids
        while len(produced) < max_tokens:
            hidden = self._model.hidden(torch.tensor([ids]), start, caches)
            start += len(ids)
            token = int(self._model.logits(hidden[0, -1]).argmax())
            if token in self._stops:
                break
            produced.append(token)
            ids = [token]
        return self._tokenizer.decode(produced, skip_special_tokens=False)


def parsed_calls(text: str) -> list[Any] | None:
    """The calls in an answer, or None when it holds anything else."""
    blocks = re.findall(r"<tool_call>(.*?)</tool_call>", text, re.DOTALL)
    if not blocks or re.sub(r"<tool_call>.*?</tool_call>", "", text, flags=re.DOTALL).strip():
        return None
    try:
        return [json.loads(block) for block in blocks]
    except json.JSONDecodeError:
        return None


def is_right(expected: Message, answer: str) -> bool:
    """Whether an answer says what was expected."""
    if calls := expected.get("tool_calls"):
        return parsed_calls(answer) == [call["function"] for call in calls]
    content = expected["content"]
    if content.startswith(("{", "[")):
        try:
            return json.loads(answer) == json.loads(content)
        except json.JSONDecodeError:
            return False
    return answer == content


def check_skill(chat: Chat, name: str, count: int, show_wrong: int) -> dict[str, Score]:
    """Ask a skill's questions; the turn after a tool's result is scored apart."""
    skill, split, _ = CHECKS[name]
    rng = Random(f"{SEED}:{name}")
    scores: dict[str, Score] = {}
    for _ in range(count):
        exchange = skill(rng, split)
        for position, message in enumerate(exchange.messages):
            if message["role"] != "assistant":
                continue
            answer = chat.answer(exchange.messages[:position], exchange.tools)
            verdict = is_right(message, answer)
            after_tool = exchange.messages[position - 1]["role"] == "tool"
            scores.setdefault("tool_result" if after_tool else name, Score()).add(verdict)
            if not verdict and show_wrong > 0:
                show_wrong -= 1
                print(f"  {exchange.messages[position - 1]['content']!r} -> {answer!r}")
    return scores


def evaluate(chat: Chat, count: int, show_wrong: int = 0) -> dict[str, Score]:
    """Scores of all skills, printed as they come."""
    result: dict[str, Score] = {}
    for name in CHECKS:
        for part, score in check_skill(chat, name, count, show_wrong).items():
            result[part] = score
            print(f"{part:14} {score.accuracy:7.1%}  of {score.asked}", flush=True)
    return result


def results(arguments: argparse.Namespace, scores: dict[str, Score]) -> dict[str, Any]:
    """What the model card states: the file, its training, and the scores."""
    data = arguments.model.read_bytes()
    state = torch.load(arguments.run / "checkpoint.pt", weights_only=True)
    progress = state["progress"]
    return {
        "sha256": hashlib.sha256(data).hexdigest(),
        "file_bytes": len(data),
        "parameters": sum(tensor.numel() for tensor in state["model"].values()),
        "trained_tokens": progress["tokens"],
        "learnt_tokens": progress["learnt_tokens"],
        "steps": progress["step"],
        "training_seconds": round(progress["used_seconds"]),
        "final_loss": round(sum(progress["losses"][-100:]) / 100, 4),
        "held_out": {name: {"right": s.right, "asked": s.asked} for name, s in scores.items()},
    }


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description="Held-out accuracy of the exported model.")
    parser.add_argument(
        "--model", type=Path, default=Path("rocmforge/embedded/rocmforge-tiny.gguf")
    )
    parser.add_argument("--run", type=Path, default=Path("training/runs/main"))
    parser.add_argument("--count", type=int, default=200, help="questions per skill")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument(
        "--show-wrong", type=int, default=0, help="wrong answers to print per skill"
    )
    parser.add_argument("--results", type=Path, help="where to write the scores as JSON")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    tokenizer = load_tokenizer(arguments.run / "tokenizer.json")
    chat = Chat(load_gguf(arguments.model), tokenizer)
    scores = evaluate(chat, arguments.count, arguments.show_wrong)
    if arguments.results:
        arguments.results.write_text(json.dumps(results(arguments, scores), indent=2) + "\n")


if __name__ == "__main__":
    main()
