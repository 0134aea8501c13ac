"""Our own PostgreSQL: found, started, promoted, stopped, killed.

Lives here: the life of the server process and of its files. Must not live here: whether it should live (decide.py),
how it fares (pgwatch.py), whether commits wait (pgsync.py). The idea: a horse that we lead by the halter. We never
believe that it is where we left it: its death is noticed by the kernel's word, its state by its own answer, and
before every start the gate is shut.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
from collections.abc import Awaitable, Callable
from pathlib import Path

from futago.cluster import pgconf, pgwire, walend, wholesync
from futago.cluster.facts import Board
from futago.cluster.gate import GateKeeper
from futago.cluster.model import Epoch, Gate, Lsn, PgState
from futago.cluster.pgconf import Layout
from futago.cluster.pgwire import ServerError
from futago.cluster.unit import DeathWatch, PgUnit, is_cgroup_empty
from futago.runtime import process
from futago.runtime.faults import FutagoFault, Refused, Unknown, WorldFault
from futago.runtime.log import Log
from futago.runtime.worker import Worker
from futago.setup import files, paths
from futago.setup.settings import Settings

READY_POLL_S = 0.01
PROMOTE_POLL_S = 0.02
DISK_S_MAX = 2.0
STOP_S_MAX = 8.0
PROMOTE_S_MAX = 60.0  # the replay of what has been received but not replayed counts too
RUNNING = (PgState.STARTING, PgState.STANDBY, PgState.PRIMARY, PgState.HUNG, PgState.STOPPING)


class Postgres:
    """The server and its files.

    Args:
        system: the thread of the system disk; volume: the thread of the database's disk.
    """

    def __init__(
        self,
        *,
        board: Board,
        settings: Settings,
        layout: Layout,
        unit: PgUnit,
        system: Worker,
        volume: Worker,
        log: Log,
    ) -> None:
        self.board, self.settings, self.layout, self.unit, self.log = board, settings, layout, unit, log
        self._system, self._volume = system, volume
        self.death = DeathWatch(self._died)
        self.gate = GateKeeper(settings, layout, system=system, death=self.death)
        self._ended = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self.on_poke: Callable[[], None] = lambda: None
        # it is being killed, or does not die of it: the peer may wait for that
        self.on_kill: Callable[[], None] = lambda: None
        self.keys = _KEYS  # source, name, mode: copies that PostgreSQL may read
        self.is_promoting = False
        self.wal_avoids = ""  # the link that the stream should not take
        self.last_words = ""  # why the last start failed, for people
        self._end: tuple[str, asyncio.Task[walend.End]] | None = None  # the control file that it was read for
        self._is_empty = False  # no process of it is left, for certain
        self._is_undying = False  # some were killed and did not die: to kill them again is no news

    # --- finding it -------------------------------------------------------------------------------------------------

    async def adopt(self) -> None:
        """Find out what is there, and change nothing of it."""
        has_data = await self.has_data()
        await self.look_for_signal()
        try:
            pid = await self.unit.find()
        except WorldFault as e:
            self.log.warning("postgres.unit-unknown", error=str(e))
            pid = 0
        if pid and self.death.watch(pid):
            self._ended.clear()
            self.board.put_pg(state=PgState.STARTING)
            await self._adopt_running()
            return
        self._is_empty = not pid and self.unit.cgroup is not None and is_cgroup_empty(self.unit.cgroup)
        self.board.put(gate=Gate.CLOSED)
        self.board.put_pg(state=PgState.STOPPED if has_data else PgState.ABSENT)
        await self.read_control()

    async def _adopt_starting(self) -> None:
        await self._wait_ready()
        self.board.put(gate=await self.gate.look())

    async def _adopt_running(self) -> None:
        try:
            row = (await self.ask(_ADOPT, deadline_s=1.0)).one()
        except ServerError:
            self._spawn(self._adopt_starting())  # go on waiting for it
            return
        except (Refused, Unknown):
            self.board.put_pg(state=PgState.HUNG)
            return
        state = PgState.STANDBY if row[0] == "t" else PgState.PRIMARY
        position = Lsn(pgwire.lsn(row[1]))
        self.board.put(gate=await self.gate.look())
        self.board.put_pg(state=state, flush=position, start_lsn=position, enforced=self._enforced(state, row[2]))
        self.log.event("postgres.adopted", state=state.value, pid=self.death.pid)

    @staticmethod
    def _enforced(state: PgState, names: str | None) -> bool | None:
        return bool(names) if state is PgState.PRIMARY else None

    async def has_data(self) -> bool:
        """Is there a whole data directory? A disk that does not answer counts as yes: nobody may overwrite it."""
        layout = self.layout

        def look() -> bool:
            return (layout.data / "PG_VERSION").exists() and not layout.unfinished.exists()

        try:
            return await self._volume.do(look, deadline_s=DISK_S_MAX)
        except (OSError, Unknown):
            return True

    async def look_for_signal(self) -> None:
        """Is the data directory a standby's?"""
        file = self.layout.data / "standby.signal"
        with contextlib.suppress(OSError, Unknown):
            has_signal = await self._volume.do(file.exists, deadline_s=DISK_S_MAX)
            self.board.put_pg(has_standby_signal=has_signal)

    async def read_control(self) -> None:
        """Learn how far the data of a stopped server go. Until it is known, the position counts as unknown (0)."""
        if self.board.pg.state in RUNNING or self.board.pg.state is PgState.ABSENT:
            return
        try:
            end = await self.wal_end(await self.control_data())
        except WorldFault as e:
            self.log.warning("postgres.end-unknown", error=str(e))
            return
        if self.board.pg.state not in RUNNING:
            self.board.put_pg(flush=end.at, timeline=end.timeline)

    async def wal_end(self, control: ControlData) -> walend.End:
        """Return where the log of the stopped server ends. Raises Refused or Unknown.

        Reading the log takes seconds, several want to know at once, and nothing changes it while nothing runs on it: it
        is read once, until `forget_end`.
        """
        if not self._is_empty:  # a backend that outlived its server may be writing
            return await self._find_end(control)
        if self._end is None or self._end[0] != control.text:
            task = asyncio.create_task(self._find_end(control))
            task.add_done_callback(self._drop_failed_end)
            self._end = (control.text, task)
        return await asyncio.shield(self._end[1])

    def forget_end(self) -> None:
        """Something is about to write to the log, or may have done so."""
        self._end = None

    def _drop_failed_end(self, task: asyncio.Task[walend.End]) -> None:
        is_good = not task.cancelled() and task.exception() is None
        if not is_good and self._end is not None and self._end[1] is task:
            self._end = None

    async def _find_end(self, control: ControlData) -> walend.End:
        wal = self.layout.data / "pg_wal"
        try:
            names = await self._volume.do(lambda: os.listdir(wal), deadline_s=DISK_S_MAX)
        except OSError as e:
            raise Refused(f"{wal}: {e}") from e
        return await walend.find_end(self.layout.bin, self.layout.data, names=names, redo=control.redo)

    async def control_data(self) -> ControlData:
        """Read the control file with PostgreSQL's own tool. Raises Refused or Unknown."""
        command = [*process.AS_POSTGRES, str(self.layout.bin / "pg_controldata"), str(self.layout.data)]
        ended = await process.run(command, deadline_s=DISK_S_MAX)
        if ended.code != 0:
            raise Refused(f"pg_controldata: {ended.last_words}")
        return ControlData(ended.out)

    async def ask(self, sql: str, *, deadline_s: float = 2.0, database: str = "postgres") -> pgwire.Result:
        """Ask over a new connection. Raises as `pgwire.ask`."""
        layout = self.layout
        return await pgwire.ask(
            sql, deadline_s=deadline_s, database=database, socket_dir=layout.socket_dir, port=layout.port
        )

    async def session(self, name: str, *, deadline_s: float = 1.0) -> pgwire.PgConnection:
        """Open a session of our own. Raises as `PgConnection.open`."""
        layout = self.layout
        return await pgwire.PgConnection.open(
            name=name, deadline_s=deadline_s, socket_dir=layout.socket_dir, port=layout.port
        )

    # --- its files --------------------------------------------------------------------------------------------------

    async def write_conf(self, *, enforced: bool) -> None:
        """Write our settings and keys for it. Raises Refused or Unknown."""
        layout = self.layout
        wal_bytes_max, syncs_whole = await self._look_at_volume()
        text = pgconf.settings_text(
            self.settings,
            layout,
            enforced=enforced,
            wal_bytes_max=wal_bytes_max,
            avoid=self.wal_avoids,
            syncs_whole=syncs_whole,
        )

        def put() -> None:
            layout.conf.parent.mkdir(parents=True, exist_ok=True)
            layout.conf.parent.chmod(0o755)  # PostgreSQL has to reach what is meant for it
            files.write(layout.conf, text, mode=0o640, owner=files.Owner("root", "postgres"))
            files.directory(layout.tls, mode=0o755)
            for source, name, mode in self.keys:
                files.write(layout.tls / name, source.read_bytes(), mode=mode, owner=files.DATABASE)

        try:
            await self._system.do(put, deadline_s=DISK_S_MAX)
        except OSError as e:
            raise Refused(f"{layout.conf}: {e}") from e

    async def _look_at_volume(self) -> tuple[int, bool]:
        """Return a quarter of the volume, what may be kept for a member that is away, and whether one call makes the
        whole data directory durable. One look: a disk that hangs must not be waited for twice.
        """

        def look() -> tuple[int, bool]:
            return shutil.disk_usage(self.layout.volume).total // 4, wholesync.is_enough(self.layout.data)

        try:
            return await self._volume.do(look, deadline_s=DISK_S_MAX)
        except (OSError, Unknown):
            return 1024 * pgconf.MB, False

    async def _prepare_data(self, *, as_standby: bool) -> None:
        data = self.layout.data

        def put() -> None:
            for stale in ("promote", "postmaster.pid", "recovery.signal"):  # its control group is empty: nobody's
                (data / stale).unlink(missing_ok=True)
            signal_file = data / "standby.signal"
            if as_standby:
                files.write(signal_file, "", mode=0o600, owner=files.DATABASE)
            else:
                signal_file.unlink(missing_ok=True)
            main = pgconf.MAIN_CONF.format(conf=self.layout.conf)
            files.write(data / "postgresql.conf", main, mode=0o600, owner=files.DATABASE)
            files.write(data / "postgresql.auto.conf", "", mode=0o600, owner=files.DATABASE)
            files.sync_directory(data)
            self.layout.socket_dir.mkdir(parents=True, exist_ok=True)
            os.chown(self.layout.socket_dir, *files.DATABASE.ids())

        try:
            await self._volume.do(put, deadline_s=DISK_S_MAX)
        except OSError as e:
            raise Refused(f"{data}: {e}") from e

    # --- its life ---------------------------------------------------------------------------------------------------

    async def start(self, *, as_standby: bool, enforced: bool) -> None:
        """Start it behind a closed gate; return when it answers. Raises Refused or Unknown; then it does not run."""
        self.board.put_pg(state=PgState.STARTING, barrier_epoch=Epoch(0), enforced=None)
        try:
            await self.unit.kill()
            await self.gate.write(gate_open=False)
            self.board.put(gate=Gate.CLOSED)
            await self.write_conf(enforced=enforced and not as_standby)
            await self._prepare_data(as_standby=as_standby)
            self.board.put_pg(has_standby_signal=as_standby)
            self._ended.clear()
            self.forget_end()
            self._is_empty = False
            pid = await self.unit.start()
            if not pid or not self.death.watch(pid):
                raise Refused("PostgreSQL ended at once")
            await self._wait_ready()
        except FutagoFault as e:
            self.last_words = str(e)
            with contextlib.suppress(Unknown):
                await self.unit.kill()
            self.death.forget()
            self._fell(is_death=True)
            raise

    async def _wait_ready(self) -> None:
        """Wait while it recovers, as long as it lives. How long that takes is the data's business."""
        while True:
            if self._ended.is_set():
                raise Refused("PostgreSQL ended while it was starting")
            try:
                row = (await self.ask(_ADOPT, deadline_s=2.0)).one()
                break
            except (Refused, Unknown):
                await asyncio.sleep(READY_POLL_S)
        state = PgState.STANDBY if row[0] == "t" else PgState.PRIMARY
        position = Lsn(pgwire.lsn(row[1]))
        self.board.put_pg(state=state, flush=position, start_lsn=position, enforced=self._enforced(state, row[2]))
        self.log.event("postgres.ready", state=state.value, pid=self.death.pid)
        self.on_poke()

    async def promote(self) -> None:
        """Make our standby a primary; return when it takes writes. Raises Refused or Unknown."""
        self.is_promoting = True
        try:
            await self._promote()
        finally:
            self.is_promoting = False

    async def _promote(self) -> None:
        await self.write_conf(enforced=False)
        connection = await self.session("futago-promote")
        try:
            await connection.query("SELECT pg_promote(wait => false)", deadline_s=1.0)
            loop = asyncio.get_running_loop()
            ends = loop.time() + PROMOTE_S_MAX
            while (await connection.query("SELECT pg_is_in_recovery()", deadline_s=2.0)).one()[0] == "t":
                if loop.time() > ends:
                    raise Unknown("the promotion has not ended")
                await asyncio.sleep(PROMOTE_POLL_S)
            row = (await connection.query(_ADOPT, deadline_s=2.0)).one()
        finally:
            connection.close()
        position = Lsn(pgwire.lsn(row[1]))
        self.board.put_pg(
            state=PgState.PRIMARY,
            start_lsn=position,
            flush=position,
            enforced=bool(row[2]),
            is_streaming=False,
            has_standby_signal=False,
        )
        self._spawn(self.checkpoint())
        self.on_poke()

    async def checkpoint(self) -> None:
        """Make its control file show the present timeline: before that, pg_rewind against it lies. Never raises."""
        try:
            await self.ask("CHECKPOINT", deadline_s=600)
        except WorldFault as e:
            self.log.warning("postgres.checkpoint-failed", error=str(e))

    async def stop(self) -> None:
        """Stop it orderly; a connected standby receives everything. Kills it when that takes too long."""
        self.board.put_pg(state=PgState.STOPPING)
        if self.death.signal(signal.SIGINT):
            try:
                async with asyncio.timeout(STOP_S_MAX):
                    await self._ended.wait()
            except TimeoutError:
                self.log.warning("postgres.stop-late")
        await self.kill()

    async def kill(self) -> None:
        """Kill all of it; return when nothing of it is left. Raises Unknown if processes hang in the kernel."""
        if self.board.pg.state in RUNNING and not self._is_undying:
            self.board.put_pg(state=PgState.STOPPING)
            self.on_kill()
        try:
            await self.unit.kill(self._does_not_die)
        except Unknown:
            self._does_not_die()
            raise
        self._is_empty, self._is_undying = True, False
        self.death.forget()
        self._ended.set()
        self._fell(is_death=False)
        if not await self.has_data():
            self.board.put_pg(state=PgState.ABSENT)
        await self.look_for_signal()
        self._spawn(self.read_control())  # it may take seconds, and nobody waits for it

    def _does_not_die(self) -> None:
        """It hangs in the kernel: it is killed again, its end will be noticed as a death, and the peer need not wait."""
        if self.board.pg.state is PgState.STOPPING:
            self.log.error("postgres.does-not-die")
            self._is_undying = True
            self.board.put_pg(state=PgState.HUNG)
            self.on_kill()

    def _died(self, pid: int) -> None:
        self._is_empty = False
        self._ended.set()
        if self.board.pg.state in (PgState.STOPPING, PgState.STOPPED, PgState.ABSENT):
            return
        self.log.error("postgres.died", pid=pid, state=self.board.pg.state.value)
        self._fell(is_death=True)
        self._spawn(self._sweep())

    async def _sweep(self) -> None:
        with contextlib.suppress(Unknown):
            await self.unit.kill()  # a busy backend outlives its postmaster by seconds
            self._is_empty, self._is_undying = True, False
        await self.read_control()

    def _fell(self, *, is_death: bool) -> None:
        count = self.board.pg.died_count + 1 if is_death else self.board.pg.died_count
        self.board.put_pg(
            state=PgState.DIED if is_death else PgState.STOPPED,
            flush=Lsn(0),  # what it had told was older than what it had written
            replay=Lsn(0),
            is_streaming=False,
            peer_is_streaming=False,
            unconfirmed_since=None,
            enforced=None,
            barrier_epoch=Epoch(0),
            start_lsn=Lsn(0),
            died_count=count,
        )
        self.board.put(gate=Gate.CLOSED)

    def _spawn(self, work: Awaitable[None]) -> None:
        task = asyncio.create_task(self._guarded(work))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _guarded(self, work: Awaitable[None]) -> None:
        try:
            await work
        except FutagoFault as e:
            self.log.warning("postgres.background", error=str(e))


