"""What this member says of itself for a recovery: its data, its disks, its programs, its clock.

Lives here: collecting one Report, at the serving member and at the one that comes back. Must not live here: judging it
(preflight.py, plan.py), changing anything. The idea: a form that each member fills in about itself; nobody looks into
the other's house.
"""

from __future__ import annotations

import os
import re
import shutil
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from futago import __version__
from futago.cluster import pgwire, rungs
from futago.cluster.model import PgState
from futago.cluster.postgres import RUNNING, Postgres
from futago.cluster.preflight import Report
from futago.cluster.rungs import Holds, Own, Source
from futago.cluster.volume import DataVolume
from futago.cluster.walend import SEGMENT_BYTES
from futago.runtime import process
from futago.runtime.faults import Unknown, WorldFault
from futago.runtime.worker import Worker
from futago.setup import paths

LOG_LINES = 60
LOG_S_MAX = 3.0
MEASURE_S_MAX = 20.0
ASK_S_MAX = 10.0

DESCRIBE = (
    "SELECT (SELECT system_identifier FROM pg_control_system()), "
    "('x' || substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8))::bit(32)::int, "
    "(SELECT sum(pg_database_size(oid)) FROM pg_database), pg_current_wal_flush_lsn(), "
    "(SELECT string_agg(name, ' ') FROM pg_ls_waldir()), current_setting('server_version_num')::int / 10000"
)


async def source_of(postgres: Postgres) -> Source:
    """Return what our primary tells about itself. Raises Refused or Unknown."""
    row = (await postgres.ask(DESCRIBE, deadline_s=ASK_S_MAX)).one()
    timeline, history = int(row[1] or 0), ""
    if timeline > 1:
        file = pgwire.literal(f"pg_wal/{timeline:08X}.history")
        history = (await postgres.ask(f"SELECT pg_read_file({file})", deadline_s=5)).one()[0] or ""
    names = str(row[4] or "").split()
    return Source(
        system_id=str(row[0]),
        timeline=timeline,
        history=history,
        size_bytes=int(row[2] or 0),
        wal_from=rungs.oldest_wal(names),
        flush=pgwire.lsn(row[3]),
        version=int(row[5] or 0),
        wal_bytes=len(rungs.segments(names)) * SEGMENT_BYTES,
    )


async def own_of(postgres: Postgres, disk: DataVolume) -> Own:
    """Return what lies in the data directory of a server that is whole and stopped. Raises Refused or Unknown."""
    control = await postgres.control_data()
    end = await postgres.wal_end(control)
    return Own(
        Holds.WHOLE,
        system_id=control.system_id,
        state=control.state,
        timeline=end.timeline,
        end=int(end.at),
        suspect=disk.suspect,
        redo=int(control.redo),
        free=(await disk.look()).free,
    )


class Reporter:
    """Fills the form in.

    Args:
        system: the thread of the system disk.
        maintenance: is this member in maintenance?
    """

    def __init__(
        self, postgres: Postgres, disk: DataVolume, *, system: Worker, maintenance: Callable[[], bool]
    ) -> None:
        self._postgres, self._disk, self._system, self._maintenance = postgres, disk, system, maintenance
        self._version = 0

    async def report(self) -> Report:
        """Return the report. What cannot be found out is left empty; never raises a fault of the world."""
        pg = self._postgres.board.pg
        source: Source | None = None
        own: Own | None = None
        try:
            if pg.state is PgState.PRIMARY:
                source = await source_of(self._postgres)
            elif not (pg.state is PgState.STANDBY and pg.is_streaming) or self._disk.suspect:
                own = await self._own()
        except WorldFault:
            own = Own(Holds.UNREADABLE, suspect=self._disk.suspect)
        return Report(
            member=self._postgres.board.cfg.me,
            version=__version__,
            utc=time.time(),
            pg=pg.state.value,
            pg_version=await self._installed(),
            data_bytes=0 if pg.state is PgState.PRIMARY else await self._data_bytes(),
            volume=await self._disk.look(),
            system_free=await self._system_free(),
            maintenance=self._maintenance(),
            own=own,
            source=source,
        )

    async def _own(self) -> Own:
        """What the ladder would find; of a server that runs, what it says of itself."""
        postgres, suspect = self._postgres, self._disk.suspect
        pg = postgres.board.pg
        if pg.state is PgState.ABSENT:
            is_there = await self._disk.do((postgres.layout.data / "PG_VERSION").exists)
            return Own(Holds.HALF if is_there else Holds.NOTHING, suspect=suspect)
        if pg.state in RUNNING:
            control = await postgres.control_data()
            return Own(Holds.WHOLE, control.system_id, "", pg.timeline, int(pg.flush), suspect)
        return await own_of(postgres, self._disk)

    async def _installed(self) -> int:
        if not self._version:
            try:
                command = [str(self._postgres.layout.bin / "postgres"), "--version"]
                found = re.search(r"(\d+)\.", (await process.run(command, deadline_s=LOG_S_MAX)).out)
                self._version = int(found[1]) if found else 0
            except WorldFault:
                return 0
        return self._version

    async def _data_bytes(self) -> int:
        try:
            return await self._disk.do(lambda: _size(self._postgres.layout.data), deadline_s=MEASURE_S_MAX)
        except WorldFault:
            return 0

    async def _system_free(self) -> int:
        try:
            return await self._system.do(lambda: shutil.disk_usage(paths.CLUSTER).free, deadline_s=LOG_S_MAX)
        except (OSError, Unknown):
            return 0


def journal_of(unit: str) -> Callable[[float], Awaitable[str]]:
    """Return what reads the last lines of a systemd unit; nothing where they cannot be had."""

    async def read(within_s: float) -> str:
        since = f"@{time.time() - within_s:.3f}"
        command = ["journalctl", "-u", unit, "-o", "cat", "-n", str(LOG_LINES), "--since", since, "--no-pager"]
        try:
            return (await process.run(command, deadline_s=LOG_S_MAX)).out
        except WorldFault:
            return ""

    return read


def _size(folder: Path) -> int:
    total = 0
    for place, _folders, names in os.walk(folder):
        for name in names:
            try:
                total += os.lstat(os.path.join(place, name)).st_blocks * 512
            except FileNotFoundError:
                continue
    return total
