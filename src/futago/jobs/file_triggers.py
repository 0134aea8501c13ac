"""Nets that files start: the manager has agents look, and compares with what was seen.

    agent lists the files ──► changes (file_watch: pure) ──(one commit each)──► what was seen, and the session

What was seen is rows, and changes in the transaction that makes the session; so through a switch, or a commit of unknown
outcome, no change that was found is lost or starts two. Each writing draws a new `turn`, and is made from the turn that
was read: whoever comes second, from the same sight, writes nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid5

from futago.jobs import store
from futago.jobs.file_watch import Change, Settled, changes, identity
from futago.jobs.hub import AgentHub
from futago.jobs.sessions import Opened
from futago.jobs.store import Connection, EventRow, fetch
from futago.jobs.trigger_definitions import OnFile, Trigger
from futago.jobs.triggers import read_spec, start_for
from futago.link.files import Deed, FileAnswer, FileStep, Listed, Trouble
from futago.runtime.clock import S, now_at, now_utc
from futago.runtime.engine import EngineContext
from futago.runtime.faults import OperatorFault, WorldFault

ROUND_S = 0.5  # triggers that are new, or whose time has come, are seen within this time
LOOK_S = 15.0  # an agent has listed its files within this time, or is asked again
LOOKS_MAX = 16  # at once
_LOOKING = UUID("5f0c2d0e-7a53-4f0c-9d0c-3c1f1f1e7a11")  # the name space of the ids under which agents are asked

_READ = """
SELECT t.trigger_name, t.spec, t.version, w.watched, w.turn, w.since_utc IS NOT NULL, w.fault
  FROM job_trigger t LEFT JOIN trigger_watch w USING (trigger_name)
 WHERE jsonb_typeof(t.spec->'file') = 'object' ORDER BY t.trigger_name
"""
# Only from the sight and for the definition that were read. FOR SHARE: the definition is not changed meanwhile.
_TURN = """
UPDATE trigger_watch w SET turn = nextval('trigger_watch_turn'), fault = %s, since_utc = coalesce(since_utc, now())
  FROM (SELECT 1 FROM job_trigger WHERE trigger_name = %s AND version = %s FOR SHARE) t
 WHERE w.trigger_name = %s AND w.turn = %s RETURNING w.turn
