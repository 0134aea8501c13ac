"""How long clients wait: one JSON object a figure on standard output, progress on standard error.

    python tests/bench/failover.py [--n 20] [--few 8] [--profile default|fast] [--only power_off,...] [--database-mb 1000]

Outage: from the fault to the first acknowledged write of a client that writes through the floating IP without pause (lost standby: the longest time
without an acknowledgement around the fault). The manager is not on a write's way: for its faults, from the fault to the first event that a message
sent after it made. Clients, senders and their clocks stand outside the product: tests/lab/programs/{api_writer,event_probe}.py. The steps are what
the pair says of itself (`last_switch`), in seconds from the last sign of life of the lost member. Paired again: from the power-on of the member that
was lost, its boot included, to the pair's word.

Every round starts from a protected pair and ends with one; the member that was hit comes back by itself (recovery = auto), but
for a standby that lost its power: `futago recover` powers it on.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import threading
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "lab"))

from probe import EventProbe
from senders import ApiWriter, Write

from futago.lab.lab import PROGRAM, Lab
from futago.lab.pair import form_pair, wait_protected
from futago.lab.progress import say, step
from futago.runtime.clock import now_at

BACK_S = 180.0
QUIET_S = 1.0  # a write must be acknowledged before the fault, and the pair settled
FIGURES_OF_A_ROUND = ("outage", "paired_again")
PSQL = ["psql", "-qAtX", "-h", "/run/futago/pg", "-U", "postgres", "-d", "futago"]
FILL = "CREATE TABLE ballast AS SELECT g AS id, repeat(md5(g::text), 30) AS text FROM generate_series(1, {rows}) g"
ROWS_PER_MB = 1000  # of about a kilobyte each
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


def postgres_hang(lab: Lab) -> int:
    return int(lab.fault("stop", "primary", "postgres")["at"])


def manager_kill(lab: Lab) -> int:
    return int(lab.fault("kill", "primary", "manager")["at"])


def manager_hang(lab: Lab) -> int:
    return int(lab.fault("stop", "primary", "manager")["at"])


def disk_hang(lab: Lab) -> int:
    return int(lab.fault("disk-hang", "primary")["at"])


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
    "postgres_hang": postgres_hang,
    "manager_kill": manager_kill,
    "manager_hang": manager_hang,
    "disk_hang": disk_hang,
    "switchover": switchover,
    "standby_power_off": standby_power_off,
}
IN_PLACE = {"standby_power_off", "controller_kill"}  # nobody takes over: the figure is the longest gap
OF_THE_MANAGER = {"manager_kill", "manager_hang"}
LOSE_A_MACHINE = {"power_off", "hang"}  # it comes back by its fence device
HEALED = {"disk_hang": "disk-hang"}  # what nobody in the pair can mend


def lift_limit(lab: Lab) -> None:
    """Members may come back by themselves without end: here they are broken all the time."""
    for node in lab.members:
        node.run(["sed", "-i", "s/^returns_max = .*/returns_max = 0/", "/etc/futago/futago.toml"])
        node.run(["systemctl", "reload", "futago-controller"])


def longest_gap(writes: list[Write], at: int) -> float:
    """Return the longest time without an acknowledgement that ends after `at`, counted from `at` at the earliest."""
    instants = sorted(w.acked_at for w in writes if w.status)
    gaps = [(b - max(a, at)) / 1e9 for a, b in pairwise(instants) if b > at]
    return max(gaps, default=float("nan"))


def one_round(lab: Lab, name: str, number: int) -> tuple[float, dict[str, float]]:
    """Break a protected pair once; return the outage in seconds and the steps; leave it protected."""
    before = wait_protected(lab, deadline_s=180)
    old = lab.resolve("primary")
    outage, steps = (message_round if name in OF_THE_MANAGER else write_round)(lab, name, number, before)
    if name in HEALED:
        lab.heal(HEALED[name], old)
    if name == "standby_power_off":  # nobody fenced it, so nobody powers it on unasked
        lab.host(lab.resolve("primary")).run([PROGRAM, "recover"], deadline_s=180)
    wait_protected(lab, deadline_s=180)
    return outage, steps


def message_round(lab: Lab, name: str, number: int, before: dict[str, Any]) -> tuple[float, dict[str, float]]:
    """Break something that messages need; return how long they waited for their events, in seconds."""
    probe = EventProbe(lab)
    probe.start()
    try:
        at = FIGURES[name](lab)
        first = probe.wait_for_event_after(at, deadline_s=60)
    finally:
        probe.stop()
    return (first.seen_at - at) / 1e9, {}


def write_round(lab: Lab, name: str, number: int, before: dict[str, Any]) -> tuple[float, dict[str, float]]:
    """Break something that writes need; return how long they waited, in seconds, and the steps of the switch."""
    writer = ApiWriter(lab, rate=100, threads=10)
    writer.start(prefix=f"bench-{name}-{number}-{time.time_ns()}")
    time.sleep(QUIET_S)
    lost = Lost(lab, lab.resolve("primary")) if name in LOSE_A_MACHINE else None
    at = FIGURES[name](lab)
    first = writer.wait_for_write_after(at, deadline_s=60)
    steps = {} if name == "controller_kill" else steps_of(lab, before)
    time.sleep(3 if name in IN_PLACE else QUIET_S)
    if lost is not None:
        steps |= {"paired_again": lost.paired_again_s()}
    writes = writer.stop()
    outage = longest_gap(writes, at) if name in IN_PLACE or name == "switchover" else (first.acked_at - at) / 1e9
    return outage, steps | {"first_write": outage}


class Lost:
    """A member that is about to lose its machine, and how long it takes from its power-on until the pair is whole."""

    def __init__(self, lab: Lab, member: str) -> None:
        self._lab, self._member = lab, member
        self._boots = self._host()["boots"]
        self._on_at: list[int] = []
        self._watch = threading.Thread(target=self._look, daemon=True)
        self._watch.start()

    def _host(self) -> dict[str, Any]:
        host: dict[str, Any] = self._lab.request(op="status")["hosts"][self._member]
        return host

    def _look(self) -> None:
        end = time.monotonic() + BACK_S
        while time.monotonic() < end and not self._on_at:
            if self._host()["boots"] > self._boots:
                self._on_at.append(now_at())
            time.sleep(0.05)

    def paired_again_s(self) -> float:
        """Return the seconds from the power-on to the pair's word; not a number if it does not come within three minutes."""
        self._watch.join()
        end = time.monotonic() + BACK_S
        while self._on_at and time.monotonic() < end:
            if (self._lab.pair_status() or {}).get("state") == "paired":
                return (now_at() - self._on_at[0]) / 1e9
            time.sleep(0.1)
        return float("nan")


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


