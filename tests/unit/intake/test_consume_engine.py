"""The consuming engine on real journals and a real PostgreSQL: each message once, whatever fails in between."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from journals import Journal, add_monitor, all_rows, engine, eventually, execute, later

from futago.intake.consume import ConsumeEngine, Places
from futago.intake.model import Mark, Protocol
from futago.runtime.faults import Refused, Unknown
from futago.store.commit import Store

NUMBERED = {"match": r"SEQ=(?P<seq>\S+)", "priority": "info", "message": "{seq}"}
SENT = "SELECT message FROM event ORDER BY event_id"


def dated(*numbers: int) -> list[bytes]:
    return [b"<13>Nov 22 11:00:00 web1 app[7]: SEQ=%d" % n for n in numbers]


def undated(*numbers: int) -> list[bytes]:
    return [b"<13>SEQ=%d" % n for n in numbers]


class Disks:
    """The journals of both members, on both members' disks."""

    def __init__(self, tmp: Path) -> None:
        self.m1 = Places(tmp / "m1/own", tmp / "m1/peer", tmp / "m1/sock")
        self.m2 = Places(tmp / "m2/own", tmp / "m2/peer", tmp / "m2/sock")
        self.of1 = Journal(self.m1.own, self.m2.copy)
        self.of2 = Journal(self.m2.own, self.m1.copy)
        self.of1.mark()
        self.of2.mark()

    def close(self) -> None:
        self.of1.close()
        self.of2.close()


@pytest.fixture
def disks(tmp_path: Path) -> Iterator[Disks]:
    made = Disks(tmp_path)
    yield made
    made.close()


async def messages(database: str) -> list[str]:
    return [str(row[0]) for row in await all_rows(database, SENT)]


async def consumed(database: str, disks: Disks) -> None:
    for member, journal in (("m1", disks.of1), ("m2", disks.of2)):
        await eventually(
            database,
            f"SELECT sequence FROM intake_position WHERE member_name = '{member}'"
            f" AND incarnation = '{journal.incarnation.id}'",
            journal.sequence,
        )


async def test_both_copies_of_a_message_make_one_event(database: str, store: Store, disks: Disks) -> None:
    await add_monitor(database, "numbered", "syslog", NUMBERED, notify=["ops", 'a "b"'])
    async with engine(store, disks.m1):
        disks.of1.add(*dated(1, 2, 2, 3))
        disks.of2.add(*dated(1, 2, 2, 4), protocol=Protocol.SYSLOG_TCP)
        await consumed(database, disks)
    assert sorted(await messages(database)) == ["1", "2", "2", "3", "4"]
    row = (await all_rows(database, "SELECT priority, source, monitor_name, host_name, epoch, notify FROM event"))[0]
    assert row == ("info", "message", "numbered", "10.0.0.50", 7, ["ops", 'a "b"'])
    hosts = await all_rows(database, "SELECT host_name, host(address), is_registered FROM host")
    assert hosts == [("10.0.0.50", "10.0.0.50", False)]


async def test_any_bytes_become_an_event(database: str, store: Store, disks: Disks) -> None:
    await add_monitor(database, "all", "syslog", {"match": "(?s).", "priority": "warning"})
    odd = [
        b"\x00-",
        b"<13>a\x00b",
        b"\xff\xfe",
        "日本語\t\\x\r\n\\.".encode(),
        b"\x93\xfa\x96\x7b SJIS",
        b"'; drop",
        b"\\",
    ]
    async with engine(store, disks.m1):
        disks.of1.add(*odd)
        await consumed(database, disks)
    found = await messages(database)
    assert len(found) == len(odd)
    assert "日本 SJIS" in found
    assert "a\\x00b" in found
    assert "日本語\t\\x\r\n\\." in found


