"""`futago job tail|search|gantt|durations|switches`: what jobs write, when they ran, how long they take, what switches did."""

from __future__ import annotations

import sys
import time
from datetime import datetime
from typing import Annotated
from urllib.parse import quote

import typer

from futago.cli.remote import AsJson, Ca, Remote, Servers, TokenFile, way
from futago.cli.tables import instant, table
from futago.runtime.faults import OperatorFault
from futago.web.job_history_model import Durations, FoundOutputs, Gantt, JobOutput, Series, SwitchReports
from futago.web.job_model import SessionDetail

LOOK_S = 0.5
GANTT_COLUMNS = 60

RunNumber = Annotated[int, typer.Argument(metavar="RUN", help="The run's number.")]


def tail(
    run: RunNumber,
    job: Annotated[str | None, typer.Argument(help="The job; not named: the one that runs, or ran last.")] = None,
    *,
    follow: Annotated[bool, typer.Option(help="Go on until the job has ended.")] = True,
    attempt: Annotated[int | None, typer.Option(min=1, help="Which attempt; default: the newest.")] = None,
    servers: Servers = None,
    token_file: TokenFile = None,
    ca: Ca = None,
) -> None:
    """Print what a job writes, as it writes it, standard output and error together.

    A job that has ended: what the pair keeps of its output, the last 16 KiB. One that runs: what its host keeps, the first
    and the last 512 KiB.
    """
    remote = Remote(way(servers, token_file, ca))
    name = job or _newest(remote.get(f"/runs/{run}", SessionDetail))
    path = f"/runs/{run}/jobs/{quote(name, safe='')}/output"
    at, waited = 0, False
    while True:
        part = remote.get(path, JobOutput, {"offset": at, "attempt": attempt})
        if part.offset > at:
            sys.stderr.write(f"... {part.offset - at} bytes that were not kept ...\n")
        sys.stdout.write(part.text)
        sys.stdout.flush()
        at = part.next
        is_behind = part.size is not None and at < part.size
        if part.is_ended or not (follow or is_behind):
            return
        if not waited and part.size is None:
            waited = True
            sys.stderr.write(f"{part.host_name} does not answer now\n")
        if not is_behind:
            time.sleep(LOOK_S)


def _newest(found: SessionDetail) -> str:
    """Return the job to look at: the one that runs, else the one that started last."""
    on_hosts = [j for j in found.jobs if j.host_name]
    running = [j for j in on_hosts if j.state == "running"]
    begun = [j for j in running or on_hosts if j.started_utc is not None or j.state == "running"]
    if not begun:
        raise OperatorFault(
            f"No job of run {found.session_id} has begun.",
            hint=f"Name one: `futago job tail {found.session_id} JOB`.",
            code="jobs.no-output",
        )
    return max(begun, key=lambda j: j.started_utc.timestamp() if j.started_utc else float("inf")).job_name


def search(
    text: Annotated[str, typer.Argument(help="As it is; upper and lower case alike.")],
    *,
    net: Annotated[str | None, typer.Option(help="Only runs of this net.")] = None,
    host: Annotated[str | None, typer.Option(help="Only jobs on this host.")] = None,
    days: Annotated[float, typer.Option(help="How far back.")] = 7,
    limit: Annotated[int, typer.Option(min=1, max=500)] = 50,
    servers: Servers = None,
    token_file: TokenFile = None,
    ca: Ca = None,
    as_json: AsJson = False,
) -> None:
    """Search what jobs wrote (what the pair keeps of it: the last 16 KiB of each). Exit code 1 if nothing holds the text."""
    words = {"text": text, "net": net, "host": host, "days": str(days), "limit": limit}
    found = Remote(way(servers, token_file, ca)).get("/job-output", FoundOutputs, words)
    if as_json:
        print(found.model_dump_json())
    else:
        rows = [
            [r.session_id, r.net_name, r.job_name, r.host_name, r.state, instant(r.ended_utc), r.line[:100]]
            for r in found.runs
        ]
        table(["run", "net", "job", "host", "state", "ended", "line"], rows)
    raise typer.Exit(0 if found.runs else 1)


def gantt(
    run: RunNumber, servers: Servers = None, token_file: TokenFile = None, ca: Ca = None, as_json: AsJson = False
) -> None:
    """Show when each job of a run started and ended; a star marks those that decided when everything was done."""
    found = Remote(way(servers, token_file, ca)).get(f"/runs/{run}/gantt", Gantt)
    if as_json:
        print(found.model_dump_json())
        return
    print(f"run {found.session_id} of {found.net_name}: {found.state}")
    rows = [
        [("*" if b.is_critical else ""), b.job_name, b.host_name, b.state, bar(found, b.started_utc, b.ended_utc)]
        for b in found.bars
    ]
    table(["", "job", "host", "state", ""], rows)


def bar(found: Gantt, started: datetime | None, ended: datetime | None, *, columns: int = GANTT_COLUMNS) -> str:
    """Return a bar that lies within the time of the whole run."""
    instants = [at for b in found.bars for at in (b.started_utc, b.ended_utc) if at is not None]
    if started is None or not instants:
        return ""
    begin, end = min(instants), max(instants)
    whole = max((end - begin).total_seconds(), 0.001)
    left = int((started - begin).total_seconds() / whole * (columns - 1))
    right = int(((ended or end) - begin).total_seconds() / whole * (columns - 1))
    return " " * max(0, left) + "█" * max(1, right - left + 1)


def durations(
    net: Annotated[str, typer.Argument(help="The job net.")],
    *,
    count: Annotated[int, typer.Option(min=1, max=500, help="So many of the newest runs.")] = 50,
    servers: Servers = None,
    token_file: TokenFile = None,
    ca: Ca = None,
    as_json: AsJson = False,
) -> None:
    """Show how long a net and each of its jobs takes, and whether that changes: the newest quarter against the rest."""
    found = Remote(way(servers, token_file, ca)).get(
        f"/job-nets/{quote(net, safe='')}/durations", Durations, {"count": count}
    )
    if as_json:
        print(found.model_dump_json())
        return
    rows = [_series(s, "(the net)" if i == 0 else s.name) for i, s in enumerate([found.net, *found.jobs]) if s]
    table(["job", "runs", "last", "median", "95 %", "longest", "change"], rows)


def switches(
    *,
    limit: Annotated[int, typer.Option(min=1, max=100, help="So many of the newest.")] = 20,
    servers: Servers = None,
    token_file: TokenFile = None,
    ca: Ca = None,
    as_json: AsJson = False,
) -> None:
    """Show what each switch meant for job control: how many runs were open, and what became of their jobs on hosts.

    A report is there 5 s after the switch, or a minute after it if hosts are silent.
    """
    found = Remote(way(servers, token_file, ca)).get("/job-switches", SwitchReports, {"limit": limit})
    if as_json:
        print(found.model_dump_json())
        return
    rows = [
        [r.epoch, r.member, instant(r.taken_utc), r.sessions, r.going_on, r.ended, r.unknown, r.silent, r.repeated]
        for r in found.reports
    ]
    head = ["epoch", "member", "taken", "runs", "jobs go on", "ended", "unknown", "silent", "orders repeated"]
    table(head, rows)


def _series(s: Series, name: str) -> list[object]:
    change = "" if s.change is None else f"{s.change:+.0%}"
    return [name, s.count, *(f"{v:.1f} s" for v in (s.last_s, s.median_s, s.p95_s, s.max_s)), change]
