"""The program that runs the engines on the primary, and waits, loaded, on the standby.

One loop follows the member's role. While it is active (primary, gate open) the engines of all columns run, each
with the same context: epoch, store, and whether effects outside are allowed. When the role, or its epoch, changes,
they are cancelled at once; everything they knew is rows. The same when the pair's members change: a member that joins
is known to the engines a second later, with no restart of the program. On the standby everything is imported and the agents'
sessions exist, so that becoming active costs one connection and one query.

What this room decides: when engines live. What it must not: anything about the pair.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from futago.runtime import service
from futago.runtime.clock import MS, now_at
from futago.runtime.engine import Engine, EngineContext, Outward
from futago.runtime.faults import BrokenInvariant, OperatorFault, WorldFault
from futago.runtime.log import Log
from futago.runtime.role import Role, RoleWatch
from futago.setup import paths
from futago.setup.settings import Settings, load
from futago.store import migrate
from futago.store.commit import CONNINFO, Store

BEAT_S = 0.2
BEAT_ANSWER_S = 0.4
RETRY_S = 0.05  # the gate was reported open a moment before the database lets us in
ENGINE_AGAIN_S = 0.2  # an engine that the world has thrown out is started again after this
SETTINGS_S = 1.0  # the settings file is looked at so often
CANCEL_S = 2.0  # an engine that has not ended by then never will
EXIT_STUCK = 70
CONNECTIONS_MAX = 12  # four engines, each with a few transactions at a time


class Hub(Protocol):
    """What the manager needs of the agents' hub (jobs/hub.py)."""

    def set_role(self, role: Role) -> None:
        """Take the member's role."""

    async def run(self) -> None:
        """Accept agents until cancelled."""


@dataclass(frozen=True, slots=True)
class Column:
    """One engine: its name and how to make it anew."""

    name: str
    make: Callable[[EngineContext], Engine]


def columns() -> tuple[tuple[Column, ...], Callable[[Settings, Log], Hub]]:
    """Import everything heavy; return how to make the engines and the hub."""
    from futago.intake.consume import ConsumeEngine
    from futago.jobs.engine import JobsEngine
    from futago.jobs.hub import AgentHub
    from futago.jobs.shelf import NetShelf
    from futago.jobs.window import OutputWindow
    from futago.monitoring.engine import MonitoringEngine
    from futago.notify.outbox import OutboxEngine

    hubs: list[AgentHub] = []
    nets = NetShelf()

    def make_hub(settings: Settings, log: Log) -> Hub:
        hubs.append(AgentHub(settings, log))
        hubs[0].beside.append(OutputWindow(hubs[0], log=log).run)
        return hubs[0]

    made = (
        Column("intake", ConsumeEngine),
        Column("monitoring", MonitoringEngine),
        Column("jobs", lambda context: JobsEngine(context, hubs[0], nets)),
        Column("notify", OutboxEngine),
    )
    return made, make_hub


