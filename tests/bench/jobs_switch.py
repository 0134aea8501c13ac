"""Switches under a load of jobs, and what became of every run: started twice, lost, or told wrongly.

What the pair says of each run is held against what the hosts noted themselves:

    noted more than once                        twice
    said to have run to its end, and not noted  lost
    noted, and said never to have run           lost
    an exit code that its job cannot have       wrong
    unknown                                     true only if its host lost power or its agent's runs were killed
"""

from __future__ import annotations

import random
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "lab"))
sys.path.insert(0, str(Path(__file__).parent))

from api import Api
from failover import lift_limit
from jobs_world import (
    HOSTS,
    OPEN,
    Job,
    acknowledged,
    counted,
    define,
    forget_starts,
    net,
    noted,
    primary,
    seconds,
    start,
    steady_starts,
    wait_running,
)

from futago.lab.lab import PROGRAM, Lab
from futago.lab.pair import wait_protected
from futago.lab.progress import say
from futago.runtime.clock import now_at
from futago.runtime.faults import FutagoFault

LOAD_NET = "bench-load"
LOAD_PERIOD_S = 1.0
LOAD_JOBS = 50  # a second
CODES = 20
DRAIN_S = 240.0
PROTECTED_WITHIN_S = 120.0  # between one switch and the next
MENDED_WITHIN_S = 180.0  # after a round that failed, with everything healed
ASKED_AT_ONCE = 25
OPEN_WIDTH = 100  # jobs of one session of the open runs
TICKS = 4000
STARTED_WITHIN_S = 60.0


def power_cut(lab: Lab) -> int:
    return int(lab.fault("power-cut", primary(lab).name)["at"])


def hang(lab: Lab) -> int:
    return int(lab.fault("kernel-hang", primary(lab).name)["at"])


def kill(program: str) -> Callable[[Lab], int]:
    return lambda lab: int(lab.fault("kill", primary(lab).name, program)["at"])


def switchover(lab: Lab) -> int:
    at = now_at()
    primary(lab).run([PROGRAM, "switchover"], deadline_s=60)
    return at


KINDS: dict[str, Callable[[Lab], int]] = {
    "power-cut": power_cut,
    "switchover": switchover,
    "postgres-kill": kill("postgres"),
    "manager-kill": kill("manager"),  # no switch: the engine begins anew
    "hang": hang,
    "controller-kill": kill("controller"),  # no switch either
}


def load_jobs() -> list[Job]:
    """Return the jobs of one second: half at once, the other half each after one of them; every job's exit code is its
    own.
    """
    half = LOAD_JOBS // 2
    jobs: list[Job] = []
    for n in range(LOAD_JOBS):
        job: Job = {
            "name": f"j{n}",
            "host": HOSTS[n % len(HOSTS)],
            "command": counted(f"sleep 0.{n % 5}; exit {n % CODES}"),
            "exit_codes": {"normal": "0-255"},
        }
        if n >= half:
            job["after"] = [f"j{n - half}"]
        jobs.append(job)
    return jobs


@dataclass(slots=True)
class Verdict:
    """What the comparison found."""

    runs: int = 0
    twice: int = 0
    lost: int = 0
    wrong: int = 0
    unknown: int = 0
    unexplained: int = 0  # unknown, on a host that neither lost power nor had its runs killed
    examples: list[str] = field(default_factory=list)

    def note(self, kind: str, example: str) -> None:
        setattr(self, kind, getattr(self, kind) + 1)
        if len(self.examples) < 10:
            self.examples.append(f"{kind}: {example}")


def compare(api: Api, lab: Lab, sessions: list[int], *, cut_hosts: set[str]) -> Verdict:
    """Hold what the pair says of these runs against what the hosts noted."""
    starts = Counter(n.run_id for n in noted(lab))
    verdict, known = Verdict(), set[str]()
    for session_id, found in _told(api, sessions):
        if found is None:
            verdict.note("lost", f"run {session_id} was acknowledged and is not there")
            continue
        if found["state"] in OPEN:
            verdict.note("lost", f"run {session_id} has not ended: {found['job_states']}")
        for job in found["jobs"]:
            known.add(job["run_id"])
            _judge(verdict, session_id, job, starts[job["run_id"]], cut_hosts)
    for run_id in starts.keys() - known:
        verdict.note("lost", f"{run_id} was started and no run of the load has this id")
    return verdict


def _told(api: Api, sessions: list[int]) -> Iterator[tuple[int, dict[str, Any] | None]]:
    """Yield each session with what the pair says of it; some at once, since each question costs a program."""
    for chunk in batched(sessions, ASKED_AT_ONCE):
        yield from zip(chunk, api.ask_each([f"/runs/{n}" for n in chunk], deadline_s=30), strict=True)
        say(f"  compared up to run {chunk[-1]} of {sessions[-1]}")


def batched(values: list[int], size: int) -> Iterator[list[int]]:
    return (values[i : i + size] for i in range(0, len(values), size))


