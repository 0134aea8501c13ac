"""As much HTTP as a register needs: what every kind of answer, and of silence, is taken for."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest

from futago.register.http import Answer, HttpPlace
from futago.runtime.faults import Refused, Unknown

Reply = bytes | None


@contextlib.asynccontextmanager
async def server(*replies: Reply) -> AsyncIterator[tuple[HttpPlace, list[bytes]]]:
    """Answer each request with the next reply; None: close without a word."""
    left, got = list(replies), []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(EOFError, OSError):
            while left:
                head = await reader.readuntil(b"\r\n\r\n")
                size = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
                got.append(head + await reader.readexactly(size))
                reply = left.pop(0)
                if reply is None:
                    break
                writer.write(reply)
                await writer.drain()
                if b"content-length" not in reply.lower() and b"chunked" not in reply:
                    break
        writer.close()

    listening = await asyncio.start_server(serve, "127.0.0.1", 0)
    place = HttpPlace(f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}", context=None)
    try:
        yield place, got
    finally:
        place.close()
        listening.close()


async def ask(place: HttpPlace, *, deadline_s: float = 60) -> Answer:
    return await place.ask("PUT", "/a/b", headers={"X-One": "1"}, body=b"hello", deadline_s=deadline_s)


OK = b'HTTP/1.1 200 OK\r\nContent-Length: 2\r\nETag: "x"\r\n\r\nhi'


@pytest.mark.parametrize(
    ("reply", "status", "body"),
    [
        (OK, 200, b"hi"),
        (b"HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n", 204, b""),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nh\r\n1;x=y\r\ni\r\n0\r\nT: 1\r\n\r\n", 200, b"hi"),
        (b"HTTP/1.1 100 Continue\r\n\r\n" + OK, 200, b"hi"),
        (b"HTTP/1.0 412 Precondition Failed\r\n\r\nno", 412, b"no"),
    ],
)
async def test_whole_answers_are_read(reply: bytes, status: int, body: bytes) -> None:
    async with server(reply) as (place, got):
        answer = await ask(place)
        assert (answer.status, answer.body) == (status, body)
        assert got[0].startswith(b"PUT /a/b HTTP/1.1\r\nHost: 127.0.0.1:") and got[0].endswith(b"\r\n\r\nhello")


@pytest.mark.parametrize(
    "reply",
    [
        None,
        b"HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\nhi",
        b"HTTP/1.1 200 OK\r\nContent-Length: 99999999\r\n\r\nhi",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nhi\r\n0\r\n\r\n",
        b"nonsense\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"X: 1\r\n" * 20_000,
    ],
)
async def test_answers_without_an_end_or_a_sense_mean_unknown(reply: Reply) -> None:
    async with server(reply) as (place, _):
        with pytest.raises(Unknown):
            await ask(place, deadline_s=0.3)


async def test_server_that_is_not_there_got_nothing() -> None:
    async with server() as (place, _):
        pass
    with pytest.raises(Refused):
        await ask(place)


async def test_connection_is_kept_and_made_anew_when_the_server_closed_it() -> None:
    async with server(OK, OK, b"HTTP/1.0 200 OK\r\n\r\nhi", OK) as (place, got):
        for _ in range(4):
            assert (await ask(place)).body == b"hi"
        assert len(got) == 4
