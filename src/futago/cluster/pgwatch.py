"""How our PostgreSQL fares: read over a standing session, and tested by a write over a new one.

Lives here: the two loops that keep the fact `Pg` fresh, and the probe of the data volume. Must not live here: what
follows from it. The idea: one hand on the pulse, and every half second a question that only the living can answer.
The standing session tells positions cheaply; it proves nothing, because old sessions go on in a server that takes no
new ones. So the proof of life is a new connection and, on the primary, a commit.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import shutil
from collections import deque
from collections.abc import Callable

from futago.cluster import pgwire
from futago.cluster.model import At, Lsn, PgState, RejoinStep
from futago.cluster.pgwire import PgConnection, ServerError
from futago.cluster.postgres import Postgres
from futago.cluster.starved import ServerWait, is_any_on_disk, patience
from futago.runtime.clock import MS, S, now_at
from futago.runtime.faults import Refused, Unknown
from futago.runtime.worker import Worker

READ_S = 0.25
READ_HURRIED_S = 0.04  # while a transition is under way
PROBE_S = 0.5
PROBE_PART = 0.4  # of the limit, where that is sooner
BUSY_LIMITS = 10  # so many limits a server is borne with that only lacks a processor, or is alone with a slow disk
DISK_PROBE_S = 1.0
DISK_LATE_S = 2.0
FREE_BYTES_MIN = 48 << 20  # PostgreSQL needs a new 16 MB segment of WAL now and then
CONFIRM_GRACE = 500 * MS  # confirmations are read every 250 ms: younger ones say nothing
STABLE = 60 * S
PROBE_FAILURES_MAX = 3  # refused, not late: full of connections, for example
DISK_FULL, IO_ERROR = "53100", "58030"
ANSWERING = (PgState.STANDBY, PgState.PRIMARY)

_READ = """\
SELECT r, CASE WHEN r THEN coalesce(greatest(pg_last_wal_receive_lsn(), pg_last_wal_replay_lsn()), '0/0')
  ELSE pg_current_wal_flush_lsn() END,
 CASE WHEN r THEN coalesce(pg_last_wal_replay_lsn(), '0/0') ELSE pg_current_wal_flush_lsn() END,
 CASE WHEN r THEN coalesce((SELECT received_tli FROM pg_stat_wal_receiver),
   (SELECT timeline_id FROM pg_control_checkpoint()))
  ELSE ('x' || substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8))::bit(32)::int END,
 (SELECT status FROM pg_stat_wal_receiver), s.state, s.flush_lsn