def _judge(verdict: Verdict, session_id: int, job: dict[str, Any], count: int, cut_hosts: set[str]) -> None:
    verdict.runs += 1
    where = f"run {session_id} {job['job_name']} {job['run_id']} {job['state']} {job['exit_code']} {job['detail']}"
    if count > 1:
        verdict.note("twice", f"{where}: {count} starts")
    if job["state"] == "unknown":
        verdict.unknown += 1
        if job["host_name"] not in cut_hosts:
            verdict.note("unexplained", where)
    elif job["exit_code"] is not None:
        if not count:
            verdict.note("lost", f"{where}: never started")
        if job["exit_code"] != int(job["job_name"][1:]) % CODES:
            verdict.note("wrong", where)
    elif count:
        verdict.note("lost", f"{where}: was started")


def switches(lab: Lab, api: Api, *, count: int, kinds: list[str], within_s: float) -> dict[str, Any]:
    """Switch `count` times under the load, as many as begin within so many seconds; return the figure."""
    return _under_load(lab, api, lambda: _switch_all(lab, count, kinds, within_s), name="switch", cut_hosts=set())


def _switch_all(lab: Lab, count: int, kinds: list[str], within_s: float) -> dict[str, Any]:
    """Make the rounds. One that fails is told in the figure and healed: what became of the runs counts all the more."""
    lift_limit(lab)
    begun, epoch = time.monotonic(), _epoch(lab)
    done: Counter[str] = Counter()
    failed: list[str] = []
    for i in range(count):
        if (passed := time.monotonic() - begun) > within_s:
            failed.append(f"{count - i} rounds were not begun within {within_s:g} s")
            break
        kind = kinds[i % len(kinds)]
        try:
            _switch_once(lab, kind)
            done[kind] += 1
        except (FutagoFault, AssertionError, OSError) as e:
            failed.append(f"round {i + 1}, {kind}: {e}"[:500])
            say(f"  {failed[-1]}")
            _heal(lab)
        say(f"  switch {i + 1}/{count}: {kind}, begun after {passed:.0f} s")
    _heal(lab)
    return {"rounds": done.total(), "kinds": dict(done), "epochs": _epoch(lab) - epoch, "failed": failed}


def _epoch(lab: Lab) -> int:
    return int((lab.pair_status() or {}).get("epoch", 0))


def _switch_once(lab: Lab, kind: str) -> None:
    """One round of a bounded time."""
    wait_protected(lab, deadline_s=PROTECTED_WITHIN_S)
    time.sleep(1)
    KINDS[kind](lab)
    time.sleep(2)


def _heal(lab: Lab) -> None:
    """End what faults there are and wait for the pair to be whole; say so if it is not."""
    try:
        lab.heal()
        wait_protected(lab, deadline_s=MENDED_WITHIN_S)
    except (FutagoFault, OSError) as e:
        say(f"  not healed: {e}")


def agents(lab: Lab, api: Api, *, rounds: int, seed: int) -> dict[str, Any]:
    """Kill agents and cut hosts' power at random under the load; return the figure."""
    chance = random.Random(seed)
    cut: set[str] = set()
    return _under_load(lab, api, lambda: _hit_all(lab, rounds, chance, cut), name="agents", cut_hosts=cut)


def _hit_all(lab: Lab, rounds: int, chance: random.Random, cut: set[str]) -> dict[str, Any]:
    kills = 0
    for i in range(rounds):
        host = lab.host(chance.choice(HOSTS))
        if chance.random() < 0.3:
            cut.add(host.name)
            lab.fault("power-cut", host.name)
            time.sleep(chance.uniform(0.5, 2))
            lab.fault("power-on", host.name)
            host.wait_booted()
        else:
            kills += 1
            host.run(["systemctl", "kill", "-s", "KILL", "--kill-whom=main", "futago-agent"], check=False)
        say(f"  hit {i + 1}/{rounds}: {host.name}, power cut on {sorted(cut)}, {kills} agents killed")
        time.sleep(chance.uniform(0.2, 2))
    return {"agents_killed": kills, "hosts_cut": len(cut)}


def _under_load(
    lab: Lab, api: Api, work: Callable[[], dict[str, Any]], *, name: str, cut_hosts: set[str]
) -> dict[str, Any]:
    define(lab, net(LOAD_NET, load_jobs()))
    forget_starts(lab)
    before = time.time_ns()
    with steady_starts(lab, LOAD_NET, period_s=LOAD_PERIOD_S, prefix=f"{name}-{before}"):
        time.sleep(3)
        said = work()
        time.sleep(2)
    sessions = acknowledged(lab)
    _drain(api, sessions)
    verdict = compare(api, lab, sessions, cut_hosts=cut_hosts)
    starts = noted(lab)
    took_s = (starts[-1].at - starts[0].at) / 1e9
    return {
        "sessions": len(sessions), "runs": verdict.runs, "starts_per_s": round(len(starts) / took_s, 1),
        "twice": verdict.twice, "lost": verdict.lost, "wrong": verdict.wrong, "unknown": verdict.unknown,
        "unexplained": verdict.unexplained, "examples": verdict.examples, **said,
    }  # fmt: skip


