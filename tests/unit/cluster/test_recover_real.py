"""The ladder on two real PostgreSQL servers: whatever a member comes back with, it ends as a standby that has
replayed a mark."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest
from pg_pair import Member, pair, until

from futago.cluster.desk import ControllerDesk
from futago.cluster.model import PgState, RejoinStep
from futago.cluster.pgwire import PgConnection
from futago.cluster.recover import Ladder
from futago.cluster.reports import Reporter
from futago.cluster.rungs import Holds, Own, Rung, Source, choose, forks, is_beginning
from futago.cluster.volume import DataVolume
from futago.cluster.walend import newest_timeline
from futago.runtime.log import Log
from futago.runtime.worker import Worker

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="starts PostgreSQL as its own user")


class DirectLine:
    """Asks the other member's desk without the network."""

    def __init__(self, other: Member) -> None:
        self._desk: Any = ControllerDesk.__new__(ControllerDesk)
        self._desk._board, self._desk._postgres, self._desk._sync = other.board, other.postgres, other.sync
        self._reporter = reporter(other)

    async def ask(self, op: str, *, deadline_s: float, say: Any = None, **fields: object) -> dict[str, Any]:
        async def nothing(_text: str) -> None:
            pass

        if op == "report":
            return {"ok": True, "report": msgspec.to_builtins(await self._reporter.report())}
        answer: dict[str, Any] = await self._desk.serve_peer({"op": op, **fields}, nothing)
        return answer


def volume(member: Member) -> DataVolume:
    note = member.home / "cluster/volume.json"
    return DataVolume(member.layout, note=note, worker=Worker("ladder"), system=Worker("note"), log=Log(m=member.name))


def reporter(member: Member) -> Reporter:
    return Reporter(member.postgres, volume(member), system=Worker("note"), maintenance=lambda: False)


def ladder(member: Member, source: Member, disk: DataVolume | None = None) -> Ladder:
    line: Any = DirectLine(source)
    disk = disk or volume(member)
    own = Reporter(member.postgres, disk, system=Worker("note"), maintenance=lambda: False)

    async def last_words(_within_s: float) -> str:
        return member.unit.log.read_text(errors="replace")[-8000:] if member.unit.log.exists() else ""

    return Ladder(
        postgres=member.postgres, sync=member.sync, peer=line, disk=disk, report=own.report, read_log=last_words,
        log=Log(m=member.name),
    )  # fmt: skip


async def sql(member: Member, text: str) -> list[str | None]:
    return [row[0] for row in (await member.postgres.ask(text, database="futago", deadline_s=10)).rows]


