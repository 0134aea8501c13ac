"""Requests to one HTTP server over a connection that stays open: as much of HTTP/1.1 as a register in an etcd or an
object store needs, on asyncio alone, because the controller loads no HTTP library.

Lives here: connecting, one request at a time, the bounds of what is read. Must not live here: what is asked. Every
failure says whether the server may have got the request: Refused, or Unknown.

Names are looked up when a connection is made; the last addresses that worked are tried when the lookup fails, since name
servers tend to be gone when they are needed most.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from dataclasses import dataclass
from urllib.parse import urlsplit

from futago.runtime.faults import Refused, Unknown

HEAD_BYTES_MAX = 32 * 1024
BODY_BYTES_MAX = 256 * 1024
CONNECT_S_MAX = 1.5
LOOKUP_S_MAX = 1.0


@dataclass(frozen=True, slots=True)
class Answer:
    """`headers` with names in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes


class HttpPlace:
    """One server.

    Args:
        url: http://host:port or https://host:port; a path is ignored.
        context: for https.
    """

    def __init__(self, url: str, *, context: ssl.SSLContext | None) -> None:
        parts = urlsplit(url)
        self.is_tls = parts.scheme == "https"
        self.host = parts.hostname or ""
        self.port = parts.port or (443 if self.is_tls else 80)
        default = 443 if self.is_tls else 80
        name = f"[{self.host}]" if ":" in self.host else self.host
        self.authority = name if self.port == default else f"{name}:{self.port}"
        self._context = context if self.is_tls else None
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        self._lock = asyncio.Lock()
        self._known: list[str] = []

    async def ask(
        self, method: str, path: str, *, headers: dict[str, str], body: bytes = b"", deadline_s: float
    ) -> Answer:
        """Return the server's answer, whatever its status.

        Raises:
            Refused: it did not get the request. Unknown: it may have got it, and no whole answer came in time.
        """
        is_sent = False
        try:
            async with asyncio.timeout(deadline_s), self._lock:
                streams = await self._connected()
                is_sent = True
                try:
                    answer, is_reusable = await _exchange(*streams, self._head(method, path, headers, body), body)
                except BaseException:
                    self.close()
                    raise
                if not is_reusable:
                    self.close()
                return answer
        except (OSError, EOFError, TimeoutError, ValueError, asyncio.LimitOverrunError) as e:
            why = f"{self.authority}: {str(e) or 'no answer in time'}"
            raise (Unknown(why) if is_sent else Refused(why)) from e

    def close(self) -> None:
        """Drop the connection."""
        if self._streams is not None:
            self._streams[1].transport.abort()
            self._streams = None

    async def _connected(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if self._streams is not None and (self._streams[0].at_eof() or self._streams[1].is_closing()):
            self.close()
        if self._streams is None:
            last: OSError | TimeoutError = OSError("it has no address")
            for address in await self._addresses():
                try:
                    async with asyncio.timeout(CONNECT_S_MAX):
                        self._streams = await asyncio.open_connection(
                            address,
                            self.port,
                            ssl=self._context,
                            server_hostname=self.host if self._context else None,
                            limit=HEAD_BYTES_MAX,
                        )
                    break
                except (OSError, TimeoutError) as e:
                    last = e
            else:
                raise last
        return self._streams

    async def _addresses(self) -> list[str]:
        try:
            async with asyncio.timeout(LOOKUP_S_MAX):
                found = await asyncio.get_running_loop().getaddrinfo(self.host, self.port, type=socket.SOCK_STREAM)
            self._known = list(dict.fromkeys(str(row[4][0]) for row in found))
        except (OSError, TimeoutError):
            if not self._known:
                raise
        return self._known

    def _head(self, method: str, path: str, headers: dict[str, str], body: bytes) -> bytes:
        lines = [f"{method} {path} HTTP/1.1", f"Host: {self.authority}", f"Content-Length: {len(body)}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        return ("\r\n".join(lines) + "\r\n\r\n").encode("ascii")


async def _exchange(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, head: bytes, body: bytes
) -> tuple[Answer, bool]:
    """Return the answer, and whether the connection may be used again."""
    writer.write(head + body)
    await writer.drain()
    status, version, headers = 100, "", dict[str, str]()
    while 100 <= status < 200:  # "100 Continue" and the like come before the answer
        said = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        version, code, *_ = [*said[0].split(" ", 2), ""]
        status, headers = int(code), _headers(said[1:])
    content, is_bounded = await _body(reader, status, headers)
    keeps = is_bounded and version == "HTTP/1.1" and headers.get("connection", "").lower() != "close"
    return Answer(status, headers, content), keeps


def _headers(lines: list[str]) -> dict[str, str]:
    pairs = (line.partition(":") for line in lines if line)
    return {name.strip().lower(): value.strip() for name, _, value in pairs}


async def _body(reader: asyncio.StreamReader, status: int, headers: dict[str, str]) -> tuple[bytes, bool]:
    """Return the body, and whether its end was told (else the connection's end was it)."""
    if status in (204, 304):
        return b"", True
    if "chunked" in headers.get("transfer-encoding", "").lower():
        return await _chunks(reader), True
    if "content-length" in headers:
        size = int(headers["content-length"])
        if not 0 <= size <= BODY_BYTES_MAX:
            raise ValueError(f"an answer of {size} bytes")
        return await reader.readexactly(size), True
    content = b""
    while piece := await reader.read(HEAD_BYTES_MAX):
        content += piece
        if len(content) > BODY_BYTES_MAX:
            raise ValueError("an answer that is too long")
    return content, False


async def _chunks(reader: asyncio.StreamReader) -> bytes:
    content = b""
    while True:
        size = int((await reader.readline()).partition(b";")[0], 16)
        if size < 0 or len(content) + size > BODY_BYTES_MAX:
            raise ValueError("an answer that is too long")
        if size == 0:
            while (await reader.readline()).strip():
                pass
            return content
        content += await reader.readexactly(size)
        if await reader.readexactly(2) != b"\r\n":
            raise ValueError("a chunk without an end")