"""


@dataclass(slots=True)
class Watch:
    """A trigger and what is known of its files. `turn` None: nothing. `is_begun`: the directory has been read before."""

    name: str
    spec: Mapping[str, Any]
    version: int
    watched: str | None
    turn: int | None
    is_begun: bool
    fault: str


async def read_watches(conn: Connection) -> list[Watch]:
    """Return the triggers that wait for files."""
    return [
        Watch(str(n), spec, int(v), w, t, bool(begun), str(fault or ""))
        for n, spec, v, w, t, begun, fault in await fetch(conn, _READ)
    ]


async def read_states(conn: Connection) -> dict[str, tuple[datetime | None, str]]:
    """Return since when the files of each trigger are watched, and why they cannot be read now (empty: they can)."""
    rows = await fetch(conn, "SELECT trigger_name, since_utc, fault FROM trigger_watch")
    return {str(name): (since, str(fault)) for name, since, fault in rows}


class FileTriggers:
    """Starts what files are to start, until cancelled. `fired()` is called after each commit that started a session."""

    def __init__(self, context: EngineContext, hub: AgentHub, fired: Callable[[], None]) -> None:
        self._context = context
        self._hub = hub
        self._fired = fired
        self._log = context.log.bind(engine="file-triggers")
        self._busy: set[str] = set()
        self._next: dict[str, int] = {}  # when to look again
        self._seen: dict[str, tuple[int, dict[str, str]]] = {}  # turn, and what was seen by then
        self._settled: dict[str, tuple[str, Settled]] = {}
        self._places = asyncio.Semaphore(LOOKS_MAX)

    async def run(self) -> None:
        """Work until cancelled. A look that failed is made again."""
        async with asyncio.TaskGroup() as group:  # a host that does not answer keeps nobody else waiting
            while True:
                for watch in await self._due():
                    self._busy.add(watch.name)
                    group.create_task(self._look(watch))
                await asyncio.sleep(ROUND_S)

    async def _due(self) -> list[Watch]:
        try:
            watches = await self._context.store.read(read_watches, name="jobs.watches")
        except WorldFault as e:
            self._log.warning("file_triggers.round_failed", error=str(e))
            return []
        names = {w.name for w in watches}
        for kept in (self._next, self._seen, self._settled):
            for name in kept.keys() - names:
                del kept[name]
        now = now_at()
        return [w for w in watches if w.name not in self._busy and self._next.get(w.name, now) <= now]

    async def _look(self, watch: Watch) -> None:
        try:
            async with self._places:
                trigger = read_spec(watch.name, watch.spec)
                assert trigger.file is not None
                self._next[watch.name] = now_at() + int(trigger.file.interval.total_seconds() * S)
                await self._follow(watch, trigger, trigger.file)
        except OperatorFault as e:
            self._next[watch.name] = now_at() + int(LOOK_S * S)
            self._log.error("file_triggers.unreadable", trigger=watch.name, error=e.what)
        except WorldFault as e:  # what became of it stands in the rows, which the next look reads
            self._seen.pop(watch.name, None)
            self._log.warning("file_triggers.look_failed", trigger=watch.name, error=str(e))
        finally:
            self._busy.discard(watch.name)

    async def _follow(self, watch: Watch, trigger: Trigger, file: OnFile) -> None:
        if not trigger.enabled or watch.watched != file.watched:
            await self._begin_anew(watch, file if trigger.enabled else None)
            return
        answer = await self._hub.carry(file.host, _question(watch.name, file), seconds=LOOK_S)
        match answer:
            case None | FileAnswer(trouble=Trouble.AGAIN):
                return
            case FileAnswer(trouble=Trouble.NONE, listed=listed):
                await self._take(watch, trigger, file, listed)
            case FileAnswer(fault=fault):
                if fault != watch.fault:
                    await self._complain(watch, trigger, fault)

    async def _begin_anew(self, watch: Watch, file: OnFile | None) -> None:
        """Forget what was seen of other files, and (`file`) begin with these."""
        if watch.turn is None and file is None:
            return

        async def write(conn: Connection) -> None:
            if watch.turn is not None:
                await conn.execute(
                    "DELETE FROM trigger_watch WHERE trigger_name = %s AND turn = %s", (watch.name, watch.turn)
                )
            if file is not None:
                query = "INSERT INTO trigger_watch (trigger_name, watched) VALUES (%s, %s) ON CONFLICT DO NOTHING"
                await conn.execute(query, (watch.name, file.watched))

        await self._context.store.commit(write, name="jobs.watch")
        self._settled.pop(watch.name, None)
        self._next.pop(watch.name, None)

    # --- what was found -----------------------------------------------------------------------------------------------

    async def _take(self, watch: Watch, trigger: Trigger, file: OnFile, listed: Sequence[Listed]) -> None:
        if not watch.is_begun:  # what is there now was there before
            there = [Change(f.name, identity(file.when, f), f, starts=False) for f in listed]
            await self._note(watch, there)
            return
        seen = await self._seen_of(watch)
        settled = self._settling(watch.name, file)
        settled.look(listed, now_at() / S)
        found = changes(file.when, seen, listed, settled)
        for change in found:
            if change.starts and not await self._start(watch, trigger, file, change):
                return
        rest = [c for c in found if not c.starts]
        if rest or watch.fault:
            await self._note(watch, rest)

    def _settling(self, name: str, file: OnFile) -> Settled:
        key = f"{file.watched}{file.settle}"
        before, settled = self._settled.get(name, ("", Settled()))
        if before != key:
            settled = Settled(file.settle.total_seconds() if file.settle else 0.0)
            self._settled[name] = (key, settled)
        return settled

    async def _seen_of(self, watch: Watch) -> dict[str, str]:
        assert watch.turn is not None
        turn, seen = self._seen.get(watch.name, (-1, {}))
        if turn != watch.turn:
            query = "SELECT file_name, identity FROM trigger_file WHERE trigger_name = %s"
            rows = await self._context.store.read(lambda c: fetch(c, query, watch.name), name="jobs.seen")
            seen = {str(name): str(what) for name, what in rows}
            self._seen[watch.name] = (watch.turn, seen)
        return seen

    async def _start(self, watch: Watch, trigger: Trigger, file: OnFile, change: Change) -> bool:
        """Start the net for one file; return whether our sight was still the newest."""

        async def write(conn: Connection) -> tuple[int | None, Opened | None]:
            turn = await _turn(conn, watch)
            if turn is None:
                return None, None
            await _keep(conn, watch.name, [change])
            return turn, await start_for(conn, trigger, _fields(file, change), key=None)

        try:
            turn, opened = await self._context.store.commit(write, name="jobs.file_trigger")
        except OperatorFault as e:  # the net is gone, or a value is wrong: the file is dealt with, and people are told
            text = f"Trigger {trigger.name} could not start anything: {e.what}"
            return await self._note(watch, [change], self._event(trigger, file, "critical", text, change.name))
        if opened is not None:
            self._log.event("trigger.fired", trigger=trigger.name, session_id=opened.session_id, file=change.name)
            self._fired()
        return self._noted(watch, turn, [change])

    async def _complain(self, watch: Watch, trigger: Trigger, fault: str) -> None:
        assert trigger.file is not None
        text = f"Trigger {trigger.name} cannot look for its files: {fault}"
        event = self._event(trigger, trigger.file, "warning", text)

        async def write(conn: Connection) -> None:
            changed = await fetch(
                conn,
                "UPDATE trigger_watch SET turn = nextval('trigger_watch_turn'), fault = %s"
                " WHERE trigger_name = %s AND turn = %s RETURNING 1",
                fault,
                watch.name,
                watch.turn,
            )
            if changed:
                await self._tell(conn, trigger.job_net, event)

        await self._context.store.commit(write, name="jobs.watch_failed")

    async def _note(self, watch: Watch, found: Sequence[Change], event: EventRow | None = None) -> bool:
        """Write what was seen, and nothing else but an event; return whether our sight was still the newest."""

        async def write(conn: Connection) -> int | None:
            turn = await _turn(conn, watch)
            if turn is not None:
                await _keep(conn, watch.name, found)
                if event is not None:
                    await self._tell(conn, str(watch.spec["job_net"]), event)
            return turn

        return self._noted(watch, await self._context.store.commit(write, name="jobs.seen"), found)

    def _noted(self, watch: Watch, turn: int | None, found: Sequence[Change]) -> bool:
        _, seen = self._seen.pop(watch.name, (0, {}))
        if turn is None:
            return False
        watch.turn = turn
        for change in found:
            if change.identity is None:
                seen.pop(change.name, None)
            else:
                seen[change.name] = change.identity
        self._seen[watch.name] = (turn, seen)
        return True

    async def _tell(self, conn: Connection, net: str, event: EventRow) -> None:
        owner = await store.net_owner(conn, net) or ""
        await store.add_events(conn, [replace(event, owner=owner)], epoch=self._context.epoch)

    @staticmethod
    def _event(trigger: Trigger, file: OnFile, priority: str, text: str, name: str = "") -> EventRow:
        detail = {"trigger": trigger.name, "directory": file.directory, "file": name}
        return EventRow(
            occurred_utc=now_utc(), priority=priority, host_name=file.host, message=text, detail=detail
        )  # fmt: skip


def _question(name: str, file: OnFile) -> FileStep:
    run_id = str(uuid5(_LOOKING, name))
    return FileStep(run_id, Deed.LIST, is_source=True, path=file.directory, pattern=file.pattern)


def _fields(file: OnFile, change: Change) -> dict[str, str]:
    """Return FILE_FIELDS; of a file that is gone those that it still has."""
    fields = {"host": file.host, "path": f"{file.directory}/{change.name}", "name": change.name}
    if change.file is None:
        return fields
    modified = datetime.fromtimestamp(change.file.mtime_ns // 1_000_000_000, UTC)
    return {**fields, "size": str(change.file.size), "modified": modified.isoformat()}


async def _turn(conn: Connection, watch: Watch) -> int | None:
    """Draw the next turn; None: others have written since, or the trigger has been defined anew."""
    rows = await fetch(conn, _TURN, "", watch.name, watch.version, watch.name, watch.turn)
    return int(rows[0][0]) if rows else None


async def _keep(conn: Connection, name: str, found: Sequence[Change]) -> None:
    gone = [c.name for c in found if c.identity is None]
    there = [(name, c.name, c.identity) for c in found if c.identity is not None]
    if gone:
        await conn.execute("DELETE FROM trigger_file WHERE trigger_name = %s AND file_name = ANY(%s)", (name, gone))
    if there:
        async with conn.cursor() as cursor:
            await cursor.executemany(
                "INSERT INTO trigger_file (trigger_name, file_name, identity) VALUES (%s, %s, %s)"
                " ON CONFLICT (trigger_name, file_name) DO UPDATE SET identity = excluded.identity",
                there,
            )
