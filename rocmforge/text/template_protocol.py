"""Messages between the server and the process that renders chat templates.

Frames on the child's standard input and output: a 4-byte big-endian length, then msgpack. The first
message is `Setup`, answered by an empty `Rendered`; every `Render` is answered by one
`Rendered` or `Refused`.
"""

from __future__ import annotations

import msgspec

MAX_FRAME_BYTES = 64 * 2**20
LENGTH_BYTES = 4


class Setup(msgspec.Struct, frozen=True, tag=True):
    """The templates by name, and the limits: address space in bytes, seconds per rendering."""

    templates: dict[str, str]
    bos_token: str
    eos_token: str
    memory_bytes: int
    timeout_s: float


class Render(msgspec.Struct, frozen=True, tag=True):
    """Render the template of this name."""

    name: str
    messages: list[object]
    tools: list[object] | None
    add_generation_prompt: bool
    variables: dict[str, object]


class Rendered(msgspec.Struct, frozen=True, tag=True):
    """The prompt."""

    text: str


class Refused(msgspec.Struct, frozen=True, tag=True):
    """A RocmForgeError by class name and message."""

    name: str
    message: str
    param: str | None = None


ToWorker = Setup | Render
FromWorker = Rendered | Refused


def frame(message: ToWorker | FromWorker) -> bytes:
    """A message ready to be written.

    Raises ValueError, OverflowError or TypeError when a value has no msgpack form (a lone
    surrogate, an integer of more than 64 bits) or the frame is larger than MAX_FRAME_BYTES.
    """
    body = msgspec.msgpack.encode(message)
    if len(body) > MAX_FRAME_BYTES:
        raise ValueError(f"{len(body)} bytes are more than {MAX_FRAME_BYTES}")
    return len(body).to_bytes(LENGTH_BYTES, "big") + body
