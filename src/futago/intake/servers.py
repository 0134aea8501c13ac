"""The servers that only the options ask for: syslog over TLS and RELP. Started, changed and ended as the options are.

A change takes effect on new connections; those that are open stay. What cannot be served is told, the rest goes on.
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import ssl
import time
from collections.abc import Callable, Hashable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from futago.intake.guests import Door, Guests
from futago.intake.listen import Addresses, tcp_socket
from futago.intake.options import Options, SyslogTls

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


class _Wanted(NamedTuple):
    """One server that the options want. `how`: what it was made of; another one is another server."""

    name: str
    host: str
    port: int
    how: Hashable
    make: Callable[[], asyncio.BaseProtocol]
    context: ssl.SSLContext | None

    @property
    def key(self) -> tuple[str, str, int, Hashable]:
        return self.name, self.host, self.port, self.how


class OptionServers:
    """Keeps the servers as the options want them. Each for itself: one that cannot be opened, or changes, leaves the
    others as they are.

    Args:
        hosts: addresses to listen on.
        cert, key: the member's own.
        guests, addresses: who may be connected, and what their addresses are.
        make_syslog, make_relp: make a connection's protocol; given the names that a client must have.
    """

    def __init__(
        self,
        *,
        hosts: Sequence[str],
        cert: Path,
        key: Path,
        guests: Guests,
        addresses: Addresses,
        make_syslog: Callable[[frozenset[str]], asyncio.BaseProtocol],
        make_relp: Callable[[frozenset[str]], asyncio.BaseProtocol],
    ) -> None:
        self._hosts = hosts
        self._cert, self._key = cert, key
        self._guests, self._addresses = guests, addresses
        self._make_syslog, self._make_relp = make_syslog, make_relp
        self._servers: dict[tuple[str, str, int, Hashable], Door] = {}
        self._broken: set[str] = set()  # names of servers whose certificates cannot be read
        self.faults: list[str] = []

    async def follow(self, options: Options) -> None:
        """Serve what the options want, from now on."""
        self.faults, self._broken = [], set()
        wanted = {one.key: one for one in self._wanted(options)}
        # A certificate that cannot be read just now, as while it is being renewed, leaves what is served with the old one.
        for key in [key for key in self._servers if key not in wanted and key[0] not in self._broken]:
            self._servers.pop(key).close()
        for key, one in wanted.items():
            if key not in self._servers:
                await self._serve(one)

    def _wanted(self, options: Options) -> Iterator[_Wanted]:
        tls, relp = options.syslog_tls, options.relp
        context: ssl.SSLContext | None = None
        names = frozenset(tls.clients) if tls is not None else frozenset[str]()
        how: Hashable = None
        if tls is not None:
            files = (tls.cert or self._cert, tls.key or self._key, tls.client_ca)
            how = (names, *(_stamp(file) for file in files))  # certificates that were renewed are shown from then on
            try:
                context = tls_context(tls, cert=self._cert, key=self._key)
            except (OSError, ssl.SSLError) as e:
                self.faults.append(f"syslog_tls: {e}")
                self._broken = {"syslog_tls", *(["relp"] if relp is not None and relp.is_tls else [])}
        if tls is not None and context is not None:
            for host in self._hosts:
                yield _Wanted("syslog_tls", host, tls.port, how, lambda: self._make_syslog(names), context)
        if relp is not None and relp.is_tls and context is not None:
            for host in self._hosts:
                yield _Wanted("relp", host, relp.port, how, lambda: self._make_relp(names), context)
        if relp is not None and not relp.is_tls:
            for host in self._hosts:
                yield _Wanted("relp", host, relp.port, None, lambda: self._make_relp(frozenset()), None)

    async def _serve(self, one: _Wanted) -> None:
        sock = await self._bound(one)
        if sock is None:
            return
        door = Door(sock, self._guests, one.make, packed=self._addresses.packed, context=one.context)
        try:
            door.open()
        except OSError as e:  # another one listens on what we could bind (SO_REUSEADDR)
            sock.close()
            self._fail(one, e)
            return
        self._servers[one.key] = door

    async def _bound(self, one: _Wanted) -> socket.socket | None:
        """Return a bound socket; the one that we have just closed may take a moment to let its port go."""
        until = time.monotonic() + REBIND_S_MAX
        while True:
            try:
                return tcp_socket(one.host, one.port)
            except OSError as e:
                if e.errno != errno.EADDRINUSE or time.monotonic() > until:
                    self._fail(one, e)
                    return None
            await asyncio.sleep(0.02)

    def _fail(self, one: _Wanted, fault: OSError) -> None:
        self.faults.append(f"{one.name}: tcp {one.host} {one.port}: {fault.strerror or fault}")

    def close(self) -> None:
        """Listen no more; what is connected stays."""
        for server in self._servers.values():
            server.close()
        self._servers = {}


def _stamp(file: str | Path) -> Hashable:
    """Return something that differs when a file was replaced."""
    try:
        status = os.stat(file)
    except (OSError, ValueError):
        return str(file)
    return str(file), status.st_mtime_ns, status.st_ino, status.st_size
