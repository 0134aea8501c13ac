"""The servers that only the options ask for: syslog over TLS and RELP. Started, changed and ended as the options are.

A change takes effect on new connections; those that are open stay. What cannot be served is told, the rest goes on.
"""

from __future__ import annotations

import asyncio
import errno
import socket
import ssl
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from futago.intake.listen import tcp_socket
from futago.intake.options import Options, SyslogTls

BACKLOG = 1024
HANDSHAKE_S_MAX = 10.0
REBIND_S_MAX = 1.0


def tls_context(wanted: SyslogTls, *, cert: Path, key: Path) -> ssl.SSLContext:
    """Return what a TLS server for senders needs; `cert` and `key` are shown if the options name none.

    Raises:
        OSError, ssl.SSLError: files are missing or wrong.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2  # devices
    context.load_cert_chain(wanted.cert or cert, wanted.key or key)
    if wanted.client_ca:
        context.load_verify_locations(wanted.client_ca)
        context.verify_mode = ssl.CERT_REQUIRED
    return context


class OptionServers:
    """Keeps the servers as the options want them.

    Args:
        hosts: addresses to listen on.
        cert, key: the member's own.
        make_syslog, make_relp: make a connection's protocol; given the names that a client must have.
    """

    def __init__(
        self,
        *,
        hosts: Sequence[str],
        cert: Path,
        key: Path,
        make_syslog: Callable[[frozenset[str]], asyncio.BaseProtocol],
        make_relp: Callable[[frozenset[str]], asyncio.BaseProtocol],
    ) -> None:
        self._hosts = hosts
        self._cert, self._key = cert, key
        self._make_syslog, self._make_relp = make_syslog, make_relp
        self._servers: list[asyncio.Server] = []
        self.faults: list[str] = []

    async def follow(self, options: Options) -> None:
        """Serve what the options want, from now on."""
        self.close()
        self.faults = []
        tls, relp = options.syslog_tls, options.relp
        context = None
        names = frozenset[str]()
        if tls is not None:
            names = frozenset(tls.clients)
            try:
                context = tls_context(tls, cert=self._cert, key=self._key)
            except (OSError, ssl.SSLError) as e:
                self.faults.append(f"syslog_tls: {e}")
            else:
                await self._serve(tls.port, lambda: self._make_syslog(names), context)
        if relp is not None and (context is not None or not relp.is_tls):
            asked = names if relp.is_tls else frozenset[str]()
            await self._serve(relp.port, lambda: self._make_relp(asked), context if relp.is_tls else None)

    async def _serve(self, port: int, make: Callable[[], asyncio.BaseProtocol], context: ssl.SSLContext | None) -> None:
        for host in self._hosts:
            sock = await self._bound(host, port)
            if sock is None:
                continue
            handshake_s = HANDSHAKE_S_MAX if context is not None else None
            self._servers.append(
                await asyncio.get_running_loop().create_server(
                    make, sock=sock, backlog=BACKLOG, ssl=context, ssl_handshake_timeout=handshake_s
                )
            )

    async def _bound(self, host: str, port: int) -> socket.socket | None:
        """Return a bound socket; the one that we have just closed may take a moment to let its port go."""
        until = time.monotonic() + REBIND_S_MAX
        while True:
            try:
                return tcp_socket(host, port)
            except OSError as e:
                if e.errno != errno.EADDRINUSE or time.monotonic() > until:
                    self.faults.append(f"tcp {host} {port}: {e.strerror}")
                    return None
            await asyncio.sleep(0.02)

    def close(self) -> None:
        """Listen no more; what is connected stays."""
        for server in self._servers:
            server.close()
        self._servers = []
