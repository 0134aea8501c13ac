"""The texts of events: closed ranges get an index, and a search finds in them and above them what reading all would find."""

from __future__ import annotations

import asyncio
from pathlib import Path

import psycopg
import pytest
from journals import all_rows, settings

from futago.intake import event_text
from futago.intake.keeping import Keeper
from futago.intake.options import OptionsWatch
from futago.runtime.engine import EngineContext, Outward
from futago.runtime.log import Log
from futago.store.commit import Connection, Store
from futago.web import event_search
from futago.web.model import EventCount, EventFilter, EventPage, Order, Priority

ADD = (
    "INSERT INTO event (occurred_utc, priority, source, monitor_name, message, epoch)"
    " VALUES (now(), %s, 'message', 'm', %s, 1) RETURNING event_id"
)


@pytest.fixture(autouse=True)
def small_segments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_text, "SEGMENT_ROWS", 3)


@pytest.fixture
def keeper(store: Store) -> Keeper:
    context = EngineContext(settings=settings(), store=store, epoch=7, outward=Outward(), log=Log())
    return Keeper(context, OptionsWatch(Path("/nonexistent")))


async def add(store: Store, *texts: str, priority: str = "info") -> list[int]:
    async def work(conn: Connection) -> list[int]:
        ids = []
        for text in texts:
            row = await (await conn.execute(ADD, (priority, text))).fetchone()
            assert row is not None
            ids.append(int(row[0]))
        return ids

    return await store.commit(work, name="test.events")


async def all_steps(keeper: Keeper) -> int:
    """Take steps until there is nothing to do; events of a transaction that has just ended may have a lock for a moment."""
    steps = 0
    async with asyncio.timeout(30):
        while await keeper.step_events() or keeper._full is not None:
            steps += 1
            await asyncio.sleep(0.01)
    return steps


async def found(store: Store, **wanted: object) -> list[int]:
    async def work(conn: Connection) -> list[int]:
        return [one.event_id for one in await event_search.events(conn, EventPage.model_validate(wanted), owners=None)]

    return await store.read(work, name="test.search")


async def counted(store: Store, **wanted: object) -> EventCount:
    async def work(conn: Connection) -> EventCount:
        return await event_search.event_count(conn, EventFilter.model_validate(wanted), owners=None)

    return await store.read(work, name="test.count")


async def test_a_text_in_another_owners_event_is_found_by_nobody_else(store: Store, keeper: Keeper) -> None:
    ids = await add(store, *(f"net {n} ended" for n in range(10)))
    change = "UPDATE event SET owner_role = 'night' WHERE event_id = ANY(%s)"
    await store.commit(lambda conn: conn.execute(change, (ids[::2],)), name="test.owner")
    for is_indexed in (False, True):
        if is_indexed:
            assert await all_steps(keeper) >= 3
        for owners, seen in ((None, ids), (["night"], ids), ([], ids[1::2]), (["day"], ids[1::2])):

            async def work(conn: Connection, owners: list[str] | None = owners) -> tuple[list[int], int]:
                found = await event_search.events(conn, EventPage(text="ended"), owners=owners)
                return [e.event_id for e in found], (
                    await event_search.event_count(conn, EventFilter(text="ended"), owners=owners)
                ).count

            assert await store.read(work, name="test.search") == (seen, len(seen))


async def test_a_text_is_found_in_closed_ranges_and_above_them_in_either_order(store: Store, keeper: Keeper) -> None:
    ids = await add(store, *(f"{'Disk' if n % 2 else 'fan'} {n} of 100%_full\\" for n in range(10)))
    disks = ids[1::2]
    for is_indexed in (False, True):
        if is_indexed:
            assert await all_steps(keeper) >= 3
        assert await found(store, text="dISK") == disks
        assert await found(store, text="disk", order=Order.DESCENDING, limit=3) == disks[:1:-1]
        assert await found(store, text="disk", after=ids[1], before=ids[7]) == disks[1:3]
        assert await found(store, text="disk", priority=Priority.CRITICAL) == []
        assert await found(store, text="100%_FULL\\") == ids
        assert await found(store, text="100__full") == await found(store, text="d%k") == []
        assert await found(store, text="an") == ids[::2]
        count = await counted(store, text="disk")
        assert (count.count, count.last_event_id) == (5, disks[-1])
        assert (await counted(store, text="nowhere")).last_event_id is None
    assert await found(store) == ids
    assert (await counted(store)).count == 10


async def test_closed_ranges_follow_each_other_and_have_an_index_of_trigrams(
    database: str, store: Store, keeper: Keeper
) -> None:
    ids = await add(store, *"abcdefgh")
    await all_steps(keeper)
    segments = await all_rows(database, "SELECT segment, first_id, next_id FROM event_text_segment ORDER BY 1")
    assert segments == [(1, 0, ids[3]), (2, ids[3], ids[6])]
    trigrams = "SELECT count(*) FROM pg_indexes WHERE tablename = 'event_text_2' AND indexdef LIKE '%gin_trgm_ops%'"
    assert await all_rows(database, trigrams) == [(1,)]
    assert await all_rows(database, "SELECT text FROM event_text_2 ORDER BY event_id") == [("d",), ("e",), ("f",)]


async def test_a_range_is_not_closed_while_someone_who_drew_an_id_in_it_has_not_committed(
    database: str, store: Store, keeper: Keeper
) -> None:
    async with await psycopg.AsyncConnection.connect(database) as late:
        row = await (await late.execute(ADD, ("info", "the late one"))).fetchone()
        assert row is not None
        later = await add(store, *"abcd")
        assert row[0] < later[0]
        assert not await keeper.step_events()
        assert not await keeper.step_events()
        await late.commit()
    await all_steps(keeper)
    segments = await all_rows(database, "SELECT first_id, next_id FROM event_text_segment")
    assert segments == [(0, later[3])]
    assert await found(store, text="late") == [row[0]]


async def test_whoever_begins_to_write_after_the_range_was_seen_does_not_hold_it_up(
    database: str, store: Store, keeper: Keeper
) -> None:
    async with await psycopg.AsyncConnection.connect(database) as long:
        row = await (await long.execute(ADD, ("info", "holds the first look up"))).fetchone()
        await add(store, *"abcd")
        assert not await keeper.step_events()
        async with await psycopg.AsyncConnection.connect(database) as other:
            await other.execute(ADD, ("info", "begun later"))
            await long.commit()
            async with asyncio.timeout(30):
                while not await keeper.step_events():
                    await asyncio.sleep(0.01)
    assert row is not None
    assert await found(store, text="holds") == [row[0]]


async def test_the_texts_of_events_that_are_gone_are_forgotten(database: str, store: Store, keeper: Keeper) -> None:
    ids = await add(store, *(f"text {n}" for n in range(8)))
    await all_steps(keeper)
    async with await psycopg.AsyncConnection.connect(database) as conn:
        await conn.execute("DELETE FROM event WHERE event_id < %s", (ids[4],))
    await all_steps(keeper)
    assert await all_rows(database, "SELECT segment FROM event_text_segment") == [(2,)]
    assert await all_rows(database, "SELECT to_regclass('event_text_1')::text") == [(None,)]
    assert await found(store, text="text") == ids[4:]