def figures(lab: Lab, name: str, n: int, profile: str) -> Iterator[dict[str, Any]]:
    """Measure one kind of fault; yield what was found, an object a figure."""
    found: dict[str, list[float]] = {}
    for i in range(n):
        outage, took = one_round(lab, name, i)
        for key, seconds in {"outage": outage, **took}.items():
            found.setdefault(key, []).append(seconds)
        say(f"  {name} {i + 1}/{n}: {outage:.3f} s  {json.dumps({k: round(v, 3) for k, v in took.items()})}")
    suffix = "" if profile == "default" else f".{profile}"
    medians = {k: round(statistics.median(v), 3) for k, v in found.items() if k not in FIGURES_OF_A_ROUND}
    for key in FIGURES_OF_A_ROUND:
        if key in found:
            line = {
                "figure": f"failover.{name}.{key}_s{suffix}",
                "n": n,
                "p50": round(statistics.median(found[key]), 3),
            }
            yield {**line, "max": round(max(found[key]), 3), "steps": medians, "profile": profile}


def fill(lab: Lab, megabytes: int) -> None:
    """Make the database so large."""
    with step(f"filling the database: {megabytes} MB", say=say):
        primary = lab.host(lab.resolve("primary"))
        primary.run([*PSQL, "-c", FILL.format(rows=megabytes * ROWS_PER_MB)], deadline_s=600)
        wait_protected(lab, deadline_s=300)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=20, help="rounds of power_off and hang of the host")
    parser.add_argument("--few", type=int, default=8, help="rounds of the other figures")
    parser.add_argument("--profile", default="default")
    parser.add_argument("--database-mb", type=int, default=0, help="how large the database is made before")
    parser.add_argument("--only", default=",".join(FIGURES))
    a = parser.parse_args()
    lab = Lab(f"b{os.getpid()}")
    try:
        lab.up(owner_pid=os.getpid(), say=say)
        form_pair(lab, profile=a.profile, say=say)
        if a.database_mb:
            fill(lab, a.database_mb)
        lift_limit(lab)
        for name in a.only.split(","):
            for line in figures(lab, name, a.n if name in LOSE_A_MACHINE else a.few, a.profile):
                print(json.dumps(line), flush=True)
    finally:
        lab.down(say=say, keep_logs=True)


if __name__ == "__main__":
    main()
