"""What happened in a drill, step by step, and what was lost: pure, from what the writer was promised, what it found
again, and what the controllers noted.

Lives here: the reckoning and the order of the story. Must not live here: injecting or watching (drill.py).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

Line = Mapping[str, Any]
BEFORE_S = 0.3  # what was noted this little before the injection belongs to it: clocks are read apart

STEPS = {
    "detected": "noticed that the other member does not serve as it should",
    "won": "has the votes to serve: the new view is on its disk",
    "fenced": "the other member was powered off by force",
    "promoted": "its database takes writes",
    "gate": "clients are let into its database",
    "address": "holds the floating IP",
    "outward": "notifications and orders to agents go out again",
}


@dataclass(frozen=True, slots=True)
class Told:
    """One step of the story. `at_s` counts from the injection."""

    at_s: float
    member: str
    text: str


@dataclass(frozen=True, slots=True)
class Reckoning:
    """What the writer was promised against what was found.

    `pause_s` is the longest time without an acknowledgement; `pause_at_s` when it began, counted from the injection.
    """

    written: int
    lost: tuple[int, ...]
    twice: tuple[int, ...]
    refused: tuple[int, ...]
    pause_s: float
    pause_at_s: float


@dataclass(slots=True)
class Account:
    """What the writer said, line by line."""

    acknowledged: dict[int, float] = field(default_factory=dict)  # number -> monotonic seconds
    refused: list[int] = field(default_factory=list)
    found: dict[int, int] | None = None
    pair: dict[str, Any] = field(default_factory=dict)
    fault: str = ""

    def take(self, line: Line) -> None:
        """Take in one line of the writer."""
        if "at" in line:
            self.acknowledged[int(line["n"])] = float(line["at"])
        elif "error" in line:
            self.refused.append(int(line["n"]))
        elif "found" in line:
            self.found = {int(n): int(count) for n, count in line["found"].items()}
        elif "pair" in line:
            self.pair = dict(line["pair"])
        elif "fault" in line:
            self.fault = str(line["fault"])


def reckon(account: Account, *, injected_at: float, ended_at: float) -> Reckoning:
    """Compare promises with what was found. What was not acknowledged may be there or not: it was never promised.

    Args:
        injected_at, ended_at: monotonic seconds; the writer wrote until `ended_at`.
    """
    found = account.found or {}
    times = [*sorted(account.acknowledged.values()), ended_at]
    gaps = [(b - a, a - injected_at) for a, b in itertools.pairwise(times) if b > injected_at]
    pause, at = max(gaps, default=(0.0, 0.0))
    return Reckoning(
        written=len(account.acknowledged),
        lost=tuple(n for n in sorted(account.acknowledged) if not found.get(n)),
        twice=tuple(n for n, count in sorted(found.items()) if count > 1),
        refused=tuple(account.refused),
        pause_s=round(pause, 3),
        pause_at_s=round(max(0.0, at), 3),
    )


def story(lines: Iterable[Line], *, injected_utc: datetime) -> list[Told]:
    """Return the steps that the controllers noted since the injection, in order, without repetitions."""
    told: list[Told] = []
    for line in lines:
        text = _sentence(line)
        if not text:
            continue
        at_s = round((datetime.fromisoformat(str(line["utc"])) - injected_utc).total_seconds(), 3)
        member = str(line.get("member", ""))
        if at_s >= -BEFORE_S and not any(t.text == text and t.member == member and at_s - t.at_s < 2 for t in told):
            told.append(Told(max(0.0, at_s), member, text))
    return sorted(told, key=lambda t: t.at_s)


def switch_steps(pair: Line, *, epoch_before: int) -> list[tuple[str, float, str]]:
    """Return the steps of the switch that happened in the drill, as the new primary measured them: name, ms, text. Empty
    if nobody else serves."""
    switch = pair.get("last_switch") or {}
    if int(switch.get("epoch") or 0) <= epoch_before or switch.get("kind") == "solo":
        return []
    return [(s["name"], float(s["ms"]), STEPS.get(s["name"], s["name"])) for s in switch.get("steps", [])]


_SENTENCES: dict[str, str] = {
    "decision": "{reason} [{rule}]",
    "postgres.died": "its database died.",
    "program.died": "its {program} died.",
    "controller.ready": "its controller runs again and takes up what it finds.",
    "fence.off": "it ordered the other member to be powered off: {outcome}.",
    "fence.on": "it powered the other member on again.",
    "gate.open": "clients are let into its database.",
    "gate.closed": "its database is closed to clients.",
    "recover.progress": "recovery [{rung}]: {text}.",
    "recover.failed": "recovery failed for now: {error}.",
}


def _sentence(line: Line) -> str:
    """Return what a line of a controller's log means for people; empty if it is none of their business."""
    pattern = _SENTENCES.get(str(line.get("event")), "")
    return pattern.format_map(_Words(line)).replace("..", ".")


class _Words(dict[str, Any]):
    """The fields of a line; a missing one is empty."""

    def __missing__(self, key: str) -> str:
        return ""
