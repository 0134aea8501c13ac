"""Ports that nobody else takes between here and their use.

The system gives a port of the ephemeral range to whoever connects next, so a number that was free when a test asked
may be the near end of somebody's connection when its program listens. These come from below that range, and no number
twice in a run of the tests.
"""

from __future__ import annotations

import random
import socket

FIRST, LAST = 10_000, 32_000
_chance = random.SystemRandom()
_given: set[int] = set()


def free_port() -> int:
    """Return a port of loopback on which neither TCP nor UDP is in use."""
    for _ in range(1000):
        port = _chance.randint(FIRST, LAST)
        if port not in _given and _is_free(port, socket.SOCK_STREAM) and _is_free(port, socket.SOCK_DGRAM):
            _given.add(port)
            return port
    raise AssertionError("no port is free")


def _is_free(port: int, kind: socket.SocketKind) -> bool:
    with socket.socket(socket.AF_INET, kind) as s:
        try:
            s.bind(("0.0.0.0", port))
        except OSError:
            return False
    return True