async def test_the_sender_is_found_by_its_address_then_by_the_name_in_its_message(
    database: str, store: Store, disks: Disks
) -> None:
    await execute(
        database,
        "INSERT INTO host (host_name, address, is_registered) VALUES ('web1', '10.0.0.1', true),"
        " ('relay', '10.0.0.2', true), ('db1', NULL, true)",
    )
    await add_monitor(database, "all", "syslog", {"match": "n=(?P<n>.)", "priority": "info", "message": "{n}"})
    async with engine(store, disks.m1):
        head = b"<13>Nov 22 11:00:00 "
        disks.of1.add(head + b"web1 a: n=1", source="10.0.0.1")
        disks.of1.add(head + b"web1 a: n=2", source="10.0.0.2")
        disks.of1.add(head + b"DB1.example.org a: n=3", head + b"nobody a: n=4", source="10.0.0.9")
        disks.of1.add(b'<13>1 - web1 a - - [x@1 k="v"] n=5', source="fd00::1")
        await consumed(database, disks)
    found = await all_rows(database, "SELECT message, host_name, detail->'structured' FROM event ORDER BY message")
    assert found == [
        ("1", "web1", None),
        ("2", "relay", None),
        ("3", "db1", None),
        ("4", "10.0.0.9", None),
        ("5", "web1", {"x@1": {"k": "v"}}),
    ]
    unregistered = await all_rows(database, "SELECT host_name FROM host WHERE NOT is_registered")
    assert unregistered == [("10.0.0.9",)]


async def test_a_trap_sent_by_two_processes_makes_one_event(database: str, store: Store, disks: Disks) -> None:
    await add_monitor(
        database, "traps", "snmptrap", {"match": r"trapOID=1\.3\.6\.1\.6\.3\.1\.1\.5\.3", "priority": "critical"}
    )
    head = (
        "302f020101040670 75626c6963a7220204{id}0201000201003014301206 0a2b06010603010104010006 092b06010603010105 03"
    )
    raw = [bytes.fromhex(head.replace(" ", "").replace("0204{id}", "0204" + i)) for i in ("00000001", "00000002")]
    async with engine(store, disks.m1):
        disks.of1.add(fixed(raw[0]), protocol=Protocol.SNMP_UDP)
        disks.of2.add(fixed(raw[1]), protocol=Protocol.SNMP_UDP)
        disks.of1.add(b"\x30\x03garbage", protocol=Protocol.SNMP_UDP)
        await consumed(database, disks)
    assert await messages(database) == ["trapOID=1.3.6.1.6.3.1.1.5.3"]


def fixed(raw: bytes) -> bytes:
    """A v2c trap with one varbind, its lengths put right."""
    community = b"\x04\x06public"
    request_id = raw[raw.index(b"\x02\x04") : raw.index(b"\x02\x04") + 6]
    varbind = bytes.fromhex("060a2b06010603010104010006092b0601060301010503")
    listed = b"\x30" + bytes([len(varbind) + 2]) + b"\x30" + bytes([len(varbind)]) + varbind
    pdu = request_id + b"\x02\x01\x00\x02\x01\x00" + listed
    body = b"\x02\x01\x01" + community + b"\xa7" + bytes([len(pdu)]) + pdu
    return b"\x30" + bytes([len(body)]) + body


async def test_the_other_member_goes_on_exactly_there(database: str, store: Store, disks: Disks) -> None:
    await add_monitor(database, "numbered", "syslog", NUMBERED)
    async with engine(store, disks.m1, me="m1"):
        disks.of1.add(*undated(*range(50)), places=[0])  # the last of them never reached the other's copy
        disks.of2.add(*undated(*range(40)))
        await consumed(database, disks)
    async with engine(store, disks.m2, me="m2", epoch=8):
        disks.of2.add(*undated(*range(40, 60)))
        await consumed(database, disks)
    assert sorted(map(int, await messages(database))) == list(range(60))


@pytest.mark.parametrize("is_alone", [True, False])
async def test_undated_messages_are_not_repeated_when_the_other_stream_is_consumed_late_and_by_the_other_member(
    database: str, store: Store, disks: Disks, is_alone: bool
) -> None:
    """Half a minute of messages had their effect from one journal before the other one is read at all."""
    await add_monitor(database, "numbered", "syslog", NUMBERED)
    async with engine(store, disks.m1, me="m1", is_alone=is_alone):
        for n in range(30):
            disks.of1.add(*undated(n), time_ns=later(n))
            disks.of1.mark(later(n))
            disks.of2.add(*undated(n), time_ns=later(n), places=[0])  # not in the copy that the first one reads
            disks.of2.mark(later(n))
        await eventually(database, "SELECT count(*) FROM event", 30)
    async with engine(store, disks.m2, me="m2", epoch=8):
        disks.of2.add(*undated(30), time_ns=later(30))
        disks.of2.mark(later(60))
        await consumed(database, disks)
    assert sorted(map(int, await messages(database))) == list(range(31))


