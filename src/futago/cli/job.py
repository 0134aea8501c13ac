"""`futago job`: start job nets, wait for them, look at their runs."""

from __future__ import annotations

import time
from typing import Annotated
from urllib.parse import quote

import typer

from futago.cli import crontab, job_operations, job_tree, job_views
from futago.cli.remote import AsJson, Ca, Remote, Servers, TokenFile, way
from futago.cli.tables import instant, table, took
from futago.runtime.faults import OperatorFault
from futago.web.job_model import (
    AskedRerun,
    AskedStart,
    JobNets,
    RunsAgain,
    SessionDetail,
    Sessions,
    Started,
)

job_app = typer.Typer(no_args_is_help=True, help="Start job nets and look at their runs.")
for _view in (job_views.tail, job_views.search, job_views.gantt, job_views.durations, job_views.switches):
    job_app.command()(_view)
job_app.command("import-crontab")(crontab.import_crontab)
for _verb in job_operations.VERBS:
    job_app.command()(_verb)

RunNumber = Annotated[int, typer.Argument(metavar="RUN", help="The run's number.")]
RerunFrom = Annotated[str | None, typer.Argument(help="Begin with this job; not named: with all that failed.")]
LOOK_S = 1.0
OPEN_STATES = {"starting", "running"}
EXIT_OF_STATE = {"normal": 0, "warning": 0, "unknown": 3}  # anything else: 1


@job_app.command()
def nets(servers: Servers = None, token_file: TokenFile = None, ca: Ca = None, as_json: AsJson = False) -> None:
    """List the job nets."""
    found = Remote(way(servers, token_file, ca)).get("/job-nets", JobNets)
    if as_json:
        print(found.model_dump_json())
        return
    rows = [[n.net_name, len(n.spec.get("jobs", [])), n.last_session_id, n.last_state] for n in found.job_nets]
    table(["net", "jobs", "last run", "state"], rows)


@job_app.command()
def run(
    net: Annotated[str, typer.Argument(help="The job net.")],
    *,
    given: Annotated[
        list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="A parameter of the net. May be repeated.")
    ] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Wait for its end; exit 0 only if it is normal.")] = False,
    deadline: Annotated[float, typer.Option(help="With --wait: give up waiting after so many seconds.")] = 86400,
    servers: Servers = None,
    token_file: TokenFile = None,
    ca: Ca = None,
    as_json: AsJson = False,
) -> None:
    """Start a job net. A repetition inside (a switch in between) never starts a second run."""
    remote = Remote(way(servers, token_file, ca))
    asked = AskedStart(parameters=_parameters(given or []))
    started = remote.post(f"/job-nets/{quote(net, safe='')}/runs", Started, asked, is_keyed=True)
    if not wait:
        print(started.model_dump_json() if as_json else f"run {started.session_id} of {net} has begun")
        return
    raise typer.Exit(_show(_awaited(remote, started.session_id, deadline), as_json=as_json))


def _parameters(given: list[str]) -> dict[str, str]:
    pairs = [text.partition("=") for text in given]
    wrong = next((name for name, equals, _ in pairs if not equals), None)
    if wrong is not None:
        raise OperatorFault(
            f"`{wrong}` gives no value to a parameter.",
            hint="Write such as --set DAY=2026-12-31.",
            code="cli.parameter",
        )
    return {name: value for name, _, value in pairs}


def _awaited(remote: Remote, session_id: int, deadline_s: float) -> SessionDetail:
    give_up_at = time.monotonic() + deadline_s
    while True:
        found = remote.get(f"/runs/{session_id}", SessionDetail)
        if found.state not in OPEN_STATES or time.monotonic() > give_up_at:
            return found
        time.sleep(LOOK_S)


@job_app.command("list")
def list_runs(
    *,
    net: Annotated[str | None, typer.Option(help="Only runs of this net.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=500)] = 20,
    servers: Servers = None,
    token_file: TokenFile = None,
    ca: Ca = None,
    as_json: AsJson = False,
) -> None:
    """List runs of job nets, newest first."""
    found = Remote(way(servers, token_file, ca)).get("/runs", Sessions, {"net": net, "limit": limit})
    if as_json:
        print(found.model_dump_json())
        return
    rows = [
        [
            r.session_id,
            r.net_name,
            r.state,
            _counts(r.job_states),
            instant(r.created_utc),
            took(r.started_utc, r.ended_utc),
        ]
        for r in found.runs
    ]
    table(["run", "net", "state", "jobs", "asked", "took"], rows)


@job_app.command()
def show(
    session_id: Annotated[int, typer.Argument(metavar="RUN", help="The run's number.")],
    *,
    tree: Annotated[bool, typer.Option("--tree", help="As a tree of nets and jobs.")] = False,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Draw the tree until the run has ended.")] = False,
    servers: Servers = None,
    token_file: TokenFile = None,
    ca: Ca = None,
    as_json: AsJson = False,
) -> None:
    """Show one run with its jobs. With --follow the exit code says how it ended, as with `run --wait`."""
    remote = Remote(way(servers, token_file, ca))

    def look() -> SessionDetail:
        return remote.get(f"/runs/{session_id}", SessionDetail)

    if follow and not as_json:
        raise typer.Exit(EXIT_OF_STATE.get(job_tree.follow(look).state, 1))
    if tree and not as_json:
        job_tree.show_once(look())
    else:
        _show(look(), as_json=as_json)


@job_app.command()
def rerun(
    run_number: RunNumber,
    job: RerunFrom = None,
    *,
    servers: Servers = None,
    token_file: TokenFile = None,
    ca: Ca = None,
    as_json: AsJson = False,
) -> None:
    """Let an ended run run again: from a job, with everything that waits for it, or from all that failed."""
    remote = Remote(way(servers, token_file, ca))
    again = remote.post(f"/runs/{run_number}/rerun", RunsAgain, AskedRerun(job=job), is_keyed=True)
    print(again.model_dump_json() if as_json else f"run {run_number} has begun again with {', '.join(again.jobs)}")


def _show(found: SessionDetail, *, as_json: bool) -> int:
    if as_json:
        print(found.model_dump_json())
    else:
        print(f"run {found.session_id} of {found.net_name}: {found.state} ({found.trigger})")
        rows = [
            [
                j.job_name,
                f"{j.state}{' held' * j.is_held}{' stopping' * (j.is_stopping and j.ended_utc is None)}",
                j.host_name,
                j.exit_code,
                instant(j.started_utc),
                took(j.started_utc, j.ended_utc),
                _last(j.output),
            ]
            for j in found.jobs
        ]
        table(["job", "state", "host", "exit", "started", "took", "output"], rows)
    return EXIT_OF_STATE.get(found.state, 1)


def _counts(states: dict[str, int]) -> str:
    return " ".join(f"{count} {state}" for state, count in states.items())


def _last(output: str | None) -> str:
    lines = (output or "").strip().splitlines()
    return lines[-1][:60] if lines else ""
