"""The bridge of the controller: the program that decides who serves, and supervises the rest.

Lives here: the parts and how they hang together, starting, reloading, ending. Must not live here: rules (rules.py),
the order of deciding and acting (runtime/loop.py), or any single action. The idea: a bridge. Instruments on one side
(facts), levers on the other (executor), one officer between them (decide), and a hand on the dead man's handle all
the time.

A controller that starts finds what runs and adopts it; it changes nothing that is right. One that ends in an orderly
machine shutdown hands over first; one that is merely restarted leaves everything running for its successor.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
from collections.abc import Coroutine
from typing import Any

import msgspec

from futago import __version__
from futago.cluster import leave, pgconf
from futago.cluster import status as status_room
from futago.cluster.address.carried import CarriedAddress
from futago.cluster.address.kinds import address_of
from futago.cluster.contact import ContactNote
from futago.cluster.control import LocalWindow, NetworkWindow, PeerLine
from futago.cluster.decide import decide
from futago.cluster.desk import ControllerDesk
from futago.cluster.exchange import Exchange
from futago.cluster.executor import Executor, Hands
from futago.cluster.facts import Board
from futago.cluster.fence.worker import FenceDesk
from futago.cluster.guard import Handle, send
from futago.cluster.met import MetNote
from futago.cluster.model import (
    At,
    Decision,
    Facts,
    Gate,
    Heartbeat,
    HoldAddress,
    OpDone,
    PgState,
    SetGate,
)
from futago.cluster.observers import Journals, Network, Programs, SystemDisk
from futago.cluster.orders import Orders
from futago.cluster.pgconf import Layout
from futago.cluster.pgsync import PgSync
from futago.cluster.pgwatch import PgWatch
from futago.cluster.postgres import Postgres
from futago.cluster.record import Recorder
from futago.cluster.recover import Ladder
from futago.cluster.reports import Reporter, journal_of
from futago.cluster.seating import Seating
from futago.cluster.situation import Situation
from futago.cluster.slots import Keeper
from futago.cluster.unit import SystemdUnit
from futago.cluster.volume import DataVolume
from futago.cluster.walpath import WalPath
from futago.cluster.word import word
from futago.link import tls
from futago.runtime import service
from futago.runtime.clock import MS, S, boot_id, now_at
from futago.runtime.faults import Corrupt, OperatorFault, WorldFault
from futago.runtime.log import Log
from futago.runtime.loop import DecisionLoop
from futago.runtime.unreadable import UNREADABLE
from futago.runtime.worker import Worker
from futago.setup import files, paths
from futago.setup import settings as settings_room
from futago.setup.settings import Settings

UNIT = "futago-postgres.service"
RECORD = paths.CLUSTER / "decisions"
LAST_SWITCH = paths.CLUSTER / "last_switch.json"
VOLUME_NOTE = paths.CLUSTER / "volume.json"
STALL_FLOOR = 1 * S
ROSTER_S = 1.0
Program = Coroutine[Any, Any, None]


class Controller:
    """All parts, wired."""

    def __init__(self, settings: Settings, *, log: Log) -> None:
        self.settings, self.log = settings, log
        self.boot = boot_id()
        self.context = tls.client_context()
        started_at = At(now_at())
        self.contact = ContactNote(paths.RUN / "controller.contact", started_at=started_at)
        self.board = Board(cfg=settings.config(), started_at=started_at, contact_before=self.contact.before)
        self.met = MetNote(paths.RUN / "controller.met", boot=self.boot)
        self.board.met_epoch = self.met.epoch
        self.exchange = Exchange(
            board=self.board,
            boot=self.boot,
            context=self.context,
            settings=lambda: self.settings,
            compose=self._word,
            on_change=self._peer_spoke,
            log=log,
        )
        self.keeper = Keeper(on_change=self._durable_changed)
        self.board.read_durable = lambda: self.keeper.durable
        self.board.read_peer = self.exchange.peer_fact
        system, volume = Worker("system"), Worker("volume")
        self.system = system
        layout = Layout()
        files.directory(layout.volume, mode=0o755)
        self.postgres = Postgres(
            board=self.board,
            settings=settings,
            layout=layout,
            unit=SystemdUnit(UNIT),
            system=system,
            volume=volume,
            log=log,
        )
        self.postgres.on_kill = self.exchange.say_now
        limit_s = settings.profile.probe_ms * MS / S
        self.pgwatch = PgWatch(self.postgres, limit_s=limit_s, volume=Worker("disk"))
        self.peer_line = PeerLine(settings, context=self.context)
        self.sync = PgSync(self.postgres, pause_replay=self._pause_replay)
        self.volume = DataVolume(layout, note=VOLUME_NOTE, worker=Worker("ladder"), system=system, log=log)
        self.pgwatch.on_disk_error = self.volume.note_error
        self.volume.on_trust = lambda is_trusted: self.board.put_pg(is_suspect=not is_trusted)
        self.board.put_pg(is_suspect=bool(self.volume.suspect))
        self.reporter = Reporter(self.postgres, self.volume, system=system, maintenance=lambda: self.board.maintenance)
        self.ladder = Ladder(
            postgres=self.postgres,
            sync=self.sync,
            peer=self.peer_line,
            disk=self.volume,
            report=self.reporter.report,
            read_log=journal_of(UNIT),
            log=log,
        )
        self.fences = FenceDesk(settings, board=self.board, log=log)
        self.address: CarriedAddress = address_of(settings, on_change=self._address_changed, log=log)
        self.programs = Programs(self.board, log=log)
        self.journals = Journals(self.board)
        self.network = Network(
            self.board, address=self.address, peer=self.exchange.peer_fact, jury=lambda: self.exchange.register
        )
        self.switches = status_room.SwitchLog(keep=self._keep_switch, last=_load_switch())
        self.executor = Executor(self._hands(), log=log)
        self.desk = self._make_desk()
        self.recorder = Recorder(RECORD, member=settings.me, program=__version__, worker=Worker("recorder"))
        self.decision: Decision | None = None
        self._decided = asyncio.Event()
        self.facts: Facts = self.board.facts()
        self._said: tuple[object, ...] = ()
        self._guard = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        self._is_armed = True
        self._switch_note: asyncio.Task[None] | None = None
        self._address_changed()

    def _hands(self) -> Hands:
        return Hands(
            board=self.board,
            keeper=self.keeper,
            postgres=self.postgres,
            sync=self.sync,
            ladder=self.ladder,
            fences=self.fences,
            address=self.address,
            jury=lambda: self.exchange.register,
            say_now=self.exchange.say_now,
            op_done=self._op_done,
            note_met=self.met.keep,
        )

    def _op_done(self, done: OpDone) -> None:
        self.desk.op_done(done)

    def _make_desk(self) -> ControllerDesk:
        orders = Orders(
            board=self.board,
            peer=self.peer_line,
            fences=self.fences,
            system=self.system,
            settings=lambda: self.settings,
            forget_peers_sign=self.exchange.forget_peers_sign,
            log=self.log,
        )
        seating = Seating(
            board=self.board,
            peer=self.peer_line,
            system=self.system,
            context=self.context,
            settings=lambda: self.settings,
            register=lambda: self.exchange.register,
            reload=self.reload,
            renew=self.exchange.renew_register,
            log=self.log,
        )
        return ControllerDesk(
            board=self.board,
            postgres=self.postgres,
            sync=self.sync,
            peer=self.peer_line,
            programs=self.programs,
            system=self.system,
            tell_status=self.tell_status,
            tell_role=self.tell_role,
            tell_reason=lambda: "" if self.decision is None else self.decision.reason,
            seating=seating,
            ladder=self.ladder,
            reporter=self.reporter,
            orders=orders,
            log=self.log,
        )

    # --- running ----------------------------------------------------------------------------------------------------

    async def run(self, stop: asyncio.Event) -> int:
        """Run until told to stop; return the exit code."""
        self._feed()
        await self.postgres.adopt()
        loop = DecisionLoop(
            observe=self.board.facts,
            decide=decide,
            act=self._act,
            bell=self.board.bell,
            turned=self._feed,
            on_stall=self._woke,
            stall_ns=lambda: max(self.board.cfg.t_self, STALL_FLOOR),
        )
        hangup = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, hangup.set)
        server = tls.server_context(anonymous_allowed=True)
        async with asyncio.TaskGroup() as group:
            self.exchange.start(group)
            endless: list[Program] = [
                self.pgwatch.run(),
                self.fences.run(),
                self.journals.run(),
                self.programs.run(),
                self.network.run(),
                self.volume.run(self.board),
                self.desk.recovery.run(),
                self.desk.orders.run(),
                SystemDisk(self.keeper).run(),
                WalPath(self.postgres, peer=self.exchange.peer_fact).run(),
                self._follow_roster(),
                self.recorder.run(),
                self._open_local_window(),
                NetworkWindow(self.desk, self.settings, context=server, log=self.log).run(),
                self._reload_on(hangup),
            ]
            tasks = [group.create_task(part) for part in endless]
            service.notify_ready("deciding")
            self.log.event("controller.ready", version=__version__, boot=self.boot)
            await loop.run(stop)
            if await leave.is_machine_stopping():
                await leave.leave(self, loop)
            for task in [*tasks, *self.exchange.tasks()]:
                task.cancel()
        await self.recorder.flush()
        await self.executor.close()
        await self.address.close()
        self._feed()  # a successor has its full second
        return 0

    async def _open_local_window(self) -> None:
        """Tell roles from the first decision on: a controller that has just been restarted must not say "none" before
        it has looked, or everything that it adopts would stop.
        """
        await self._decided.wait()
        await LocalWindow(self.desk, log=self.log).run()

    # --- the turn ---------------------------------------------------------------------------------------------------

    def _act(self, facts: Facts, decision: Decision, now: int) -> int:
        """Begin what was decided; tell what changed; return when to look again."""
        self.facts, self.decision = facts, decision
        self.recorder.note(facts, decision, now)
        if facts.durable.view is not None:
            self.fences.forget(facts.durable.view.epoch)
        self._decided.set()
        self.contact.keep(Situation(facts, now).contact_at)
        self.switches.note(facts, decision, now)
        due = self.executor.perform(decision.actions, now)
        said = (decision.rule, decision.state, decision.is_protected, facts.durable.view)
        if said != self._said:
            self._said = said
            self.log.event(
                "decision",
                rule=decision.rule,
                reason=decision.reason,
                state=decision.state.value,
                epoch=0 if facts.durable.view is None else facts.durable.view.epoch,
                actions=[repr(a) for a in decision.actions],
                under_way=self.executor.under_way(),
            )
            service.notify_status(decision.reason)
        self.desk.turned()
        return int(decision.wake_at) if due is None else min(int(decision.wake_at), due)

    def _feed(self) -> None:
        """Everything that fires if we do not turn: systemd's watchdog and the guard, which holds the machine's."""
        service.notify_watchdog()
        cgroup = self.postgres.unit.cgroup
        handle = Handle(
            pid=os.getpid(),
            is_armed=self._is_armed,
            interface=self.address.interface,
            addresses=self.address.addresses,
            cgroup=str(cgroup or ""),
            gate_file=str(self.postgres.layout.hba),
            gate_closed=pgconf.hba_text(self.settings, gate_open=False),
            watchdog_s=self.settings.watchdog_s,
        )
        send(self._guard, handle)

    def _woke(self, gap: int) -> None:
        """We stood still for so long that another may serve by now: hands off first, then look."""
        with contextlib.suppress(WorldFault):
            self.address.drop_now()
        self.executor.perform((SetGate(open=False), HoldAddress(hold=False)), now_at())
        self.board.put(woke_at=At(now_at()))
        self.log.error("controller.woke", gap_ms=gap // MS)

    # --- facts ------------------------------------------------------------------------------------------------------

    def _durable_changed(self) -> None:
        self.board.bell.set()
        self.exchange.say_now()

    def _peer_spoke(self) -> None:
        """What the peer says of itself has changed: our positions are read anew, since a decision may need them."""
        self.pgwatch.poke()
        self.board.bell.set()

    def _address_changed(self) -> None:
        self.board.put(address_held=self.address.is_held)
        self.board.bell.set()

    def _word(self) -> Heartbeat:
        return word(self.board.facts())

    async def _pause_replay(self, pause: bool) -> None:
        await self.peer_line.ask("replay", deadline_s=3.0, pause=pause)

    # --- telling ----------------------------------------------------------------------------------------------------

    def tell_role(self) -> dict[str, Any]:
        """Return the role line; inert until the first decision."""
        if self.decision is None:
            return {"role": "none", "epoch": 0, "solo": False, "gate": "closed", "outward": False, "primary": None}
        return {**status_room.role_line(self.facts, self.decision, self.board.turn), "cut": self.network.is_cut}

    def tell_status(self) -> dict[str, Any]:
        """Return the status."""
        now, facts = now_at(), self.board.facts()
        decision = self.decision or decide(facts, now)
        around = status_room.Surroundings(
            settings=self.settings,
            boot=self.boot,
            peer_program=self.exchange.peer_program,
            tested=self.fences.tested,
            jurors=self.exchange.health(now),
            journals=self.journals.said,
            recovery=self.desk.recovery.story(),
            disk_suspect=self.volume.suspect,
            last_switch=self.switches.last,
            conflict=self.address.conflict(),
            address_error=self.address.error(),
        )
        return status_room.status(facts, decision, around, now)

    def _keep_switch(self, switch: status_room.Switch) -> None:
        data = msgspec.json.encode(switch)
        work = self.system.do(lambda: files.write(LAST_SWITCH, data, mode=0o644), deadline_s=5)
        self._switch_note = asyncio.ensure_future(_quietly(work))

    # --- settings ---------------------------------------------------------------------------------------------------

    async def _reload_on(self, hangup: asyncio.Event) -> None:
        while True:
            await hangup.wait()
            hangup.clear()
            await self.reload()

    async def _follow_roster(self) -> None:
        """A third vote that was seated while this member was away is taken up from the other one."""
        while True:
            await asyncio.sleep(ROSTER_S)
            if self.exchange.peer_roster > self.settings.roster:
                try:
                    await self.desk.seating.fetch()
                except WorldFault as e:
                    self.log.warning("vote.not-taken-up", error=str(e))

    async def reload(self) -> None:
        """Take up changed settings; wrong ones are refused and the present ones stay."""
        try:
            fresh = settings_room.load()
        except OperatorFault as e:
            self.log.error("settings.refused", error=str(e))
            return
        if fresh == self.settings:
            return
        before = self.settings
        self.settings = self.postgres.settings = self.postgres.gate.settings = fresh
        self.peer_line.settings = self.desk.settings = fresh
        self.fences.reload(fresh)
        self.board.put(cfg=fresh.config())
        self.exchange.follow(before)
        self.log.event("settings.reloaded", vote=fresh.third_vote.kind, roster=fresh.roster)
        if before.members != fresh.members:
            await self._refresh_postgres()

    async def _refresh_postgres(self) -> None:
        """The other member's addresses and name stand in PostgreSQL's files."""
        board, postgres = self.board, self.postgres
        try:
            await postgres.write_conf(enforced=board.pg.enforced is not False and self._is_paired())
            await postgres.gate.write(gate_open=board.gate is Gate.OPEN)
            postgres.death.signal(signal.SIGHUP)
            if board.pg.state is PgState.PRIMARY:
                await self.sync.ensure_slot()
        except WorldFault as e:
            self.log.error("settings.postgres", error=str(e))

    def _is_paired(self) -> bool:
        view = self.keeper.durable.view
        return view is not None and not view.is_solo and view.primary == self.settings.me

    def put_away(self) -> None:
        """Let go of the dead man's handle in good order: nothing is left that the guard would have to end."""
        self._is_armed = False
        self._feed()


async def _quietly(work: Coroutine[Any, Any, bool]) -> None:
    with contextlib.suppress(OSError, WorldFault):
        await work


def _load_switch() -> status_room.Switch | None:
    try:
        return msgspec.json.decode(LAST_SWITCH.read_bytes(), type=status_room.Switch)
    except (OSError, *UNREADABLE):
        return None


def serve(log: Log) -> int:
    """Run the controller until it is told to stop; return its exit code."""
    try:
        settings = settings_room.load()
    except OperatorFault as e:
        log.error("controller.settings", error=str(e))
        return 2
    bound = log.bind(member=settings.me)

    async def run(stop: asyncio.Event) -> int:
        try:
            controller = Controller(settings, log=bound)
        except Corrupt as e:
            bound.error("controller.slots", error=str(e))
            return 2
        return await controller.run(stop)

    return service.run(run)
