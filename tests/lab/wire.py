"""How often the wire carried each message over TCP to each member: the oracle for what a sender sent again by itself.

A sending rsyslogd that loses a connection may send again what stands in its buffer, so a member rightly receives a message
twice. Counted is what the member's kernel acknowledged, once for every place in a connection's stream of bytes: what TCP
repeats has the same place.
"""

from __future__ import annotations

import json
import re
import subprocess
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from senders import end, install

from futago.lab.lab import HostProcess, LabHost

_KEY = re.compile(r"SEQ=([a-z0-9]+-\d+)(?!\d)")
_WRAP = 1 << 32


@dataclass
class _Stream:
    """What one connection carried. `zero` is the sequence number before its first byte."""

    zero: int
    acknowledged: int = 0
    pieces: dict[int, str] = field(default_factory=dict)

    def place(self, sequence: int) -> int:
        return (sequence - self.zero) % _WRAP

    def text(self) -> str:
        """The acknowledged bytes in order; where one was not seen there is a gap that no key spans."""
        found, at = [], 0
        for place, data in sorted(self.pieces.items()):
            if place > at:
                found.append("\n")
            elif place < at:
                data = data[at - place :]  # noqa: PLW2901  sent again, with more behind it
            at = max(at, place + len(data))
            found.append(data)
        return "".join(found)[: self.acknowledged]


def carried(lines: Iterable[str]) -> dict[str, Counter[str]]:
    """Return how often each key was carried to each member, from the lines of programs/wire_tap.py."""
    streams: dict[tuple[str, int], _Stream] = {}
    every: list[tuple[str, _Stream]] = []
    for line in lines:
        way, member, port, number, *rest = json.loads(line)
        if way == "out" and rest[0]:
            fresh = _Stream((number + 1) % _WRAP)
            if (known := streams.get((member, port))) is None or known.zero != fresh.zero:  # else the SYN was repeated
                streams[member, port] = fresh
                every.append((member, fresh))
        elif (stream := streams.get((member, port))) is None:
            continue
        elif way == "out":
            place = stream.place(number)
            stream.pieces[place] = max(stream.pieces.get(place, ""), rest[1], key=len)
        elif (place := stream.place(number)) < _WRAP // 2:
            stream.acknowledged = max(stream.acknowledged, place)
    found: dict[str, Counter[str]] = {}
    for member, stream in every:
        found.setdefault(member, Counter()).update(_KEY.findall(stream.text()))
    return found


def most(of_members: Iterable[Counter[str]]) -> Counter[str]:
    """Return for each key how often the member to which it was carried most often got it."""
    found: Counter[str] = Counter()
    for one in of_members:
        found |= one
    return found


class WireTap:
    """Listens on a sending host, until `stop`.

    Args:
        host: where the senders run.
    """

    FILE = "/var/log/wire"

    def __init__(self, host: LabHost) -> None:
        self._host = host
        self._process: HostProcess[bytes] | None = None

    def start(self) -> None:
        """Begin, with an empty record; returns when nothing is missed any more."""
        program = install(self._host, "wire_tap.py")
        self._process = self._host.start(["python3", program, self.FILE], stdout=subprocess.PIPE)
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == b"ready\n", "the wire cannot be tapped"

    def stop(self) -> None:
        """End it; the record stays."""
        if self._process is not None:
            end(self._process)

    def carried(self) -> dict[str, Counter[str]]:
        """Return how often each key was carried to each member so far."""
        text = self._host.run(["cat", self.FILE]).stdout
        return carried(text[: text.rfind("\n") + 1].splitlines())
