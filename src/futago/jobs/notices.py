"""What people are told about sessions and their runs: the events that go with transitions. Pure.

Each bad end of a run is an event; the end of the session is another, and that one notifies: a bad night is one mail,
however many of its jobs failed. Delays, approvals, and conditions that cannot be met notify as they come.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime

from futago.jobs.model import JobState, Notice, Noticed, SessionMoved, SessionState, Tree
from futago.jobs.plan import Approval, Net, Unit
from futago.jobs.store import EventRow
from futago.link.orders import RunEnded

JOBS_NAMED_MAX = 20  # in the detail of a session's event
_PRIORITY = {"abnormal": "critical", "unknown": "unknown", "warning": "warning"}
_SAID: Mapping[Notice, tuple[str, str]] = {
    Notice.LATE_START: ("warning", "Job {job} of net {net} has not begun in time"),
    Notice.LATE_END: ("warning", "Job {job} of net {net} takes longer than it should"),
    Notice.STUCK: ("warning", "Job {job} of net {net} cannot start any more and waits for an operator"),
    Notice.APPROVAL: ("info", "Job {job} of net {net} waits for an approval"),
}


def run_ended(unit: Unit, said: RunEnded, to: JobState, *, net: Net, session_id: int, now: datetime) -> EventRow | None:
    """Return the event of a run's bad end; None: it ended well."""
    if to.value not in _PRIORITY:
        return None
    return EventRow(
        occurred_utc=datetime.fromtimestamp(said.ended, UTC) if said.ended else now,
        priority=_PRIORITY[to.value],
        host_name=unit.host or None,
        message=f"Job {unit.name} of net {net.name} ended {to}: {said.detail or f'exit code {said.exit_code}'}",
        detail={
            "net": net.name,
            "session_id": session_id,
            "job": unit.name,
            "run_id": said.run_id,
            "exit_code": said.exit_code,
        },
        owner=net.owner,
    )


def session_ended(tree: Tree, step: SessionMoved) -> EventRow | None:
    """Return the event of a session's bad end; None: it ended well."""
    if step.to.value not in _PRIORITY:
        return None
    bad = [name for name, s in tree.standings.items() if s.state.value == step.to.value]
    named = ", ".join(bad[:JOBS_NAMED_MAX]) + (", ..." if len(bad) > JOBS_NAMED_MAX else "")
    return EventRow(
        occurred_utc=step.at,
        priority=_PRIORITY[step.to.value],
        host_name=None,
        message=f"Job net {tree.net.name} ended {step.to}: {named}",
        detail={
            "net": tree.net.name,
            "session_id": int(tree.session_id),
            "jobs": bad[:JOBS_NAMED_MAX],
            "state": step.to.value,
        },
        notify=tree.net.notify if step.to in (SessionState.ABNORMAL, SessionState.UNKNOWN) else (),
        owner=tree.net.owner,
    )


def noticed(tree: Tree, step: Noticed) -> EventRow:
    """Return the event of a notice."""
    priority, text = _SAID[step.notice]
    unit = tree.net.units[step.job]
    asked = f": {unit.work.text}" if isinstance(unit.work, Approval) and unit.work.text else ""
    return EventRow(
        occurred_utc=step.at,
        priority=priority,
        host_name=unit.host or None,
        message=text.format(job=step.job, net=tree.net.name) + asked,
        detail={
            "net": tree.net.name,
            "session_id": int(tree.session_id),
            "job": step.job,
            "notice": step.notice.value,
        },
        notify=tree.net.notify,
        owner=tree.net.owner,
    )
