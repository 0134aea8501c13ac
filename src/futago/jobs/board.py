"""The open sessions in memory, and what has been decided about them and is not committed yet.

The board is ahead of the rows by exactly one batch: events are fed, `advance` decides, moves gather; `take` hands the
batch to be committed. If that fails, the board is thrown away and made anew from the rows. What may be said to agents
follows from `entry.is_committed` only. No I/O here, so it is tested without any.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime

from futago.jobs.advance import advance, after, refusal
from futago.jobs.model import (
    AT_AGENT,
    Ended,
    Event,
    Job,
    JobMarked,
    JobMoved,
    JobName,
    JobState,
    Net,
    NeverTaken,
    Operated,
    Reread,
    SessionId,
    SessionMoved,
    SessionState,
    Started,
    Taken,
    Tree,
    make_tree,
)
from futago.jobs.store import EventRow, Moves, OperationRow, RunMove, RunRow, SessionMove, SessionRow
from futago.link.orders import Order, RunEnded

_PRIORITY = {"abnormal": "critical", "unknown": "unknown", "warning": "warning"}
OPEN = frozenset({SessionState.STARTING, SessionState.RUNNING})
JOBS_NAMED_MAX = 20  # in the detail of a session's event


@dataclass(slots=True)
class Entry:
    """One run on the board. `is_committed`: its present state stands in the rows."""

    run_id: str
    session_id: int
    job: Job
    net_name: str
    state: JobState
    business_date: date | None = None
    is_committed: bool = True
    is_stopping: bool = False  # a person wants it ended


@dataclass(slots=True)
class Batch:
    """What one commit writes, and whom to tell afterwards."""

    moves: Moves = field(default_factory=Moves)
    ordered: list[Entry] = field(default_factory=list)
    ended: list[Entry] = field(default_factory=list)
    stopped: list[Entry] = field(default_factory=list)
    closed: list[int] = field(default_factory=list)  # sessions that have ended


class Board:
    """See the module."""

    def __init__(self) -> None:
        self.entries: dict[str, Entry] = {}
        self._at_host: dict[str, dict[str, Entry]] = {}
        self._trees: dict[int, Tree] = {}
        self._runs: dict[int, dict[JobName, Entry]] = {}
        self._batch = Batch()

    def __contains__(self, session_id: int) -> bool:
        return session_id in self._trees

    @property
    def open_sessions(self) -> int:
        return len(self._trees)

    @property
    def pending(self) -> int:
        """How many moves wait to be committed."""
        return len(self._batch.moves.runs) + len(self._batch.moves.sessions)

    def at_host(self, host: str) -> Iterable[Entry]:
        """Return the runs of open sessions that belong to a host."""
        return self._at_host.get(host, {}).values()

    def add(self, row: SessionRow, net: Net, runs: Sequence[RunRow]) -> None:
        """Put a session on the board, as its rows say it stands."""
        entries = {
            JobName(r.job_name): Entry(
                r.run_id,
                row.session_id,
                net.jobs[JobName(r.job_name)],
                net.name,
                r.state,
                row.business_date,
                is_stopping=r.is_stopping,
            )
            for r in runs
        }
        self._trees[row.session_id] = make_tree(
            SessionId(row.session_id),
            net,
            row.state,
            {name: e.state for name, e in entries.items()},
            held=frozenset(JobName(r.job_name) for r in runs if r.is_held),
            stopping=frozenset(JobName(r.job_name) for r in runs if r.is_stopping),
        )
        self._runs[row.session_id] = entries
        for entry in entries.values():
            self.entries[entry.run_id] = entry
            self._at_host.setdefault(entry.job.host, {})[entry.run_id] = entry

    def start(self, session_id: int, now: datetime) -> None:
        """Begin a session that is on the board."""
        self._feed(session_id, Started(), now)

    def catch_up(self, now: datetime) -> None:
        """Decide what the rows of the running sessions leave undecided."""
        for session_id in list(self._trees):
            self._feed(session_id, Reread(), now)

    def take_order(self, run_id: str, now: datetime) -> bool:
        """The agent has the order; return whether that is news."""
        entry = self.entries.get(run_id)
        return entry is not None and self._feed(entry.session_id, Taken(entry.job.name), now)

    def never_taken(self, run_id: str, now: datetime) -> bool:
        """The agent never had the run, which is to be ended; return whether that ends it."""
        entry = self.entries.get(run_id)
        return entry is not None and self._feed(entry.session_id, NeverTaken(entry.job.name), now)

    def operate(self, asked: OperationRow, now: datetime) -> bool:
        """Do what a person asked for, or refuse it; return False if its session is not here to be asked yet."""
        tree = self._trees.get(asked.session_id)
        if tree is None:
            if asked.session_state in OPEN:
                return False
            self._batch.moves.decided[asked.operation_id] = f"The run has ended {asked.session_state}."
            return True
        event = Operated(asked.operation, JobName(asked.job_name) if asked.job_name else None, asked.asked_by)
        self._batch.moves.decided[asked.operation_id] = refusal(tree, event)
        self._feed(asked.session_id, event, now)
        return True

    def end(self, said: RunEnded, now: datetime) -> bool:
        """The agent says how a run ended; return whether that is news."""
        entry = self.entries.get(said.run_id)
        if entry is None or entry.state not in AT_AGENT:
            return False
        self._feed(entry.session_id, Ended(entry.job.name, said.outcome, said.exit_code), now)
        move = self._batch.moves.runs[said.run_id]
        move.started_utc, move.ended_utc = _instant(said.started), _instant(said.ended) or now
        move.exit_code, move.output, move.output_bytes = said.exit_code, said.output, said.output_bytes
        move.detail = said.detail or ("stopped by a person" if entry.is_stopping else None)
        self._batch.ended.append(entry)
        if entry.state.value in _PRIORITY:
            self._batch.moves.events.append(_run_event(entry, said, now))
        return True

    def take(self) -> Batch:
        """Return what is to be committed now, and begin a new batch."""
        batch, self._batch = self._batch, Batch()
        return batch

    def committed(self, batch: Batch) -> None:
        """The batch stands in the rows."""
        for run_id, move in batch.moves.runs.items():
            entry = self.entries.get(run_id)
            if entry is not None and entry.state is move.to:
                entry.is_committed = True
        for session_id in batch.closed:
            del self._trees[session_id]
            for entry in self._runs.pop(session_id).values():
                del self.entries[entry.run_id]
                del self._at_host[entry.job.host][entry.run_id]

    def _feed(self, session_id: int, event: Event, now: datetime) -> bool:
        tree = self._trees[session_id]
        steps = advance(tree, event, now)
        tree = self._trees[session_id] = after(tree, steps)
        for step in steps:
            match step:
                case SessionMoved():
                    self._move_session(tree, step)
                case JobMoved():
                    self._move_run(self._runs[session_id][step.job], step)
                case JobMarked():
                    self._mark_run(self._runs[session_id][step.job], step)
        return bool(steps)

    def _move_of(self, entry: Entry) -> RunMove:
        """Return the run's move in the batch; a new one begins and ends in its present state."""
        return self._batch.moves.runs.setdefault(entry.run_id, RunMove(entry.run_id, entry.state, entry.state))

    def _mark_run(self, entry: Entry, step: JobMarked) -> None:
        move = self._move_of(entry)
        if step.is_held is not None:
            move.is_held = step.is_held
        if step.is_stopping is not None:
            move.is_stopping = entry.is_stopping = step.is_stopping
            self._batch.stopped.append(entry)

    def _move_run(self, entry: Entry, step: JobMoved) -> None:
        move = self._move_of(entry)
        move.to = entry.state = step.to
        entry.is_committed = False
        if step.to is JobState.ORDERED:
            move.ordered_utc = step.at
            self._batch.ordered.append(entry)
        elif step.to in (JobState.NOT_RUN, JobState.SKIPPED):
            move.detail, move.ended_utc = step.why, step.at

    def _move_session(self, tree: Tree, step: SessionMoved) -> None:
        session_id = int(tree.session_id)
        moves = self._batch.moves.sessions
        move = moves.get(session_id)
        if move is None:
            move = moves[session_id] = SessionMove(session_id, step.before, step.to)
        move.to = step.to
        if step.to is SessionState.RUNNING:
            move.started_utc = step.at
            return
        move.ended_utc = step.at
        self._batch.closed.append(session_id)
        if step.to.value in _PRIORITY:
            self._batch.moves.events.append(_session_event(tree, step))