def _drain(api: Api, sessions: list[int]) -> None:
    """Wait until every run of the load has ended; the list of runs tells it of two hundred at once."""
    end = time.monotonic() + DRAIN_S
    left = set(sessions)
    while left and time.monotonic() < end:
        newest = max(left)
        stand = api.ask(f"/runs?before={newest + 1}&limit=200", deadline_s=60)["runs"]
        ended = {s["session_id"] for s in stand if s["state"] not in OPEN}
        time.sleep(0 if left & ended else 0.5)
        left -= ended
    say(f"  {len(left)} of {len(sessions)} runs of the load have not ended")


def resume(lab: Lab, api: Api, *, open_runs: int, running: int, rounds: int) -> dict[str, Any]:
    """Measure the time from the gate's opening to the first start of a job, with so many open runs.

    Args:
        open_runs: all together.
        running: of them, with a process on a host; the rest waits for those.
        rounds: how many switchovers.
    """
    count = max(1, open_runs // OPEN_WIDTH)
    per_net = max(1, running // count)
    define(lab, net("bench-open", _open_jobs(per_net)), net("bench-ticks", _ticks()))
    opened = [start(api, "bench-open") for _ in range(count)]
    say(f"  {count} sessions asked for")
    figures: list[float] = []
    try:
        for n, session_id in enumerate(opened):
            wait_running(api, session_id, per_net)
            if n % 10 == 9:
                say(f"  {(n + 1) * per_net} runs have a process")
        for i in range(rounds):
            wait_protected(lab, deadline_s=PROTECTED_WITHIN_S)
            figures.append(_resumed(lab, api, i))
    finally:
        for session_id in opened:
            api.ask(f"/runs/{session_id}/operations", post={"operation": "stop"}, deadline_s=60)
        _drain(api, opened)
    return {
        "open_runs": count * OPEN_WIDTH, "running": count * per_net, "s": [round(f, 3) for f in figures],
        "p50": round(sorted(figures)[len(figures) // 2], 3), "max": round(max(figures), 3),
    }  # fmt: skip


def _open_jobs(per_net: int) -> list[Job]:
    runs: list[Job] = [{"name": f"r{n}", "host": HOSTS[n % 4], "command": "exec sleep 3000"} for n in range(per_net)]
    return runs + [
        {"name": f"w{n}", "host": HOSTS[n % 4], "command": "true", "after": [f"r{n % per_net}"]}
        for n in range(OPEN_WIDTH - per_net)
    ]


def _ticks() -> list[Job]:
    """Return one chain of counted jobs for each host."""
    ticks: list[Job] = []
    for n in range(TICKS):
        job: Job = {"name": f"t{n}", "host": HOSTS[n % 4], "command": counted("sleep 0.05")}
        if n >= len(HOSTS):
            job["after"] = [f"t{n - len(HOSTS)}"]
        ticks.append(job)
    return ticks


def _resumed(lab: Lab, api: Api, i: int) -> float:
    """Hand over once, with chains of short jobs under way; return the seconds from the new primary's gate to the first
    job that started after it. The chains are begun for each round: those of one would have ended before the next.
    """
    forget_starts(lab)
    ticking = start(api, "bench-ticks")
    _first_start(lab, after=0)
    epoch = _epoch(lab)
    switchover(lab)
    gate, steps = _gate(lab, epoch)
    first = _first_start(lab, after=gate)
    say(f"  resume {i + 1}: {steps}, first start {(first - gate) / 1e9:.3f} s after the gate")
    api.ask(f"/runs/{ticking}/operations", post={"operation": "stop"}, deadline_s=60)
    _drain(api, [ticking])
    return (first - gate) / 1e9


def _gate(lab: Lab, epoch: int) -> tuple[float, dict[str, float]]:
    """Wait for the switch to an epoch after this one; return the wall time of its gate in nanoseconds, and its steps. Only
    the member that took over knows those; the other one, if asked, has the same epoch and no steps.
    """
    end = time.monotonic() + STARTED_WITHIN_S
    switch: dict[str, Any] = {}
    while True:
        with suppress(FutagoFault):  # it is busy: asked again below
            told = primary(lab).ask_controller({"op": "status"}, deadline_s=5).get("status") or {}
            switch = told.get("last_switch") or {}
        steps = {step["name"]: step["ms"] for step in switch.get("steps", [])}
        if switch.get("epoch", 0) > epoch and "gate" in steps:
            return (seconds(switch["utc"]) + (steps["gate"] - steps["won"]) / 1e3) * 1e9, steps  # `utc`: of `won`
        if time.monotonic() > end:
            raise AssertionError(f"no gate opened: {switch}")
        time.sleep(0.2)


def _first_start(lab: Lab, *, after: float) -> int:
    """Wait for a start after this wall time, nanoseconds; return its own."""
    end = time.monotonic() + STARTED_WITHIN_S
    while True:
        first = next((n.at for n in noted(lab) if n.at > after), None)
        if first is not None:
            return first
        if time.monotonic() > end:
            raise AssertionError(f"no job started within {STARTED_WITHIN_S:g} s of the gate")
        time.sleep(0.5)
