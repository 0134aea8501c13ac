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


def paced(rate: int, seconds: float, send: object, messages: Messages) -> tuple[int, float]:
    """Send evenly; return how many, and how long it took."""
    began, sent = time.monotonic(), 0
    total = int(rate * seconds)
    while sent < total:
        due = min(int((time.monotonic() - began) * rate), total) - sent
        if due < min(BATCH, rate // 100 or 1) and sent + due < total:
            time.sleep(0.001)
            continue
        count = min(due, BATCH)
        send(messages.take(count))  # type: ignore[operator]
        sent += count
    return sent, time.monotonic() - began


def udp(where: tuple[str, int]) -> object:
    """Return what sends datagrams: many with one system call."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 << 20)
    sock.setsockopt(socket.IPPROTO_UDP, _UDP_SEGMENT, SIZE)
    sock.connect(where)
    return lambda messages: sock.send(b"".join(messages))


def stream(where: tuple[str, int], *, is_tls: bool) -> object:
    """Return what sends counted frames."""
    sock = socket.create_connection(where)
    if is_tls:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE  # the receiver is the one measured
        sock = context.wrap_socket(sock)
    return lambda messages: sock.sendall(b"".join(b"%d %b" % (len(m), m) for m in messages))


def main() -> None:
    kind, where, rate, seconds, *rest = sys.argv[1:]
    host, _, port = where.rpartition(":")
    target = (host, int(port))
    messages = Messages(match_every=int(rest[0]) if rest else 100, first=int(rest[1]) if len(rest) > 1 else 0)
    send = udp(target) if kind == "udp" else stream(target, is_tls=kind == "tls")
    sent, took = paced(int(rate), float(seconds), send, messages)
    sys.stdout.write(f"{sent} {took:.4f}\n")


if __name__ == "__main__":
    main()
