"""Repeats that make no event: which they are, how many there were, and that no switch or crash changes it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from journals import Journal, add_monitor, all_rows, engine, eventually, later

from futago.intake.consume import Places
from futago.intake.suppress import Repeats, Said, Summary, repeat_key
from futago.inventory.definitions import parse
from futago.runtime.clock import S
from futago.runtime.faults import OperatorFault, Unknown
from futago.store.commit import Store

MINUTE = 60 * S
TOLD = "SELECT message, detail->>'repeats' FROM event ORDER BY event_id"


def said(text: str = "down") -> Said:
    return Said(1, "critical", "links", "web1", text)


def test_a_repeat_within_the_window_is_counted_and_the_next_after_it_is_an_event() -> None:
    repeats = Repeats()
    took = [repeats.is_repeat(b"k", t * S, MINUTE, said(str(t))) for t in (0, 1, 59, 60, 61)]
    assert took == [False, True, True, False, True]
    assert repeats.ended == [Summary(2, MINUTE, said("59"))]


def test_a_window_that_a_stream_has_passed_is_over_and_says_what_was_in_it_once() -> None:
    repeats = Repeats()
    for key in (b"a", b"b", b"b"):
        repeats.is_repeat(key, 0, MINUTE, said(key.decode()))
    repeats.pass_time(MINUTE - 1)
    assert repeats.ended == []
    repeats.pass_time(MINUTE)
    repeats.pass_time(2 * MINUTE)
    assert repeats.ended == [Summary(1, MINUTE, said("b"))]
    assert len(repeats) == 0
    assert repeats.changes().deleted == [b"a", b"b"]


def test_a_late_message_of_the_same_burst_is_a_repeat_and_an_older_one_leaves_the_window_alone() -> None:
    repeats = Repeats()
    assert not repeats.is_repeat(b"k", 1000 * S, MINUTE, said())
    assert repeats.is_repeat(b"k", 941 * S, MINUTE, said())
    assert not repeats.is_repeat(b"k", 900 * S, MINUTE, said())
    assert repeats.is_repeat(b"k", 1059 * S, MINUTE, said())


def test_too_many_windows_end_the_earliest_ones_early_and_lose_no_count() -> None:
    repeats = Repeats(entries_max=2)
    for n, key in enumerate([b"a", b"a", b"b", b"c"]):
        repeats.is_repeat(key, n, MINUTE, said(key.decode()))
    assert len(repeats) == 2
    assert repeats.ended == [Summary(1, MINUTE, said("a"))]


def test_keys_tell_their_parts_apart() -> None:
    assert repeat_key("ab", "c") != repeat_key("a", "bc")


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 30), st.booleans()), max_size=40), st.integers(1, 8))
def test_stored_and_loaded_at_any_point_it_goes_on_as_if_nothing_had_been(
    steps: list[tuple[str, int, bool]], length: int
) -> None:
    """Two of the same, one of which is written down and read again after every step; and nothing is ever lost."""
    one, rows, events, told = Repeats(), {}, 0, 0
    for key, time_ns, is_mark in steps:
        other = Repeats(rows.items())
        for each in (one, other):
            if is_mark:
                each.pass_time(time_ns)
            else:
                found = each.is_repeat(key.encode(), time_ns, length, said())
        events += not is_mark and not found
        changes = other.changes()
        rows |= dict(changes.windows)
        for gone in changes.deleted:
            del rows[gone]
        assert one.ended == other.ended
        told += sum(summary.count for summary in one.ended)
        one.ended = []
    one.pass_time(100)
    assert dict(one._windows) == {}
    assert events + told + sum(s.count for s in one.ended) == sum(not is_mark for _, _, is_mark in steps)


def monitor(suppress: str) -> str:
    return (
        "kind: Monitor\nname: links\ncheck: syslog\nscope: '*'\npatterns:\n"
        f"  - {{match: 'link (?P<port>.) down', priority: critical, suppress: {suppress}}}\n"
    )


def test_what_is_written_is_checked() -> None:
    spec = parse(monitor("{for: 10m, by: [host, port]}"))[0].object.model_dump(mode="json")
    assert spec["patterns"][0]["suppress"] == {"for": "10m", "by": ["host", "port"]}
    for wrong, complaint in (
        ("{for: 10m, by: [prt]}", "`suppress.by` names `prt`"),
        ("{for: 10ms}", "from 1s to 7d"),
        ("{by: [host]}", "`patterns.*for` is missing"),
    ):
        with pytest.raises(OperatorFault, match=complaint):
            parse(monitor(wrong))


class Disks:
    """The journals of both members, on both members' disks."""

    def __init__(self, tmp: Path) -> None:
        self.m1 = Places(tmp / "m1/own", tmp / "m1/peer", tmp / "m1/sock")
        self.m2 = Places(tmp / "m2/own", tmp / "m2/peer", tmp / "m2/sock")
        self.of1 = Journal(self.m1.own, self.m2.copy)
        self.of2 = Journal(self.m2.own, self.m1.copy)

    def down(self, at_s: float, *ports: str) -> None:
        """Both members receive it."""
        for journal in (self.of1, self.of2):
            journal.add(*(f"<13>{at_s}: link {port} down".encode() for port in ports), time_ns=later(at_s))

    def mark(self, at_s: float) -> None:
        for journal in (self.of1, self.of2):
            journal.mark(later(at_s))

    async def consumed(self, database: str) -> None:
        for journal in (self.of1, self.of2):
            query = f"SELECT sequence FROM intake_position WHERE incarnation = '{journal.incarnation.id}'"
            await eventually(database, query, journal.sequence)


