"""Each rung of the ladder reached by its own fault, on two real PostgreSQL servers and a real file system that fills up
or fails."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest
from pg_pair import Member, pair, until
from test_recover_real import following, ladder, sql, volume

from futago.cluster import recover as recover_room
from futago.cluster import volume as volume_room
from futago.cluster.model import Durable, Epoch, MemberName, PgState, RejoinStep, View
from futago.cluster.volume import DataVolume
from futago.lab import machine

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="mounts file systems and starts PostgreSQL as its own user")

VOLUME_MIB = 1100


class Disk:
    """A file system of its own under a member's data volume, which can be filled, broken, and repaired by mounting it
    anew."""

    def __init__(self, member: Member) -> None:
        self.point = member.layout.volume
        self.image = member.home / "disk.img"
        with self.image.open("wb") as f:
            f.truncate(VOLUME_MIB << 20)
        _tool("mkfs.ext4", "-q", "-E", "lazy_itable_init=1,lazy_journal_init=1,nodiscard", "-m", "0", str(self.image))

    def mount(self) -> None:
        _tool("mount", "-o", "loop,noatime", str(self.image), str(self.point))

    def unmount(self) -> None:
        machine.unmount(self.point)

    def fail(self) -> None:
        """From now on every access is answered with an I/O error."""
        machine.drop_unsynced(self.point)

    def fill(self, *, leave: int) -> Path:
        """Take all room but `leave` bytes."""
        filler = self.point / "filler"
        usage = os.statvfs(self.point)
        with filler.open("wb") as f:
            os.posix_fallocate(f.fileno(), 0, usage.f_bavail * usage.f_frsize - leave)
        return filler


def _tool(*command: str) -> None:
    subprocess.run(command, check=True, timeout=30, capture_output=True)


@contextlib.asynccontextmanager
async def on_own_disk(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[tuple[Member, Member, Disk, DataVolume]]:
    """m1 serves with a row; m2 follows it on a disk of its own."""
    async with pair(monkeypatch) as (a, b):
        await a.postgres.start(as_standby=False, enforced=False)
        await sql(a, "CREATE TABLE t (x text); INSERT INTO t VALUES ('first')")
        disk, own = Disk(b), volume(b)
        disk.mount()
        try:
            b.watch.on_disk_error = own.note_error
            b.board.put_pg(state=PgState.ABSENT)
            await ladder(b, a, own).climb()
            assert b.board.rejoin.rung == "empty" and b.board.rejoin.step is RejoinStep.DONE
            assert await own.restore()  # the reserve
            await own.note_mount()
            yield a, b, disk, own
        finally:
            await b.unit.kill()
            disk.unmount()


async def test_lost_log_on_the_primary_leads_straight_to_a_base_backup(monkeypatch: pytest.MonkeyPatch) -> None:
    async with following(monkeypatch) as (a, b):
        await b.postgres.kill()
        await a.postgres.ask("SELECT pg_drop_replication_slot('futago_m2')")
        for order in ("ALTER SYSTEM SET wal_keep_size = 0", "SELECT pg_reload_conf()"):
            await a.postgres.ask(order)
        for _ in range(3):
            await sql(a, "INSERT INTO t VALUES ('more')")
            await a.postgres.ask("SELECT pg_switch_wal()")
            await a.postgres.ask("CHECKPOINT", deadline_s=20)
        climbing = ladder(b, a)
        await climbing.climb()
        assert climbing.last is not None and climbing.last.ok and climbing.last.rung == "basebackup"
        assert climbing.last.tried == () and climbing.last.bytes_copied > 10 << 20 and climbing.last.mark > 0
        assert len(await sql(b, "SELECT x FROM t")) == 4


async def test_standby_that_runs_but_cannot_stream_any_more_is_copied_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recover_room, "FOLLOW_S_MAX", 1.5)
    async with following(monkeypatch) as (a, b):
        await b.postgres.ask("SELECT pg_wal_replay_pause()")
        other = b.layout.data / "pg_wal"
        await b.postgres.kill()
        for segment in other.glob("0000*"):
            segment.unlink()  # what pg_wal of the standby needs for its own recovery is gone
        climbing = ladder(b, a)
        await climbing.climb()
        assert climbing.last is not None and climbing.last.ok and climbing.last.rung == "basebackup"
        assert await sql(b, "SELECT x FROM t") == ["first"]


async def test_full_disk_is_helped_by_the_reserve_and_the_reserve_is_made_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with on_own_disk(monkeypatch) as (a, b, disk, own):
        assert (await own.look()).reserve == (await own.look()).total // volume_room.RESERVE_SHARE
        await b.postgres.kill()
        filler = disk.fill(leave=1 << 20)
        await sql(a, "INSERT INTO t SELECT repeat('x', 1000) FROM generate_series(1, 20000)")
        climbing = ladder(b, a, own)
        await climbing.climb()
        assert climbing.last is not None and climbing.last.ok and climbing.last.rung == "follow"
        assert (await own.look()).reserve == 0
        assert await sql(b, "SELECT count(*) FROM t") == ["20001"]
        assert not await own.restore()  # there is no room to spare yet
        filler.unlink()
        assert await own.restore() and (await own.look()).reserve > 0


async def test_copy_that_has_no_room_is_refused_before_anything_is_deleted(monkeypatch: pytest.MonkeyPatch) -> None:
    async with on_own_disk(monkeypatch) as (a, b, disk, own):
        await b.postgres.kill()
        disk.fill(leave=60 << 20)
        (b.layout.data / "global/pg_control").write_bytes(b"x" * 8192)
        climbing = ladder(b, a, own)
        await climbing.climb()
        assert b.board.rejoin.step is RejoinStep.FAILED and climbing.last is not None
        assert "free" in climbing.last.error and "of room on the data volume of m2" in climbing.last.repair
        assert (b.layout.data / "PG_VERSION").exists() and not b.layout.unfinished.exists()


async def test_member_that_was_made_part_of_the_pair_meanwhile_is_not_overwritten(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with following(monkeypatch) as (a, b):
        own = volume(b)
        own.note_suspect("a read failed")  # only a whole copy will do
        both = frozenset((MemberName("m1"), MemberName("m2")))
        counted_on = Durable(view=View(Epoch(4), MemberName("m1"), both))
        may_be = Durable(view=View(Epoch(3), MemberName("m1"), frozenset((MemberName("m1"),))), is_writing=True)
        for durable, why in ((counted_on, "part of the pair meanwhile"), (may_be, "a view is being written")):
            b.board.read_durable = lambda durable=durable: durable  # type: ignore[misc]
            climbing = ladder(b, a, own)
            await climbing.climb()
            assert climbing.last is not None and why in climbing.last.error
            assert b.board.rejoin.step is RejoinStep.FAILED and b.board.pg.state is PgState.STANDBY
        assert await sql(b, "SELECT x FROM t") == ["first"]


async def test_io_errors_lead_to_a_copy_that_is_read_back_once_the_disk_is_sound(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with on_own_disk(monkeypatch) as (a, b, disk, own):
        disk.fail()
        await until(lambda: bool(own.suspect), within_s=15)
        climbing = ladder(b, a, own)
        await climbing.climb()  # the disk still fails: nothing can be done before somebody repairs it
        assert b.board.rejoin.step is RejoinStep.FAILED and climbing.last is not None
        assert "mount a sound file system" in climbing.last.repair
        await b.unit.kill()
        disk.unmount()
        disk.mount()
        await b.postgres.kill()
        fresh = volume(b)  # after a reset of the machine: only the note on the system disk remembers
        assert fresh.suspect
        b.board.put_pg(is_suspect=bool(fresh.suspect))
        fresh.on_trust = lambda is_trusted: b.board.put_pg(is_suspect=not is_trusted)
        await until(lambda: b.board.pg.is_disk_ok)  # it can be written again, and the pair does not count on it
        await sql(a, "INSERT INTO t VALUES ('second')")
        climbing = ladder(b, a, fresh)
        await climbing.climb()
        last = climbing.last
        assert last is not None and last.ok and last.rung == "basebackup" and last.was_verified, last
        assert not fresh.suspect and not volume(b).suspect
        assert b.board.pg.is_disk_well
        assert await sql(b, "SELECT x FROM t ORDER BY 1") == ["first", "second"]


async def test_data_are_not_copied_onto_the_folder_under_a_volume_that_is_not_mounted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with on_own_disk(monkeypatch) as (a, b, disk, own):
        await b.postgres.kill()
        disk.unmount()
        try:
            b.board.put_pg(state=PgState.ABSENT)
            climbing = ladder(b, a, own)
            await climbing.climb()
            assert climbing.last is not None and "nothing is mounted" in climbing.last.error
            assert climbing.last.repair and not (b.layout.data).exists()
        finally:
            disk.mount()


async def test_primary_that_cannot_start_for_want_of_room_gets_the_reserve(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(volume_room, "LOOK_S", 0.05)
    async with on_own_disk(monkeypatch) as (_a, b, disk, own):
        await b.postgres.kill()
        disk.fill(leave=1 << 20)
        alone = View(Epoch(3), MemberName("m2"), frozenset({MemberName("m2")}))
        b.board.read_durable = lambda: Durable(view=alone)
        b.board.put_pg(state=PgState.DIED)
        keeping = asyncio.create_task(own.run(b.board))
        try:
            await until(lambda: not own.reserve_file.exists(), within_s=5)
        finally:
            keeping.cancel()
        await b.postgres.start(as_standby=True, enforced=False)
        assert b.board.pg.state is PgState.STANDBY


async def test_member_that_falls_out_again_and_again_is_left_to_a_person_if_the_settings_say_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with following(monkeypatch) as (a, b):
        own = b.postgres.settings
        climbing = ladder(b, a)
        for _ in range(2):
            await climbing.climb()
            assert b.board.rejoin.step is RejoinStep.DONE
        for limit, outcome in ((2, RejoinStep.FAILED), (0, RejoinStep.DONE), (4, RejoinStep.DONE)):
            pair_settings = msgspec.structs.replace(own.pair, returns_max=limit)
            b.postgres.settings = msgspec.structs.replace(own, pair=pair_settings)
            await climbing.climb()
            assert b.board.rejoin.step is outcome
            if outcome is RejoinStep.FAILED:
                assert climbing.last is not None and "came back 2 times" in climbing.last.error and climbing.last.repair
