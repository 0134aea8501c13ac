"""The commit room against a real server, whose log and activity view are the witnesses."""

from __future__ import annotations

import asyncio
import os
import signal
import time

import psycopg
import pytest

from futago.runtime.faults import BrokenInvariant, OperatorFault, Refused, Unknown
from futago.runtime.log import Log
from futago.store import line
from futago.store.commit import Connection, Store
from futago.store.line import CONNECTING_MAX, Line, Lines, _Uncancellable
from postgres_cluster import Cluster


async def _insert(conn: Connection) -> None:
    await conn.execute("INSERT INTO scope (scope_name) VALUES ('x')")


async def _count(store: Store) -> int:
    async def work(conn: Connection) -> int:
        row = await (await conn.execute("SELECT count(*) FROM scope")).fetchone()
        assert row
        return int(row[0])

    return await store.read(work, name="test.count")


async def _until_waiting(postgres: Cluster, application: str) -> int:
    for _ in range(3000):
        for pid, name in await asyncio.to_thread(postgres.waiting):
            if name == application:
                return pid
        await asyncio.sleep(0.01)
    raise AssertionError("no commit waits for the standby")


async def test_commit_returns_what_the_work_returned_and_the_row_is_there(store: Store) -> None:
    async def work(conn: Connection) -> str:
        await _insert(conn)
        return "result"

    assert await store.commit(work, name="test.insert") == "result"
    assert await _count(store) == 1
    assert store.counters.done == 2


async def test_server_error_before_the_commit_is_refused_with_its_cause_and_leaves_nothing(store: Store) -> None:
    async def work(conn: Connection) -> None:
        await _insert(conn)
        await _insert(conn)

    with pytest.raises(Refused) as caught:
        await store.commit(work, name="test.twice")
    assert isinstance(caught.value.__cause__, psycopg.errors.UniqueViolation)
    assert await _count(store) == 0


async def test_error_that_the_work_passed_over_is_refused_not_silently_rolled_back(store: Store) -> None:
    async def work(conn: Connection) -> None:
        await _insert(conn)
        with pytest.raises(psycopg.Error):
            await conn.execute("SELECT 1/0")

    with pytest.raises(Refused, match="passed over"):
        await store.commit(work, name="test.swallow")
    assert await _count(store) == 0


async def test_fault_of_the_work_itself_passes_through_after_a_rollback(store: Store) -> None:
    async def work(conn: Connection) -> None:
        await _insert(conn)
        raise OperatorFault("No.")

    with pytest.raises(OperatorFault):
        await store.commit(work, name="test.fault")
    assert await _count(store) == 0


async def test_deferred_constraint_that_fails_at_commit_is_refused(store: Store) -> None:
    async def table(conn: Connection) -> None:
        await conn.execute("CREATE TABLE late (a int UNIQUE DEFERRABLE INITIALLY DEFERRED)")

    async def work(conn: Connection) -> None:
        await conn.execute("INSERT INTO late VALUES (1), (1)")

    await store.commit(table, name="test.table")
    with pytest.raises(Refused, match="23505"):
        await store.commit(work, name="test.deferred")


async def test_work_that_commits_by_itself_breaks_an_invariant(store: Store) -> None:
    async def work(conn: Connection) -> None:
        await conn.execute("COMMIT")

    with pytest.raises(BrokenInvariant):
        await store.commit(work, name="test.own_commit")


async def test_read_cannot_write(store: Store) -> None:
    with pytest.raises(Refused, match="25006"):
        await store.read(_insert, name="test.read")


async def test_absent_server_is_refused_within_a_second(tmp_path: object) -> None:
    store = await Store.open(conninfo=f"host={tmp_path} dbname=futago user=futago", application_name="test")
    took = []
    while not took or (min(took) >= 1 and len(took) < 10):  # the quickest counts: a busy machine holds up some
        began = time.monotonic()
        with pytest.raises(Refused, match="no connection"):
            await store.commit(_insert, name="test.absent")
        took.append(time.monotonic() - began)
    assert min(took) < 1


async def test_connection_lost_before_the_commit_is_refused(store: Store, postgres: Cluster) -> None:
    async def work(conn: Connection) -> None:
        await _insert(conn)
        postgres.sql(f"SELECT pg_terminate_backend({conn.info.backend_pid}, 5000)")
        await conn.execute("SELECT 1")

    with pytest.raises(Refused):
        await store.commit(work, name="test.lost")
    assert await _count(store) == 0


