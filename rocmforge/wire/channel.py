"""Length-prefixed msgpack frames over a socket pair: blocking (engine) and asyncio (server).

A frame is a magic word, the payload's length and the payload:

    b"RFW1" · uint32 big-endian n, 1 ≤ n ≤ MAX_FRAME_BYTES · n bytes of msgpack (see protocol.py)

The magic word costs four bytes and shows a babbling peer at its first bytes; without it, a garbage
length would first be waited for. Anything that is not such a frame raises ChannelError: the reader
has lost its place in the stream for good, so the supervisor kills that engine and starts another.

Flow control. The engine's `send` blocks while the socket's buffer is full, which is a rest for the
engine while the server is slow and never a deadlock: the server reads whatever it is doing (its own
sends only fill a buffer in memory), and when it dies the send fails with ChannelClosed.
"""

from __future__ import annotations

import asyncio
import select
import socket
import struct
from collections.abc import Iterator
from typing import Final, TypeVar

import msgspec

from rocmforge.errors import InternalError
from rocmforge.wire.protocol import FromEngine, ToEngine

MAX_FRAME_BYTES: Final = 64 * 2**20
FRAME_MAGIC: Final = b"RFW1"
_HEADER: Final = struct.Struct(">4sI")
_READ_BYTES: Final = 256 * 2**10
_M = TypeVar("_M")


class ChannelError(InternalError):
    """The peer sent bytes that are no message: garbage, an oversized frame or a wrong type."""

    code = "channel_error"


class ChannelClosed(ChannelError):
    """The peer closed the channel or died; nothing more comes."""


class FrameReader:
    """Cuts a byte stream into frame payloads, without any I/O of its own."""

    def __init__(self, max_frame_bytes: int = MAX_FRAME_BYTES) -> None:
        self._max = max_frame_bytes
        self._buffer = bytearray()

    @property
    def n_pending_bytes(self) -> int:
        """Bytes of a frame that has not arrived in full."""
        return len(self._buffer)

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Take what was read and yield each payload that is now complete; to be consumed fully.

        Raises ChannelError at the first bytes that cannot begin a frame.
        """
        self._buffer += data
        start = 0
        try:
            while (size := self._payload_bytes(start)) is not None:
                end = start + _HEADER.size + size
                if end > len(self._buffer):
                    break
                yield bytes(memoryview(self._buffer)[start + _HEADER.size : end])
                start = end
        finally:
            del self._buffer[:start]

    def _payload_bytes(self, start: int) -> int | None:
        """The length in the header at `start`, or None when the header is not complete yet."""
        head = bytes(self._buffer[start : start + _HEADER.size])
        if head[:4] != FRAME_MAGIC[: len(head)]:
            raise ChannelError(f"not a frame: it begins with {head[:4]!r}")
        if len(head) < _HEADER.size:
            return None
        size = int(_HEADER.unpack(head)[1])
        if not 1 <= size <= self._max:
            raise ChannelError(f"a frame of {size} bytes is outside 1 to {self._max}")
        return size


def encode_frame(
    message: ToEngine | FromEngine, max_frame_bytes: int = MAX_FRAME_BYTES
) -> bytearray:
    """The message as one frame. Raises ChannelError when it is larger than a frame may be."""
    frame = bytearray(_HEADER.size)
    _ENCODER.encode_into(message, frame, _HEADER.size)
    size = len(frame) - _HEADER.size
    if size > max_frame_bytes:
        raise ChannelError(
            f"a {type(message).__name__} of {size} bytes is larger than a frame ({max_frame_bytes})"
        )
    _HEADER.pack_into(frame, 0, FRAME_MAGIC, size)
    return frame


_ENCODER: Final = msgspec.msgpack.Encoder()
_TO_ENGINE: Final[msgspec.msgpack.Decoder[ToEngine]] = msgspec.msgpack.Decoder(ToEngine)
_FROM_ENGINE: Final[msgspec.msgpack.Decoder[FromEngine]] = msgspec.msgpack.Decoder(FromEngine)


class BlockingChannel:
    """The engine's side: one thread, which either works or waits here."""

    def __init__(self, sock: socket.socket, max_frame_bytes: int = MAX_FRAME_BYTES) -> None:
        sock.setblocking(True)
        self._sock = sock
        self._frames = FrameReader(max_frame_bytes)
        self._max = max_frame_bytes
        self._poll = select.poll()
        self._poll.register(sock, select.POLLIN)

    @classmethod
    def from_fd(cls, fd: int) -> BlockingChannel:
        """Take over the socket that the parent process passed as file descriptor `fd`."""
        return cls(socket.socket(fileno=fd))

    def fileno(self) -> int:
        """The socket's file descriptor, for poll()."""
        return self._sock.fileno()

    def receive(self, timeout_s: float = 0.0) -> list[ToEngine]:
        """All messages that are there, waiting up to `timeout_s` for the first; [] on a time-out.

        Raises ChannelClosed when the server is gone, ChannelError on garbage.
        """
        messages: list[ToEngine] = []
        wait_ms = max(0, int(timeout_s * 1000))
        while self._poll.poll(wait_ms):
            messages += self._read_once()
            wait_ms = 0
            if messages and not self._frames.n_pending_bytes:
                break
        return messages

    def send(self, message: FromEngine) -> None:
        """Send one message, waiting while the server is slow. Raises ChannelClosed without one."""
        try:
            self._sock.sendall(encode_frame(message, self._max))
        except OSError as error:
            raise ChannelClosed(f"the server is gone: {error}") from error

    def close(self) -> None:
        """Close the socket: the server sees it at once."""
        self._sock.close()

    def _read_once(self) -> list[ToEngine]:
        try:
            data = self._sock.recv(_READ_BYTES)
        except OSError as error:
            raise ChannelClosed(f"the server is gone: {error}") from error
        if not data:
            raise ChannelClosed("the server closed the channel")
        return [_decode(_TO_ENGINE, payload) for payload in self._frames.feed(data)]


