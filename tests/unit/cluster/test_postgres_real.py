"""Our rooms around a real PostgreSQL 15: the gate, enforcement, the barrier, promotion, death and hanging."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable

import pytest
from pg_pair import Member, pair, until

from futago.cluster import pgwire
from futago.cluster.model import Epoch, Gate, PgState
from futago.cluster.pgwire import PgConnection, ServerError
from futago.runtime.faults import Refused, Unknown

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="starts PostgreSQL as its own user")


@contextlib.asynccontextmanager
async def streaming(monkeypatch: pytest.MonkeyPatch):  # type: ignore[no-untyped-def]
    async with pair(monkeypatch) as (a, b):
        await a.postgres.start(as_standby=False, enforced=False)
        await a.sync.ensure_slot()
        await b.copy_from(a)
        await b.postgres.start(as_standby=True, enforced=False)
        await until(lambda: a.board.pg.peer_is_streaming and b.board.pg.is_streaming)
        yield a, b


async def app(member: Member) -> PgConnection:
    return await PgConnection.open(
        user="futago", database="futago", socket_dir=member.layout.socket_dir, port=member.layout.port
    )


async def test_gate_is_closed_after_start_opens_and_shows_everybody_out(monkeypatch: pytest.MonkeyPatch) -> None:
    async with pair(monkeypatch) as (a, _):
        await a.postgres.start(as_standby=False, enforced=False)
        assert a.board.pg.state is PgState.PRIMARY and a.board.gate is Gate.CLOSED and a.board.pg.enforced is False
        with pytest.raises(ServerError, match="reject"):
            await app(a)
        await a.postgres.gate.open()
        session = await app(a)
        await session.query("CREATE TABLE t (x int)")  # the application role owns its database
        await a.postgres.gate.close()
        with pytest.raises((Unknown, Refused)):
            await session.query("SELECT 1")
        with pytest.raises(ServerError, match="reject"):
            await app(a)
        with pytest.raises(ServerError):  # strangers on the network are refused whatever the gate says
            await a.postgres.ask("SET ROLE nobody_at_all")
        refused = subprocess.run(
            ["psql", "-h", "127.0.0.11", "-p", str(a.layout.port), "-U", "postgres", "-c", "SELECT 1"],
            capture_output=True,
            text=True,
            check=False,
            timeout=10,
        )
        assert refused.returncode != 0 and "pg_hba.conf" in refused.stderr


async def test_pair_enforces_proves_it_and_fails_over_without_losing_a_commit(monkeypatch: pytest.MonkeyPatch) -> None:
    async with streaming(monkeypatch) as (a, b):
        with pytest.raises(Refused, match="did not wait"):
            await a.sync.barrier(Epoch(2))  # not enforced: the barrier must see it
        await a.sync.enforce(on=True)
        await a.sync.barrier(Epoch(2))
        assert a.board.pg.barrier_epoch == 2 and a.board.pg.enforced is True
        assert (await b.postgres.ask("SELECT pg_get_wal_replay_pause_state()")).one()[0] == "not paused"
        await a.postgres.gate.open()
        session = await app(a)
        await session.query("CREATE TABLE t (x int); INSERT INTO t VALUES (42)")
        await a.postgres.kill()
        assert a.board.pg.state is PgState.STOPPED and a.board.gate is Gate.CLOSED
        began = time.monotonic()
        await b.postgres.promote()
        assert time.monotonic() - began < 20
        assert b.board.pg.state is PgState.PRIMARY and b.board.pg.enforced is False and b.board.pg.start_lsn
        await b.postgres.gate.open()
        assert (await (await app(b)).query("SELECT x FROM t")).one() == ("42",)


async def test_enforced_commit_waits_for_a_dead_standby_until_enforcement_is_taken_off(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with streaming(monkeypatch) as (a, b):
        await a.sync.enforce(on=True)
        await b.postgres.kill()
        waiting = asyncio.create_task(a.postgres.ask(pgwire.EMPTY_COMMIT, deadline_s=20))
        await until(lambda: a.board.pg.unconfirmed_since is not None)
        assert not waiting.done()
        await a.sync.enforce(on=False)
        await asyncio.wait_for(waiting, 15)
        assert a.board.pg.enforced is False and a.board.pg.unconfirmed_since is None


async def test_server_whose_checkpointer_hangs_is_killed_rather_than_believed_free(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with streaming(monkeypatch) as (a, b):
        await a.sync.enforce(on=True)
        row = await a.postgres.ask("SELECT pid FROM pg_stat_activity WHERE backend_type = 'checkpointer'")
        os.kill(int(row.one()[0] or 0), signal.SIGSTOP)
        await b.postgres.kill()
        with pytest.raises(Refused, match="killed"):
            await a.sync.enforce(on=False)
        assert a.board.pg.state is PgState.STOPPED
        await a.postgres.start(as_standby=False, enforced=False)
        await a.postgres.ask(pgwire.EMPTY_COMMIT)  # the file was right


async def test_death_of_the_postmaster_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    async with pair(monkeypatch) as (a, _):
        await a.postgres.start(as_standby=False, enforced=False)
        os.kill(a.postgres.death.pid, signal.SIGKILL)
        await until(lambda: a.board.pg.state is PgState.DIED)
        assert a.board.pg.died_count == 1


async def test_stopped_processes_count_as_hung_and_are_killed_nevertheless(monkeypatch: pytest.MonkeyPatch) -> None:
    async with pair(monkeypatch) as (a, _):
        await a.postgres.start(as_standby=False, enforced=False)
        for pid in (a.postgres.death.pid, *a.unit.children()):
            os.kill(pid, signal.SIGSTOP)
        await until(lambda: a.board.pg.state is PgState.HUNG, within_s=20)
        told: list[PgState] = []
        a.postgres.on_kill = lambda: told.append(a.board.pg.state)
        await a.postgres.kill()
        assert a.board.pg.state is PgState.STOPPED
        assert told == [PgState.STOPPING]  # the peer, which was told that it hangs, may wait for its end


async def test_server_that_a_device_keeps_from_dying_is_told_as_hung_before_the_kill_is_given_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with pair(monkeypatch) as (a, _):
        await a.postgres.start(as_standby=False, enforced=False)
        told: list[PgState] = []
        a.postgres.on_kill = lambda: told.append(a.board.pg.state)
        kill = a.unit.kill

        async def hangs(on_stuck: Callable[[], None] | None = None) -> None:
            assert on_stuck is not None
            on_stuck()
            assert told == [PgState.STOPPING, PgState.HUNG] and a.board.pg.state is PgState.HUNG
            raise Unknown("3 processes do not die")

        monkeypatch.setattr(a.unit, "kill", hangs)
        with pytest.raises(Unknown):
            await a.postgres.kill()
        assert a.board.pg.state is PgState.HUNG and len(told) == 2
        with pytest.raises(Unknown):
            await a.postgres.kill()  # again: the peer must not think that this time it will die
        assert a.board.pg.state is PgState.HUNG and len(told) == 2
        monkeypatch.setattr(a.unit, "kill", kill)
        await a.postgres.kill()
        assert a.board.pg.state is PgState.STOPPED


async def test_another_controller_adopts_what_runs_and_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    async with pair(monkeypatch) as (a, _):
        await a.postgres.start(as_standby=False, enforced=False)
        await a.postgres.gate.open()
        session = await app(a)
        again = Member("m1", a.home, a.postgres.settings, a.layout.port)
        again.unit = a.unit
        again.postgres.unit = a.unit
        await again.postgres.adopt()
        assert again.board.pg.state is PgState.PRIMARY and again.board.gate is Gate.OPEN
        assert again.board.pg.enforced is False and again.postgres.death.pid == a.postgres.death.pid
        await session.query("SELECT 1")
        again.postgres.death.forget()


async def test_start_that_fails_says_why_and_leaves_nothing_running(monkeypatch: pytest.MonkeyPatch) -> None:
    async with pair(monkeypatch) as (a, _):
        (a.layout.data / "global/pg_control").unlink()
        with pytest.raises(Refused):
            await a.postgres.start(as_standby=False, enforced=False)
        assert a.board.pg.state is PgState.DIED and await a.unit.find() == 0 and a.postgres.last_words


async def test_late_answer_closes_the_session_and_is_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    async with pair(monkeypatch) as (a, _):
        await a.postgres.start(as_standby=False, enforced=False)
        session = await PgConnection.open(socket_dir=a.layout.socket_dir, port=a.layout.port)
        with pytest.raises(ServerError, match="division"):
            await session.query("SELECT 1/0")
        assert (await session.query("SELECT 'x', NULL; SELECT 1, 2")).rows == (("x", None), ("1", "2"))
        with pytest.raises(Unknown):
            await session.query("SELECT pg_sleep(5)", deadline_s=0.05)
        with pytest.raises(Refused):
            await session.query("SELECT 1")
