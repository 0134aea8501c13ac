"""Hunting for a broken invariant: many seeds in a row, and the story of the first that breaks one."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field

from futago.cluster.rules import SECTIONS
from futago.sim.world import Result, run_seed


@dataclass(slots=True)
class Tally:
    """What a hunt has seen so far."""

    schedules: int = 0
    simulated_s: float = 0.0
    faults: int = 0
    acks: int = 0
    rules: dict[str, int] = field(default_factory=dict)
    violations: list[Result] = field(default_factory=list)
    seconds: float = 0.0

    def add(self, result: Result) -> None:
        """Count one run."""
        self.schedules += 1
        self.simulated_s += result.simulated_s
        self.faults += result.faults
        self.acks += result.acks
        for rule, times in result.rules.items():
            self.rules[rule] = self.rules.get(rule, 0) + times
        if result.violation:
            self.violations.append(result)

    @property
    def unfired(self) -> list[str]:
        """Rules of the table that no run has used."""
        return [row.id for section in SECTIONS for row in section.rows if row.id not in self.rules]


def hunt(first: int, *, seeds: int, seconds: float | None = None, stop_at_first: bool = False) -> Iterator[Tally]:
    """Run seeds from `first` on and yield the tally after each.

    Args:
        first: the first seed.
        seeds: how many; ignored when `seconds` is given.
        seconds: go on for so long, in real time.
        stop_at_first: end with the first violation.
    """
    tally = Tally()
    began = time.monotonic()
    while tally.schedules < seeds if seconds is None else time.monotonic() - began < seconds:
        tally.add(run_seed(first + tally.schedules))
        tally.seconds = time.monotonic() - began
        yield tally
        if stop_at_first and tally.violations:
            return


def story(seed: int) -> list[str]:
    """Run a seed again and return what happened, a line each."""
    result = run_seed(seed, is_telling=True)
    lines = [f"{at / 1e9:9.3f}  {who:6} {what}" for at, who, what in result.story]
    return [*lines, f"{result.simulated_s:9.3f}  {'CHECK':6} {result.violation or 'every invariant held'}"]