@dataclass(slots=True)
class Manager:
    """Follows the role and keeps the engines alive while it is active."""

    settings: Settings
    log: Log
    watch: RoleWatch
    hub: Hub
    columns: Sequence[Column]
    conninfo: str = CONNINFO
    controller: Path = paths.CONTROLLER_SOCKET
    settings_path: Path = paths.SETTINGS
    outward: Outward = field(default_factory=Outward)
    turns: dict[str, int] = field(default_factory=dict)  # engine → how often its loop has turned
    _renewed: asyncio.Event = field(default_factory=asyncio.Event)  # the members differ from what the engines know

    async def run(self, stop: asyncio.Event) -> None:
        """Run until `stop` is set."""
        async with asyncio.TaskGroup() as group:
            loops = (self.watch.run(), self.hub.run(), self._beat(), self._follow(), self._follow_settings())
            tasks = [group.create_task(loop) for loop in loops]
            service.notify_ready("waiting for the role")
            await stop.wait()
            for task in tasks:
                task.cancel()

    async def _follow(self) -> None:
        role = self.watch.role
        try:
            while True:
                self._take(role)
                if role.is_active:
                    await self._active(role.epoch)
                    role = self.watch.role
                else:
                    role = await self.watch.changed(role)
        finally:
            self.outward.set(False)

    def _take(self, role: Role) -> None:
        self.outward.set(role.is_active and role.outward)
        self.hub.set_role(role)
        service.notify_status(f"{role.role} epoch {role.epoch}, gate {role.gate}, outward {role.outward}")

    async def _active(self, epoch: int) -> None:
        """Run the engines until the role is not active any more, or active in another epoch, or has other members."""
        began = now_at()
        self._renewed.clear()
        log = self.log.bind(epoch=epoch)
        store = await Store.open(
            conninfo=self.conninfo, size_max=CONNECTIONS_MAX, application_name="futago-manager", log=log
        )
        context = EngineContext(
            settings=self.settings, store=store, epoch=epoch, outward=self.outward, log=log, beat=self._turned
        )
        try:
            async with asyncio.TaskGroup() as group:
                engines = group.create_task(self._engines(context, began))
                await self._until_changed(epoch)
                engines.cancel()
                _, late = await asyncio.wait({engines}, timeout=CANCEL_S)
                if late:
                    log.error(
                        "manager.defect", error=f"an engine has not ended within {CANCEL_S:g} s of its cancellation"
                    )
                    os._exit(EXIT_STUCK)  # waiting for it would keep the next epoch from beginning
        finally:
            self.outward.set(False)
            await store.close()
        log.event("manager.inert")

    async def _until_changed(self, epoch: int) -> None:
        role = self.watch.role
        while role.is_active and role.epoch == epoch and not self._renewed.is_set():
            self._take(role)
            role = await self._news(role)
        self._take(role)

    async def _news(self, role: Role) -> Role:
        """Return the role as soon as it has changed, or the members have."""
        waits = [asyncio.create_task(self.watch.changed(role)), asyncio.create_task(self._renewed.wait())]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for one in waits:
                one.cancel()
        return self.watch.role

    async def _follow_settings(self) -> None:
        """Learn of a member that joined, or of its new addresses."""
        read_at = -1
        while True:
            changed_at = _changed_at(self.settings_path)
            if changed_at not in (0, read_at):
                read_at = changed_at
                self._read_settings()
            await asyncio.sleep(SETTINGS_S)

    def _read_settings(self) -> None:
        try:
            read = load(self.settings_path)
        except OperatorFault as e:
            self.log.warning("manager.settings", error=str(e))
            return
        known, self.settings = self.settings, read
        if (read.pair, read.members) != (known.pair, known.members):
            self.log.event("manager.settings_read", members=[member.name for member in read.members])
            self._renewed.set()

    async def _engines(self, context: EngineContext, began: int) -> None:
        await self._schema(context)
        context.log.event("manager.active", after_ms=round((now_at() - began) / MS, 1), outward=self.outward.is_allowed)
        async with asyncio.TaskGroup() as group:
            for column in self.columns:
                group.create_task(self._engine(column, context), name=f"engine:{column.name}")

    async def _schema(self, context: EngineContext) -> None:
        while True:
            try:
                if await migrate.is_current(context.store):
                    return
                context.log.event("manager.migrate", to=migrate.HEAD)
                await migrate.run(self.conninfo)
            except WorldFault as e:
                context.log.warning("manager.database", error=str(e))
                await asyncio.sleep(RETRY_S)

    async def _engine(self, column: Column, context: EngineContext) -> None:
        """Run one engine; start it again when the world has thrown it out. Any other exception is a bug and goes
        up.
        """
        while True:
            try:
                await column.make(context).run()
                raise BrokenInvariant(f"engine {column.name} ended by itself")
            except WorldFault as e:
                context.log.warning("manager.engine_again", engine=column.name, error=str(e))
                await asyncio.sleep(ENGINE_AGAIN_S)

    def _turned(self, engine: str) -> None:
        self.turns[engine] = self.turns.get(engine, 0) + 1

    async def _beat(self) -> None:
        """Tell the controller, from inside our loop, that it turns."""
        is_away = False  # told once, not at every beat: a controller that is being upgraded would fill the log
        while True:
            service.notify_watchdog()
            try:
                async with asyncio.timeout(BEAT_ANSWER_S):
                    await self._beat_once()
            except (OSError, TimeoutError) as e:
                # It will ask systemd about us when it is back.
                if not is_away:
                    self.log.warning("manager.controller_away", error=str(e) or type(e).__name__)
                is_away = True
            else:
                if is_away:
                    self.log.event("manager.controller_back")
                is_away = False
            await asyncio.sleep(BEAT_S)

    async def _beat_once(self) -> None:
        reader, writer = await asyncio.open_unix_connection(str(self.controller))
        try:
            writer.write(json.dumps({"op": "beat", "program": "manager"}).encode() + b"\n")
            await writer.drain()
            await reader.readline()
        finally:
            writer.close()


def _changed_at(path: Path) -> int:
    """Return the file's time of change, 0 while there is none."""
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return 0


def main() -> int:
    """Run the manager; return its exit code."""
    log = Log(program="manager")
    try:
        settings = load()
    except OperatorFault as e:
        log.error("manager.settings", error=str(e))
        return 2
    log = log.bind(member=settings.me)
    gc.disable()  # what is imported stays: to look through it again and again takes a twentieth of the start
    made, make_hub = columns()
    gc.freeze()
    gc.enable()

    async def run(stop: asyncio.Event) -> int:
        manager = Manager(settings, log, RoleWatch(log=log), make_hub(settings, log), made)
        code = 0
        try:
            await manager.run(stop)
        except* Exception as group:  # noqa: BLE001  the one place that catches broadly: log it and let systemd start us anew
            for error in _leaves(group):
                log.error("manager.defect", error=str(error), kind=type(error).__name__, at=_where(error))
            code = 1
        return code

    return service.run(run)


def _leaves(group: BaseExceptionGroup[Exception]) -> list[BaseException]:
    return [x for e in group.exceptions for x in (_leaves(e) if isinstance(e, BaseExceptionGroup) else [e])]


def _where(error: BaseException) -> str:
    at, where = error.__traceback__, ""
    while at:
        where = f"{at.tb_frame.f_code.co_filename}:{at.tb_lineno}"
        at = at.tb_next
    return where
