"""The engine of job control: what agents and rows say becomes moves, moves become commits, commits become orders.

    rows, agents -> board (pure decisions) -> one commit -> orders and acknowledgements -> agents

One task writes: whatever gathered while the last commit was under way is the next batch, so a single chain waits for
nothing and a thousand jobs share a commit. Nothing is said to an agent before the commit that it rests on; an order
is repeated until the agent has it, under the id of its row. Whatever goes wrong with a commit, the board is thrown
away and made anew from the rows, and every agent is asked what it has.
"""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from pydantic import ValidationError

from futago.jobs import store
from futago.jobs.board import Batch, Board, Entry, order_of
from futago.jobs.calls import Calls
from futago.jobs.claims import is_run_id, presentable
from futago.jobs.control_definitions import JobQueue
from futago.jobs.errands import Errands
from futago.jobs.file_triggers import FileTriggers
from futago.jobs.hub import AgentHub, Connected, Heard
from futago.jobs.model import AT_AGENT, ENDS, Ask, JobState
from futago.jobs.patrol import Patrol
from futago.jobs.queues import Rule
from futago.jobs.requests import Requests
from futago.jobs.schedules import Scheduler
from futago.jobs.shelf import NetShelf
from futago.jobs.store import Connection, RunRow, SessionRow
from futago.jobs.strays import Strays
from futago.jobs.switch_report import SwitchTeller
from futago.jobs.triggers import Triggers
from futago.jobs.upkeep import Upkeep
from futago.link.orders import OrderTaken, Outcome, RefusalReason, Refused, RunEnded, RunsReport
from futago.runtime import clock
from futago.runtime.apart import apart
from futago.runtime.cancel import heed_cancellation
from futago.runtime.clock import now_utc
from futago.runtime.engine import EngineContext
from futago.runtime.faults import Refused as NotDone
from futago.runtime.faults import WorldFault

NAME = "jobs"
POLL_S = 0.1  # new sessions are found within this time
LAZY_S = 0.2  # "the agent has it" waits this long for another commit to travel with
PENDING_MAX = 2_000  # moves gathered while a commit is under way; then agents wait
RELOAD_S = 0.2  # after a commit that failed
ASK_AGAIN_S = 2.0  # an order that no agent confirmed: ask
AROUND_S = 1.0  # how often other nets' sessions and the queues are looked at
TICK_S_MAX = 1.0  # the wall clock may jump: look at it at least so often
OPERATED_KEPT_MAX = 10_000
UNREADABLE = "The run's definition was written by another version of the program: it cannot be read here."


@dataclass(slots=True)
class Counters:
    """Since the engine was made."""

    commits: int = 0
    moves: int = 0
    reloads: int = 0
    sent_again: int = 0
    refused_orders: int = 0


