"""The history of runs on a real PostgreSQL: what is found in it again, and how long things took."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import TypeVar

import pytest

from futago.inventory.apply import apply
from futago.inventory.definitions import parse
from futago.jobs import history
from futago.jobs.sessions import start_session
from futago.store.commit import Connection, Store

T = TypeVar("T")
NET = """\
kind: Host
name: h1
address: 10.0.0.1
---
kind: JobNet
name: n
jobs:
  - {name: a, host: h1, command: "true"}
  - {name: b, host: h1, command: "true", after: [a]}
  - {name: c, host: h1, command: "true", after: [b]}
"""
NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


class History:
    def __init__(self, store: Store) -> None:
        self.store = store

    async def do(self, work: Callable[[Connection], Awaitable[T]]) -> T:
        return await self.store.commit(work, name="test")

    async def one(self, query: str) -> int:
        async def work(conn: Connection) -> int:
            row = await (await conn.execute(query.encode())).fetchone()
            assert row
            return int(row[0])

        return await self.do(work)

    async def ended(self, *, days_ago: float, output: str = "", took_s: float = 60.0, state: str = "normal") -> int:
        """Make a session of three jobs that ended so long ago; return its number."""
        end = NOW - timedelta(days=days_ago)

        async def work(conn: Connection) -> int:
            session = await start_session(conn, "n", trigger="test")
            begun = end - timedelta(seconds=took_s)
            await conn.execute(
                "UPDATE job_session SET state = %s, created_utc = %s, started_utc = %s, ended_utc = %s WHERE session_id = %s",
                (state, begun, begun, end, session),
            )
            await conn.execute(
                "UPDATE job_run SET state = 'normal', started_utc = %s, ended_utc = %s, output = %s, output_bytes = 9"
                " WHERE session_id = %s",
                (begun, end, output, session),
            )
            return session

        return await self.do(work)


@pytest.fixture
async def past(database: str) -> AsyncIterator[History]:
    store = await Store.open(conninfo=database, application_name="test")
    made = History(store)
    await made.do(lambda c: apply(c, parse(NET)))
    yield made
    await store.close()


async def test_output_is_searched_as_it_is_newest_first(past: History) -> None:
    await past.ended(days_ago=3, output="begun\n100% Of_it\nend")
    newest = await past.ended(days_ago=2, output="all\nmore: 100% of_it, again 100% of_it")
    await past.ended(days_ago=1, output="1000 ofxit")
    await past.ended(days_ago=30, output="100% of_it")
    since = NOW - timedelta(days=7)
    found = await past.do(lambda c: history.search_output(c, "100% OF_", since_utc=since, limit=4))
    assert [(f.session_id, f.job_name) for f in found] == [
        (newest, "a"),
        (newest, "b"),
        (newest, "c"),
        (newest - 1, "a"),
    ]
    assert found[0].line == "more: 100% of_it, again 100% of_it"
    assert found[3].line == "100% Of_it"
    other = await past.do(lambda c: history.search_output(c, "100%", since_utc=since, limit=4, net="m"))
    assert other == []


async def test_durations_are_those_of_the_newest_ended_sessions_oldest_first(past: History) -> None:
    for days, took in ((3, 30.0), (2, 20.0), (1, 10.0)):
        await past.ended(days_ago=days, took_s=took)
    await past.do(lambda c: start_session(c, "n", trigger="test"))
    rows = await past.do(lambda c: history.read_sessions_took(c, "n", owners=None, count=2))
    assert [r.seconds for r in rows] == [20.0, 10.0]
    jobs = await past.do(lambda c: history.read_jobs_took(c, [r.session_id for r in rows]))
    assert [(j.job_name, j.seconds) for j in jobs if j.job_name == "b"] == [("b", 20.0), ("b", 10.0)]