async def test_datagrams_that_are_drained_after_a_stop_find_their_twins_although_a_mark_came_first(
    database: str, store: Store, disks: Disks
) -> None:
    await add_monitor(database, "numbered", "syslog", NUMBERED)
    async with engine(store, disks.m1):
        disks.of1.add(*undated(*range(20)), time_ns=later(1))
        disks.of1.mark(later(60))
        await consumed(database, disks)
        disks.of2.mark(later(60), Mark(open_since_ns=later(0)))  # its machine stood still for a minute
        disks.of2.add(*undated(99), time_ns=later(60), protocol=Protocol.SYSLOG_TCP)
        await consumed(database, disks)
        disks.of2.add(*undated(*range(20)), time_ns=later(1))
        disks.of2.mark(later(61))
        await consumed(database, disks)
    assert sorted(map(int, await messages(database))) == [*range(20), 99]
    assert await all_rows(database, "SELECT member_name FROM intake_unmatched") == [("m2",)]


async def test_a_dated_copy_delivered_after_the_repair_is_suppressed(database: str, store: Store, disks: Disks) -> None:
    await add_monitor(database, "numbered", "syslog", NUMBERED)
    async with engine(store, disks.m1):
        disks.of1.add(*dated(*range(3000)))
        await consumed(database, disks)
    back = Journal(disks.m2.own, disks.m1.copy)
    async with engine(store, disks.m1):
        back.mark(later(400))
        back.add(*dated(*range(3000)), time_ns=later(401))
        await eventually(database, "SELECT sum(sequence)::int FROM intake_position WHERE member_name = 'm2'", 3002)
    back.close()
    assert len(await messages(database)) == 3000
    assert await all_rows(database, "SELECT count(*) FROM intake_unmatched") == [(0,)]


@pytest.mark.parametrize("fails_after", [False, True])
async def test_a_batch_whose_outcome_is_unknown_is_neither_lost_nor_repeated(
    database: str, store: Store, disks: Disks, monkeypatch: pytest.MonkeyPatch, fails_after: bool
) -> None:
    await add_monitor(database, "numbered", "syslog", NUMBERED)
    commit, calls = Store.commit, [0]

    async def doubtful(self: Store, work, *, name: str, deadline_s: float = 10):  # type: ignore[no-untyped-def]
        calls[0] += 1
        if calls[0] % 2 == 0:
            return await commit(self, work, name=name, deadline_s=deadline_s)
        if fails_after:
            await commit(self, work, name=name, deadline_s=deadline_s)
        raise Unknown("the line was cut")

    monkeypatch.setattr(Store, "commit", doubtful)
    async with engine(store, disks.m1) as running:
        for n in range(6):
            disks.of1.add(*undated(*range(10 * n, 10 * n + 10)))
            disks.of2.add(*undated(*range(10 * n + 5, 10 * n + 12)))
            await consumed(database, disks)
    assert running.counters.reloads >= 3
    assert sorted(map(int, await messages(database))) == list(range(62))


async def test_a_batch_that_still_waits_for_its_commit_and_the_next_one_never_both_count(
    database: str, store: Store, disks: Disks
) -> None:
    await add_monitor(database, "numbered", "syslog", NUMBERED)
    disks.of1.add(*undated(1, 2, 3))
    async with await psycopg.AsyncConnection.connect(database) as other:
        # Another manager's batch, made from the same revision, is on its way: it holds the row.
        await other.execute("UPDATE intake_state SET revision = revision + 1")
        async with engine(store, disks.m1) as running:
            waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE 'UPDATE%'"
            await eventually(database, waiting, 1)
            assert await messages(database) == []
            await other.commit()
            await consumed(database, disks)
        assert running.counters.reloads == 1
    assert sorted(await messages(database)) == ["1", "2", "3"]


async def test_cancelling_at_any_moment_loses_and_repeats_nothing(database: str, store: Store, disks: Disks) -> None:
    await add_monitor(database, "numbered", "syslog", NUMBERED)
    count = 0
    for n in range(25):
        async with engine(store, disks.m1):
            disks.of1.add(*undated(*range(count, count + 8)))
            disks.of2.add(*undated(*range(count, count + 8)))
            count += 8
            await asyncio.sleep(0.004 * n)
    async with engine(store, disks.m1):
        await consumed(database, disks)
    assert sorted(map(int, await messages(database))) == list(range(count))


