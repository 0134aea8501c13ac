"""Job control, measured in a lab with a protected pair: one JSON object a figure on standard output, progress on standard error.

    python tests/bench/jobs.py [--only chain,fanout,tree,transfer,running,resume,switch,agents] [--chains 10] [--switches 30] [--hits 20]

    jobs.chain.per_job_ms   20 no-op jobs in a chain on one agent: from the end of one to the start of the next
    jobs.fanout.per_s       2,000 no-op jobs that are ready at once, over four agents
    jobs.tree.10000_s       one tree: 9,900 jobs in 100 nets of nine layers: loaded, started, read, finished; memory
    jobs.transfer.mib_per_s one file from host to host through the manager, and four at once
    jobs.running            10,000 runs at once, each with its process: memory of the manager and of the largest agent
    jobs.switch.resume_s    with 10,000 open runs: from the gate's opening to the first start of a job
    jobs.switch             switches of mixed kinds under 50 starts a second: runs started twice, lost, told wrongly
    jobs.agents             the same load, agents killed and hosts cut from their power at random

The agents, their processes and both members share the machine's cores. Starts and ends are those of the host: the times of
files that its kernel keeps in steps of a tick (4 ms at 250 Hz), so a single gap is right to one tick, and the mean of
many to a fraction of it. Exit code 1 if a run was started twice, lost or told wrongly.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "lab"))
sys.path.insert(0, str(Path(__file__).parent))

import jobs_switch
import jobs_transfer
from api import Api
from jobs_world import (
    HOSTS,
    Job,
    agents_memory_mb,
    define,
    finished,
    machine,
    manager_memory_mb,
    net,
    processes,
    seconds,
    start,
    wait_running,
)

from futago.lab.lab import Lab
from futago.lab.pair import form_pair, wait_protected
from futago.lab.progress import say

CHAIN_JOBS = 20
FANOUT_JOBS = 2_000
TREE_NETS, TREE_LAYERS, TREE_WIDTH = 100, 9, 11  # with the nets themselves, the 10,000 of one tree


def percentile(values: list[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(len(values) * share))]


def chain(lab: Lab, api: Api, a: argparse.Namespace) -> dict[str, Any]:
    jobs: list[Job] = [
        {"name": f"c{n}", "host": "host1", "command": ":", **({"after": [f"c{n - 1}"]} if n else {})}
        for n in range(CHAIN_JOBS)
    ]
    define(lab, net("bench-chain", jobs))
    gaps: list[float] = []
    walls: list[float] = []
    for i in range(a.chains):
        found = finished(api, start(api, "bench-chain"), deadline_s=60)
        assert found["state"] == "normal", found
        by_name = {j["job_name"]: j for j in found["jobs"]}
        order = [by_name[f"c{n}"] for n in range(CHAIN_JOBS)]
        gaps += [(seconds(b["started_utc"]) - seconds(a_["ended_utc"])) * 1e3 for a_, b in pairwise(order)]
        walls.append((seconds(order[-1]["ended_utc"]) - seconds(order[0]["started_utc"])) * 1e3 / (CHAIN_JOBS - 1))
        say(f"  chain {i + 1}: {walls[-1]:.1f} ms a job")
    return {
        "figure": "jobs.chain.per_job_ms", "p50": round(statistics.median(gaps), 1), "p99": round(percentile(gaps, 0.99), 1),
        "mean": round(statistics.mean(gaps), 1), "with_run_mean": round(statistics.mean(walls), 1), "n": len(gaps),
    }  # fmt: skip


def fanout(lab: Lab, api: Api, a: argparse.Namespace) -> dict[str, Any]:
    define(
        lab,
        net("bench-fan", [{"name": f"f{n}", "host": HOSTS[n % 4], "command": ":"} for n in range(FANOUT_JOBS)]),
    )
    rates: list[float] = []
    for i in range(a.fanouts):
        found = finished(api, start(api, "bench-fan"), deadline_s=180)
        assert found["state"] == "normal", found["job_states"]
        took = max(seconds(j["ended_utc"]) for j in found["jobs"]) - seconds(found["started_utc"])
        rates.append(FANOUT_JOBS / took)
        say(f"  fan-out {i + 1}: {rates[-1]:.0f} jobs a second")
    return {
        "figure": "jobs.fanout.per_s", "p50": round(statistics.median(rates), 1), "min": round(min(rates), 1),
        "max": round(max(rates), 1), "jobs": FANOUT_JOBS, "n": len(rates),
    }  # fmt: skip


def tree(lab: Lab, api: Api, a: argparse.Namespace) -> dict[str, Any]:
    jobs: list[Job] = [
        {
            "name": f"l{layer}-{n}",
            "host": HOSTS[n % 4],
            "command": ":",
            **({"after": [f"l{layer - 1}-{m}" for m in (n, (n + 1) % TREE_WIDTH)]} if layer else {}),
        }
        for layer in range(TREE_LAYERS)
        for n in range(TREE_WIDTH)
    ]
    before = manager_memory_mb(lab)
    loaded = define(lab, net("bench-tree", [{"name": f"n{i}", "jobs": jobs} for i in range(TREE_NETS)]))
    begun = time.monotonic()
    session_id = start(api, "bench-tree")
    posted = time.monotonic() - begun
    reads = [_read_s(api, session_id) for _ in range(3)]
    peak = manager_memory_mb(lab)
    found = finished(api, session_id, deadline_s=600)
    assert found["state"] == "normal", found["job_states"]
    took = seconds(found["ended_utc"]) - seconds(found["created_utc"])
    first = min(seconds(j["started_utc"]) for j in found["jobs"] if j["started_utc"]) - seconds(found["created_utc"])
    count = len(jobs) * TREE_NETS
    return {
        "figure": "jobs.tree.10000_s", "jobs": count, "nets": TREE_NETS, "loaded_s": round(loaded, 1),
        "posted_s": round(posted, 2), "first_start_s": round(first, 2), "finished_s": round(took, 1),
        "per_s": round(count / took, 1), "read_s": round(statistics.median(reads), 2),
        "read_mb": round(len(json.dumps(found)) / 1e6, 1), "manager_mb_before": round(before, 1),
        "manager_mb_peak": round(peak, 1), "manager_mb_after": round(manager_memory_mb(lab), 1),
    }  # fmt: skip


def _read_s(api: Api, session_id: int) -> float:
    """Return the seconds that the whole tree takes over the API, less those of a small answer."""
    begun = time.monotonic()
    api.ask(f"/runs?before={session_id + 1}&limit=1")
    small = time.monotonic()
    api.ask(f"/runs/{session_id}", deadline_s=60)
    return (time.monotonic() - small) - (small - begun)


def transfer(lab: Lab, api: Api, a: argparse.Namespace) -> dict[str, Any]:
    figure = jobs_transfer.transfers(lab, api, size_mb=a.transfer_mib, rounds=a.transfers)
    return {"figure": "jobs.transfer.mib_per_s", **figure}


def running(lab: Lab, api: Api, a: argparse.Namespace) -> dict[str, Any]:
    before = {"manager_mb_before": round(manager_memory_mb(lab), 1), "agent_mb_before": round(agents_memory_mb(lab), 1)}
    idle = processes(lab)
    define(lab, net("bench-running", [{"name": f"r{n}", "host": HOSTS[n % 4], "command": "exec sleep 3000"} for n in range(a.running_at_once)]))  # fmt: skip
    begun = time.monotonic()
    session_id = start(api, "bench-running")
    wait_running(api, session_id, a.running_at_once)
    took = time.monotonic() - begun
    figure = {
        "figure": "jobs.running", "runs": a.running_at_once, "processes": processes(lab) - idle, "up_s": round(took, 1),
        **before, "manager_mb": round(manager_memory_mb(lab), 1), "agent_mb": round(agents_memory_mb(lab), 1),
    }  # fmt: skip
    begun = time.monotonic()
    api.ask(f"/runs/{session_id}/operations", post={"operation": "stop"})
    finished(api, session_id, deadline_s=300)
    return {**figure, "stopped_s": round(time.monotonic() - begun, 1)}


def resume(lab: Lab, api: Api, a: argparse.Namespace) -> dict[str, Any]:
    figure = jobs_switch.resume(lab, api, open_runs=a.open_runs, running=a.running, rounds=a.resumes)
    return {"figure": "jobs.switch.resume_s", **figure}


def switch(lab: Lab, api: Api, a: argparse.Namespace) -> dict[str, Any]:
    kinds = a.kinds.split(",")
    return {"figure": "jobs.switch", **jobs_switch.switches(lab, api, count=a.switches, kinds=kinds, within_s=a.within)}


def agents(lab: Lab, api: Api, a: argparse.Namespace) -> dict[str, Any]:
    return {"figure": "jobs.agents", "seed": a.seed, **jobs_switch.agents(lab, api, rounds=a.hits, seed=a.seed)}


FIGURES: dict[str, Callable[[Lab, Api, argparse.Namespace], dict[str, Any]]] = {
    "chain": chain,
    "fanout": fanout,
    "tree": tree,
    "transfer": transfer,
    "running": running,
    "resume": resume,
    "switch": switch,
    "agents": agents,
}


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default=",".join(FIGURES))
    parser.add_argument("--chains", type=int, default=10, help="chains one after the other")
    parser.add_argument("--fanouts", type=int, default=3)
    parser.add_argument("--transfers", type=int, default=3, help="rounds of one file, and of four at once")
    parser.add_argument("--transfer-mib", type=int, default=64, help="size of one file")
    parser.add_argument("--running-at-once", type=int, default=10_000)
    parser.add_argument("--open-runs", type=int, default=10_000)
    parser.add_argument("--running", type=int, default=1_000, help="of the open runs, with a process on a host")
    parser.add_argument("--resumes", type=int, default=3, help="switchovers with the open runs")
    parser.add_argument("--switches", type=int, default=30)
    parser.add_argument("--within", type=float, default=1800, help="seconds; no switch begins later")
    parser.add_argument("--kinds", default=",".join(jobs_switch.KINDS))
    parser.add_argument("--hits", type=int, default=20, help="agents killed and hosts cut from their power")
    parser.add_argument("--seed", type=int, default=5)
    parser.add_argument("--lab", default="", help="use this lab, with a pair in it, and leave it up")
    return parser.parse_args()


def main() -> int:
    a = arguments()
    lab = Lab(a.lab or f"b{os.getpid()}")
    is_ours = not lab.is_up()
    bad = 0
    try:
        if is_ours:
            lab.up(owner_pid=0 if a.lab else os.getpid(), say=say)
            form_pair(lab, say=say)
        wait_protected(lab)
        api = Api(lab)
        for name in a.only.split(","):
            figure = FIGURES[name](lab, api, a)
            print(json.dumps({**figure, **machine()}), flush=True)
            bad += sum(figure.get(k, 0) for k in ("twice", "lost", "wrong", "unexplained"))
            bad += len(figure.get("failed", []))
    finally:
        if not a.lab:
            lab.down(say=say, keep_logs=True)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