class AsyncChannel:
    """The server's side: reading waits in the event loop, sending never waits."""

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        max_frame_bytes: int = MAX_FRAME_BYTES,
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._frames = FrameReader(max_frame_bytes)
        self._max = max_frame_bytes
        self._broken: ChannelError | None = None

    @classmethod
    async def open(
        cls, sock: socket.socket, max_frame_bytes: int = MAX_FRAME_BYTES
    ) -> AsyncChannel:
        """Take over one end of a socket pair."""
        sock.setblocking(False)
        reader, writer = await asyncio.open_unix_connection(sock=sock, limit=_READ_BYTES)
        return cls(reader, writer, max_frame_bytes)

    async def receive(self) -> list[FromEngine]:
        """The next messages (at least one).

        Raises ChannelClosed at the end of the stream, ChannelError on garbage; what came before
        the garbage is returned first.
        """
        messages: list[FromEngine] = []
        while not messages:
            if self._broken is not None:
                raise self._broken
            try:
                data = await self._reader.read(_READ_BYTES)
            except OSError as error:
                raise ChannelClosed(f"the engine is gone: {error}") from error
            if not data:
                raise ChannelClosed(self._how_it_closed())
            try:
                for payload in self._frames.feed(data):
                    messages.append(_decode(_FROM_ENGINE, payload))
            except ChannelError as error:
                self._broken = error
        return messages

    def send(self, message: ToEngine) -> None:
        """Queue one message. When the engine is gone it is dropped: receive() says so.

        Raises ChannelError when the message is larger than a frame may be.
        """
        frame = encode_frame(message, self._max)
        if not self._writer.is_closing():
            self._writer.write(frame)

    def abort(self) -> None:
        """Close the socket in the event loop's next turn."""
        self._writer.transport.abort()

    async def close(self) -> None:
        """Close the socket: the engine sees it and leaves."""
        self.abort()
        try:
            await self._writer.wait_closed()
        except OSError:
            # The engine closed first; there is nothing left to close.
            return

    def _how_it_closed(self) -> str:
        if n := self._frames.n_pending_bytes:
            return f"the engine closed the channel inside a frame ({n} bytes of it came)"
        return "the engine closed the channel"


def _decode(decoder: msgspec.msgpack.Decoder[_M], payload: bytes) -> _M:
    try:
        return decoder.decode(payload)
    except msgspec.DecodeError as error:
        raise ChannelError(f"a frame of {len(payload)} bytes is no message: {error}") from error