async def test_monitors_that_change_are_followed_and_scopes_respected(
    database: str, store: Store, disks: Disks
) -> None:
    await execute(database, "INSERT INTO host (host_name, address, is_registered) VALUES ('web1', '10.0.0.50', true)")
    await execute(database, "INSERT INTO scope (scope_name) VALUES ('web'), ('db')")
    await execute(database, "INSERT INTO scope_host VALUES ('web', 'web1')")
    await add_monitor(database, "in-scope", "syslog", NUMBERED, scope="web")
    await add_monitor(database, "elsewhere", "syslog", NUMBERED, scope="db")
    async with engine(store, disks.m1) as running:
        disks.of1.add(*undated(1))
        await consumed(database, disks)
        await add_monitor(database, "later", "syslog", {"match": "SEQ", "priority": "critical", "message": "{text}!"})
        await rules_followed(running, 3)
        disks.of1.add(*undated(2))
        await consumed(database, disks)
    found = await all_rows(database, "SELECT monitor_name, host_name, message FROM event ORDER BY event_id")
    assert found[0] == ("in-scope", "web1", "1")
    assert sorted(found[1:]) == [("in-scope", "web1", "2"), ("later", "web1", "SEQ=2!")]


async def rules_followed(running: ConsumeEngine, count: int) -> None:
    async with asyncio.timeout(30):
        while len(running.following.rules["syslog"].monitors) != count:
            await asyncio.sleep(0.02)


async def test_engine_waits_for_a_database_that_is_away(database: str, store: Store, disks: Disks) -> None:
    await add_monitor(database, "numbered", "syslog", NUMBERED)
    read, is_away = Store.read, [True]

    async def away(self: Store, work, *, name: str, deadline_s: float = 10):  # type: ignore[no-untyped-def]
        if is_away[0]:
            raise Refused("away")
        return await read(self, work, name=name, deadline_s=deadline_s)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Store, "read", away)
        async with engine(store, disks.m1):
            disks.of1.add(*undated(1))
            await asyncio.sleep(0.3)
            is_away[0] = False
            await consumed(database, disks)
    assert await messages(database) == ["1"]


async def test_a_flood_of_forged_sources_does_not_fill_the_inventory(
    database: str, store: Store, disks: Disks, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("futago.intake.store.HOSTS_UNREGISTERED_MAX", 5)
    async with engine(store, disks.m1):
        for n in range(20):
            disks.of1.add(*undated(n), source=f"10.9.0.{n}")
        disks.of1.add(b"v6", source="2001:db8::1")
        await consumed(database, disks)
    assert await all_rows(database, "SELECT count(*) FROM host") == [(5,)]


def damage(root: Path, first: bytes, second: bytes) -> None:
    """Change a byte in each of two records of a journal: what a bad disk does."""
    (segment,) = root.glob("*/*.seg")
    content = bytearray(segment.read_bytes())
    for part in (first, second):
        content[content.index(part)] ^= 0x20
    segment.write_bytes(content)


async def test_damage_in_the_middle_of_a_journal_is_an_event_once_and_costs_nothing_that_the_other_has(
    database: str, store: Store, disks: Disks
) -> None:
    await add_monitor(database, "numbered", "syslog", NUMBERED)
    for one in (disks.of1, disks.of2):
        one.add(*dated(*range(100, 110)))
    damage(disks.m1.own, b"SEQ=103", b"SEQ=107")
    async with engine(store, disks.m1) as running:
        await consumed(database, disks)
        assert running.counters.damaged == 2
    assert sorted(await messages(database))[:10] == [str(n) for n in range(100, 110)]
    told = await all_rows(
        database, "SELECT host_name, priority, message, detail FROM event WHERE monitor_name = 'receiver'"
    )
    assert {row[:2] for row in told} == {("m1", "critical")}
    assert all("journal of m1 is damaged on m1: " in str(row[2]) for row in told)
    assert sum(row[3]["places"] for row in told) == 2  # type: ignore[index]
    async with engine(store, disks.m1):
        disks.of1.add(*dated(200))
        await consumed(database, disks)
    assert len(await all_rows(database, "SELECT 1 FROM event WHERE monitor_name = 'receiver'")) == len(told)
