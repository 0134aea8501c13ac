"""Frames that no program of ours sends: a fault of the other side, whatever the bytes are."""

from __future__ import annotations

import asyncio
import socket

import msgspec
import pytest

from futago.link.frames import FrameStream
from futago.runtime.faults import RemoteProtocolFault


class Greeting(msgspec.Struct):
    name: str


@pytest.mark.parametrize(
    "body", [b"\x81\xa4name\xa1\x99", b"\x81\xa4name\x01", b"\xc1", b"", b"\x91" * 5000], ids=range(5)
)
async def test_a_frame_that_cannot_be_decoded_is_the_others_fault(body: bytes) -> None:
    ours, theirs = socket.socketpair()
    reader, writer = await asyncio.open_connection(sock=ours)
    stream: FrameStream[Greeting] = FrameStream(reader, writer, Greeting, frame_bytes_max=10_000)
    theirs.sendall(len(body).to_bytes(4, "big") + body)
    with pytest.raises(RemoteProtocolFault):
        await stream.receive()
    writer.close()
    theirs.close()
