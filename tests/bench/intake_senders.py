"""Senders for the intake's bench: `python tests/bench/intake_senders.py KIND HOST:PORT RATE SECONDS`.

Each message is numbered, of 200 bytes, and carries the time; what was sent is printed at the end: messages, seconds.
UDP goes out in segments of one system call (UDP_SEGMENT), so that the sender costs next to nothing on a machine that
also runs what is measured.
"""

from __future__ import annotations

import socket
import ssl
import sys
import time
from collections.abc import Callable

BATCH = 60  # the kernel takes 64 segments at once
SIZE = 200
_UDP_SEGMENT = 103
_DIGITS = 10
MARKER = b"SEQ="


class Messages:
    """Numbered messages of one size.

    Args:
        match_every: every so many-th one says `matching`, the others `ordinary`.
    """

    def __init__(self, *, match_every: int = 100, first: int = 0) -> None:
        self._number = first
        self._every = match_every
        self._pad = b" interface GigabitEthernet0/1 changed its state, uplink 7 of the rack in the second row"

    def take(self, count: int) -> list[bytes]:
        """Return the next messages."""
        stamp = time.strftime("%b %d %H:%M:%S").encode()
        first, self._number = self._number, self._number + count
        made = []
        for n in range(first, first + count):
            word = b"matching" if n % self._every == 0 else b"ordinary"
            head = b"<13>%b web%02d app[7]: %b SEQ=%010d " % (stamp, n % 50, word, n)
            made.append(head + self._pad + b"x" * (SIZE - len(head) - len(self._pad)))
        return made


SILENCE_S = 60.0  # without a byte taken or an answer: the other side is gone


def paced(rate: int, seconds: float, send: Callable[[list[bytes]], object], messages: Messages) -> tuple[int, float]:
    """Send evenly; return how many, and how long it took."""
    began, sent = time.monotonic(), 0
    total = int(rate * seconds)
    while sent < total:
        due = min(int((time.monotonic() - began) * rate), total) - sent
        if due < min(BATCH, rate // 100 or 1) and sent + due < total:
            time.sleep(0.001)
            continue
        count = min(due, BATCH)
        send(messages.take(count))
        sent += count
    return sent, time.monotonic() - began


def udp(where: tuple[str, int]) -> Callable[[list[bytes]], object]:
    """Return what sends datagrams: many with one system call."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 << 20)
    sock.setsockopt(socket.IPPROTO_UDP, _UDP_SEGMENT, SIZE)
    sock.connect(where)
    return lambda messages: sock.send(b"".join(messages))


class Stream:
    """Sends counted frames; `close` waits until the other side has read everything. Nothing waits longer than SILENCE_S."""

    def __init__(self, where: tuple[str, int], *, is_tls: bool) -> None:
        self._sock = socket.create_connection(where, timeout=SILENCE_S)
        if is_tls:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE  # the receiver is the one measured
            self._sock = context.wrap_socket(self._sock)

    def __call__(self, messages: list[bytes]) -> None:
        self._sock.sendall(b"".join(b"%d %b" % (len(m), m) for m in messages))

    def close(self) -> None:
        """End in good order: a socket that is closed with something unread in it resets the connection."""
        if isinstance(self._sock, ssl.SSLSocket):
            self._sock = self._sock.unwrap()
        self._sock.shutdown(socket.SHUT_WR)
        while self._sock.recv(4096):
            pass


def main() -> None:
    kind, where, rate, seconds, *rest = sys.argv[1:]
    host, _, port = where.rpartition(":")
    target = (host, int(port))
    messages = Messages(match_every=int(rest[0]) if rest else 100, first=int(rest[1]) if len(rest) > 1 else 0)
    send = udp(target) if kind == "udp" else Stream(target, is_tls=kind == "tls")
    sent, took = paced(int(rate), float(seconds), send, messages)
    if isinstance(send, Stream):
        send.close()
    sys.stdout.write(f"{sent} {took:.4f}\n")


if __name__ == "__main__":
    main()