class JobsEngine:
    """See the module. One is made for each epoch in which this member is primary with an open gate.

    Args:
        context: the manager's world; `outward` guards orders.
        hub: where the agents are. `hub.set_role` must have been called with this epoch before.
        nets: definitions that engines of earlier epochs have read.
    """

    def __init__(self, context: EngineContext, hub: AgentHub, nets: NetShelf | None = None) -> None:
        self.counters = Counters()
        self._context = context
        self._hub = hub
        self._log = context.log.bind(engine=NAME)
        self._nets = NetShelf() if nets is None else nets
        self._unreadable: set[int] = set()  # sessions whose definition another version wrote: said once
        self._upkeep = Upkeep(context, hub)
        self._calls = Calls()
        self._errands = Errands(context.store, hub)
        self._switch = SwitchTeller(context, hub, repeated=lambda: self.counters.sent_again)
        self._reset()

    def _reset(self) -> None:
        self._board = Board()
        self._requests = Requests(self._board, self._calls, self._errands, self._context.outward, self._urgent)
        self._wake = asyncio.Event()  # there is something to commit
        self._lazy: asyncio.TimerHandle | None = None  # there is something that may wait for more
        self._room = asyncio.Event()  # the batch is small enough to take more
        self._room.set()
        self._new_session = asyncio.Event()
        self._again = asyncio.Event()  # an earlier instant may have come into sight
        self._strays = Strays(self._context, self._hub)
        self._unconfirmed: dict[str, int] = {}  # run id -> when its order was sent
        self._operated: set[int] = set()  # operations that were on the board: one that a late read shows is none
        self._stopping: set[str] = set()  # runs whose agents are told to end them, until they have

    def _poke(self) -> None:
        self._new_session.set()

    async def run(self) -> None:
        """Work until cancelled."""
        try:
            while True:
                self._reset()
                try:
                    await apart(self._work())
                except* WorldFault as faults:
                    self.counters.reloads += 1
                    self._log.warning("jobs.reload", why="; ".join(str(e) for e in faults.exceptions))
                heed_cancellation()
                await asyncio.sleep(RELOAD_S)
        finally:
            await self._calls.close()

    async def _work(self) -> None:
        """Load the board and work on it until a fault of the world."""
        await self._load()
        async with asyncio.TaskGroup() as group:
            for work in (
                self._write,
                self._listen,
                self._begin,
                self._ask_again,
                self._check_sessions,
                self._let_out,
                self._tick,
                self._look_around,
                self._strays.run,
                Patrol(self._board, self._hub).run,
                self._upkeep.note_hosts,
                self._upkeep.prune,
                self._switch.run,
                Scheduler(self._context, self._poke).run,
                Triggers(self._context, self._poke).run,
                FileTriggers(self._context, self._hub, self._poke).run,
            ):
                group.create_task(work())
            group.create_task(self._requests.hear(self._room))

    # --- reading rows -----------------------------------------------------------------------------------------------

    async def _load(self) -> None:
        """Make the board from the rows, and ask every connected agent what it has.

        Raises:
            Refused: the rows cannot be read now.
        """
        started = clock.now_at()
        sessions, runs = await self._context.store.read(store.read_open, name="jobs.load")
        await self._put_on_board(sessions, runs)
        await self._read_queues()
        self._board.catch_up(now_utc())
        self._requests.take_up()
        if self._board.has_news:
            self._urgent()
        ordered = [e.run_id for e in self._board.entries.values() if e.state is JobState.ORDERED and e.is_for_agent]
        self._unconfirmed = dict.fromkeys(ordered, started)
        self._stopping = {e.run_id for e in self._board.entries.values() if _may_stop(e)}
        for agent in self._hub.connected:
            self._ask_about(agent.agent)
        self._upkeep.new_agent.set()
        self._switch.note(self._board.entries.values(), sessions=len(sessions), runs=len(runs), began_at=started)

    async def _put_on_board(self, sessions: list[SessionRow], runs: list[RunRow]) -> None:
        await self._nets.fill({s.digest for s in sessions}, self._read_specs)
        by_session: dict[int, list[RunRow]] = {s.session_id: [] for s in sessions}
        for run in runs:
            by_session[run.session_id].append(run)
        for session in sessions:
            net = self._nets.get(session.digest)
            if net is not None:
                self._board.add(session, net, by_session[session.session_id])
            elif session.session_id not in self._unreadable:
                self._unreadable.add(session.session_id)
                self._log.error("jobs.session_unreadable", session_id=session.session_id, net=session.net_name)

    async def _read_specs(self, digests: list[str]) -> dict[str, dict[str, Any]]:
        async def read(conn: Connection) -> dict[str, dict[str, Any]]:
            return await store.read_specs(conn, digests)

        return await self._context.store.read(read, name="jobs.definitions")

    async def _begin(self) -> None:
        """Find sessions that were started by people, the API or a schedule, and begin them."""
        while True:
            self._new_session.clear()
            await self._room.wait()
            sessions, runs = await self._context.store.read(store.read_starting, name="jobs.starting")
            fresh = [s for s in sessions if s.session_id not in self._board]
            if fresh:
                ids = {s.session_id for s in fresh}
                await self._put_on_board(fresh, [r for r in runs if r.session_id in ids])
                for session in (s for s in fresh if s.session_id in self._board):
                    self._board.start(session.session_id, now_utc())
                self._urgent()
            await self._operate()
            self._context.beat(NAME)
            await _wait(self._new_session, POLL_S)

    async def _operate(self) -> None:
        """Do what people have asked for meanwhile, or refuse it."""
        asked = await self._context.store.read(store.read_operations, name="jobs.operations")
        for one in asked:
            if one.operation_id in self._operated:
                continue
            if one.session_id in self._unreadable and one.session_id not in self._board:
                self._board.refuse(one, UNREADABLE)
            elif not self._board.operate(one, now_utc()):
                continue
            self._operated.add(one.operation_id)
            self._urgent()
        if len(self._operated) > OPERATED_KEPT_MAX and not asked:
            self._operated.clear()

    # --- writing rows -----------------------------------------------------------------------------------------------

    def _urgent(self) -> None:
        self._wake.set()
        self._again.set()
        if self._board.pending >= PENDING_MAX:
            self._room.clear()

    async def _write(self) -> None:
        """Commit what has gathered, then say what follows from it.

        Raises:
            Refused, Unknown: the board is not to be trusted any more.
        """
        while True:
            await self._wake.wait()
            self._wake.clear()
            self._hurry()
            batch = self._board.take()
            self._room.set()
            if not batch.moves:
                continue
            await self._commit(batch)
            self._board.committed(batch)
            self.counters.commits += 1
            self.counters.moves += len(batch.moves.runs)
            self._say(batch)

    def _hurry(self) -> None:
        """What could wait has found a commit to travel with."""
        if self._lazy is not None:
            self._lazy.cancel()
            self._lazy = None

    async def _commit(self, batch: Batch) -> None:
        async def write(conn: Connection) -> None:
            await store.write_moves(conn, batch.moves, epoch=self._context.epoch)

        await self._context.store.commit(write, name="jobs.advance")

    def _say(self, batch: Batch) -> None:
        for host, run_id in batch.ended:
            self._calls.forget(run_id)
            if host:
                self._hub.committed(host, run_id)
            self._unconfirmed.pop(run_id, None)
        for entry in batch.ordered:
            self._order(entry)
        for entry in batch.begun:
            self._requests.begin(entry)
        for entry in batch.stopped:
            self._stopping.add(entry.run_id)
            self._stop(entry)

    def _order(self, entry: Entry) -> None:
        """Send the order of a run if its row says so and outward effects are allowed. Whatever comes of it, the agent
        is asked until it has it.
        """
        if entry.state is not JobState.ORDERED or not entry.is_committed or entry.is_stopping:
            return
        if entry.is_call:
            self._requests.order(entry)
            return
        self._unconfirmed[entry.run_id] = clock.now_at()
        if self._context.outward.is_allowed:
            order = order_of(entry, self._board.variables(entry), epoch=self._context.epoch)
            self._hub.order(entry.host, order)

    def _stop(self, entry: Entry) -> None:
        """Tell the agent to end a run; it is told again until it has."""
        if not entry.is_committed or entry.state not in AT_AGENT:
            if entry.state in ENDS:
                self._stopping.discard(entry.run_id)
        elif entry.is_call:
            self._requests.stop(entry)
        elif self._context.outward.is_allowed:
            self._hub.stop(entry.host, entry.run_id)

    # --- time, queues, other nets -------------------------------------------------------------------------------------

    async def _tick(self) -> None:
        """Do what time brings about, when it does."""
        while True:
            self._again.clear()
            now, wake = now_utc(), self._board.next_wake()
            if wake is not None and wake <= now:
                await self._room.wait()
                if self._board.wake(now_utc()):
                    self._urgent()
                continue
            pause_s = min(TICK_S_MAX, (wake - now).total_seconds()) if wake else TICK_S_MAX
            await _wait(self._again, pause_s)

    async def _look_around(self) -> None:
        """Follow what sessions wait for outside themselves: places in queues, sessions of other nets."""
        while True:
            await asyncio.sleep(AROUND_S)
            await self._room.wait()
            await self._read_queues()
            await self._read_others()
            if self._board.has_news:
                self._urgent()

    async def _read_queues(self) -> None:
        specs = await self._context.store.read(store.read_queues, name="jobs.queues")
        rules: dict[str, Rule] = {}
        for name, spec in specs.items():
            with contextlib.suppress(ValidationError):
                queue = JobQueue.model_validate(dict(spec))
                rules[name] = Rule(queue.limit, queue.per_host)
        self._board.set_queues(rules, now_utc())

    async def _read_others(self) -> None:
        asked = [(i, a.net, a.within.total_seconds() if a.within else None) for i, a in self._board.others()]
        if not asked:
            return
        found = await self._context.store.read(lambda c: store.read_others(c, asked), name="jobs.others")
        for session_id, net, within_s, state in found:
            ask = Ask(net, timedelta(seconds=within_s) if within_s is not None else None)
            self._board.other_stands(session_id, ask, state, now_utc())

    # --- what agents say --------------------------------------------------------------------------------------------

    async def _listen(self) -> None:
        while True:
            event = await self._hub.inbox.get()
            await self._room.wait()
            match event:
                case Connected():
                    self._ask_about(event.agent)
                    self._upkeep.new_agent.set()
                case Heard():
                    self._heard(event)

    def _heard(self, event: Heard) -> None:
        match event.message:
            case OrderTaken(run_id) if self._board.of_host(event.agent, run_id):
                self._taken(run_id)
            case RunEnded():
                self._ended(event.agent, event.message)
            case RunsReport():
                self._report(event.agent, event.message)
            case Refused():
                self._refused(event.agent, event.message)

    def _taken(self, run_id: str) -> None:
        self._unconfirmed.pop(run_id, None)
        if self._board.take_order(run_id, now_utc()) and not self._wake.is_set() and self._lazy is None:
            self._lazy = asyncio.get_running_loop().call_later(LAZY_S, self._wake.set)

    def _ended(self, agent: str, said: RunEnded) -> None:
        said = presentable(said)
        entry = self._board.entries.get(said.run_id)
        if entry is None:
            if not is_run_id(said.run_id):
                self._log.error("jobs.strange_run", agent=agent, run_id=said.run_id[:100])
            else:
                self._strays.note(agent, said)
        elif entry.host != agent:
            self._log.error("jobs.wrong_agent", run_id=said.run_id, agent=agent, host=entry.host)
        elif self._board.end(said, now_utc()):
            self._urgent()
        elif entry.state in ENDS and entry.is_committed:
            self._hub.committed(agent, said.run_id)

    def _report(self, agent: str, report: RunsReport) -> None:
        for run_id in report.held:
            if self._board.of_host(agent, run_id):
                self._taken(run_id)
        for run_id in report.stopped:
            if self._board.of_host(agent, run_id) and self._board.never_taken(run_id, now_utc()):
                self._urgent()
        for run_id in report.absent:
            entry = self._board.of_host(agent, run_id)
            if entry is None:
                continue
            if entry.state is JobState.ORDERED:
                self.counters.sent_again += 1
                self._order(entry)
            elif entry.state is JobState.RUNNING:
                self._ended(agent, RunEnded(run_id, Outcome.UNKNOWN, detail="the host has lost its record of the run"))

    def _refused(self, agent: str, refused: Refused) -> None:
        self.counters.refused_orders += 1
        self._log.warning(
            "jobs.order_refused", agent=agent, run_id=refused.run_id, reason=refused.reason.value, epoch=refused.epoch
        )
        entry = self._board.entries.get(refused.run_id)
        is_lost = refused.reason is RefusalReason.FORGOTTEN and entry is not None and entry.state is JobState.ORDERED
        if is_lost:  # the agent forgot a run whose result we do not have: nobody can know
            detail = "the host forgot the run as committed, and its result is not here"
            self._ended(agent, RunEnded(refused.run_id, Outcome.UNKNOWN, detail=detail))

    # --- asking -----------------------------------------------------------------------------------------------------

    def _ask_about(self, agent: str) -> None:
        """Ask an agent for every open run of its host, and for every result it keeps. What it never saw is ordered
        again then.
        """
        self._hub.ask(agent, [e.run_id for e in self._board.at_host(agent) if _may_ask(e)], is_new=True)

    async def _ask_again(self) -> None:
        """Ask for runs whose orders were sent and never confirmed: refused in the instant of a switch, or lost with a
        connection.
        """
        while True:
            await asyncio.sleep(ASK_AGAIN_S)
            before = clock.now_at() - int(ASK_AGAIN_S * clock.S)
            self._requests.let_out()
            late = [run_id for run_id, sent_at in self._unconfirmed.items() if sent_at <= before]
            by_host: dict[str, list[str]] = {}
            for run_id in late:
                entry = self._board.entries.get(run_id)
                if entry is None or not _may_ask(entry):
                    del self._unconfirmed[run_id]
                else:
                    by_host.setdefault(entry.host, []).append(run_id)
            for host, run_ids in by_host.items():
                self._hub.ask(host, run_ids)
            for run_id in tuple(self._stopping):
                entry = self._board.entries.get(run_id)
                if entry is None:
                    self._stopping.discard(run_id)
                else:
                    self._stop(entry)

    async def _check_sessions(self) -> None:
        """Find sessions that run and are not on the board.

        There are none, unless a commit whose outcome was unknown took effect after the rows had been read again.

        Raises:
            Refused: there are: read the rows again.
        """
        while True:
            await asyncio.sleep(ASK_AGAIN_S)
            known = self._board.open_sessions | self._unreadable  # one that ends meanwhile is not missing
            running = await self._context.store.read(store.read_running, name="jobs.running")
            if missing := set(running) - known - self._board.open_sessions:
                raise NotDone(f"{len(missing)} running sessions are not on the board")

    async def _let_out(self) -> None:
        """When outward effects become allowed, send the orders that have been waiting for it."""
        while True:
            if self._context.outward.is_allowed:
                await asyncio.sleep(POLL_S)
                continue
            await self._context.outward.wait()
            self._requests.let_out()
            for agent in {e.host for e in self._board.entries.values() if e.state is JobState.ORDERED}:
                self._ask_about(agent)


def _may_ask(entry: Entry) -> bool:
    return entry.is_committed and entry.state in AT_AGENT


def _may_stop(entry: Entry) -> bool:
    return entry.is_stopping and entry.state in AT_AGENT and (entry.is_for_agent or entry.is_call)


async def _wait(event: asyncio.Event, seconds: float) -> None:
    """Wait until the event is set, `seconds` at most."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()