async def test_connection_lost_before_the_commit_and_passed_over_is_refused(store: Store, postgres: Cluster) -> None:
    async def work(conn: Connection) -> None:
        await _insert(conn)
        postgres.sql(f"SELECT pg_terminate_backend({conn.info.backend_pid}, 5000)")
        with pytest.raises(psycopg.Error):
            await conn.execute("SELECT 1")

    with pytest.raises(Refused):
        await store.commit(work, name="test.lost")


async def test_deadline_in_the_work_is_refused_and_nothing_is_committed_later(store: Store, postgres: Cluster) -> None:
    inserted = asyncio.Event()

    async def work(conn: Connection) -> None:
        await _insert(conn)
        inserted.set()
        await conn.execute("SELECT pg_sleep(4)")

    for deadline_s in (0.3, 2.0):
        began = time.monotonic()
        with pytest.raises(Refused, match="no outcome within"):
            await store.commit(work, name="test.slow", deadline_s=deadline_s)
        assert time.monotonic() - began < deadline_s + 4
        if inserted.is_set():
            break
    assert inserted.is_set()
    await _until_slept(postgres, 4)
    assert await _count(store) == 0


async def _until_slept(postgres: Cluster, seconds: int) -> None:
    """Wait until no server process sleeps so long any more."""
    query = f"SELECT 1 FROM pg_stat_activity WHERE state = 'active' AND query = 'SELECT pg_sleep({seconds})'"
    async with asyncio.timeout(60):
        while await asyncio.to_thread(postgres.rows, query, database="postgres"):
            await asyncio.sleep(0.05)


async def test_deadline_while_the_work_waits_for_something_else_is_refused(store: Store) -> None:
    async def work(conn: Connection) -> None:
        await _insert(conn)
        await asyncio.Event().wait()

    with pytest.raises(Refused):
        await store.commit(work, name="test.stuck", deadline_s=0.1)
    assert await _count(store) == 0


async def test_deadline_while_every_line_is_lent_is_refused(database: str) -> None:
    store = await Store.open(conninfo=database, size_max=1, application_name="test")

    begun, go = asyncio.Event(), asyncio.Event()

    async def slow(conn: Connection) -> None:
        begun.set()
        await go.wait()

    async with asyncio.TaskGroup() as group:
        group.create_task(store.commit(slow, name="test.slow", deadline_s=60))
        await begun.wait()
        with pytest.raises(Refused):
            await store.commit(_insert, name="test.starved", deadline_s=0.1)
        go.set()
    await store.commit(_insert, name="test.insert")
    await store.close()


async def test_commit_that_waits_for_an_absent_standby_is_unknown_at_the_deadline_and_is_not_cancelled(
    store: Store, postgres: Cluster
) -> None:
    with postgres.absent_standby():
        begin = postgres.log.stat().st_size
        with pytest.raises(Unknown, match="no outcome"):
            await store.commit(_insert, name="test.hang", deadline_s=2)
        assert "test" in [name for _, name in postgres.waiting()], "the server must still wait, undisturbed"
        assert await _count(store) == 0, "the row must not be visible while it waits"
        assert "cancel" not in postgres.log.read_text()[begin:]
        assert store.counters.unknown == 1
    assert await _count(store) == 1


async def test_cancelled_caller_does_not_cancel_its_commit(store: Store, postgres: Cluster) -> None:
    with postgres.absent_standby():
        begin = postgres.log.stat().st_size
        caller = asyncio.create_task(store.commit(_insert, name="test.cancelled"))
        await _until_waiting(postgres, "test")
        caller.cancel()
        with pytest.raises(asyncio.CancelledError):
            await caller
        await asyncio.sleep(0.3)
        assert "test" in [name for _, name in postgres.waiting()]
        assert await _count(store) == 0
        assert "cancel" not in postgres.log.read_text()[begin:]
        assert store.counters.abandoned == 1
    assert await _count(store) == 1


async def test_caller_cancelled_before_the_commit_leaves_nothing(store: Store, postgres: Cluster) -> None:
    inserted = asyncio.Event()

    async def work(conn: Connection) -> None:
        await _insert(conn)
        inserted.set()
        await conn.execute("SELECT pg_sleep(3)")

    caller = asyncio.create_task(store.commit(work, name="test.cancelled"))
    await inserted.wait()
    await asyncio.sleep(0.1)
    caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller
    await _until_slept(postgres, 3)
    assert await _count(store) == 0
    assert store.counters.abandoned == 0


