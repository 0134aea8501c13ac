"""Do commits wait for the other member? Turned on, turned off, and proven.

Lives here: enforcement, the barrier, and the slots. Must not live here: when (adding the standby: enforce, barrier,
view; removing it: view, then this). The idea: a canal lock. That the lever is down proves nothing; the water level
does. PostgreSQL's own views say "sync" while its checkpointer has not yet told anybody to wait, so the proof is a
commit that must hang and does.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Awaitable, Callable

from futago.cluster import pgconf, pgwire
from futago.cluster.model import Epoch, PgState
from futago.cluster.pgwire import ServerError
from futago.cluster.postgres import Postgres
from futago.runtime.faults import Refused, Unknown, WorldFault

APPLY_S_MAX = 2.0
COMMIT_S_MAX = 1.0
HANG_S = 0.1  # how long the probe must be seen to wait
BARRIER_S_MAX = 5.0
POLL_S = 0.01
ALREADY_THERE = "42710"  # duplicate_object
CANCELED = "canceling wait for synchronous replication"

_SLOT_SQL = (
    "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots "
    "WHERE slot_name = {name} AND wal_status = 'lost' AND NOT active",
    "SELECT pg_create_physical_replication_slot({name}, true) "
    "WHERE NOT EXISTS (SELECT 1 FROM pg_replication_slots WHERE slot_name = {name})",
)

PauseReplay = Callable[[bool], Awaitable[None]]
"""Asks the other member to pause (True) or resume the replay of its standby; returns when it is so."""


class PgSync:
    """Enforcement on our primary."""

    def __init__(self, postgres: Postgres, *, pause_replay: PauseReplay) -> None:
        self._postgres, self._board, self._log = postgres, postgres.board, postgres.log
        self._pause_replay = pause_replay

    async def enforce(self, *, on: bool) -> None:
        """Write it into the file; on a running server apply and verify it.

        Raises:
            Refused, Unknown: it is not known to hold; off on a server that goes on waiting: it has been killed.
        """
        postgres, board = self._postgres, self._board
        is_running = board.pg.state in (PgState.PRIMARY, PgState.HUNG)
        if is_running:
            board.put_pg(enforced=None, barrier_epoch=Epoch(0))
        await postgres.write_conf(enforced=on)
        if not is_running:
            return
        postgres.death.signal(signal.SIGHUP)
        if on:
            await self._await_names(on=True)
        else:
            await self._await_free()
        board.put_pg(enforced=on, unconfirmed_since=None)
        self._log.event("sync.enforced" if on else "sync.free")

    async def _await_names(self, *, on: bool) -> None:
        loop = asyncio.get_running_loop()
        ends = loop.time() + APPLY_S_MAX
        while True:
            found = (await self._postgres.ask("SHOW synchronous_standby_names", deadline_s=COMMIT_S_MAX)).one()[0]
            if bool(found) is on:
                return
            if loop.time() > ends:
                raise Unknown("PostgreSQL has not read its settings again")
            await asyncio.sleep(POLL_S)

    async def _await_free(self) -> None:
        """Return when an ordinary commit returned; kill the server if none does: its checkpointer hangs."""
        try:
            await self._await_names(on=False)
            await self._postgres.ask(f"SET synchronous_commit = 'on'; {pgwire.EMPTY_COMMIT}", deadline_s=COMMIT_S_MAX)
        except WorldFault as e:
            self._log.error("sync.not-free", error=str(e))
            await self._postgres.kill()  # the file is right, so the next start is
            raise Refused("commits went on waiting; PostgreSQL was killed to be started anew") from e

    async def barrier(self, epoch: Epoch) -> None:
        """Prove that commits wait for the other member.

        Raises:
            Refused: they do not. Unknown: it could not be found out.
        """
        probe = await self._postgres.session("futago-barrier")
        paused = False
        commit: asyncio.Task[pgwire.Result] | None = None
        try:
            await probe.query("SET synchronous_commit = 'remote_apply'")
            paused = True  # even if the answer is lost
            await self._pause_replay(True)
            commit = asyncio.create_task(probe.query(pgwire.EMPTY_COMMIT, deadline_s=BARRIER_S_MAX))
            await self._see_it_wait(probe.pid, commit)
            noted = (await self._postgres.ask("SELECT pg_current_wal_flush_lsn()")).one()[0]
            await self._pause_replay(False)
            paused = False
            result = await commit
            await self._await_flush(pgwire.lsn(noted))
        finally:
            if commit is not None:
                commit.cancel()
            probe.close()
            if paused:
                with contextlib.suppress(WorldFault):
                    await self._pause_replay(False)
        if any(CANCELED in notice for notice in result.notices):
            raise Unknown("the wait was cancelled by the server")
        self._board.put_pg(barrier_epoch=epoch, enforced=True)
        self._log.event("sync.barrier-passed", epoch=epoch)

    async def _see_it_wait(self, pid: int, commit: asyncio.Task[pgwire.Result]) -> None:
        loop = asyncio.get_running_loop()
        ends, waits_since = loop.time() + APPLY_S_MAX, 0.0
        sql = f"SELECT wait_event FROM pg_stat_activity WHERE pid = {pid:d}"  # noqa: S608
        while True:
            if commit.done():
                await commit
                raise Refused("a commit did not wait for the other member: enforcement is not in force")
            rows = (await self._postgres.ask(sql, deadline_s=COMMIT_S_MAX)).rows
            if rows and rows[0][0] == "SyncRep":
                waits_since = waits_since or loop.time()
                if loop.time() - waits_since >= HANG_S:
                    return
            elif loop.time() > ends:
                raise Unknown("the probe neither waits nor ends")
            await asyncio.sleep(POLL_S)

    async def _await_flush(self, position: int) -> None:
        """Return when the other member has flushed everything up to here."""
        peer = self._postgres.settings.peer
        name = pgwire.literal(peer.name if peer else "")
        sql = f"SELECT max(flush_lsn) FROM pg_stat_replication WHERE application_name = {name}"  # noqa: S608
        loop = asyncio.get_running_loop()
        ends = loop.time() + APPLY_S_MAX
        while pgwire.lsn((await self._postgres.ask(sql, deadline_s=COMMIT_S_MAX)).one()[0]) < position:
            if loop.time() > ends:
                raise Unknown("the other member has not confirmed everything that was written before")
            await asyncio.sleep(POLL_S)

    # --- slots ------------------------------------------------------------------------------------------------------

    async def ensure_slot(self) -> None:
        """On the primary: keep WAL for the other member from now on. Raises Refused or Unknown."""
        peer = self._postgres.settings.peer
        if peer is None:
            return
        name = pgwire.literal(pgconf.slot_name(peer.name))
        for sql in _SLOT_SQL:
            try:
                await self._postgres.ask(sql.format(name=name))
            except ServerError as e:
                if e.sqlstate != ALREADY_THERE:  # somebody else of ours made it at the same moment
                    raise

    async def drop_slots(self) -> None:
        """On a standby: a slot left over from its time as primary would fill its disk. Raises Refused or Unknown."""
        await self._postgres.ask(
            "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE NOT active AND NOT temporary"
        )

    async def pause_own_replay(self, *, pause: bool) -> None:
        """On the standby, for the other's barrier: pause or resume replay; return when it is so. Raises as `ask`."""
        if not pause:
            await self._postgres.ask("SELECT pg_wal_replay_resume()")
            return
        await self._postgres.ask("SELECT pg_wal_replay_pause()")
        for _ in range(200):
            if (await self._postgres.ask("SELECT pg_get_wal_replay_pause_state()")).one()[0] == "paused":
                return
            await asyncio.sleep(POLL_S)
        raise Unknown("replay does not pause")
