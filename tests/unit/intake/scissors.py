"""A line to PostgreSQL with scissors in it, and numbered points at which a program can be made to die.

`Points` counts what is passed; at the wanted one something happens. `Scissors` stands between a program and the real
server, looks at every request, and is such a point before the server gets it and after the server has answered it: so
COMMIT is lost before it arrives, or its answer is. Nothing of the program or the server is replaced.
"""

from __future__ import annotations

import asyncio
import contextlib
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

_LENGTH = struct.Struct("!I")
NAME_CHARS = 40
COMMITTED = "COMMIT: answer not heard"


class Died(BaseException):
    """The program ends here; not a fault that anything in it could handle."""


class Points:
    """Numbers the points that are passed.

    Args:
        wanted: at the point with this number `reached` returns True; -1: never.
        is_counting: points count at all.
    """

    def __init__(self, wanted: int = -1, *, is_counting: bool = True) -> None:
        self.wanted = wanted
        self.is_counting = is_counting
        self.passed: list[str] = []
        self.is_dead = False

    def reached(self, name: str) -> bool:
        """Pass a point; return whether it is the wanted one."""
        if not self.is_counting:
            return False
        self.passed.append(name)
        is_wanted = len(self.passed) - 1 == self.wanted
        self.is_dead = self.is_dead or is_wanted
        return is_wanted


class Scissors:
    """The line. To be listened on at `folder`, as libpq finds it.

    Args:
        server: folder of the real server's socket.
        is_for_good: after the cut nothing is let through any more, as the program is to be dead.
    """

    def __init__(self, server: Path, folder: Path, points: Points, *, is_for_good: bool) -> None:
        self._server = server
        self._folder = folder
        self._points = points
        self._is_for_good = is_for_good
        self._listening: asyncio.Server | None = None
        self._open: set[asyncio.StreamWriter] = set()

    async def __aenter__(self) -> Scissors:
        self._folder.mkdir(exist_ok=True)
        self._listening = await asyncio.start_unix_server(self._serve, self._folder / ".s.PGSQL.5432")
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._listening is not None
        self._listening.close()
        for writer in tuple(self._open):
            writer.transport.abort()
        await asyncio.sleep(0)

    async def _serve(self, client: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
        if self._is_for_good and self._points.is_dead:
            to_client.transport.abort()
            return
        server, to_server = await asyncio.open_unix_connection(self._server / ".s.PGSQL.5432")
        self._open |= {to_client, to_server}
        try:
            with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
                await self._pass_on(client, to_client, server, to_server)
        finally:
            for writer in (to_client, to_server):
                self._open.discard(writer)
                writer.transport.abort()

    async def _pass_on(
        self,
        client: asyncio.StreamReader,
        to_client: asyncio.StreamWriter,
        server: asyncio.StreamReader,
        to_server: asyncio.StreamWriter,
    ) -> None:
        is_first, prepared = True, dict[bytes, str]()
        while request := await client.read(1 << 20):
            name = "connect" if is_first else named(request, prepared)
            if name == "goodbye" or self._points.reached(f"{name}: not arrived"):
                return
            to_server.write(request)
            if name == "data":
                continue
            answer = await _answer(server)
            if self._points.reached(f"{name}: answer not heard"):
                return
            to_client.write(answer)
            is_first = False


async def _answer(server: asyncio.StreamReader) -> bytes:
    """Return what the server says up to the point where it waits for more."""
    said = b""
    while True:
        head = await server.readexactly(5)
        body = await server.readexactly(_LENGTH.unpack_from(head, 1)[0] - 4)
        said += head + body
        if head[:1] in b"ZG":  # ready for the next query, or for the data of a COPY
            return said


def named(request: bytes, prepared: dict[bytes, str]) -> str:
    """Return the beginning of the statement in a request, or its kind. `prepared`: statements by their names."""
    kinds, at = b"", 0
    while at < len(request):
        size = _LENGTH.unpack_from(request, at + 1)[0]
        kind, body = request[at : at + 1], request[at + 5 : at + 1 + size]
        kinds += kind
        at += 1 + size
        if kind == b"Q":
            return body[:-1].decode()[:NAME_CHARS]
        if kind == b"P":
            name, text, _ = body.split(b"\0", 2)
            prepared[name] = text.decode()[:NAME_CHARS]
            return prepared[name]
        if kind == b"B":
            return prepared[body.split(b"\0", 2)[1]]
    return {b"X": "goodbye", b"d": "data"}.get(kinds, f"request {kinds.decode()}")


def mortal(what: Callable[..., Any], points: Callable[[], Points]) -> Callable[..., Any]:
    """Return a function that is a point before it does what it did."""

    def preceded(*args: Any, **kwargs: Any) -> Any:
        if points().reached(f"before {what.__qualname__}"):
            raise Died
        return what(*args, **kwargs)

    return preceded
