"""Length-prefixed frames over a stream: four bytes of length, big-endian, then one msgpack value.

Every conversation between our programs (control, agent, juror, journal sync) is made of such frames over mutual TLS. What a frame means is the
conversation's own business; here only its shape and its bounds are kept.
"""

from __future__ import annotations

import asyncio
import struct
from typing import Generic, TypeVar

import msgspec

from futago.runtime.faults import RemoteProtocolFault
from futago.runtime.unreadable import UNREADABLE

FRAME_BYTES_MAX = 16 << 20  # a batch of journal records or a job's output chunk; more is an error or an attack
_LENGTH = struct.Struct("!I")
M = TypeVar("M")


def encode(message: object) -> bytes:
    """Return one frame that holds `message` (a msgspec Struct or plain data)."""
    body = msgspec.msgpack.encode(message)
    if len(body) > FRAME_BYTES_MAX:
        raise ValueError(f"frame of {len(body)} bytes exceeds {FRAME_BYTES_MAX}")
    return _LENGTH.pack(len(body)) + body


class FrameStream(Generic[M]):
    """Frames of type `M` (a Struct or a tagged union of Structs) on an asyncio stream.

    Raises of `receive`: RemoteProtocolFault for an oversized or undecodable frame; EOFError at the orderly end; OSError from the network.
    """

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        kind: type[M] | object,
        *,
        frame_bytes_max: int = FRAME_BYTES_MAX,
    ) -> None:
        self.reader = reader
        self.writer = writer
        self._decoder: msgspec.msgpack.Decoder[M] = msgspec.msgpack.Decoder(kind)
        self._max = frame_bytes_max

    async def send(self, message: object) -> None:
        """Write one frame and wait while the peer is slow (back-pressure)."""
        self.writer.write(encode(message))
        await self.writer.drain()

    def post(self, message: object) -> None:
        """Write one frame without waiting; for small messages whose number is bounded by the caller."""
        self.writer.write(encode(message))

    async def receive(self) -> M:
        """Return the next message."""
        try:
            head = await self.reader.readexactly(4)
            (size,) = _LENGTH.unpack(head)
            if size > self._max:
                raise RemoteProtocolFault(f"frame of {size} bytes exceeds {self._max}")
            body = await self.reader.readexactly(size)
        except asyncio.IncompleteReadError as e:
            raise EOFError("the other side closed the conversation") from e
        try:
            return self._decoder.decode(body)
        except UNREADABLE as e:
            raise RemoteProtocolFault(f"undecodable frame: {e}") from e

    async def close(self) -> None:
        """Close without waiting for the network longer than a second."""
        self.writer.close()
        try:
            async with asyncio.timeout(1):
                await self.writer.wait_closed()
        except (OSError, TimeoutError):
            self.writer.transport.abort()
