"""The ladder by which a member comes back from any state: follow, rewind, base backup, empty disk.

Lives here: choosing the rung, climbing, and the proof of having arrived. Must not live here: whether to (decide.py).
The idea: a ladder that begins where one stands. Every rung leads to the same landing, a standby that has replayed a
mark which the primary wrote *after* it started; a rung that breaks leads to the next. Nothing here trusts a tool's
word that nothing needs to be done: pg_rewind against a fresh primary says so wrongly, and PostgreSQL shows
"streaming" for a moment before it finds that it cannot.

Every step may be cut short and repeated: while a data directory is half made, `data.unfinished` stands beside it.
"""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import msgspec

from futago.cluster import pgconf, pgwire
from futago.cluster.control import PeerLine
from futago.cluster.model import At, PgState, Rejoin, RejoinStep
from futago.cluster.pgsync import PgSync
from futago.cluster.postgres import ControlData, Postgres
from futago.cluster.walend import End
from futago.runtime import process
from futago.runtime.clock import S, now_at
from futago.runtime.faults import FutagoFault, Refused, Unknown, WorldFault
from futago.runtime.log import Log
from futago.runtime.worker import Worker
from futago.setup import files

PREPARE_S_MAX = 300.0  # a checkpoint of a busy primary
FOLLOW_S_MAX = 12.0  # without any progress
REWIND_S_MAX = 4 * 3600.0
BACKUP_S_MAX = 48 * 3600.0
DELETE_S_MAX = 600.0
POLL_S = 0.05
RETRY_S = (3.0, 6.0, 15.0, 30.0, 60.0)
SPARE_BYTES = 256 << 20
_T = TypeVar("_T")


class Source(msgspec.Struct, frozen=True):
    """What the primary tells about itself, after a checkpoint and with a slot for us."""

    system_id: str
    timeline: int
    history: str
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Fork:
    """Where a timeline ended and the next began."""

    timeline: int
    at: int


def forks(history: str) -> list[Fork]:
    """Return the forks of a timeline history file, oldest first. Source: PostgreSQL's timeline.c,
    readTimeLineHistory."""
    found = []
    for line in history.splitlines():
        words = line.split()
        if len(words) >= 2 and words[0].isdigit():
            found.append(Fork(int(words[0]), pgwire.lsn(words[1])))
    return found


def may_follow(own: ControlData, end: End, source: Source) -> bool:
    """Is what we have a beginning of what the source has?

    On the source's own timeline that is so if we only ever followed: two primaries never wrote on one timeline.
    """
    if own.system_id != source.system_id:
        return False
    if end.timeline == source.timeline:
        return own.state not in ("in production", "in crash recovery", "shutting down")
    fork = next((f for f in forks(source.history) if f.timeline == end.timeline), None)
    return fork is not None and end.at <= fork.at