@pytest.mark.parametrize("how", ["pg_cancel_backend", "pg_terminate_backend"])
async def test_commit_whose_wait_is_ended_by_force_is_unknown_never_done(
    store: Store, postgres: Cluster, how: str
) -> None:
    with postgres.absent_standby():
        caller = asyncio.create_task(store.commit(_insert, name="test.forced"))
        pid = await _until_waiting(postgres, "test")
        postgres.sql(f"SELECT {how}({pid})")
        with pytest.raises(Unknown):
            await caller
    assert await _count(store) == 1, "it was durable on this side: Unknown is the only honest answer"


async def test_store_finds_a_restarted_server_at_once(postgres: Cluster, database: str) -> None:
    store = await Store.open(conninfo=database, application_name="test")

    async def hold(conn: Connection) -> None:
        await conn.execute("SELECT pg_sleep(0.1)")

    took: list[float] = []
    while not took or (min(took) >= 0.2 and len(took) < 8):  # the quickest counts: a busy machine holds up some
        async with asyncio.TaskGroup() as group:
            for _ in range(4):
                group.create_task(store.commit(hold, name="test.hold"))
        postgres.stop()
        with pytest.raises(Refused):
            await store.commit(_insert, name="test.down")
        postgres.start()
        began = time.monotonic()
        await store.read(_nothing, name="test.up")
        took.append(time.monotonic() - began)
    await store.commit(_insert, name="test.up")
    assert min(took) < 0.2
    await store.close()


async def _nothing(conn: Connection) -> None:
    await conn.execute("SELECT 1")


async def test_frozen_server_is_refused_at_the_deadline(store: Store) -> None:
    async def pid(conn: Connection) -> int:
        return conn.info.backend_pid

    backend = await store.read(pid, name="test.pid")
    os.kill(backend, signal.SIGSTOP)
    try:
        with pytest.raises(Refused):
            await store.commit(_insert, name="test.frozen", deadline_s=0.3)
    finally:
        os.kill(backend, signal.SIGCONT)
    assert await _count(store) == 0


async def test_caller_inside_a_timeout_gets_its_timeout_at_once(store: Store, postgres: Cluster) -> None:
    with postgres.absent_standby():
        began = time.monotonic()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(2):
                await store.commit(_insert, name="test.timeout", deadline_s=60)
        assert time.monotonic() - began < 30
        assert "test" in [name for _, name in postgres.waiting()]


def test_the_hook_that_keeps_psycopg_from_cancelling_exists_in_this_version() -> None:
    assert "_try_cancel" in vars(psycopg.AsyncConnection)
    assert _Uncancellable._try_cancel is not psycopg.AsyncConnection._try_cancel


class _Counted(Lines):
    """Lines that know how many are opened at the same time."""

    now = 0
    most = 0
    opened = 0

    async def _connect(self) -> Line:
        self.now += 1
        self.most = max(self.most, self.now)
        try:
            line = await super()._connect()
        finally:
            self.now -= 1
        self.opened += 1
        return line


async def test_crowd_after_a_switch_opens_few_connections_at_a_time_and_all_are_served(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(line, "CONNECTING_S_MAX", 60.0)  # after this time nobody waits for a turn
    lines = _Counted(conninfo=database, size_max=8, application_name="crowd")
    store = Store(lines, Log())
    counts = await asyncio.gather(*(_count(store) for _ in range(40)))
    assert len(counts) == 40
    assert lines.most <= CONNECTING_MAX
    assert lines.opened <= 8
    await store.close()


async def test_warmed_store_opens_no_connection_for_the_first_who_come(database: str) -> None:
    lines = _Counted(conninfo=database, size_max=8, application_name="warm")
    store = Store(lines, Log())

    async def look(conn: Connection) -> None:
        await conn.execute("SELECT 1")

    await store.warm(look, name="test.warm")
    opened = lines.opened
    assert 1 <= opened <= CONNECTING_MAX
    await _count(store)
    assert lines.opened == opened
    await store.close()


async def test_warming_without_a_server_is_no_fault_and_does_not_last() -> None:
    store = await Store.open(conninfo="host=/nonexistent dbname=x connect_timeout=2", application_name="cold")

    async def look(conn: Connection) -> None:
        raise AssertionError("nobody is there")

    async with asyncio.timeout(9):
        await store.warm(look, name="test.warm")
    assert store.counters.refused == CONNECTING_MAX
