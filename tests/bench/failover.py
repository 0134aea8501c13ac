"""How long clients wait: one JSON object a figure on standard output, progress on standard error.

    python tests/bench/failover.py [--n 20] [--few 8] [--profile default|fast] [--only power_off,...]

Outage: from the fault to the first acknowledged write of a client that writes through the floating IP without pause (lost standby: the longest time
without an acknowledgement around the fault). The client and its clock stand outside the product: tests/lab/programs/api_writer.py. The steps are what
the pair says of itself (`last_switch`), in seconds from the last sign of life of the lost member.

Every round starts from a protected pair and ends with one; the member that was hit comes back by itself (recovery = auto), but
for a standby that lost its power: `futago recover` powers it on.
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

from senders import ApiWriter, Write

from futago.lab.lab import PROGRAM, Lab
from futago.lab.pair import form_pair, wait_protected
from futago.lab.progress import say
from futago.runtime.clock import now_at

QUIET_S = 1.0  # a write must be acknowledged before the fault, and the pair settled
Break = Callable[[Lab], int]


def power_off(lab: Lab) -> int:
    return int(lab.fault("power-cut", "primary")["at"])


def hang(lab: Lab) -> int:
    """The whole host stands still, its kernel too: nothing answers. It is fenced, and comes back by that."""
    return int(lab.fault("kernel-hang", "primary")["at"])


def standby_power_off(lab: Lab) -> int:
    return int(lab.fault("power-cut", "standby")["at"])


def controller_kill(lab: Lab) -> int:
    return int(lab.fault("kill", "primary", "controller")["at"])


def postgres_kill(lab: Lab) -> int:
    return int(lab.fault("kill", "primary", "postgres")["at"])


def switchover(lab: Lab) -> int:
    member = lab.host(lab.resolve("primary"))
    at = now_at()
    member.run([PROGRAM, "switchover"], deadline_s=60)
    return at


FIGURES: dict[str, Break] = {
    "power_off": power_off,
    "hang": hang,
    "controller_kill": controller_kill,
    "postgres_kill": postgres_kill,
    "switchover": switchover,
    "standby_power_off": standby_power_off,
}
IN_PLACE = {"standby_power_off", "controller_kill"}  # nobody takes over: the figure is the longest gap


def longest_gap(writes: list[Write], at: int) -> float:
    """Return the longest time without an acknowledgement that ends after `at`, counted from `at` at the earliest."""
    instants = sorted(w.acked_at for w in writes if w.status)
    gaps = [(b - max(a, at)) / 1e9 for a, b in pairwise(instants) if b > at]
    return max(gaps, default=float("nan"))


def one_round(lab: Lab, name: str, number: int) -> tuple[float, dict[str, float]]:
    """Break a protected pair once; return the outage in seconds and the steps; leave it protected."""
    before = wait_protected(lab, deadline_s=180)
    writer = ApiWriter(lab, rate=100, threads=10)
    writer.start(prefix=f"bench-{name}-{number}-{time.time_ns()}")
    time.sleep(QUIET_S)
    at = FIGURES[name](lab)
    first = writer.wait_for_write_after(at, deadline_s=60)
    steps = {} if name == "controller_kill" else steps_of(lab, before)
    time.sleep(3 if name in IN_PLACE else QUIET_S)
    writes = writer.stop()
    outage = longest_gap(writes, at) if name in IN_PLACE or name == "switchover" else (first.acked_at - at) / 1e9
    if name == "standby_power_off":  # nobody fenced it, so nobody powers it on unasked
        lab.host(lab.resolve("primary")).run([PROGRAM, "recover"], deadline_s=180)
    wait_protected(lab, deadline_s=180)
    return outage, steps | {"first_write": outage}


def steps_of(lab: Lab, before: dict[str, Any]) -> dict[str, float]:
    """Return the steps of the switch since the status `before`, in seconds, once the service says that it is over."""
    end = time.monotonic() + 20
    while time.monotonic() < end:
        switch = (lab.pair_status() or {}).get("last_switch") or {}
        steps = {step["name"]: step["ms"] / 1000 for step in switch.get("steps", [])}
        if switch.get("epoch", 0) > before["epoch"] and ("gate" in steps or "solo" in steps):
            return steps
        time.sleep(0.2)
    return {}


def figure(lab: Lab, name: str, n: int, profile: str) -> dict[str, Any]:
    """Measure one figure."""
    outages: list[float] = []
    steps: dict[str, list[float]] = {}
    for i in range(n):
        outage, took = one_round(lab, name, i)
        outages.append(outage)
        for step, seconds in took.items():
            steps.setdefault(step, []).append(seconds)
        say(f"  {name} {i + 1}/{n}: {outage:.3f} s  {json.dumps({k: round(v, 3) for k, v in took.items()})}")
    outages.sort()
    suffix = "" if profile == "default" else f".{profile}"
    return {
        "figure": f"failover.{name}.outage_s{suffix}",
        "n": n,
        "p50": round(statistics.median(outages), 3),
        "max": round(outages[-1], 3),
        "steps": {k: round(statistics.median(v), 3) for k, v in steps.items()},
        "profile": profile,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=20, help="rounds of power_off and hang")
    parser.add_argument("--few", type=int, default=8, help="rounds of the other figures")
    parser.add_argument("--profile", default="default")
    parser.add_argument("--only", default=",".join(FIGURES))
    a = parser.parse_args()
    lab = Lab(f"b{os.getpid()}")
    try:
        lab.up(owner_pid=os.getpid(), say=say)
        form_pair(lab, profile=a.profile, say=say)
        for name in a.only.split(","):
            print(json.dumps(figure(lab, name, a.n if name in ("power_off", "hang") else a.few, a.profile)), flush=True)
    finally:
        lab.down(say=say, keep_logs=True)


if __name__ == "__main__":
    main()