def order_of(entry: Entry, *, epoch: int) -> Order:
    """Return the order of a run."""
    job = entry.job
    dated = {"FUTAGO_BUSINESS_DATE": entry.business_date.isoformat()} if entry.business_date else {}
    return Order(
        run_id=entry.run_id,
        epoch=epoch,
        command=job.command,
        job=job.name,
        net=entry.net_name,
        session_id=entry.session_id,
        user=job.user,
        env={**dated, **job.env},
        timeout_s=job.timeout_s,
    )


def _instant(seconds: float) -> datetime | None:
    return datetime.fromtimestamp(seconds, UTC) if seconds else None


def _run_event(entry: Entry, said: RunEnded, now: datetime) -> EventRow:
    why = said.detail or f"exit code {said.exit_code}"
    return EventRow(
        occurred_utc=_instant(said.ended) or now,
        priority=_PRIORITY[entry.state.value],
        host_name=entry.job.host,
        message=f"Job {entry.job.name} of net {entry.net_name} ended {entry.state}: {why}",
        detail={
            "net": entry.net_name,
            "session_id": entry.session_id,
            "job": entry.job.name,
            "run_id": entry.run_id,
            "exit_code": said.exit_code,
        },
    )


def _session_event(tree: Tree, step: SessionMoved) -> EventRow:
    """The event of a session's bad end: this one notifies, once, however many of its jobs ended badly."""
    bad = [name for name, state in tree.states.items() if state.value == step.to.value]
    named = ", ".join(bad[:JOBS_NAMED_MAX]) + (", ..." if len(bad) > JOBS_NAMED_MAX else "")
    notify = tree.net.notify if step.to in (SessionState.ABNORMAL, SessionState.UNKNOWN) else ()
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
        notify=notify,
    )
