"""The open sessions in memory, and what has been decided about them and is not committed yet.

The board is ahead of the rows by exactly one batch: events are fed, `advance` decides, moves gather; `take` hands the
batch to be committed. If that fails, the board is thrown away and made anew from the rows. What may be said to agents
follows from `entry.is_committed` only. No I/O here, so it is tested without any.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from uuid import UUID, uuid5

from futago.jobs import notices
from futago.jobs.advance import advance, refusal
from futago.jobs.model import (
    AT_AGENT,
    ENDS,
    NOT_BEGUN,
    OPEN_SESSION,
    ROOT,
    Admitted,
    Ask,
    Due,
    Ended,
    Event,
    JobMarked,
    JobMoved,
    JobName,
    JobRetried,
    JobState,
    NeverTaken,
    Noticed,
    Operated,
    OtherStands,
    Reread,
    SessionId,
    SessionMoved,
    SessionState,
    Started,
    Taken,
    Transition,
    Tree,
    TurnedAway,
    VariableSet,
    change,
    make_tree,
)
from futago.jobs.orders import order_of as make_order
from futago.jobs.parameters import found_in
from futago.jobs.plan import ByManager, Net, OnHost, Unit
from futago.jobs.queues import Queues, Rule
from futago.jobs.store import Attempt, Moves, OperationRow, RunMove, RunRow, SessionMove, SessionRow
from futago.jobs.timing import is_timed, next_due
from futago.link.orders import Order, RunEnded

_AGAIN = UUID("6675746f-6761-6f00-0000-000000000000")  # a retry's run id follows from the run before it
_HELD_BY_MANAGER = "stopped by a person"


@dataclass(slots=True)
class Entry:
    """The newest run of a unit on the board. `is_committed`: its present state stands in the rows."""

    run_id: str
    session_id: int
    job: Unit
    net_name: str
    state: JobState
    business_date: date | None = None
    is_committed: bool = True
    is_stopping: bool = False  # it is to be ended

    @property
    def host(self) -> str:
        """Whose agent does it; empty: the manager itself."""
        return self.job.host

    @property
    def is_for_agent(self) -> bool:
        return isinstance(self.job.work, OnHost)

    @property
    def is_call(self) -> bool:
        """Whether the manager itself does it: a request, a check, a transfer."""
        return isinstance(self.job.work, ByManager)


@dataclass(slots=True)
class Batch:
    """What one commit writes, and whom to tell afterwards."""

    moves: Moves = field(default_factory=Moves)
    ordered: list[Entry] = field(default_factory=list)
    begun: list[Entry] = field(default_factory=list)  # requests that may be made now
    ended: list[tuple[str, str]] = field(default_factory=list)  # hosts and runs that they may forget
    stopped: list[Entry] = field(default_factory=list)
    closed: list[int] = field(default_factory=list)  # sessions that have ended


class Board:
    """See the module."""

    def __init__(self) -> None:
        self.entries: dict[str, Entry] = {}
        self.queues = Queues()
        self._at_host: dict[str, dict[str, Entry]] = {}
        self._trees: dict[int, Tree] = {}
        self._runs: dict[int, dict[JobName, Entry]] = {}
        self._asking: set[int] = set()  # sessions with conditions on other nets
        self._wakes: list[tuple[datetime, int, JobName]] = []
        self._woken_at: dict[tuple[int, JobName], datetime] = {}
        self._count = 0
        self._batch = Batch()

    def __contains__(self, session_id: int) -> bool:
        return session_id in self._trees

    @property
    def open_sessions(self) -> frozenset[int]:
        """The sessions that are on the board."""
        return frozenset(self._trees)

    @property
    def pending(self) -> int:
        """How many moves wait to be committed."""
        return len(self._batch.moves.runs) + len(self._batch.moves.sessions)

    @property
    def has_news(self) -> bool:
        """Whether anything waits to be committed."""
        return bool(self._batch.moves)

    def at_host(self, host: str) -> Iterable[Entry]:
        """Return the runs of open sessions that belong to a host."""
        return self._at_host.get(host, {}).values()

    def of_host(self, host: str, run_id: str) -> Entry | None:
        """Return a run of an open session if it belongs to this host's agent: nobody else has a say in it."""
        return self._at_host.get(host, {}).get(run_id)

    def variables(self, entry: Entry) -> Mapping[str, str]:
        """Return the variables of the entry's session."""
        return self._trees[entry.session_id].variables

    # --- sessions come ----------------------------------------------------------------------------------------------

    def add(self, row: SessionRow, net: Net, runs: Sequence[RunRow]) -> None:
        """Put a session on the board, as its rows say it stands."""
        self._trees[row.session_id] = make_tree(
            SessionId(row.session_id),
            net,
            row.state,
            {r.job_name: r.standing for r in runs},
            started_utc=row.started_utc,
            day=row.day,
            is_suspended=row.is_suspended,
            variables=row.variables,
            shut=row.shut,
            typical_s=row.typical_s,
        )
        entries = self._runs[row.session_id] = {}
        for run in runs:
            unit, standing = net.units[run.job_name], run.standing
            entry = Entry(run.run_id, row.session_id, unit, net.name, standing.state, row.business_date)
            entry.is_stopping = standing.is_stopping
            entries[run.job_name] = entry
            self._put(entry)
            self._note_place(entry, standing.ready_utc)
        if net.asks:
            self._asking.add(row.session_id)

    def _put(self, entry: Entry) -> None:
        self.entries[entry.run_id] = entry
        if entry.is_for_agent:
            self._at_host.setdefault(entry.host, {})[entry.run_id] = entry

    def _drop(self, entry: Entry) -> None:
        self.queues.leave(entry.run_id)
        self.entries.pop(entry.run_id, None)
        if entry.is_for_agent:
            self._at_host[entry.host].pop(entry.run_id, None)

    # --- events -----------------------------------------------------------------------------------------------------

    def start(self, session_id: int, now: datetime) -> None:
        """Begin a session that is on the board."""
        self._feed(session_id, Started(), now)
        tree = self._trees[session_id]
        for name, unit in tree.net.units.items():
            if is_timed(unit):
                self._note_wake(tree, name, now)

    def catch_up(self, now: datetime) -> None:
        """Decide what the rows of the running sessions leave undecided."""
        for session_id, tree in list(self._trees.items()):
            self._feed(session_id, Reread(), now)
            for name, unit in tree.net.units.items():
                if is_timed(unit):
                    self._note_wake(tree, name, now)
        self.admit(now)

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
            if asked.session_state in OPEN_SESSION:
                return False
            self.refuse(asked, f"The run has ended {asked.session_state}.")
            return True
        event = Operated(
            operation=asked.operation,
            job=JobName(asked.job_name) if asked.job_name else None,
            by=asked.asked_by,
            status=JobState(asked.status) if asked.status else None,
            value=asked.value,
            text=asked.note,
        )
        self.refuse(asked, refusal(tree, event))
        self._feed(asked.session_id, event, now)
        self.queues.retry_aside()
        self.admit(now)
        return True

    def refuse(self, asked: OperationRow, why: str) -> None:
        """Answer an operation; `why` empty: it is done."""
        self._batch.moves.decided[asked.operation_id] = why

    def end(self, said: RunEnded, now: datetime) -> bool:
        """A run has ended so; return whether that is news."""
        entry = self.entries.get(said.run_id)
        if entry is None or entry.state not in AT_AGENT:
            return False
        was_stopping = entry.is_stopping
        variables = found_in(said.output, entry.job.sets)
        self._feed(entry.session_id, Ended(entry.job.name, said.outcome, said.exit_code, variables), now)
        move = self._batch.moves.runs[said.run_id]
        move.started_utc, move.ended_utc = _instant(said.started), _instant(said.ended) or now
        move.exit_code, move.output, move.output_bytes = said.exit_code, said.output, said.output_bytes
        move.detail = said.detail or (_HELD_BY_MANAGER if was_stopping else None)
        self._batch.ended.append((entry.host, entry.run_id))
        net = self._trees[entry.session_id].net
        event = notices.run_ended(entry.job, said, move.to, net=net, session_id=entry.session_id, now=now)
        if event:
            self._batch.moves.events.append(event)
        self.admit(now)
        return True

    def others(self) -> list[tuple[int, Ask]]:
        """Return what conditions of running sessions ask about other nets."""
        running = (i for i in self._asking if self._trees[i].state is SessionState.RUNNING)
        return [(i, ask) for i in running for ask in self._trees[i].net.asks]

    def other_stands(self, session_id: int, ask: Ask, state: SessionState | None, now: datetime) -> bool:
        """Tell a session how another net's stands; return whether anything follows from it that is to be committed."""
        if session_id in self._trees:
            self._feed(session_id, OtherStands(ask, state), now)
        return self.has_news

    # --- time and places --------------------------------------------------------------------------------------------

    def next_wake(self) -> datetime | None:
        """Return when time may bring something about; None: never."""
        return self._wakes[0][0] if self._wakes else None

    def wake(self, now: datetime) -> bool:
        """Do what time has brought about; return whether anything is to be committed."""
        while self._wakes and self._wakes[0][0] <= now:
            at, session_id, name = heapq.heappop(self._wakes)
            if self._woken_at.get((session_id, name)) != at:
                continue  # another instant has taken its place
            del self._woken_at[session_id, name]
            if session_id in self._trees and self._trees[session_id].state is SessionState.RUNNING:
                self._feed(session_id, Due(name), now)
                self._note_wake(self._trees[session_id], name, now)
                self.queues.retry_aside()
        self.admit(now)
        return self.has_news

    def _note_wake(self, tree: Tree, name: JobName, now: datetime) -> None:
        key = (int(tree.session_id), name)
        at = next_due(tree, name, now)
        if at is None:
            self._woken_at.pop(key, None)
        elif self._woken_at.get(key) != at:
            self._woken_at[key] = at
            heapq.heappush(self._wakes, (at, *key))

    def set_queues(self, rules: dict[str, Rule], now: datetime) -> bool:
        """Take the queues as they are defined now; return whether anything is to be committed."""
        if self.queues.set_rules(rules):
            self.queues.retry_aside()
            self.admit(now)
        return self.has_news

    def admit(self, now: datetime) -> None:
        """Let ready jobs begin as far as their queues have places."""

        def may_go(run_id: str) -> bool:
            entry = self.entries[run_id]
            tree = self._trees[entry.session_id]
            ready = tree.standings[entry.job.name].ready_utc
            if ready is not None and ready > now:
                return False
            return bool(advance(tree, Admitted(entry.job.name), now))

        for run_id in self.queues.next_ones(may_go):
            entry = self.entries[run_id]
            self._feed(entry.session_id, Admitted(entry.job.name), now)

    def _note_place(self, entry: Entry, ready_utc: datetime | None) -> None:
        queue = entry.job.queue
        if not queue or not (entry.is_for_agent or entry.is_call):
            return
        if entry.state is JobState.READY and ready_utc:
            self._count += 1
            priority = entry.job.priority
            self.queues.wait(entry.run_id, queue, entry.host, priority=priority, since=ready_utc, number=self._count)
        elif entry.state in AT_AGENT:
            self.queues.occupy(entry.run_id, queue, entry.host)
        elif entry.state not in NOT_BEGUN:
            self.queues.leave(entry.run_id)

    # --- batches ----------------------------------------------------------------------------------------------------

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
            self._asking.discard(session_id)
            for entry in self._runs.pop(session_id).values():
                self._woken_at.pop((session_id, entry.job.name), None)
                self._drop(entry)

    def _feed(self, session_id: int, event: Event, now: datetime) -> bool:
        tree = self._trees[session_id]
        steps = advance(tree, event, now)
        if not steps:
            return False
        before = tree.state
        change(tree, steps)
        for step in steps:
            self._write(tree, step, before)
        for name in {step.job for step in steps if isinstance(step, JobMoved | JobRetried)}:
            self._note_wake(tree, name, now)
        self._turn_away(tree, steps, now)
        return True

    def _turn_away(self, tree: Tree, steps: Sequence[Transition], now: datetime) -> None:
        """End the jobs that are ready and do not wait for a place, if there is none."""
        for step in steps:
            if isinstance(step, JobMoved) and step.to is JobState.READY:
                unit = tree.net.units[step.job]
                if unit.if_full is not None and self.queues.is_full_for(unit.queue, unit.host):
                    self._feed(int(tree.session_id), TurnedAway(step.job), now)
        if any(isinstance(s, JobMoved) and s.to is JobState.READY for s in steps):
            self.admit(now)

    def _write(self, tree: Tree, step: Transition, before: SessionState) -> None:
        session_id = int(tree.session_id)
        match step:
            case SessionMoved():
                self._move_session(tree, step)
            case JobMoved():
                self._move_run(tree, self._runs[session_id][step.job], step)
            case JobRetried():
                self._retry(self._runs[session_id][step.job], step)
            case JobMarked(job) if job == ROOT:
                self._session_move(tree, before).is_suspended = step.is_suspended
            case JobMarked():
                self._mark_run(self._runs[session_id][step.job], step)
            case VariableSet(name, value):
                self._session_move(tree, before).variables[name] = value
            case Noticed():
                self._batch.moves.events.append(notices.noticed(tree, step))

    def _move_of(self, entry: Entry) -> RunMove:
        """Return the run's move in the batch; a new one begins and ends in its present state."""
        return self._batch.moves.runs.setdefault(entry.run_id, RunMove(entry.run_id, entry.state, entry.state))

    def _mark_run(self, entry: Entry, step: JobMarked) -> None:
        move = self._move_of(entry)
        for name in ("is_held", "is_suspended", "is_late", "is_stuck"):
            value = getattr(step, name)
            if value is not None:
                setattr(move, name, value)
        if step.is_stopping is not None:
            move.is_stopping = entry.is_stopping = step.is_stopping
            if entry.is_for_agent or entry.is_call:
                self._batch.stopped.append(entry)

    def _move_run(self, tree: Tree, entry: Entry, step: JobMoved) -> None:
        move = self._move_of(entry)
        was_ended = step.before in ENDS
        move.to = entry.state = step.to
        entry.is_committed = False
        if step.to is JobState.READY:
            move.ready_utc = step.at
        elif step.to in AT_AGENT:
            self._begin_run(entry, move, step)
        elif step.to in ENDS:
            move.detail, move.exit_code, move.is_reset = step.why or None, step.value, was_ended
            move.ended_utc = step.at
        else:
            move.is_reset = True
        self._note_place(entry, tree.standings[step.job].ready_utc)

    def _begin_run(self, entry: Entry, move: RunMove, step: JobMoved) -> None:
        """Note a run that is ordered, or that the manager itself has begun."""
        if step.to is JobState.ORDERED:
            move.ordered_utc = step.at
            self._batch.ordered.append(entry)
        elif entry.is_call:
            move.started_utc = step.at
            self._batch.begun.append(entry)
        elif not entry.is_for_agent:
            move.ordered_utc = move.started_utc = step.at

    def _retry(self, entry: Entry, step: JobRetried) -> None:
        """The run ends, and the job's next one takes its place on the board."""
        move = self._move_of(entry)
        move.to = entry.state = step.ended
        self._drop(entry)
        run_id = str(uuid5(_AGAIN, entry.run_id))
        self._batch.moves.attempts.append(Attempt(run_id, entry.run_id, step.tries, step.ready_utc))
        fresh = Entry(run_id, entry.session_id, entry.job, entry.net_name, JobState.READY, entry.business_date)
        self._runs[entry.session_id][step.job] = fresh
        self._put(fresh)
        self._note_place(fresh, step.ready_utc)

    def _session_move(self, tree: Tree, before: SessionState) -> SessionMove:
        """Return the session's move in the batch; a new one begins and ends in the state `before`."""
        session_id = int(tree.session_id)
        return self._batch.moves.sessions.setdefault(session_id, SessionMove(session_id, before, before))

    def _move_session(self, tree: Tree, step: SessionMoved) -> None:
        session_id = int(tree.session_id)
        move = self._session_move(tree, step.before)
        move.to = step.to
        if step.to is SessionState.RUNNING:
            move.started_utc = step.at
            return
        move.ended_utc = step.at
        self._batch.closed.append(session_id)
        event = notices.session_ended(tree, step)
        if event:
            self._batch.moves.events.append(event)


def order_of(entry: Entry, variables: Mapping[str, str], *, epoch: int) -> Order:
    """Return the order of a run."""
    return make_order(
        entry.job,
        run_id=entry.run_id,
        session_id=entry.session_id,
        net_name=entry.net_name,
        variables=variables,
        business_date=entry.business_date,
        epoch=epoch,
    )


def _instant(seconds: float) -> datetime | None:
    return datetime.fromtimestamp(seconds, UTC) if seconds else None
