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
from collections.abc import Callable
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
    for session_id in sessions:
        found = api.ask(f"/runs/{session_id}")
        if found["state"] in OPEN:
            verdict.note("lost", f"run {session_id} has not ended: {found['job_states']}")
        for job in found["jobs"]:
            known.add(job["run_id"])
            _judge(verdict, session_id, job, starts[job["run_id"]], cut_hosts)
    for run_id in starts.keys() - known:
        verdict.note("lost", f"{run_id} was started and no run of the load has this id")
    return verdict


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


def switches(lab: Lab, api: Api, *, count: int, kinds: list[str]) -> dict[str, Any]:
    """Switch `count` times under the load; return the figure."""
    return _under_load(lab, api, lambda: _switch_all(lab, count, kinds), name="switch", cut_hosts=set())


def _switch_all(lab: Lab, count: int, kinds: list[str]) -> dict[str, Any]:
    """Switch; a pair that does not find back ends the round, and what became of the runs until then is still reckoned."""
    lift_limit(lab)
    began, done = time.monotonic(), 0
    try:
        for i in range(count):
            kind = kinds[i % len(kinds)]
            wait_protected(lab, deadline_s=180)
            time.sleep(1)
            KINDS[kind](lab)
            done += 1
            say(f"  switch {done}/{count}: {kind} ({time.monotonic() - began:.1f} s)")
            time.sleep(2)
        wait_protected(lab, deadline_s=180)
    except (FutagoFault, AssertionError) as e:
        say(f"  ended after {done} of {count}: {e}")
        return {"switches": done, "kinds": kinds, "ended_by": str(e)}
    return {"switches": done, "kinds": kinds}


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


def resume(lab: Lab, api: Api, *, open_runs: int, running: int, rounds: int) -> dict[str, Any]:
    """Measure the time from the gate's opening to the first start of a job, with so many open runs.

    Args:
        open_runs: all together.
        running: of them, with a process on a host; the rest waits for those.
        rounds: how many switchovers.
    """
    width = 100
    sessions_wanted = max(1, open_runs // width)
    per_net = max(1, running // sessions_wanted)
    jobs: list[Job] = [
        {"name": f"r{n}", "host": HOSTS[n % 4], "command": "exec sleep 3000"} for n in range(per_net)
    ] + [
        {"name": f"w{n}", "host": HOSTS[n % 4], "command": "true", "after": [f"r{n % per_net}"]}
        for n in range(width - per_net)
    ]
    ticks: list[Job] = [
        {
            "name": f"t{n}",
            "host": HOSTS[n % 4],
            "command": counted("sleep 0.05"),
            **({"after": [f"t{n - 4}"]} if n >= 4 else {}),
        }
        for n in range(4000)
    ]
    define(lab, net("bench-open", jobs), net("bench-ticks", ticks))
    opened = [start(api, "bench-open") for _ in range(sessions_wanted)]
    forget_starts(lab)
    ticking = start(api, "bench-ticks")
    for session_id in opened:
        wait_running(api, session_id, per_net)
    figures: list[float] = []
    for i in range(rounds):
        wait_protected(lab, deadline_s=180)
        time.sleep(3)
        figures.append(_resumed(lab, i))
    for session_id in (*opened, ticking):
        api.ask(f"/runs/{session_id}/operations", post={"operation": "stop"})
    return {
        "open_runs": sessions_wanted * width, "running": sessions_wanted * per_net, "s": [round(f, 3) for f in figures],
        "p50": round(sorted(figures)[len(figures) // 2], 3), "max": round(max(figures), 3),
    }  # fmt: skip


def _resumed(lab: Lab, i: int) -> float:
    """Hand over once; return the seconds from the new primary's gate to the first job that started after it."""
    epoch = (lab.pair_status() or {}).get("epoch", 0)
    switchover(lab)
    end = time.monotonic() + 60
    while True:
        switch = (lab.pair_status() or {}).get("last_switch") or {}
        steps = {step["name"]: step["ms"] for step in switch.get("steps", [])}
        if switch.get("epoch", 0) > epoch and "gate" in steps:
            break
        if time.monotonic() > end:
            raise AssertionError(f"no gate opened: {switch}")
        time.sleep(0.2)
    gate = (seconds(switch["utc"]) + (steps["gate"] - steps["won"]) / 1e3) * 1e9  # `utc` is the instant of `won`
    time.sleep(3)
    first = next((n.at for n in noted(lab) if n.at > gate), None)
    say(f"  resume {i + 1}: {steps}, first start {'never' if first is None else (first - gate) / 1e9}")
    return float("inf") if first is None else (first - gate) / 1e9