class Ladder:
    """Brings our PostgreSQL back as a standby of the other member's.

    Args:
        volume: the thread of the database's disk.
    """

    def __init__(self, *, postgres: Postgres, sync: PgSync, peer: PeerLine, volume: Worker, log: Log) -> None:
        self._postgres, self._sync, self._peer, self._volume, self._log = postgres, sync, peer, volume, log
        self._board = postgres.board
        self.progress = ""
        self.error = ""

    async def climb(self) -> None:
        """Climb; the outcome is in `board.rejoin`. Never raises a fault of the world."""
        self.error = ""
        self._board.put_rejoin(step=RejoinStep.RUNNING, rung="", retry_at=At(0))
        try:
            source = await self._prepare()
            await self._climb(source)
        except FutagoFault as e:
            self._fail(e)
        except asyncio.CancelledError:
            self._board.put_rejoin(step=RejoinStep.NONE)
            raise
        else:
            self._say("done", "arrived: a mark written by the primary has been replayed here")
            self._board.put(rejoin=Rejoin(step=RejoinStep.DONE, rung=self._board.rejoin.rung))

    def _fail(self, fault: FutagoFault) -> None:
        failures = self._board.rejoin.failures + 1
        pause = RETRY_S[min(failures, len(RETRY_S)) - 1]
        self.error = str(fault)
        self._log.error("recover.failed", rung=self._board.rejoin.rung, error=str(fault), again_in_s=pause)
        retry_at = At(now_at() + int(pause * S))
        self._board.put_rejoin(step=RejoinStep.FAILED, retry_at=retry_at, failures=failures)

    def _say(self, rung: str, text: str) -> None:
        self.progress = text
        if rung != "done":
            self._board.put_rejoin(rung=rung)
        self._log.event("recover.progress", rung=rung, text=text)

    async def _prepare(self) -> Source:
        self._say("prepare", "asking the primary for a checkpoint and a replication slot")
        answer = await self._peer.ask("prepare", deadline_s=PREPARE_S_MAX)
        try:
            return msgspec.convert(answer.get("source"), Source)
        except msgspec.ValidationError as e:
            raise Refused(f"the primary's answer cannot be understood: {e}") from e

    async def _climb(self, source: Source) -> None:
        if self._board.pg.state is PgState.STANDBY and await self._arrives("follow"):
            return
        if self._board.pg.state is not PgState.ABSENT:
            await self._postgres.kill()
        rungs: list[tuple[str, Callable[[Source], Awaitable[None]]]] = []
        if self._board.pg.state is not PgState.ABSENT:
            rungs += await self._rungs_with_data(source)
        rungs.append(("basebackup" if self._board.pg.state is not PgState.ABSENT else "empty", self._base_backup))
        for number, (rung, work) in enumerate(rungs):
            is_last = number == len(rungs) - 1
            try:
                self._board.put_rejoin(rung=rung)
                await work(source)
                await self._start(rung)
                if await self._arrives(rung):
                    return
                raise Refused(f"{rung}: the standby does not take up the primary's timeline")
            except WorldFault as e:
                if is_last or not isinstance(e, Refused | Unknown):
                    raise
                self._say(rung, f"{rung} was not enough ({e}); going on to the next rung")
                await self._postgres.kill()

    async def _nothing(self, _source: Source) -> None:
        self._say("follow", "the data here are a beginning of the primary's: following it")

    async def _rungs_with_data(self, source: Source) -> list[tuple[str, Callable[[Source], Awaitable[None]]]]:
        try:
            own = await self._postgres.control_data()
            end = await self._postgres.wal_end(own)
        except WorldFault as e:
            self._say("prepare", f"the data here cannot be read ({e}): only a copy will do")
            return []
        if own.system_id != source.system_id:
            return []
        follow: Callable[[Source], Awaitable[None]] = self._nothing
        return [("follow", follow)] if may_follow(own, end, source) else [("rewind", self._rewind)]

    async def _start(self, rung: str) -> None:
        self._say(rung, "starting as a standby")
        await self._postgres.start(as_standby=True, enforced=False)
        await self._sync.drop_slots()

    async def _arrives(self, rung: str) -> bool:
        """Wait until a mark that the primary writes now has been replayed; False if nothing moves for a while."""
        self._say(rung, "waiting for the primary's stream")
        mark, timeline = 0, 0
        board, best, moved_at = self._board, (0, 0), now_at()
        while now_at() - moved_at < FOLLOW_S_MAX * S:
            if board.pg.state is not PgState.STANDBY:
                return False
            if board.pg.is_streaming and not mark:
                answer = await self._peer.ask("marker", deadline_s=10)
                mark, timeline = int(answer.get("lsn", 0)), int(answer.get("timeline", 0))
                moved_at = now_at()
            if mark and board.pg.replay >= mark and board.pg.is_streaming and board.pg.timeline == timeline:
                return True
            here = (int(board.pg.flush), int(board.pg.replay))
            if here > best and board.pg.is_streaming:
                best, moved_at = here, now_at()
                if mark > here[1]:
                    self.progress = f"replaying: {(mark - here[1]) >> 20} MiB behind"
            await asyncio.sleep(POLL_S)
        return False

    # --- the destructive rungs --------------------------------------------------------------------------------------

    async def _rewind(self, source: Source) -> None:
        self._say("rewind", "the data here have gone another way: rewinding to where the ways parted")
        layout, postgres = self._postgres.layout, self._postgres
        await postgres.write_conf(enforced=False)
        await self._on_disk(self._mark_unfinished)
        self._board.put_pg(state=PgState.ABSENT)
        await self._on_disk(lambda: (layout.data / "standby.signal").unlink(missing_ok=True))
        await self._on_disk(lambda: (layout.data / "postmaster.pid").unlink(missing_ok=True))
        peer = postgres.settings.peer
        assert peer is not None
        command = [str(layout.bin / "pg_rewind"), "-D", str(layout.data), "--progress"]
        where = pgconf.conninfo(postgres.settings.me, peer, layout, database="postgres", avoid=postgres.wal_avoids)
        ended = await process.follow(
            [*process.AS_POSTGRES, *command, f"--source-server={where}"],
            deadline_s=REWIND_S_MAX,
            on_line=self._note_line,
        )
        if ended.code != 0:
            raise Refused(f"pg_rewind: {ended.last_words}")
        await self._on_disk(self._mark_finished)
        self._board.put_pg(state=PgState.STOPPED)

    async def _base_backup(self, source: Source) -> None:
        layout, postgres = self._postgres.layout, self._postgres
        self._say(self._board.rejoin.rung, f"copying the whole database, {source.size_bytes >> 20} MiB")
        await postgres.write_conf(enforced=False)
        target, old = layout.volume / "data.new", layout.volume / "data.old"
        await self._on_disk(lambda: _remove(target), deadline_s=DELETE_S_MAX)
        await self._on_disk(lambda: _remove(old), deadline_s=DELETE_S_MAX)
        self._board.put_pg(state=PgState.ABSENT)
        if not await self._has_room(source):
            self._say(self._board.rejoin.rung, "too little room for two copies: the old data are deleted first")
            await self._on_disk(self._mark_unfinished)
            await self._on_disk(lambda: _remove(layout.data), deadline_s=DELETE_S_MAX)
        await self._on_disk(lambda: files.directory(target, mode=0o700, owner=files.DATABASE))
        await self._copy(str(target))
        await self._on_disk(lambda: self._swap(target, old))
        self._board.put_pg(state=PgState.STOPPED)
        await self._on_disk(lambda: _remove(old), deadline_s=DELETE_S_MAX)

    async def _copy(self, target: str) -> None:
        postgres = self._postgres
        peer = postgres.settings.peer
        assert peer is not None
        layout = postgres.layout
        where = pgconf.conninfo(postgres.settings.me, peer, layout, avoid=postgres.wal_avoids)
        command = [str(layout.bin / "pg_basebackup"), "-D", target, "-d", where, "-c", "fast", "-X", "stream", "-P"]
        slot = ["-S", pgconf.slot_name(postgres.settings.me)]
        ended = await process.follow(
            [*process.AS_POSTGRES, *command, *slot], deadline_s=BACKUP_S_MAX, on_line=self._note_line
        )
        if ended.code != 0:
            raise Refused(f"pg_basebackup: {ended.last_words}")

    async def _has_room(self, source: Source) -> bool:
        volume = self._postgres.layout.volume
        usage = await self._on_disk(lambda: shutil.disk_usage(volume))
        assert usage is not None
        return usage.free > source.size_bytes + SPARE_BYTES

    def _note_line(self, line: str) -> None:
        self.progress = line.strip()

    # --- in the volume's thread -------------------------------------------------------------------------------------

    async def _on_disk(self, work: Callable[[], _T], *, deadline_s: float = 10.0) -> _T:
        try:
            return await self._volume.do(work, deadline_s=deadline_s)
        except OSError as e:
            raise Refused(f"the data volume: {e}") from e

    def _mark_unfinished(self) -> None:
        files.write(self._postgres.layout.unfinished, "", mode=0o600)

    def _mark_finished(self) -> None:
        self._postgres.layout.unfinished.unlink(missing_ok=True)
        files.sync_directory(self._postgres.layout.volume)

    def _swap(self, target: Path, old: Path) -> None:
        layout = self._postgres.layout
        self._mark_unfinished()
        if layout.data.exists():
            layout.data.rename(old)
        target.rename(layout.data)
        self._mark_finished()


def _remove(path: Path) -> None:
    if path.exists():
        shutil.rmtree(path)