_ADOPT = (
    "SELECT pg_is_in_recovery(), CASE WHEN pg_is_in_recovery() "
    "THEN coalesce(greatest(pg_last_wal_receive_lsn(), pg_last_wal_replay_lsn()), '0/0') "
    "ELSE pg_current_wal_insert_lsn() END, current_setting('synchronous_standby_names')"
)
_KEYS: tuple[tuple[Path, str, int], ...] = (
    (paths.CA_CERT, "ca.crt", 0o644),
    (paths.OWN_CERT, "own.crt", 0o644),
    (paths.OWN_KEY, "own.key", 0o600),
)


class ControlData:
    """What pg_controldata prints."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.words = {k.strip(): v.strip() for k, _, v in (line.partition(":") for line in text.splitlines())}

    @property
    def timeline(self) -> int:
        return int(self.words.get("Latest checkpoint's TimeLineID", "0"))

    @property
    def position(self) -> Lsn:
        """How far the data surely goes: the last checkpoint, or for a standby what it had replayed to be
        consistent."""
        ends = ("Latest checkpoint location", "Minimum recovery ending location")
        return Lsn(max(pgwire.lsn(self.words.get(x, "0/0")) for x in ends))

    @property
    def redo(self) -> Lsn:
        """From where on recovery reads the log."""
        return Lsn(pgwire.lsn(self.words.get("Latest checkpoint's REDO location", "0/0")))

    @property
    def system_id(self) -> str:
        return self.words.get("Database system identifier", "")

    @property
    def state(self) -> str:
        """Such as ``shut down``, ``in production``, ``shut down in recovery``."""
        return self.words.get("Database cluster state", "")