FROM (SELECT pg_is_in_recovery() AS r) x LEFT JOIN (SELECT state, flush_lsn FROM pg_stat_replication
 WHERE application_name = {peer} ORDER BY flush_lsn DESC NULLS LAST LIMIT 1) s ON true"""


class PgWatch:
    """Keeps `board.pg` fresh while PostgreSQL runs.

    Args:
        limit_s: how late the answer to the probe may be until the server counts as hung; time in which it waited for a
            processor does not count (starved.py), nor, of a primary that serves alone, time in which it waits for a disk.
        volume: the thread of the database's disk, for nothing but this probe.
    """

    def __init__(self, postgres: Postgres, *, limit_s: float, volume: Worker) -> None:
        self._postgres, self._board, self._log = postgres, postgres.board, postgres.log
        self._limit_s, self._volume = limit_s, volume
        self._limit_busy_s = BUSY_LIMITS * limit_s
        self._probe_s = min(PROBE_S, PROBE_PART * limit_s)
        self._session: PgConnection | None = None
        self._poke = asyncio.Event()
        self._unconfirmed: deque[tuple[Lsn, int]] = deque(maxlen=64)
        self._failures = 0
        self._stable_since = now_at()
        self.on_disk_error: Callable[[OSError], None] = lambda _error: None
        postgres.on_poke = self.poke

    def poke(self) -> None:
        """Read at once."""
        self._poke.set()

    async def run(self) -> None:
        """Watch until cancelled."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._read_loop())
                group.create_task(self._probe_loop())
                group.create_task(self._disk_loop())
        finally:
            self._drop_session()

    # --- the pulse --------------------------------------------------------------------------------------------------

    @property
    def _is_hurried(self) -> bool:
        board = self._board
        is_asked = board.wants is not None or board.rejoin.step is RejoinStep.RUNNING
        return is_asked or board.pg.state is PgState.STARTING

    async def _read_loop(self) -> None:
        while True:
            self._poke.clear()
            if self._board.pg.state in ANSWERING:
                await self._read()
            elif self._session is not None:
                self._drop_session()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(READ_HURRIED_S if self._is_hurried else READ_S):
                    await self._poke.wait()

    async def _read(self) -> None:
        postgres = self._postgres
        peer = postgres.settings.peer
        sql = _READ.format(peer=pgwire.literal(peer.name if peer else ""))
        try:
            if self._session is None or self._session.is_closed:
                self._session = await postgres.session("futago-pulse", deadline_s=self._limit_s)
            row = (await self._session.query(sql, deadline_s=self._limit_s)).one()
        except (Refused, Unknown):
            self._drop_session()  # the probe will judge
            return
        if self._board.pg.state in ANSWERING:
            self._note(row)

    def _note(self, row: pgwire.Row) -> None:
        is_standby, flush, replay, timeline, receiver, sender, peer_flush = row
        state = PgState.STANDBY if is_standby == "t" else PgState.PRIMARY
        if state is not self._board.pg.state:
            if self._postgres.is_promoting:
                return  # `promote` says so itself, with everything that belongs to it
            self._log.error("postgres.changed-by-others", state=state.value)
            self._board.put_pg(state=state, enforced=None)
        confirmed = Lsn(pgwire.lsn(peer_flush))
        self._board.put_pg(
            flush=Lsn(pgwire.lsn(flush)),
            replay=Lsn(pgwire.lsn(replay)),
            timeline=int(timeline or 0),
            is_streaming=receiver == "streaming",
            peer_is_streaming=sender == "streaming",
            peer_flush=confirmed,
            unconfirmed_since=self._unconfirmed_since(confirmed, is_streaming=sender == "streaming"),
        )

    def _unconfirmed_since(self, confirmed: Lsn, *, is_streaming: bool) -> At | None:
        """Also while nothing waits: a peer that receives and confirms nothing (its disk is full) is not to be added."""
        while self._unconfirmed and self._unconfirmed[0][0] <= confirmed:
            self._unconfirmed.popleft()
        if not self._unconfirmed or not (self._board.pg.enforced or is_streaming):
            return None
        since = self._unconfirmed[0][1]
        return At(since) if now_at() - since >= CONFIRM_GRACE else None

    def _drop_session(self) -> None:
        if self._session is not None:
            self._session.close()
            self._session = None

    # --- the proof of life ------------------------------------------------------------------------------------------

    async def _probe_loop(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            began = loop.time()
            if self._board.pg.state in (*ANSWERING, PgState.HUNG):
                await self._probe()
            self._count_stable()
            await asyncio.sleep(max(0.05, self._probe_s - (loop.time() - began)))

    async def _probe(self) -> None:
        pid = self._postgres.death.pid
        try:
            limit_s, limit_busy_s = self._limit_s, self._limit_busy_s
            async with patience(
                pid, limit_s=limit_s, limit_busy_s=limit_busy_s, is_excused=self._is_alone_with_its_disk
            ) as wait:
                result = await self._probe_once(wait)
        except ServerError as e:
            self._on_refused(e, e.sqlstate)
            return
        except Refused as e:
            self._on_refused(e, "")
            return
        except (Unknown, TimeoutError):
            if self._is_same(pid):
                self._log.error("postgres.hung", limit_s=self._limit_s)
                self._board.put_pg(state=PgState.HUNG)
            return
        self._failures = 0
        if self._board.pg.state is PgState.HUNG and self._is_same(pid):
            self._log.event("postgres.answers-again")
            self._board.put_pg(state=result)

    def _is_alone_with_its_disk(self) -> bool:
        """It serves alone and waits for a device, which nobody can tell from one that hangs: to kill it helps in neither
        case. Nobody else has the data, a process that a device holds does not even die, and a restart asks more of a
        slow disk than patience does. That the disk is late is told by `_disk_loop`.
        """
        group, pg = self._postgres.unit.cgroup, self._board.pg
        return pg.state is PgState.PRIMARY and pg.enforced is False and group is not None and is_any_on_disk(group)

    def _is_same(self, pid: int) -> bool:
        """Is what we asked still what runs, and not being started or stopped meanwhile?"""
        return pid == self._postgres.death.pid != 0 and self._board.pg.state in (*ANSWERING, PgState.HUNG)

    async def _probe_once(self, wait: ServerWait) -> PgState:
        connection = await self._postgres.session("futago-probe", deadline_s=self._limit_busy_s)
        try:

            async def query(sql: str) -> pgwire.Result:
                wait.asked(connection.pid)
                return await connection.query(sql, deadline_s=self._limit_busy_s)

            if (await query("SELECT pg_is_in_recovery()")).one()[0] == "t":
                return PgState.STANDBY
            # Alone, the commit is an ordinary one: it proves besides that nothing waits for the absent member.
            level = "on" if self._board.pg.enforced is False else "local"
            wrote_at = now_at()
            await query(f"SET synchronous_commit = {level}; {pgwire.EMPTY_COMMIT}")
            written = Lsn(pgwire.lsn((await query("SELECT pg_current_wal_flush_lsn()")).one()[0]))
            self._unconfirmed.append((written, wrote_at))
            return PgState.PRIMARY
        finally:
            connection.close()

    def _on_refused(self, fault: Refused, sqlstate: str) -> None:
        self._failures += 1
        if sqlstate in (DISK_FULL, IO_ERROR):
            self._board.put_pg(is_disk_ok=False)
        if sqlstate == IO_ERROR:
            self.on_disk_error(OSError(errno.EIO, str(fault)))
        if self._failures >= PROBE_FAILURES_MAX and self._board.pg.state in ANSWERING:
            self._log.error("postgres.refuses-probe", error=str(fault))
            self._board.put_pg(state=PgState.HUNG)

    def _count_stable(self) -> None:
        if self._board.pg.state not in ANSWERING:
            self._stable_since = now_at()
        elif self._board.pg.died_count and now_at() - self._stable_since > STABLE:
            self._board.put_pg(died_count=0)

    # --- the volume -------------------------------------------------------------------------------------------------

    async def _disk_loop(self) -> None:
        while True:
            if self._volume.busy_ns < DISK_LATE_S * S:
                try:
                    is_ok = await self._volume.do(self._try_disk, deadline_s=DISK_LATE_S)
                except OSError as e:
                    self._log.error("disk.failed", error=str(e))
                    self.on_disk_error(e)
                    is_ok = False
                except Unknown:
                    self._log.error("disk.hangs", limit_s=DISK_LATE_S)
                    is_ok = False
            else:
                is_ok = False
            self._board.put_pg(is_disk_ok=is_ok)
            await asyncio.sleep(DISK_PROBE_S)

    def _try_disk(self) -> bool:
        """In the volume's thread: write a block, sync it, and see how much room is left."""
        volume = self._postgres.layout.volume
        fd = os.open(volume / "disk.probe", os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.pwrite(fd, os.urandom(512), 0)
            os.fdatasync(fd)
        finally:
            os.close(fd)
        return shutil.disk_usage(volume).free >= FREE_BYTES_MIN
