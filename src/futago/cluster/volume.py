"""The data volume of this member as a piece of hardware: its reserve, whether it can be trusted, whether it is there.

Lives here: the reserve file (ballast), the note that the disk once failed, and the look at the volume. Must not live
here: what follows for the pair (decide.py), or what is copied onto it (recover.py). The idea: a spare can of petrol in
the boot. A database whose disk is full cannot even start to make room; with the can it can, and the can is filled
again when there is plenty. And a tank that leaked once is not believed because it is dry today: after an I/O error the
data are copied anew and read back, whatever the disk says of itself.

The note lies on the system disk, since the volume may be the one that fails.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import msgspec

from futago.cluster.facts import Board
from futago.cluster.model import PgState
from futago.cluster.pgconf import Layout
from futago.cluster.pgwatch import FREE_BYTES_MIN
from futago.cluster.rungs import NeedsPerson
from futago.runtime.faults import Refused, Unknown, WorldFault
from futago.runtime.log import Log
from futago.runtime.unreadable import UNREADABLE
from futago.runtime.worker import Worker
from futago.setup import files

MB = 1 << 20
RESERVE_BYTES_MAX = 512 * MB
RESERVE_SHARE = 16  # of the volume, where that is less
RESERVE_BYTES_MIN = 32 * MB  # a smaller volume has none: two segments of WAL are the least that helps
LOOK_S = 2.0
LOOK_S_MAX = 5.0
TEST_BYTES = 16 * MB
TEST_S_MAX = 60.0
BROKEN = frozenset(
    {errno.EIO, errno.EROFS, errno.EUCLEAN, errno.ENXIO, errno.ENODEV, errno.EBADMSG, errno.EREMOTEIO, errno.ESHUTDOWN}
)
"""What a failing disk or a file system that gave up says; a full one says something else."""

_T = TypeVar("_T")


class Look(msgspec.Struct, frozen=True):
    """The volume at one instant, in bytes."""

    free: int = 0
    total: int = 0
    reserve: int = 0  # 0: released, or never made
    suspect: str = ""  # the I/O error after which its data are not trusted; empty: none
    problem: str = ""  # why nothing may be put onto it; empty: none


class _Note(msgspec.Struct):
    """What is remembered of the volume."""

    suspect: str = ""
    trusted_utc: float = 0.0  # seconds since 1970: what was said of the disk before counts no more
    is_separate: bool = False  # it is a file system of its own: if it is not mounted, nothing may be written there


class DataVolume:
    """The volume under PostgreSQL's data.

    Args:
        note: where the note lies, on the system disk.
        worker: the volume's own thread for long work; system: the thread of the system disk.
    """

    def __init__(self, layout: Layout, *, note: Path, worker: Worker, system: Worker, log: Log) -> None:
        self._layout, self._path, self._worker, self._system, self._log = layout, note, worker, system, log
        self._note = _load(note)
        self.on_trust: Callable[[bool], None] = lambda _is_trusted: None  # called when `suspect` has changed
        self._writing: set[asyncio.Task[None]] = set()

    @property
    def suspect(self) -> str:
        """The I/O error after which the data here are not trusted; empty: none."""
        return self._note.suspect

    @property
    def reserve_file(self) -> Path:
        return self._layout.volume / "reserve"

    async def do(self, work: Callable[[], _T], *, deadline_s: float = 10.0) -> _T:
        """Do something in the volume's thread. Raises Refused or Unknown; an I/O error is remembered."""
        try:
            return await self._worker.do(work, deadline_s=deadline_s)
        except OSError as e:
            self.note_error(e)
            raise Refused(f"the data volume: {e}") from e

    # --- trust ------------------------------------------------------------------------------------------------------

    def note_error(self, error: OSError) -> None:
        """Remember an error if it says that the disk is broken."""
        if error.errno in BROKEN:
            self.note_suspect(f"{error.strerror or error} ({errno.errorcode.get(error.errno or 0, '?')})")

    def note_suspect(self, why: str) -> None:
        """Remember that what is on the disk may not be what was written."""
        if self._note.suspect:
            return
        self._note.suspect = why
        self._log.error("volume.suspect", why=why)
        self.on_trust(False)
        task = asyncio.ensure_future(self._keep_note())
        self._writing.add(task)
        task.add_done_callback(self._writing.discard)

    async def trust(self) -> None:
        """The data have been copied anew and read back: forget the error. Raises Refused or Unknown."""
        if self._note.suspect:
            self._note.suspect, self._note.trusted_utc = "", time.time()
            await self._write_note()
            self.on_trust(True)
            self._log.event("volume.trusted")

    @property
    def trusted_s(self) -> float:
        """For how many seconds the present data have been trusted: since they were read back."""
        return max(0.0, time.time() - self._note.trusted_utc)

    async def _keep_note(self) -> None:
        with contextlib.suppress(WorldFault):
            await self._write_note()

    async def _write_note(self) -> None:
        data = msgspec.json.encode(self._note)
        try:
            await self._system.do(lambda: files.write(self._path, data, mode=0o644), deadline_s=LOOK_S_MAX)
        except OSError as e:
            raise Refused(f"{self._path}: {e}") from e

    async def test(self) -> None:
        """Write to the disk and read it back, past the page cache. Raises NeedsPerson if it fails."""
        try:
            await self._worker.do(self._try, deadline_s=TEST_S_MAX)
        except (OSError, Unknown) as e:
            raise NeedsPerson(
                f"the disk under {self._layout.volume} fails: {e}",
                repair=f"Replace or repair the disk, mount a sound file system on {self._layout.volume}, "
                "then run futago recover again. The data need not be saved: they are copied from the other member.",
            ) from e

    def _try(self) -> None:
        path, block = self._layout.volume / "disk.test", os.urandom(MB)
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            for place in range(TEST_BYTES // MB):
                os.pwrite(fd, block, place * MB)
            os.fsync(fd)
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
            for place in range(TEST_BYTES // MB):
                if os.pread(fd, MB, place * MB) != block:
                    raise OSError(errno.EIO, "what was written is not what is read")
        finally:
            os.close(fd)
            with contextlib.suppress(OSError):
                path.unlink()

    # --- the look ---------------------------------------------------------------------------------------------------

    async def look(self) -> Look:
        """Return how the volume is. Never raises a fault of the world: what cannot be read is a problem of its own."""
        try:
            free, total, reserve, is_separate = await self._worker.do(self._measure, deadline_s=LOOK_S_MAX)
        except OSError as e:
            self.note_error(e)
            return Look(suspect=self.suspect, problem=f"{self._layout.volume} cannot be read: {e}")
        except Unknown as e:
            return Look(suspect=self.suspect, problem=f"the disk under {self._layout.volume} does not answer: {e}")
        problem = ""
        if self._note.is_separate and not is_separate:
            problem = f"nothing is mounted on {self._layout.volume}, which was a file system of its own"
        return Look(free, total, reserve, self.suspect, problem)

    def _measure(self) -> tuple[int, int, int, bool]:
        volume = self._layout.volume
        usage = shutil.disk_usage(volume)
        reserve = self.reserve_file.stat().st_size if self.reserve_file.exists() else 0
        return usage.free, usage.total, reserve, volume.stat().st_dev != volume.parent.stat().st_dev

    async def note_mount(self) -> None:
        """PostgreSQL runs on it: remember whether it is a file system of its own. Raises Refused or Unknown."""
        _free, _total, _reserve, is_separate = await self.do(self._measure, deadline_s=LOOK_S_MAX)
        if is_separate and not self._note.is_separate:
            self._note.is_separate = True
            await self._write_note()

    # --- the reserve ------------------------------------------------------------------------------------------------

    async def release(self) -> int:
        """Give the reserve up if the volume is full; return how many bytes that freed. Raises Refused or Unknown."""
        freed = await self.do(self._release)
        if freed:
            self._log.warning("volume.reserve-released", bytes=freed)
        return freed

    def _release(self) -> int:
        free, _total, reserve, _ = self._measure()
        if not reserve or free >= FREE_BYTES_MIN:
            return 0
        self.reserve_file.unlink()
        files.sync_directory(self._layout.volume)
        return reserve

    async def restore(self) -> bool:
        """Make the reserve where there is none and plenty of room; return whether it was made. Raises as `release`."""
        is_made = await self.do(self._restore, deadline_s=TEST_S_MAX)
        if is_made:
            self._log.event("volume.reserve-made")
        return is_made

    def _restore(self) -> bool:
        free, total, reserve, _ = self._measure()
        wanted = min(RESERVE_BYTES_MAX, total // RESERVE_SHARE)
        if reserve or wanted < RESERVE_BYTES_MIN or free - wanted < max(total // 8, 4 * FREE_BYTES_MIN):
            return False
        fresh = self.reserve_file.with_suffix(".new")
        fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            os.posix_fallocate(fd, 0, wanted)
            os.fsync(fd)
        finally:
            os.close(fd)
        fresh.rename(self.reserve_file)
        files.sync_directory(self._layout.volume)
        return True

    async def run(self, board: Board) -> None:
        """Keep the reserve for ever: given up when our own primary cannot start for want of room, made again later."""
        while True:
            await asyncio.sleep(LOOK_S)
            view, pg = board.read_durable().view, board.pg
            try:
                if pg.state in (PgState.DIED, PgState.STOPPED) and view is not None and view.primary == board.cfg.me:
                    await self.release()
                elif pg.state in (PgState.PRIMARY, PgState.STANDBY) and pg.is_disk_ok and not self.suspect:
                    await self.restore()
                    await self.note_mount()
            except WorldFault as e:
                self._log.warning("volume.reserve", error=str(e))


def _load(path: Path) -> _Note:
    try:
        return msgspec.json.decode(path.read_bytes(), type=_Note)
    except (OSError, *UNREADABLE):
        return _Note()
