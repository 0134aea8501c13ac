"""`futago job hold|release|skip|stop|suspend|resume|force|end|approve|reject`: what people do to a running session."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from futago.cli.remote import AsJson, Ca, Remote, Servers, TokenFile, way
from futago.jobs.model import JobState, Operation
from futago.web.job_model import AskedOperation, OperationDone

RunNumber = Annotated[int, typer.Argument(metavar="RUN", help="The run's number.")]
TheJob = Annotated[str, typer.Argument(help="The job; inside nets its path: load/extract.")]
AnyJob = Annotated[str | None, typer.Argument(help="The job; not named: everything in the run.")]
AnyNet = Annotated[str | None, typer.Argument(help="A net inside the run; not named: the whole run.")]
Note = Annotated[str, typer.Option("--note", help="Why; kept with the run and in the audit log.")]


def _operate(remote: Remote, session_id: int, asked: AskedOperation, *, as_json: bool) -> None:
    done = remote.post(f"/runs/{session_id}/operations", OperationDone, asked)
    if as_json:
        print(done.model_dump_json())
        return
    what = f"{asked.operation} {f'`{asked.job}`' if asked.job else 'everything'} of run {session_id}"
    print(f"{what}: done" if done.is_decided else f"{what}: asked for; the pair decides it when it serves again")


def hold(
    run_number: RunNumber,
    job: TheJob,
    *,
    servers: Servers = None,
    token_file: TokenFile = None,
    ca: Ca = None,
    as_json: AsJson = False,
) -> None:
    """Keep a waiting job from starting until it is released."""
    asked = AskedOperation(operation=Operation.HOLD, job=job)
    _operate(Remote(way(servers, token_file, ca)), run_number, asked, as_json=as_json)


def release(
    run_number: RunNumber,
    job: TheJob,
    *,
    servers: Servers = None,
    token_file: TokenFile = None,
    ca: Ca = None,
    as_json: AsJson = False,
) -> None:
    """Let a held job start when what it waits for has come."""
    asked = AskedOperation(operation=Operation.RELEASE, job=job)
    _operate(Remote(way(servers, token_file, ca)), run_number, asked, as_json=as_json)


def skip(
    run_number: RunNumber,
    job: TheJob,
    *,
    servers: Servers = None,
    token_file: TokenFile = None,
    ca: Ca = None,
    as_json: AsJson = False,
) -> None:
    """Leave a waiting job out, as if it had succeeded."""
    asked = AskedOperation(operation=Operation.SKIP, job=job)
    _operate(Remote(way(servers, token_file, ca)), run_number, asked, as_json=as_json)


def stop(
    run_number: RunNumber,
    job: AnyJob = None,
    *,
    servers: Servers = None,
    token_file: TokenFile = None,
    ca: Ca = None,
    as_json: AsJson = False,
) -> None:
    """Stop a job, a net, or everything in a run: what waits is not run; what runs gets the job's stop signal (or its
    stop command), and SIGKILL when the time for that is over.
    """
    asked = AskedOperation(operation=Operation.STOP, job=job)
    _operate(Remote(way(servers, token_file, ca)), run_number, asked, as_json=as_json)


def suspend(
    run_number: RunNumber,
    net: AnyNet = None,
    *,
    servers: Servers = None,
    token_file: TokenFile = None,
    ca: Ca = None,
    as_json: AsJson = False,
) -> None:
    """Let nothing more begin in a net, or in the whole run, until it is resumed. What runs goes on."""
    asked = AskedOperation(operation=Operation.SUSPEND, job=net)
    _operate(Remote(way(servers, token_file, ca)), run_number, asked, as_json=as_json)


def resume(
    run_number: RunNumber,
    net: AnyNet = None,
    *,
    servers: Servers = None,
    token_file: TokenFile = None,
    ca: Ca = None,
    as_json: AsJson = False,
) -> None:
    """Let a suspended net, or run, go on."""
    asked = AskedOperation(operation=Operation.RESUME, job=net)
    _operate(Remote(way(servers, token_file, ca)), run_number, asked, as_json=as_json)


def force(
    run_number: RunNumber,
    job: TheJob,
    *,
    servers: Servers = None,
    token_file: TokenFile = None,
    ca: Ca = None,
    as_json: AsJson = False,
) -> None:
    """Start a waiting job now: past its conditions, its hold and its queue."""
    asked = AskedOperation(operation=Operation.FORCE, job=job)
    _operate(Remote(way(servers, token_file, ca)), run_number, asked, as_json=as_json)


def end(
    run_number: RunNumber,
    job: TheJob,
    status: Annotated[Literal["normal", "warning", "abnormal"], typer.Argument(help="How it ends.")],
    *,
    value: Annotated[int | None, typer.Option(help="The end value, for those that wait for one.")] = None,
    note: Note = "",
    servers: Servers = None,
    token_file: TokenFile = None,
    ca: Ca = None,
    as_json: AsJson = False,
) -> None:
    """Say how a job ends, or correct how it has ended: those that were not run because of it wait again. A job that is
    at its host must have been stopped before: so one is ended whose host is gone for good.
    """
    asked = AskedOperation(operation=Operation.END, job=job, status=JobState(status), value=value, note=note)
    _operate(Remote(way(servers, token_file, ca)), run_number, asked, as_json=as_json)


def approve(
    run_number: RunNumber,
    job: TheJob,
    *,
    note: Note = "",
    servers: Servers = None,
    token_file: TokenFile = None,
    ca: Ca = None,
    as_json: AsJson = False,
) -> None:
    """Say yes to a job that waits for an approval."""
    asked = AskedOperation(operation=Operation.APPROVE, job=job, note=note)
    _operate(Remote(way(servers, token_file, ca)), run_number, asked, as_json=as_json)


def reject(
    run_number: RunNumber,
    job: TheJob,
    *,
    note: Note = "",
    servers: Servers = None,
    token_file: TokenFile = None,
    ca: Ca = None,
    as_json: AsJson = False,
) -> None:
    """Say no to a job that waits for an approval: it ends abnormal, with end value 1."""
    asked = AskedOperation(operation=Operation.REJECT, job=job, note=note)
    _operate(Remote(way(servers, token_file, ca)), run_number, asked, as_json=as_json)


VERBS = (hold, release, skip, stop, suspend, resume, force, end, approve, reject)