@contextlib.asynccontextmanager
async def following(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[tuple[Member, Member]]:
    """m1 serves with a row; m2 has come from an empty disk."""
    async with pair(monkeypatch) as (a, b):
        await a.postgres.start(as_standby=False, enforced=False)
        await sql(a, "CREATE TABLE t (x text); INSERT INTO t VALUES ('first')")
        b.board.put_pg(state=PgState.ABSENT)
        await ladder(b, a).climb()
        assert b.board.rejoin.step is RejoinStep.DONE and b.board.rejoin.rung == "empty"
        yield a, b


async def test_empty_member_is_copied_and_follows(monkeypatch: pytest.MonkeyPatch) -> None:
    async with following(monkeypatch) as (a, b):
        assert b.board.pg.state is PgState.STANDBY and b.board.pg.is_streaming
        assert await sql(b, "SELECT x FROM t") == ["first"]
        slots = await a.postgres.ask("SELECT slot_name FROM pg_replication_slots WHERE active")
        assert slots.rows == (("futago_m2",),)


async def test_primary_that_was_stopped_in_order_follows_its_successor(monkeypatch: pytest.MonkeyPatch) -> None:
    async with following(monkeypatch) as (a, b):
        await a.postgres.stop()
        await until(lambda: a.board.pg.flush > 0)
        await until(lambda: a.board.pg.flush <= b.board.pg.flush)  # a connected standby has received the very end
        await b.postgres.promote()
        await sql(b, "INSERT INTO t VALUES ('second')")
        await ladder(a, b).climb()
        assert a.board.rejoin.step is RejoinStep.DONE and a.board.rejoin.rung == "follow"
        await until(lambda: a.board.pg.timeline == 2)
        assert await sql(a, "SELECT x FROM t ORDER BY 1") == ["first", "second"]
        assert (await a.postgres.ask("SELECT count(*) FROM pg_replication_slots")).one() == ("0",)


async def test_primary_that_wrote_alone_before_it_died_is_rewound(monkeypatch: pytest.MonkeyPatch) -> None:
    async with following(monkeypatch) as (a, b):
        await b.postgres.kill()
        await sql(a, "INSERT INTO t VALUES ('never acknowledged by the pair')")
        await a.postgres.kill()
        await b.postgres.start(as_standby=True, enforced=False)
        await b.postgres.promote()
        await sql(b, "INSERT INTO t VALUES ('second')")
        await ladder(a, b).climb()
        assert a.board.rejoin.step is RejoinStep.DONE and a.board.rejoin.rung == "rewind"
        assert await sql(a, "SELECT x FROM t ORDER BY 1") == ["first", "second"]


async def test_half_made_data_are_replaced_by_a_copy(monkeypatch: pytest.MonkeyPatch) -> None:
    async with following(monkeypatch) as (a, b):
        await b.postgres.kill()
        b.layout.unfinished.write_text("")
        (b.layout.data / "base").rename(b.layout.data / "gone")
        await b.postgres.adopt()
        assert b.board.pg.state is PgState.ABSENT
        await ladder(b, a).climb()
        assert b.board.rejoin.step is RejoinStep.DONE and not b.layout.unfinished.exists()
        assert await sql(b, "SELECT x FROM t") == ["first"]


async def test_damaged_control_file_leads_to_a_copy(monkeypatch: pytest.MonkeyPatch) -> None:
    async with following(monkeypatch) as (a, b):
        await b.postgres.kill()
        (b.layout.data / "global/pg_control").write_bytes(b"x" * 8192)
        await ladder(b, a).climb()
        assert b.board.rejoin.step is RejoinStep.DONE and b.board.rejoin.rung == "basebackup"


async def test_source_that_is_no_primary_is_a_failure_with_a_reason_and_a_pause(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with following(monkeypatch) as (a, b):
        await a.postgres.kill()
        climbing = ladder(b, a)
        await climbing.climb()
        assert b.board.rejoin.step is RejoinStep.FAILED and b.board.rejoin.retry_at > 0
        assert climbing.last is not None and not climbing.last.ok and "no primary runs here" in climbing.last.error


async def test_end_of_the_log_is_where_the_server_stopped_writing(monkeypatch: pytest.MonkeyPatch) -> None:
    async with pair(monkeypatch) as (a, _):
        await a.postgres.start(as_standby=False, enforced=False)
        await sql(a, "CREATE TABLE t AS SELECT generate_series(1, 20000) x")
        written = (await a.postgres.ask("SELECT pg_current_wal_flush_lsn() - '0/0'")).one()[0]
        await a.postgres.kill()
        await until(lambda: a.board.pg.flush > 0)
        assert int(a.board.pg.flush) >= int(written or 0)
        assert int(a.board.pg.flush) - int(written or 0) < 4096


async def test_end_of_the_log_is_found_at_a_boundary_of_segments(monkeypatch: pytest.MonkeyPatch) -> None:
    async with pair(monkeypatch) as (a, _):
        await a.postgres.start(as_standby=False, enforced=False)
        await a.postgres.ask("SELECT pg_switch_wal()")
        written = (await a.postgres.ask("SELECT pg_current_wal_flush_lsn() - '0/0'")).one()[0]
        await a.postgres.kill()
        await until(lambda: a.board.pg.flush > 0)
        assert int(a.board.pg.flush) >= int(written or 0) - 8192


async def test_application_reaches_its_database_through_the_controllers_gate_only(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with following(monkeypatch) as (_, b):
        refused = subprocess.run(
            ["psql", "-h", str(b.layout.socket_dir), "-p", str(b.layout.port), "-U", "futago", "-c", "SELECT 1"],
            capture_output=True, text=True, check=False, timeout=10,
        )  # fmt: skip
        assert refused.returncode != 0
        with pytest.raises(Exception, match="reject"):
            await PgConnection.open(
                user="futago", database="futago", socket_dir=b.layout.socket_dir, port=b.layout.port
            )


HISTORY = "1\t0/5000000\tno recovery target specified\n\n2\t0/8000000\tno recovery target specified\n"
SOURCE = Source(system_id="7", timeline=3, history=HISTORY, size_bytes=1, wal_from=0x4000000, flush=0x9000000)


def own(state: str, timeline: int, end: int, *, system: str = "7") -> Own:
    return Own(Holds.WHOLE, system_id=system, state=state, timeline=timeline, end=end)


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (own("shut down", 1, 0x5000000), True),
        (own("shut down", 1, 0x5000001), False),
        (own("in production", 2, 0x7FFFFFF), True),
        (own("in production", 2, 0x8000008), False),
        (own("in archive recovery", 3, 0x9000000), True),
        (own("in production", 3, 0x8000100), False),  # two primaries on one timeline: never believed
        (own("shut down", 4, 0x1), False),  # a timeline that the source has never heard of
        (own("shut down", 1, 1, system="8"), False),
    ],
)
def test_member_may_follow_only_if_its_log_is_a_beginning_of_the_primarys(found: Own, expected: bool) -> None:
    assert is_beginning(found, SOURCE) is expected


@pytest.mark.parametrize(
    ("found", "rungs"),
    [
        (own("shut down", 2, 0x6000000), [Rung.FOLLOW, Rung.BASE_BACKUP]),
        (own("in production", 2, 0x8000008), [Rung.REWIND, Rung.BASE_BACKUP]),
        (own("shut down", 1, 0x3FFFFFF), [Rung.BASE_BACKUP]),  # the primary's log begins later
        (own("shut down", 2, 0x6000000, system="8"), [Rung.BASE_BACKUP]),
        (Own(Holds.HALF), [Rung.BASE_BACKUP]),
        (Own(Holds.UNREADABLE), [Rung.BASE_BACKUP]),
        (Own(Holds.NOTHING), [Rung.EMPTY]),
        (msgspec.structs.replace(own("shut down", 2, 0x6000000), suspect="EIO"), [Rung.BASE_BACKUP]),
        (Own(Holds.NOTHING, suspect="EIO"), [Rung.EMPTY]),
    ],
)
def test_mildest_rung_that_can_work_is_tried_first_and_a_copy_last(found: Own, rungs: list[Rung]) -> None:
    choices = choose(found, SOURCE)
    assert [c.rung for c in choices] == rungs
    assert all(c.why for c in choices) and choices[-1].bytes_max == SOURCE.size_bytes
    assert [c.is_destructive for c in choices if c.rung is not Rung.EMPTY] == [
        c.rung is not Rung.FOLLOW for c in choices if c.rung is not Rung.EMPTY
    ]


def test_history_is_read_and_nonsense_in_it_is_skipped() -> None:
    assert [(f.timeline, f.at) for f in forks(HISTORY + "# x\nbroken\n")] == [(1, 0x5000000), (2, 0x8000000)]


def test_newest_timeline_with_log_after_the_checkpoint_is_read() -> None:
    names = ["000000010000000000000001", "000000010000000000000002", "000000020000000000000002", "00000002.history"]
    assert newest_timeline(names, 0x1000028) == (2, 0x2000000)
    assert newest_timeline(names, 0x2000060) == (2, 0x2000060)
    assert newest_timeline(names, 0x9000000) == (0, 0x9000000)
