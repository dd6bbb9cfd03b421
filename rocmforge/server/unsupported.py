"""Fields that clients of other servers send and that ask for something not built yet.

They are refused by name, never ignored: a client that believes its grammar was applied is worse off
than one that is told. A value that asks for nothing (null, or what other servers document as off or
as their default) passes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from rocmforge.errors import UnsupportedParameter

# field → values that ask for nothing, besides null.
_SAMPLERS: Final[dict[str, tuple[Any, ...]]] = {
    "typical_p": (1,),
    "top_n_sigma": (-1, 0),
    "xtc_probability": (0,),
    "xtc_threshold": (0.1,),
    "dynatemp_range": (0,),
    "dynatemp_exponent": (1,),
    "dry_multiplier": (0,),
    "dry_base": (1.75,),
    "dry_allowed_length": (2,),
    "dry_penalty_last_n": (-1, 0),
    "dry_sequence_breakers": ([], ["\n", ":", '"', "*"]),
    "mirostat": (0,),
    "mirostat_tau": (5,),
    "mirostat_eta": (0.1,),
    # Ours look at the whole context, which is what -1 asks for.
    "repeat_last_n": (-1,),
    "samplers": ([], ""),
    "grammar": ("",),
    "json_schema": (),
    "n_probs": (0,),
    "cache_prompt": (True,),
    "bad_words": ([],),
    "allowed_token_ids": ([],),
    "prompt_logprobs": (),
    "guided_choice": ([],),
    "guided_regex": ("",),
    "guided_json": (),
    "guided_grammar": ("",),
    "structured_outputs": (),
    "use_beam_search": (False,),
    "length_penalty": (1,),
}

CHAT: Final[dict[str, tuple[Any, ...]]] = _SAMPLERS | {
    "tools": ([],),
    "tool_choice": ("none", "auto"),
    "functions": ([],),
    "function_call": ("none", "auto"),
    "response_format": ({"type": "text"},),
    "reasoning_effort": ("none",),
    "modalities": (["text"],),
    "audio": (),
    "prediction": (),
    "web_search_options": (),
    "verbosity": ("medium",),
}

COMPLETIONS: Final[dict[str, tuple[Any, ...]]] = _SAMPLERS | {
    "suffix": ("",),
    "echo": (False,),
    "best_of": (1,),
    "response_format": ({"type": "text"},),
}

NATIVE: Final[dict[str, tuple[Any, ...]]] = _SAMPLERS


def refuse_unsupported(body: Mapping[str, Any], table: Mapping[str, tuple[Any, ...]]) -> None:
    """Raises UnsupportedParameter for the first field that asks for something not built yet."""
    for name in table.keys() & body.keys():
        value = body[name]
        if value is None or any(_equal(value, neutral) for neutral in table[name]):
            continue
        off = [repr(neutral) for neutral in table[name]]
        hint = f" or send {' or '.join(off)}" if off else ""
        raise UnsupportedParameter(
            f"{name} is not supported by this server yet; leave it out{hint}", param=name
        )


def _equal(value: Any, neutral: Any) -> bool:
    # In Python True == 1, but a switch is not a number.
    return isinstance(value, bool) == isinstance(neutral, bool) and value == neutral
