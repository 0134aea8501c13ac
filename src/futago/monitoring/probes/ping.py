"""Ping: one raw socket per address family for all hosts (needs CAP_NET_RAW).

The round trip ends when the kernel took the reply (SO_TIMESTAMPNS), not when our loop came to look: a busy loop
must not make the hosts look slow.
"""

from __future__ import annotations

import asyncio
import ipaddress
import os
import secrets
import socket
import struct
from dataclasses import dataclass
from datetime import datetime, timedelta

from futago.monitoring.model import Result, Verdict
from futago.monitoring.probes import icmp
from futago.runtime.clock import MS, now_at, now_utc

RECEIVE_BUFFER_BYTES = 4 << 20  # a thousand replies may come in one millisecond
BATCH_MAX = 256  # replies per turn of the loop
_SOL_RAW, _ICMP_FILTER = 255, 1
_SO_TIMESTAMPNS = 35
_TIMESPEC = struct.Struct("@ll")
_SOL_ICMPV6, _ICMP6_FILTER = 58, 1


@dataclass(frozen=True, slots=True)
class _Asked:
    address: str
    at: int
    at_utc: datetime
    answered: asyncio.Future[float]  # round trip in milliseconds


class Pinger:
    """Sends echo requests and matches the replies. Open it within the loop that uses it; close it at the end."""

    def __init__(self) -> None:
        self._token = secrets.token_bytes(icmp.TOKEN_BYTES)
        self._identifier = os.getpid() & 0xFFFF
        self._number = 0
        self._asked: dict[int, _Asked] = {}
        self._sockets: dict[bool, socket.socket] = {}

    async def ping(self, address: str, timeout: timedelta) -> Result:  # noqa: ASYNC109  a field of the monitor
        """Ask once and wait for the answer, `timeout` at most."""
        at_utc = now_utc()
        self._number += 1
        number = self._number
        asked = _Asked(address, now_at(), at_utc, asyncio.get_running_loop().create_future())
        try:
            self._asked[number] = asked
            self._send(number, address)
            async with asyncio.timeout(timeout.total_seconds()):
                value = await asked.answered
            return Result(at_utc, Verdict.OK, value, f"answered in {value:.2f} ms")
        except TimeoutError:
            return Result(at_utc, Verdict.FAILED, None, f"no answer within {timeout / timedelta(milliseconds=1):g} ms")
        except OSError as e:
            return Result(at_utc, Verdict.IMPOSSIBLE, None, f"cannot ask: {e.strerror or e}")
        finally:
            self._asked.pop(number, None)

    def close(self) -> None:
        """Close the sockets."""
        for s in self._sockets.values():
            asyncio.get_running_loop().remove_reader(s.fileno())
            s.close()
        self._sockets.clear()

    def _send(self, number: int, address: str) -> None:
        is_v6 = ipaddress.ip_address(address).version == 6
        packet = icmp.echo(is_v6=is_v6, identifier=self._identifier, token=self._token, number=number)
        self._socket(is_v6=is_v6).sendto(packet, (address, 0))

    def _socket(self, *, is_v6: bool) -> socket.socket:
        found = self._sockets.get(is_v6)
        if found is None:
            found = self._sockets[is_v6] = _open(is_v6=is_v6)
            asyncio.get_running_loop().add_reader(found.fileno(), self._readable, found, is_v6)
        return found

    def _readable(self, s: socket.socket, is_v6: bool) -> None:
        for _ in range(BATCH_MAX):
            try:
                packet, extra, _, source = s.recvmsg(2048, 64)
            except OSError:
                return
            number = icmp.reply_number(packet, is_v6=is_v6, token=self._token)
            asked = self._asked.get(number) if number is not None else None
            if asked and not asked.answered.done() and _is_same(asked.address, str(source[0])):
                asked.answered.set_result(_round_trip(asked, extra))


def _round_trip(asked: _Asked, extra: list[tuple[int, int, bytes]]) -> float:
    """Return the milliseconds until the kernel took the reply; until now where it does not say, or a clock was
    set.
    """
    longest = (now_at() - asked.at) / MS
    for level, kind, data in extra:
        if level == socket.SOL_SOCKET and kind == _SO_TIMESTAMPNS and len(data) >= _TIMESPEC.size:
            seconds, ns = _TIMESPEC.unpack_from(data)
            taken = (int(seconds) - asked.at_utc.timestamp()) * 1000 + int(ns) / MS
            if 0 <= taken <= longest:
                return taken
    return longest


def _is_same(a: str, b: str) -> bool:
    return a == b or ipaddress.ip_address(a) == ipaddress.ip_address(b.split("%", maxsplit=1)[0])


def _open(*, is_v6: bool) -> socket.socket:
    """Return a non-blocking raw socket that sees echo replies only."""
    if is_v6:
        s = socket.socket(socket.AF_INET6, socket.SOCK_RAW | socket.SOCK_NONBLOCK, socket.IPPROTO_ICMPV6)
        allowed = [0xFFFFFFFF] * 8
        allowed[icmp.REPLY_V6 >> 5] &= ~(1 << (icmp.REPLY_V6 & 31))
        s.setsockopt(_SOL_ICMPV6, _ICMP6_FILTER, struct.pack("=8I", *allowed))
    else:
        s = socket.socket(socket.AF_INET, socket.SOCK_RAW | socket.SOCK_NONBLOCK, socket.IPPROTO_ICMP)
        s.setsockopt(_SOL_RAW, _ICMP_FILTER, struct.pack("=I", ~(1 << icmp.REPLY_V4) & 0xFFFFFFFF))
    s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER_BYTES)
    s.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
    return s
