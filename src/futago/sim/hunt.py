"""Hunting for a broken invariant: many seeds in a row, on one core or several, and the story of one that breaks one.

A run also says which rules of the table decided. A run of enough schedules in which a rule never fired has looked at less than it says, and fails:
the rare rules have directed scenarios of their own (directed.py), which count here.
"""

from __future__ import annotations

import gc
import hashlib
import multiprocessing
import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass, field

from futago.cluster.rules import SECTIONS
from futago.sim.directed import SCENARIOS, play
from futago.sim.world import Result, World, run_seed

ENOUGH_FOR_COVERAGE = 3000  # schedules; the rarest rule that chance finds fires about once in a thousand
BLOCK = 50  # seeds that a worker takes at a time
STORY_LINES_MAX = 400
TOLD_MAX = 2  # of the same in one situation


@dataclass(slots=True)
class Tally:
    """What a hunt has seen so far."""

    schedules: int = 0
    simulated_s: float = 0.0
    faults: int = 0
    acks: int = 0
    messages: int = 0
    rules: dict[str, int] = field(default_factory=dict)
    directed: dict[str, str] = field(default_factory=dict)  # rule -> the scenario in which it fired
    rungs: dict[str, int] = field(default_factory=dict)
    kinds: dict[str, int] = field(default_factory=dict)
    violations: list[Result] = field(default_factory=list)
    seconds: float = 0.0
    processor_s: float = 0.0

    def add(self, result: Result) -> None:
        """Count one run."""
        self.schedules += 1
        self.simulated_s += result.simulated_s
        self.faults += result.faults
        self.acks += result.acks
        self.messages += result.messages
        for mine, theirs in (
            (self.rules, result.rules),
            (self.rungs, result.rungs),
            (self.kinds, result.kinds),
        ):
            for name, times in theirs.items():
                mine[name] = mine.get(name, 0) + times
        if result.violation:
            self.violations.append(result)

    def play_directed(self) -> None:
        """Play the scenarios of the rare rules."""
        for scenario in SCENARIOS:
            result = play(scenario)
            for rule in result.rules:
                self.directed.setdefault(rule, scenario.name)
            if result.violation:
                self.violations.append(result)

    @property
    def unfired(self) -> list[str]:
        """Rules of the table that neither a schedule nor a scenario has used."""
        return [r for r in every_rule() if r not in self.rules and r not in self.directed]

    @property
    def is_covered(self) -> bool:
        """Every rule fired, or the run was too short to say."""
        return self.schedules < ENOUGH_FOR_COVERAGE or not self.unfired


def every_rule() -> list[str]:
    """Ids of the whole table, in its order."""
    return [row.id for section in SECTIONS for row in section.rows]


def hunt(
    first: int, *, seeds: int, seconds: float | None = None, jobs: int = 1, stop_at_first: bool = False
) -> Iterator[Tally]:
    """Run seeds from `first` on and yield the tally after each, or after each block of a worker.

    Args:
        first: the first seed.
        seeds: how many; ignored when `seconds` is given.
        seconds: go on for so long, in real time.
        jobs: processes. The seeds that are run do not depend on it, where `seeds` says how many.
        stop_at_first: end with the first violation.
    """
    tally = Tally()
    began = time.monotonic()
    for results, used_s in _results(first, None if seconds is not None else seeds, jobs):
        for result in results:
            tally.add(result)
        tally.seconds, tally.processor_s = time.monotonic() - began, tally.processor_s + used_s
        yield tally
        if (stop_at_first and tally.violations) or (seconds is not None and tally.seconds >= seconds):
            return


def _blocks(first: int, seeds: int | None, size: int) -> Iterator[range]:
    at = first
    while seeds is None or at < first + seeds:
        end = at + size if seeds is None else min(at + size, first + seeds)
        yield range(at, end)
        at = end


def _results(first: int, seeds: int | None, jobs: int) -> Iterator[tuple[list[Result], float]]:
    if jobs <= 1:
        yield from map(_run_block, _blocks(first, seeds, 1 if seeds is not None and seeds < BLOCK else BLOCK))
        return
    waiting: deque[Future[tuple[list[Result], float]]] = deque()
    with ProcessPoolExecutor(jobs, mp_context=multiprocessing.get_context("fork")) as pool:
        try:
            for block in _blocks(first, seeds, BLOCK):
                waiting.append(pool.submit(_run_block, block))
                if len(waiting) > 2 * jobs:  # a bound, and the order of seeds
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)


def _run_block(block: range) -> tuple[list[Result], float]:
    """Run some seeds without looking for garbage in between: worlds are all garbage, once they are over."""
    began = time.process_time()
    gc.disable()
    try:
        results = [run_seed(seed) for seed in block]
    finally:
        gc.enable()
        gc.collect()
    return results, time.process_time() - began


def story(seed: int) -> list[str]:
    """Run a seed again and return what happened, a line each."""
    return story_lines(run_seed(seed, is_telling=True))


def digest(seed: int) -> str:
    """Return a fingerprint of a run: all that it told and counted, and how far it drew from its source of chance.

    Two programs that give the same digest for a seed have run the same schedule.
    """
    world = World(seed, is_telling=True)
    r = world.run()
    counts = [list(each.items()) for each in (r.rules, r.rungs, r.kinds)]
    whole = (r.story, r.violation, r.core, r.faults, r.acks, r.messages, r.epochs, r.simulated_s, counts)
    return hashlib.sha256(repr((whole, world.engine.random.getstate())).encode()).hexdigest()


def story_lines(result: Result) -> list[str]:
    """Return a told run as lines: when, who, what. What a member does again and again is told twice, then counted."""
    lines: list[str] = []
    told: dict[tuple[str, str], int] = {}
    for at, who, what in result.story:
        if not what.startswith("  "):  # a rule, a fault: from here on it is another situation
            lines += _again(told, who)
        told[who, what] = told.get((who, what), 0) + 1
        if told[who, what] <= TOLD_MAX:
            lines.append(f"{at / 1e9:9.3f}  {who:6} {what}")
    for who in dict.fromkeys(w for w, _ in told):
        lines += _again(told, who)
    return [*lines, f"{result.simulated_s:9.3f}  {'CHECK':6} {result.violation or 'every invariant held'}"]


def _again(told: dict[tuple[str, str], int], who: str) -> list[str]:
    """What one of them did more often than it was told; it is forgotten here."""
    mine = [key for key in told if key[0] == who]
    counts = [(key[1], told.pop(key) - TOLD_MAX) for key in mine]
    return [f"{'':9}  {who:6} {what} ({more} times more)" for what, more in counts if more > 0]
