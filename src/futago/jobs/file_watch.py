"""What is new about the files that a trigger watches: pure.

Which identity a file has depends on the question: of one that is created it is that there is another file under the name
(its inode), of one that is changed also its size and time, of one that is deleted that there is a file at all.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from futago.link.files import Listed

When = Literal["created", "changed", "deleted"]


@dataclass(frozen=True, slots=True)
class Change:
    """One name whose identity is another now; `identity` None: nothing is there. `file`: what is there. `starts`: whether the
    trigger waits for this.
    """

    name: str
    identity: str | None
    file: Listed | None
    starts: bool


def identity(when: When, file: Listed) -> str:
    """Return what the question looks at."""
    match when:
        case "created":
            return str(file.inode)
        case "changed":
            return f"{file.inode} {file.size} {file.mtime_ns}"
        case "deleted":
            return ""


def changes(when: When, seen: Mapping[str, str], found: Iterable[Listed], settled: Settled) -> list[Change]:
    """Return what is different from what was seen, oldest files first. What has not settled is as it was."""
    there = {f.name: f for f in found}
    gone = [Change(name, None, None, when == "deleted") for name in sorted(seen) if name not in there]
    come = [
        Change(f.name, new, f, when == "created" or (when == "changed" and f.name in seen))
        for f in sorted(there.values(), key=lambda f: (f.mtime_ns, f.name))
        if seen.get(f.name) != (new := identity(when, f)) and settled.is_settled(f)
    ]
    return gone + come


@dataclass(slots=True)
class Settled:
    """Since when files have looked as they do. `seconds` 0: every file counts at once."""

    seconds: float = 0.0
    _since: dict[str, tuple[Listed, float]] = field(default_factory=dict)
    _now: float = 0.0

    def look(self, found: Iterable[Listed], now: float) -> None:
        """Take what is there at `now`, in seconds of a clock that only goes on."""
        self._now = now
        before = self._since
        self._since = {f.name: before[f.name] if before.get(f.name, (None,))[0] == f else (f, now) for f in found}

    def is_settled(self, file: Listed) -> bool:
        """Return whether a file of the last look has been as it is for long enough."""
        return self._now - self._since[file.name][1] >= self.seconds
