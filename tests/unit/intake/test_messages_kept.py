"""Kept messages: written with the positions, in segments that are closed, indexed and dropped one by one."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import psycopg
import pytest
from journals import Journal, add_monitor, all_rows, engine, eventually, execute, settings

from futago.intake import kept
from futago.intake.consume import Places
from futago.intake.keeping import Keeper
from futago.intake.kept import Kept, Segment, surplus
from futago.intake.options import Messages, OptionsWatch, parse
from futago.intake.syslog import severity_of
from futago.runtime.engine import EngineContext, Outward
from futago.runtime.faults import OperatorFault, Unknown
from futago.runtime.log import Log
from futago.store.commit import Connection, Store

TODAY = date(2026, 11, 22)
NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)


@pytest.fixture
def places(tmp_path: Path) -> Places:
    return Places(tmp_path / "own", tmp_path / "peer", tmp_path / "sock", tmp_path / "intake.toml")


@pytest.fixture
def journal(places: Places) -> Iterator[Journal]:
    made = Journal(places.own)
    yield made
    made.close()


def keep_all(places: Places, more: str = "") -> None:
    places.options.touch(0o600)
    places.options.write_text(f'[messages]\nkeep = "all"\n{more}')


def message(text: str, at: datetime = NOON) -> Kept:
    return Kept(int(at.timestamp()) * 10**9, "web1", "10.0.0.1", "syslog", 3, text)


async def write(store: Store, *texts: str, today: date = TODAY, at: datetime = NOON) -> None:
    async def work(conn: Connection) -> None:
        await kept.write(conn, [message(text, at) for text in texts], today=today)

    await store.commit(work, name="test.kept")


async def step(store: Store, wanted: Messages) -> bool:
    context = EngineContext(settings=settings(), store=store, epoch=7, outward=Outward(), log=Log())
    return await Keeper(context, OptionsWatch(Path("/nonexistent"))).step(wanted)


async def test_every_message_is_kept_once_with_what_it_said(
    database: str, store: Store, places: Places, journal: Journal
) -> None:
    keep_all(places)
    odd = "<11>tab\tback\\slash\r\nline 日本".encode()
    async with engine(store, places):
        journal.add(odd, b"<13>same", b"<13>same", b"no priority", source="2001:db8::1")
        await eventually(database, "SELECT count(*) FROM message", 4)
    found = await all_rows(database, "SELECT host_name, host(address), kind, severity, text FROM message ORDER BY 4, 5")
    head = ("2001:db8::1", "2001:db8::1", "syslog")
    assert found[:3] == [(*head, 3, "tab\tback\\slash\r\nline 日本"), (*head, 5, "same"), (*head, 5, "same")]
    assert found[3] == (*head, None, "no priority")


async def test_without_a_setting_only_what_matches_a_monitor_that_keeps_is_kept(
    database: str, store: Store, places: Places, journal: Journal
) -> None:
    rule = {"match": "disk", "priority": "info", "suppress": {"for": "1h"}}
    await add_monitor(database, "disks", "syslog", rule)  # type: ignore[arg-type]
    await execute(database, """UPDATE monitor SET spec = spec || '{"keep": true}'""")
    async with engine(store, places):
        journal.add(b"<13>disk 1", b"<13>disk 2", b"<13>other")
        await eventually(database, "SELECT sum(sequence)::int FROM intake_position", 3)
    assert await all_rows(database, "SELECT text FROM message ORDER BY message_id") == [("disk 1",), ("disk 2",)]
    assert await all_rows(database, "SELECT message FROM event") == [("disk 1",)]


async def test_a_commit_of_unknown_outcome_keeps_nothing_twice(
    database: str, store: Store, places: Places, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep_all(places)
    monkeypatch.setattr(kept, "SEGMENT_ROWS", 3)
    commit, calls = Store.commit, [0]

    async def doubtful(self: Store, work, *, name: str, deadline_s: float = 10):  # type: ignore[no-untyped-def]
        done = await commit(self, work, name=name, deadline_s=deadline_s)
        calls[0] += name == "intake.batch"
        if name == "intake.batch" and calls[0] % 2:
            raise Unknown("the line was cut")
        return done

    monkeypatch.setattr(Store, "commit", doubtful)
    async with engine(store, places):
        for n in range(4):
            journal.add(*(b"<13>n=%d" % k for k in range(5 * n, 5 * n + 5)))
            await eventually(database, "SELECT sum(sequence)::int FROM intake_position", 5 * n + 5)
    found = await all_rows(database, "SELECT text FROM message ORDER BY message_id")
    assert sorted(found) == sorted((f"n={k}",) for k in range(20))
    counted = await all_rows(database, "SELECT segment, first_id, next_id, is_closed FROM message_segment ORDER BY 1")
    assert counted == [(1, 1, 6, True), (2, 6, 11, True), (3, 11, 16, True), (4, 16, 21, False)]


async def test_a_new_day_begins_a_new_segment(database: str, store: Store) -> None:
    await write(store, "a")
    await write(store, "b", today=TODAY + timedelta(days=1))
    found = await all_rows(database, "SELECT day, is_closed FROM message_segment ORDER BY segment")
    assert found == [(TODAY, True), (TODAY + timedelta(days=1), False)]


async def test_a_dump_that_reads_everything_stands_in_nobody_s_way(database: str, store: Store) -> None:
    await write(store, "a")
    async with await psycopg.AsyncConnection.connect(database) as reader:
        await reader.execute("SELECT count(*) FROM message")  # and stays in its transaction
        await write(store, "b", today=TODAY + timedelta(days=1))
    assert await all_rows(database, "SELECT count(*) FROM message") == [(2,)]


async def test_closed_segments_are_indexed_the_newest_first_then_dropped_by_count_and_age(
    database: str, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kept, "SEGMENT_ROWS", 2)
    now = datetime.now(UTC)
    for n in range(4):
        await write(store, f"a{n}", f"b{n}", today=now.date(), at=now - timedelta(hours=30 - n))
    left = "SELECT array_agg(segment ORDER BY segment) FROM message_segment"
    indexed = "SELECT array_agg(segment ORDER BY segment) FROM message_segment WHERE is_indexed"
    plenty = Messages(days=7, rows=100)
    assert await step(store, plenty)
    assert await all_rows(database, indexed) == [([3],)]
    assert await step(store, plenty)
    assert await step(store, plenty)
    assert not await step(store, plenty)
    assert await all_rows(database, indexed) == [([1, 2, 3],)]
    trigrams = "SELECT count(*) FROM pg_indexes WHERE tablename = 'message_1' AND indexdef LIKE '%gin_trgm_ops%'"
    assert await all_rows(database, trigrams) == [(1,)]
    assert await step(store, Messages(days=7, rows=6))
    assert not await step(store, Messages(days=7, rows=6))
    assert await all_rows(database, left) == [([2, 3, 4],)]
    assert await step(store, Messages(days=1, rows=100))
    assert await step(store, Messages(days=1, rows=100))
    assert not await step(store, Messages(days=1, rows=100))
    assert await all_rows(database, left) == [([4],)]
    assert await all_rows(database, "SELECT text FROM message ORDER BY message_id") == [("a3",), ("b3",)]


async def test_a_day_that_is_over_closes_its_segment_although_nothing_follows(database: str, store: Store) -> None:
    await write(store, "a", today=datetime.now(UTC).date() - timedelta(days=1))
    assert await step(store, Messages())
    assert await all_rows(database, "SELECT is_closed FROM message_segment") == [(True,)]


def test_the_open_segment_is_never_dropped() -> None:
    def segment(number: int, rows: int, *, is_closed: bool) -> Segment:
        return Segment(number, TODAY, 0, rows, NOON, is_closed, False)

    only = [segment(1, 100, is_closed=False)]
    assert surplus(only, rows_max=1, oldest_utc=NOON + timedelta(days=1)) is None
    two = [segment(1, 100, is_closed=True), segment(2, 5, is_closed=False)]
    assert surplus(two, rows_max=6, oldest_utc=NOON) is None
    assert surplus(two, rows_max=5, oldest_utc=NOON) == two[0]


def test_settings_of_what_is_kept_are_checked(tmp_path: Path) -> None:
    assert parse('[messages]\nkeep = "all"\ndays = 30', where=tmp_path).messages == Messages("all", 30)
    for wrong in ('keep = "some"', "days = 0", "rows = 1000000000", "row = 1"):
        with pytest.raises(OperatorFault):
            parse(f"[messages]\n{wrong}", where=tmp_path)


def test_severities_are_those_of_the_priority() -> None:
    assert [severity_of(data) for data in (b"<0>a", b"<165>a", b"<1234>a", b"a <3>")] == [0, 5, None, None]
