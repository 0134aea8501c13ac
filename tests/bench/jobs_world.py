"""What the benches of job control share: nets as YAML, the hosts' own record of process starts, what the pair says of runs.

The record is the oracle: each counted job's command first appends a line to a file on its host and syncs it, and only
then goes on. It is plain sh with one program (sync), so that the oracle does not cost more than what it watches.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "lab"))

from api import Api
from senders import end, install

from futago.lab.inside import LabHost
from futago.lab.lab import Lab
from futago.lab.pair import admin_token, apply
from futago.lab.topology import FLOATING_IP
from futago.runtime.faults import OperatorFault

HOSTS = ("host1", "host2", "host3", "host4")
STARTS = "/var/log/bench-starts"
RECORD = "/var/log/bench-sessions"
NOTE = f'read -r s </proc/1/stat; set -- $s; echo "$FUTAGO_RUN_ID $FUTAGO_JOB ${{22}} $(date +%s%N)" >>{STARTS} && sync {STARTS}'
OPEN = {"starting", "running"}
Job = dict[str, object]


def counted(rest: str = "") -> str:
    """Return a command that notes its start durably on its host, then does `rest`."""
    return f"{NOTE}; {rest}" if rest else NOTE


def net(name: str, jobs: Iterable[Job]) -> dict[str, object]:
    return {"kind": "JobNet", "name": name, "jobs": list(jobs)}


def define(lab: Lab, *nets: dict[str, object]) -> float:
    """Load nets with `futago apply`; return the seconds it took."""
    begun = time.monotonic()
    primary(lab)
    apply(lab, "\n---\n".join(json.dumps(n) for n in nets) + "\n")  # JSON is YAML
    return time.monotonic() - begun


def start(api: Api, name: str) -> int:
    return int(api.ask(f"/job-nets/{name}/runs", post={})["session_id"])


def finished(api: Api, session_id: int, *, deadline_s: float) -> dict[str, Any]:
    """Wait for the end of a run, asking for nothing but how it stands; return it with its jobs."""
    end_at = time.monotonic() + deadline_s
    while True:
        (stands,) = api.ask(f"/runs?before={session_id + 1}&limit=1")["runs"]
        if stands["state"] not in OPEN:
            return api.ask(f"/runs/{session_id}", deadline_s=60)
        if time.monotonic() > end_at:
            raise AssertionError(f"run {session_id} has not ended within {deadline_s:g} s: {stands}")
        time.sleep(0.5)


def wait_running(api: Api, session_id: int, count: int, *, deadline_s: float = 300) -> None:
    """Wait until so many jobs of a run are running."""
    end_at = time.monotonic() + deadline_s
    while True:
        (stands,) = api.ask(f"/runs?before={session_id + 1}&limit=1")["runs"]
        if stands["job_states"].get("running", 0) >= count:
            return
        if time.monotonic() > end_at:
            raise AssertionError(f"run {session_id} does not come up: {stands}")
        time.sleep(0.5)


def seconds(text: str | None) -> float:
    """Return an instant of the API as seconds since 1970; NaN if there is none."""
    return datetime.fromisoformat(text).timestamp() if text else float("nan")


@dataclass(frozen=True, slots=True)
class Noted:
    """One process start, as its host noted it. `boot` tells the host's boots apart; `at` is wall time, nanoseconds."""

    host: str
    run_id: str
    job: str
    boot: str
    at: int


def noted(lab: Lab) -> list[Noted]:
    """Return every start on every managed host. A power cut may leave zeros before a line: the place of one that had not
    been synced, and whose command had not gone on.
    """
    found: list[Noted] = []
    for host in lab.managed:
        text = host.run(["sh", "-c", f"cat {STARTS} 2>/dev/null || true"]).stdout
        rows = (line.lstrip("\0").split() for line in text.splitlines())
        found += [Noted(host.name, r[0], r[1], r[2], int(r[3])) for r in rows if len(r) == 4]
    return sorted(found, key=lambda n: n.at)


def forget_starts(lab: Lab) -> None:
    for host in lab.managed:
        host.run(["rm", "-f", STARTS])


@contextmanager
def steady_starts(lab: Lab, name: str, *, period_s: float, prefix: str) -> Iterator[None]:
    """Start the net `name` every `period_s` while the block runs, through whatever happens to the pair."""
    client = lab.host("c1")
    member = next(m for m in lab.members if m.is_on())
    client.write("/etc/lab-ca.crt", member.read("/etc/futago/pki/ca.crt"))
    client.run(["rm", "-f", RECORD])
    settings = {
        "host": FLOATING_IP.split("/")[0], "token": admin_token(lab), "ca": "/etc/lab-ca.crt", "net": name,
        "period_s": period_s, "prefix": prefix, "record": RECORD,
    }  # fmt: skip
    program = install(client, "job_starter.py")
    process = client.start(["python3", program, json.dumps(settings)], stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    try:
        yield
    finally:
        end(process, deadline_s=60)


def acknowledged(lab: Lab) -> list[int]:
    """Return the numbers of the runs whose start was acknowledged to the client."""
    text = lab.host("c1").run(["sh", "-c", f"cat {RECORD} 2>/dev/null || true"]).stdout
    return [int(line.split()[1]) for line in text.splitlines()]


def manager_memory_mb(lab: Lab) -> float:
    """Return the resident memory of the primary's manager."""
    return _memory_mb(primary(lab), "futago-manager")


def primary(lab: Lab, *, deadline_s: float = 60) -> LabHost:
    """Return the primary; members that have all their processor's time taken by runs may be slow to say who it is."""
    end_at = time.monotonic() + deadline_s
    while True:
        try:
            return lab.host(lab.resolve("primary"))
        except OperatorFault:
            if time.monotonic() > end_at:
                raise
        time.sleep(0.5)


def agents_memory_mb(lab: Lab) -> float:
    """Return the resident memory of the largest agent, its runs left out."""
    return max(_memory_mb(host, "futago-agent") for host in lab.managed)


def _memory_mb(host: LabHost, unit: str) -> float:
    script = f"grep VmRSS /proc/$(systemctl show -p MainPID --value {unit})/status"
    return int(host.run(["sh", "-c", script]).stdout.split()[1]) / 1024


def processes(lab: Lab) -> int:
    """Return how many processes there are on all managed hosts."""
    return sum(int(host.run(["sh", "-c", "ls -d /proc/[0-9]* | wc -l"]).stdout) for host in lab.managed)


def machine() -> dict[str, object]:
    """Return the circumstances of a figure: when, and how busy the machine was with everything together."""
    at = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    return {"at": at, "load": [round(x, 1) for x in os.getloadavg()], "cores": os.cpu_count()}