@pytest.fixture
def disks(tmp_path: Path) -> Iterator[Disks]:
    made = Disks(tmp_path)
    made.mark(0)
    yield made
    made.of1.close()
    made.of2.close()


RULE = {
    "match": r"link (?P<port>.) down",
    "priority": "critical",
    "message": "{port} down",
    "suppress": {"for": "1m", "by": ["host", "port"]},
}


async def test_the_new_primary_suppresses_what_the_old_one_would_have(
    database: str, store: Store, disks: Disks
) -> None:
    await add_monitor(database, "links", "syslog", RULE)  # type: ignore[arg-type]
    async with engine(store, disks.m1, me="m1"):
        disks.down(1, "a", "a", "b")
        await disks.consumed(database)
        assert await all_rows(database, TOLD) == [("a down", None), ("b down", None)]
    async with engine(store, disks.m2, me="m2", epoch=8):
        disks.down(30, "a", "b", "c")
        disks.mark(62)
        await disks.consumed(database)
        assert await all_rows(database, "SELECT message FROM event WHERE epoch = 8") == [("c down",)]
    async with engine(store, disks.m1, me="m1", epoch=9):
        disks.mark(80)  # the windows of a and b ended at 61 and are passed by more than ten seconds
        disks.down(81, "a")
        await disks.consumed(database)
    after = await all_rows(database, "SELECT message, detail->>'repeats' FROM event WHERE epoch = 9 ORDER BY message")
    assert after == [("a down", None), ("repeated 2 times: a down", "2"), ("repeated once: b down", "1")]
    assert await all_rows(database, "SELECT count(*) FROM intake_repeat") == [(2,)]


@pytest.mark.parametrize("fails_after", [False, True])
async def test_a_commit_of_unknown_outcome_changes_no_count(
    database: str, store: Store, disks: Disks, monkeypatch: pytest.MonkeyPatch, fails_after: bool
) -> None:
    await add_monitor(database, "links", "syslog", RULE)  # type: ignore[arg-type]
    commit, calls = Store.commit, [0]

    async def doubtful(self: Store, work, *, name: str, deadline_s: float = 10):  # type: ignore[no-untyped-def]
        if name != "intake.batch":
            return await commit(self, work, name=name, deadline_s=deadline_s)
        calls[0] += 1
        if calls[0] % 2 == 0:
            return await commit(self, work, name=name, deadline_s=deadline_s)
        if fails_after:
            await commit(self, work, name=name, deadline_s=deadline_s)
        raise Unknown("the line was cut")

    monkeypatch.setattr(Store, "commit", doubtful)
    async with engine(store, disks.m1):
        for n in range(1, 7):
            disks.down(n, "a", "b", "a")
            await disks.consumed(database)
        disks.mark(300)
        await disks.consumed(database)
        await asyncio.sleep(0)
    assert sorted(map(str, await all_rows(database, TOLD))) == sorted(
        map(
            str,
            [
                ("a down", None),
                ("b down", None),
                ("repeated 11 times: a down", "11"),
                ("repeated 5 times: b down", "5"),
            ],
        )
    )
