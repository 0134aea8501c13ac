"""The agent alone, on loopback: how soon it is there, what it needs with many runs. One JSON object a figure on standard output.

    python tests/bench/agent.py [--runs 1000]

    agent.start_s       from the start of its process to its first word to a member; the longest of five
    agent.memory_mb     resident, idle and with so many runs under way
    agent.cpu_percent   of one core, with so many runs under way and nothing to do
    agent.start_ms      from an order on the wire to the first act of its command, one at a time; p50, p99
    agent.restart_s     from the start of the process that follows one that was killed, with so many runs, until it has told
                        a member what it holds

The hub and the agent's connection are the real ones; the machine is this one.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import uvloop

sys.path.insert(0, str(Path(__file__).parents[1]))

from agent_world import AgentProcess, Keys, active, loopback, make_hub, order, until
from futago.jobs.hub import AgentHub, Heard
from futago.link.orders import OrderTaken, RunEnded, RunsReport

STARTS = 5
SINGLE = 100
IDLE_S = 5.0
WAIT_S = 120.0


class Bench:
    """A hub and one agent."""

    def __init__(self, home: Path) -> None:
        keys, address = Keys(home / "keys"), loopback()
        self.hub: AgentHub = make_hub(keys, address)
        self.agent = AgentProcess(home / "h1", keys, name="h1", members=[address])
        self.heard: list[object] = []

    def gather(self) -> list[object]:
        while not self.hub.inbox.empty():
            event = self.hub.inbox.get_nowait()
            self.heard.append(event.message if isinstance(event, Heard) else event)
        return self.heard

    async def hear(self, wanted: Callable[[object], bool], *, count: int, what: str) -> None:
        await until(lambda: sum(1 for m in self.gather() if wanted(m)) >= count, what=what, seconds=WAIT_S)

    async def start(self) -> float:
        """Start the agent; return the seconds until it is connected."""
        begun = time.monotonic()
        self.agent.start()
        while not self.hub.is_connected("h1"):
            await asyncio.sleep(0.002)
            assert time.monotonic() - begun < WAIT_S
        return time.monotonic() - begun

    async def kill(self) -> None:
        self.agent.kill()
        await until(lambda: not self.hub.is_connected("h1"), what="gone")

    def status(self) -> tuple[float, float]:
        """Return resident MB, and CPU seconds so far."""
        assert self.agent.process is not None
        where = Path(f"/proc/{self.agent.process.pid}")
        kilobytes = next(
            int(x.split()[1]) for x in (where / "status").read_text().splitlines() if x.startswith("VmRSS")
        )
        fields = (where / "stat").read_text().rsplit(")", 1)[1].split()
        return kilobytes / 1024, (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def tell(figure: str, **values: object) -> None:
    print(json.dumps({"figure": figure, **values}), flush=True)


async def starts(bench: Bench) -> None:
    found = []
    for _ in range(STARTS):
        found.append(await bench.start())
        await bench.kill()
    tell("agent.start_s", p50=round(statistics.median(found), 3), max=round(max(found), 3), n=STARTS)


async def singles(bench: Bench, home: Path) -> None:
    took = []
    for n in range(SINGLE):
        run_id, mark = f"single-{n}", home / f"mark-{n}"
        begun = time.time_ns()
        bench.hub.order("h1", order(run_id, f": > {mark}; stat -c %.9Z {mark} >/dev/null"))
        await bench.hear(lambda m, i=run_id: isinstance(m, RunEnded) and m.run_id == i, count=1, what=run_id)
        took.append((mark.stat().st_ctime_ns - begun) / 1e6)
        bench.hub.committed("h1", run_id)
        bench.heard.clear()
    took.sort()
    tell("agent.first_act_ms", p50=round(statistics.median(took), 1), p99=round(took[int(SINGLE * 0.99)], 1), n=SINGLE)


async def many(bench: Bench, runs: int) -> None:
    idle_mb, _ = bench.status()
    begun = time.monotonic()
    for n in range(runs):
        bench.hub.order("h1", order(f"many-{n}", "exec sleep 600"))
    await bench.hear(lambda m: isinstance(m, OrderTaken), count=runs, what="all taken")
    taken_s = time.monotonic() - begun
    _, before = bench.status()
    await asyncio.sleep(IDLE_S)
    megabytes, after = bench.status()
    tell("agent.memory_mb", idle=round(idle_mb, 1), with_runs=round(megabytes, 1), runs=runs)
    tell("agent.cpu_percent", with_runs=round((after - before) / IDLE_S * 100, 1), runs=runs)
    tell("agent.taken_per_s", rate=round(runs / taken_s, 1), runs=runs)
    await bench.kill()
    bench.heard.clear()
    begun = time.monotonic()
    await bench.start()
    bench.hub.ask("h1", [f"many-{n}" for n in range(runs)], is_new=True)
    await until(
        lambda: sum(len(m.held) for m in bench.gather() if isinstance(m, RunsReport)) >= runs,
        what="all",
        seconds=WAIT_S,
    )
    tell("agent.restart_s", s=round(time.monotonic() - begun, 3), runs=runs)


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=1_000)
    a = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="futago-bench-") as folder:
        home = Path(folder)
        bench = Bench(home)
        task = asyncio.get_running_loop().create_task(bench.hub.run())
        bench.hub.set_role(active(1))
        try:
            await starts(bench)
            await bench.start()
            await singles(bench, home)
            await many(bench, a.runs)
        finally:
            bench.agent.destroy()
            task.cancel()
            await asyncio.wait({task})


if __name__ == "__main__":
    uvloop.run(main())
