"""A listening TLS port whose refused handshakes are seen: accept, shake hands within a deadline, hand the stream over.

asyncio's own server drops a failed handshake without a word; ours counts and logs it, because a certificate of a
strange authority is something an operator wants to know of. One connection is one task; a fault of one never reaches
another.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from futago.runtime.faults import OperatorFault, RemoteProtocolFault
from futago.runtime.log import Log

HANDSHAKE_S = 5.0  # two round trips and one signature; more is a stuck or hostile peer
BACKLOG = 1024  # after a switch every agent comes back within a second
PAUSE_S = 0.1  # when accept itself fails (out of descriptors), before the next try
STREAM_BYTES = 1 << 16

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@dataclass(slots=True)
class Counters:
    """Since the listener was made."""

    accepted: int = 0
    handshakes_refused: int = 0
    sessions_faulty: int = 0
    turned_away: int = 0


class TlsListener:
    """Serves every connection with `serve(reader, writer)`.

    Args:
        address: where to listen.
        port: TCP port.
        context: the server side of link/tls.py.
        serve: ends by returning or with EOFError, OSError, TimeoutError, RemoteProtocolFault; anything else is our
            bug and ends the listener.
        connections_max: further connections are closed at once, and counted.
    """

    def __init__(
        self, *, address: str, port: int, context: ssl.SSLContext, serve: Serve, log: Log, connections_max: int = 10_000
    ) -> None:
        self.counters = Counters()
        self._where = (address, port)
        self._context = context
        self._serve = serve
        self._log = log
        self._max = connections_max
        self._open = 0

    def bind(self) -> socket.socket:
        """Return the listening socket.

        Raises:
            OperatorFault: the address is not ours or the port is taken.
        """
        family = socket.AF_INET6 if ":" in self._where[0] else socket.AF_INET
        sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        try:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind(self._where)
            sock.listen(BACKLOG)
        except OSError as e:
            sock.close()
            raise OperatorFault(
                f"Cannot listen on {self._where[0]} port {self._where[1]}: {e.strerror}.",
                hint="Look for another program on that port (ss -ltnp).",
                code="link.listen",
            ) from e
        return sock

    async def run(self, sock: socket.socket | None = None) -> None:
        """Accept until cancelled."""
        loop = asyncio.get_running_loop()
        with sock or self.bind() as listening:
            async with asyncio.TaskGroup() as group:
                while True:
                    try:
                        conn, peer = await loop.sock_accept(listening)
                    except OSError as e:
                        self._log.error("listener.accept_failed", error=str(e))
                        await asyncio.sleep(PAUSE_S)
                        continue
                    if self._open >= self._max:
                        self.counters.turned_away += 1
                        conn.close()
                        continue
                    self._open += 1
                    group.create_task(self._one(conn, str(peer[0])))

    async def _one(self, conn: socket.socket, peer: str) -> None:
        try:
            writer = await self._shake_hands(conn, peer)
            if writer is not None:
                self.counters.accepted += 1
                await self._converse(*writer, peer)
        finally:
            self._open -= 1

    async def _shake_hands(
        self, conn: socket.socket, peer: str
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter] | None:
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader(limit=STREAM_BYTES, loop=loop)
        protocol = asyncio.StreamReaderProtocol(reader, loop=loop)
        try:
            conn.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            transport, _ = await loop.connect_accepted_socket(  # uvloop returns its own TLS protocol beside it
                lambda: protocol,
                conn,
                ssl=self._context,
                ssl_handshake_timeout=HANDSHAKE_S,
            )
        except (OSError, TimeoutError) as e:  # ssl.SSLError is an OSError
            conn.close()
            self.counters.handshakes_refused += 1
            self._log.warning("listener.handshake_refused", peer=peer, error=str(e) or type(e).__name__)
            return None
        except BaseException:
            conn.close()
            raise
        return reader, asyncio.StreamWriter(transport, protocol, reader, loop)

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, peer: str) -> None:
        try:
            await self._serve(reader, writer)
        except (EOFError, OSError, TimeoutError):
            pass  # the other side went away; who it was is logged by `serve`
        except RemoteProtocolFault as e:
            self.counters.sessions_faulty += 1
            self._log.warning("listener.session_refused", peer=peer, error=str(e))
        finally:
            writer.transport.abort()
