"""The ladder by which a member comes back from any state: make room, follow, rewind, base backup, empty disk.

Lives here: climbing, and the proof of having arrived. Must not live here: whether to (decide.py), or which rung
(rungs.py). The idea: a ladder that begins where one stands. Every rung leads to the same landing, a standby that has
replayed a mark which the primary wrote *after* it started; a rung that breaks leads to the next. Nothing here trusts a
tool's word that nothing needs to be done: pg_rewind against a fresh primary says so wrongly, and PostgreSQL shows
"streaming" for a moment before it finds that it cannot.

Every step may be cut short and repeated: while a data directory is half made, `data.unfinished` stands beside it. A
step that destroys something is begun only after the other member has been looked at (preflight.py).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
from collections import deque
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from futago.cluster import pgconf, preflight, rungs, wholesync
from futago.cluster.control import PeerLine
from futago.cluster.model import At, OpKind, PgState, Rejoin, RejoinStep
from futago.cluster.pgsync import PgSync
from futago.cluster.postgres import RUNNING, Postgres
from futago.cluster.preflight import Report
from futago.cluster.reports import own_of
from futago.cluster.rungs import Choice, Climb, Holds, NeedsPerson, Own, Progress, Rung, Source, choose, megabytes
from futago.cluster.volume import DataVolume
from futago.cluster.wholesync import WholeSync
from futago.runtime import process
from futago.runtime.clock import S, now_at, now_utc
from futago.runtime.faults import FutagoFault, Refused, Unknown, WorldFault
from futago.runtime.log import Log
from futago.setup import files, settings

PREPARE_S_MAX = 300.0  # a checkpoint of a busy primary
FOLLOW_S_MAX = 12.0  # without any progress
REWIND_S_MAX = 4 * 3600.0
BACKUP_S_MAX = 48 * 3600.0
DELETE_S_MAX = 600.0
SYNC_S_MAX = 3600.0  # of what was copied; a slow disk takes long, one that hangs is noticed by its probe
POLL_S = 0.05
WRITE_S = 0.3  # between two calls that have the disk take what was copied
RETRY_S = (3.0, 6.0, 15.0, 30.0, 60.0)
RETURNS = 900 * S  # within it a member comes back by itself `pair.returns_max` times, switchovers counted too
LOST_DISK = ("Input/output error", "invalid page in block", "could not fsync", "page verification failed")

_T = TypeVar("_T", bound=msgspec.Struct)
LOG_S_MAX = 600.0
ReadLog = Callable[[float], Awaitable[str]]
"""Returns the last lines that PostgreSQL wrote within so many seconds."""


class Ladder:
    """Brings our PostgreSQL back as a standby of the other member's.

    Args:
        disk: the volume of the database.
        report: returns what we say of ourselves (reports.py), for the checks before anything is destroyed.
        read_log: the last words of PostgreSQL.
    """

    def __init__(
        self,
        *,
        postgres: Postgres,
        sync: PgSync,
        peer: PeerLine,
        disk: DataVolume,
        report: Callable[[], Awaitable[Report]],
        read_log: ReadLog,
        log: Log,
    ) -> None:
        self._postgres, self._sync, self._peer, self._disk, self._log = postgres, sync, peer, disk, log
        self._report, self._read_log = report, read_log
        self._board = postgres.board
        self._returns: deque[int] = deque(maxlen=settings.RETURNS_MAX)
        self._is_verified = False
        self._began_at = 0
        self._tried: list[tuple[str, str]] = []
        self._copied = self._mark = self._timeline = 0
        self.progress = Progress()
        self.last: Climb | None = None

    async def climb(self) -> None:
        """Climb; the outcome is in `board.rejoin` and `last`. Never raises a fault of the world."""
        self._began_at, self._tried, self._is_verified = now_at(), [], False
        self._copied = self._mark = self._timeline = 0
        self._board.put_rejoin(step=RejoinStep.RUNNING, rung="", retry_at=At(0))
        try:
            self._heed_flapping()
            await self._climb(await self._begin())
            self._returns.append(now_at())
        except FutagoFault as e:
            self._fail(e)
        except asyncio.CancelledError:
            self._board.put_rejoin(step=RejoinStep.NONE)
            raise
        else:
            self._arrive()

    def _arrive(self) -> None:
        self._note_end(ok=True)
        self._say("arrived: a mark written by the primary has been replayed here")
        self._board.put(rejoin=Rejoin(step=RejoinStep.DONE, rung=self._board.rejoin.rung))

    def _fail(self, fault: FutagoFault) -> None:
        failures = self._board.rejoin.failures + 1
        pause = RETRY_S[-1] if isinstance(fault, NeedsPerson) else RETRY_S[min(failures, len(RETRY_S)) - 1]
        repair = fault.repair if isinstance(fault, NeedsPerson) else ""
        self._note_end(error=str(fault), repair=repair, failures=failures)
        self._log.error("recover.failed", rung=self._board.rejoin.rung, error=str(fault), again_in_s=pause)
        retry_at = At(now_at() + int(pause * S))
        self._board.put_rejoin(step=RejoinStep.FAILED, retry_at=retry_at, failures=failures)

    def _note_end(self, *, ok: bool = False, error: str = "", repair: str = "", failures: int = 0) -> None:
        self.last = Climb(
            member=self._board.cfg.me,
            rung=self._board.rejoin.rung,
            ok=ok,
            ended_utc=now_utc().isoformat(timespec="seconds"),
            seconds=round((now_at() - self._began_at) / S, 1),
            bytes_copied=self._copied,
            mark=self._mark,
            timeline=self._timeline,
            was_verified=self._is_verified,
            tried=tuple(self._tried),
            error=error,
            repair=repair,
            failures=failures,
        )

    def _say(self, text: str, *, done: int = 0, total: int = 0) -> None:
        self.progress = Progress(text, done, total)
        self._log.event("recover.progress", rung=self._board.rejoin.rung, text=text)

    def _heed_flapping(self) -> None:
        """A member that fell out soon after it had come back, several times, is ill: an operator decides."""
        if self._board.op.kind is OpKind.RECOVER:
            self._returns.clear()
            return
        limit, now = self._postgres.settings.pair.returns_max, now_at()
        lately = sum(now - at < RETURNS for at in self._returns)
        if limit and lately >= limit:
            raise NeedsPerson(
                f"this member came back {lately} times within {RETURNS // (60 * S)} minutes and fell out again",
                repair="Find out why it does not stay (`journalctl -u futago-controller -u futago-postgres`), "
                "then run futago recover.",
            )

    def _heed_view(self) -> None:
        """Nothing is destroyed that counts: the primary may have made this member part of the pair since the order.

        From here on `board.rejoin` says that data are being replaced, and the rules learn no view that counts on them
        (T6.decline); while one that was learned before is on its way to the disk, the rung is refused, and tried again later.
        """
        durable = self._board.read_durable()
        view = durable.view
        if durable.is_writing:
            raise Refused("a view is being written, which may count on the data here")
        if view is not None and self._board.cfg.me in view.insync:
            raise Refused("this member has been made part of the pair meanwhile: its data count, and stay")

    # --- before ---------------------------------------------------------------------------------------------------

    async def _begin(self) -> Source:
        """Make room here while the primary prepares itself; return what it tells."""
        preparing = asyncio.create_task(self._prepare())
        try:
            await self._make_room()
            return await preparing
        finally:
            await _ended(preparing)

    async def _prepare(self) -> Source:
        self._say("asking the primary for a checkpoint and a replication slot")
        answer = await self._peer.ask("prepare", deadline_s=PREPARE_S_MAX)
        return _converted(answer.get("source"), Source)

    async def _make_room(self) -> None:
        """Rung 0: what can be put right without touching the data."""
        look = await self._disk.look()
        if look.problem and not look.suspect:
            repair = "Repair and mount the data volume; an empty file system will do. Then run futago recover."
            raise NeedsPerson(look.problem, repair=repair)
        if not look.problem and await self._disk.release():
            self._say("the data volume was full: its reserve has been released")
        if self._board.pg.state in (PgState.DIED, PgState.STOPPED, PgState.STARTING):
            said = await self._read_log(min(LOG_S_MAX, self._disk.trusted_s))
            lost = next((x for x in LOST_DISK if x in said), "")
            if lost:
                self._disk.note_suspect(f"PostgreSQL said: {lost}")

    async def _own(self) -> Own:
        """Return what lies in the data directory of the stopped server."""
        suspect = self._disk.suspect
        if self._board.pg.state is PgState.ABSENT or not await self._postgres.has_data():
            try:
                is_there = await self._disk.do((self._postgres.layout.data / "PG_VERSION").exists)
            except WorldFault:
                return Own(Holds.UNREADABLE, suspect=suspect)
            return Own(Holds.HALF if is_there else Holds.NOTHING, suspect=suspect)
        if suspect:
            return Own(Holds.WHOLE, suspect=suspect)
        try:
            return await own_of(self._postgres, self._disk)
        except WorldFault as e:
            self._say(f"the data here cannot be read ({e}): only a copy will do")
            return Own(Holds.UNREADABLE)

    async def _check(self, choice: Choice, source: Source) -> None:
        """Look around before something is destroyed. Raises NeedsPerson if it cannot work."""
        asking = asyncio.create_task(self._peer.ask("report", deadline_s=30.0))
        try:
            own = await self._report()
            other = _converted((await asking).get("report"), Report)
        finally:
            await _ended(asking)
        bad = preflight.blocking(preflight.checks(own, other, choice=choice, clock_s=None))
        if bad is not None:
            raise NeedsPerson(f"{bad.member}: {bad.text}", repair=f"{bad.repair} Then run futago recover.")

    # --- climbing -------------------------------------------------------------------------------------------------

    async def _climb(self, source: Source) -> None:
        if self._board.pg.state is PgState.STANDBY and not self._disk.suspect:
            self._board.put_rejoin(rung=Rung.FOLLOW.value)
            if await self._arrives():
                return
            self._tried.append((Rung.FOLLOW.value, "it runs but cannot take up the primary's stream"))
        if self._board.pg.state is not PgState.ABSENT or self._board.pg.state in RUNNING:
            self._heed_view()
            await self._postgres.kill()
        choices = choose(await self._own(), source)
        for number, choice in enumerate(choices):
            try:
                await self._try(choice, source)
                return
            except WorldFault as e:
                is_last = number == len(choices) - 1
                if is_last or isinstance(e, NeedsPerson) or not isinstance(e, Refused | Unknown):
                    raise
                self._tried.append((choice.rung.value, str(e)))
                self._say(f"{choice.rung} was not enough ({e}); going on to the next rung")
                await self._postgres.kill()

    async def _try(self, choice: Choice, source: Source) -> None:
        self._board.put_rejoin(rung=choice.rung.value)
        self._say(choice.why)
        if choice.rung is not Rung.FOLLOW:
            await self._check(choice, source)
            self._heed_view()
        if choice.rung is Rung.REWIND:
            await self._rewind()
        elif choice.rung is not Rung.FOLLOW:
            await self._base_backup(source)
        self._say("starting as a standby")
        await self._postgres.start(as_standby=True, enforced=False)
        await self._sync.drop_slots()
        if not await self._arrives():
            raise Refused(f"{choice.rung}: the standby does not take up the primary's timeline")

    async def _arrives(self) -> bool:
        """Wait until a mark that the primary writes now has been replayed; False if nothing moves for a while."""
        self._say("waiting for the primary's stream")
        board, best, moved_at = self._board, (0, 0), now_at()
        self._mark, missed = 0, 0
        while now_at() - moved_at < FOLLOW_S_MAX * S:
            pg = board.pg
            if pg.state is not PgState.STANDBY:
                return False
            if pg.is_streaming and not self._mark:
                answer = await self._peer.ask("marker", deadline_s=10)
                self._mark, self._timeline = int(answer.get("lsn", 0)), int(answer.get("timeline", 0))
                missed, moved_at = max(0, self._mark - int(pg.replay)), now_at()
            if self._mark and pg.replay >= self._mark and pg.is_streaming and pg.timeline == self._timeline:
                return True
            here = (int(pg.flush), int(pg.replay))
            if here > best and pg.is_streaming:
                best, moved_at = here, now_at()
                behind = self._mark - here[1]
                if behind > 0:
                    text = f"replaying: {megabytes(behind)} behind"
                    self.progress = Progress(text, max(0, missed - behind), missed)
            await asyncio.sleep(POLL_S)
        return False

    # --- the destructive rungs --------------------------------------------------------------------------------------

    async def _rewind(self) -> None:
        layout, postgres = self._postgres.layout, self._postgres
        postgres.forget_end()
        await postgres.write_conf(enforced=False)
        await self._disk.do(self._mark_unfinished)
        self._board.put_pg(state=PgState.ABSENT)
        await self._disk.do(lambda: (layout.data / "standby.signal").unlink(missing_ok=True))
        await self._disk.do(lambda: (layout.data / "postmaster.pid").unlink(missing_ok=True))
        peer = postgres.settings.peer
        assert peer is not None
        where = pgconf.conninfo(postgres.settings.me, peer, layout, database="postgres", avoid=postgres.wal_avoids)
        command = [str(layout.bin / "pg_rewind"), "-D", str(layout.data), "--progress", "--no-sync"]

        async def rewind() -> None:
            ended = await process.follow(
                [*process.AS_POSTGRES, *command, f"--source-server={where}"],
                deadline_s=REWIND_S_MAX,
                on_line=self._note_line,
            )
            if ended.code != 0:
                raise Refused(f"pg_rewind: {ended.last_words}")

        await self._write_whole(layout.data, rewind)
        await self._disk.do(self._mark_finished)
        self._board.put_pg(state=PgState.STOPPED)

    async def _write_whole(self, data: Path, tool: Callable[[], Awaitable[None]]) -> None:
        """Let a tool write a data directory without syncing it; return when all of it is on the disk.

        Raises:
            Refused: the tool or the disk failed. Unknown: it took too long.
        """
        if not await self._disk.do(lambda: wholesync.is_enough(data)):
            await tool()
            self._say("writing everything to the disk")
            command = [*process.AS_POSTGRES, str(self._postgres.layout.bin / "initdb"), "--sync-only", "-D", str(data)]
            ended = await process.run(command, deadline_s=SYNC_S_MAX)
            if ended.code != 0:
                raise Refused(f"initdb --sync-only: {ended.last_words}")
            return
        whole, has_ended = await self._disk.do(lambda: WholeSync(data)), asyncio.Event()
        writing = asyncio.create_task(self._keep_writing(whole, has_ended))
        writing.add_done_callback(_retrieve)
        try:
            await tool()
        finally:
            has_ended.set()
        self._say("writing everything to the disk")
        await writing

    async def _keep_writing(self, whole: WholeSync, has_ended: asyncio.Event) -> None:
        """While a tool writes, have the disk take it, or all of it would be left for the end; and a last time after it.

        A failure anywhere is told once, so every call counts.
        """
        try:
            is_last = False
            while not is_last:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(WRITE_S):
                        await has_ended.wait()
                is_last = has_ended.is_set()
                await self._disk.do(whole.sync, deadline_s=SYNC_S_MAX)
        finally:
            whole.close()

    async def _base_backup(self, source: Source) -> None:
        layout, postgres = self._postgres.layout, self._postgres
        postgres.forget_end()
        is_suspect = bool(self._disk.suspect)
        if is_suspect:
            self._say("testing the disk: it failed before")
            await self._disk.test()
        await postgres.write_conf(enforced=False)
        target, old = layout.volume / "data.new", layout.volume / "data.old"
        for left in (target, old):
            await self._disk.do(lambda left=left: _remove(left), deadline_s=DELETE_S_MAX)  # type: ignore[misc]
        self._board.put_pg(state=PgState.ABSENT)
        if not await self._has_room(source):
            self._say("too little room for two copies: the old data are deleted first")
            await self._disk.do(self._mark_unfinished)
            await self._disk.do(lambda: _remove(layout.data), deadline_s=DELETE_S_MAX)
        await self._disk.do(lambda: files.directory(target, mode=0o700, owner=files.DATABASE))
        self._say(f"copying the whole database, {megabytes(source.size_bytes)}", total=source.size_bytes)
        await self._write_whole(target, lambda: self._copy(target))
        if is_suspect:
            await self._verify(target)
        await self._disk.do(lambda: self._swap(target, old))
        self._board.put_pg(state=PgState.STOPPED)
        await self._disk.do(lambda: _remove(old), deadline_s=DELETE_S_MAX)
        if is_suspect:
            await self._disk.trust()

    async def _copy(self, target: Path) -> None:
        postgres = self._postgres
        peer = postgres.settings.peer
        assert peer is not None
        layout = postgres.layout
        where = pgconf.conninfo(postgres.settings.me, peer, layout, avoid=postgres.wal_avoids)
        command = [str(layout.bin / "pg_basebackup"), "-D", str(target), "-d", where, "-c", "fast", "-X", "stream"]
        slot = ["-S", pgconf.slot_name(postgres.settings.me)]
        ended = await process.follow(
            [*process.AS_POSTGRES, *command, "-P", "--no-sync", *slot],
            deadline_s=BACKUP_S_MAX,
            on_line=self._note_line,
        )
        if ended.code != 0:
            for sign in LOST_DISK:
                if sign in ended.err:
                    self._disk.note_suspect(f"pg_basebackup said: {sign}")
            raise Refused(f"pg_basebackup: {ended.last_words}")

    async def _verify(self, target: Path) -> None:
        """Read the copy back from the disk and compare every file with the primary's checksum."""
        self._say("reading the copy back to prove that the disk holds it")
        await self._disk.do(lambda: _forget_cached(target), deadline_s=DELETE_S_MAX)
        command = [str(self._postgres.layout.bin / "pg_verifybackup"), "-e", str(target)]
        ended = await process.run([*process.AS_POSTGRES, *command], deadline_s=BACKUP_S_MAX)
        if ended.code != 0:
            raise NeedsPerson(
                f"the copy cannot be read back as it was written: {ended.last_words}",
                repair="Replace the disk under the data volume, then run futago recover.",
            )
        self._is_verified = True

    async def _has_room(self, source: Source) -> bool:
        """Is there room for a copy beside the old data?"""
        look = await self._disk.look()
        if look.problem:
            raise Refused(look.problem)
        return look.free > source.size_bytes + rungs.SPARE_BYTES

    def _note_line(self, line: str) -> None:
        found = rungs.read_progress(line)
        if found is not None:
            self.progress, self._copied = found, found.done
        elif line.strip():
            self.progress = Progress(line.strip())

    # --- in the volume's thread -------------------------------------------------------------------------------------

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


async def _ended(task: asyncio.Task[Any]) -> None:
    """End a task if it still runs."""
    task.add_done_callback(_retrieve)
    task.cancel()
    await asyncio.wait([task])


def _retrieve(task: asyncio.Task[Any]) -> None:
    if not task.cancelled():
        task.exception()


def _remove(path: Path) -> None:
    if path.exists():
        shutil.rmtree(path)


def _forget_cached(target: Path) -> None:
    """Let the next reader of these files have them from the disk."""
    for folder, _folders, names in os.walk(target):
        for name in names:
            fd = os.open(os.path.join(folder, name), os.O_RDONLY | os.O_CLOEXEC)
            try:
                os.fsync(fd)
                os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
            finally:
                os.close(fd)


def _converted(raw: Any, kind: type[_T]) -> _T:
    try:
        return msgspec.convert(raw, kind)
    except msgspec.ValidationError as e:
        raise Refused(f"the other member's answer cannot be understood: {e}") from e
