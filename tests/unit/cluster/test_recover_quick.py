"""What makes a return quick: one sync for the whole directory, nothing read twice, no checkpoint without need, and the
cheaper of two rungs. And that none of it makes a failing disk look sound."""

from __future__ import annotations

import asyncio
import errno
import os
from pathlib import Path
from typing import Any

import msgspec
import pytest
from pg_pair import Member, _settings
from test_recover_real import DirectLine, following, ladder, sql, volume

from futago.cluster import desk as desk_room
from futago.cluster import pgconf, walend, wholesync
from futago.cluster.model import Lsn, PgState, RejoinStep
from futago.cluster.rungs import Holds, Own, Rung, Source, choose
from futago.cluster.walend import End
from futago.cluster.wholesync import WholeSync, kind_of

MB = 1 << 20
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="starts PostgreSQL as its own user")
MOUNTS = """\
22 1 0:21 / / rw,relatime - overlay overlay rw
23 22 7:1 / /var/lib rw - ext4 /dev/loop1 rw
24 23 7:2 / /var/lib/futago/pg rw,noatime shared:1 - xfs /dev/loop2 rw
25 23 7:3 / /var/lib/with\\040space rw - fuse.x x rw
nonsense
"""


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/etc", "overlay"),
        ("/var/lib/futago/pgdata", "ext4"),
        ("/var/lib/futago/pg/data", "xfs"),
        ("/var/lib/with space/data", "fuse.x"),
    ],
)
def test_file_system_of_a_place_is_the_innermost_mount(path: str, kind: str) -> None:
    assert kind_of(Path(path), MOUNTS) == kind


@pytest.fixture
def local(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data directory on what counts as a local file system."""
    mounts = tmp_path / "mounts"
    mounts.write_text(f"24 23 7:2 / {tmp_path.resolve()} rw - ext4 /dev/x rw\n")
    monkeypatch.setattr(wholesync, "MOUNTS", mounts)
    (tmp_path / "pg_tblspc").mkdir()
    return tmp_path


def test_one_sync_is_enough_only_where_all_parts_lie_on_one_known_file_system(
    local: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert wholesync.is_enough(local)
    (local / "pg_tblspc/1").symlink_to("/elsewhere")
    assert not wholesync.is_enough(local)
    (local / "pg_tblspc/1").unlink()
    (local / "pg_wal").symlink_to("/elsewhere")
    assert not wholesync.is_enough(local)
    (local / "pg_wal").unlink()
    for release in ("5.7.19-generic", "strange"):
        uname = os.uname()
        monkeypatch.setattr(os, "uname", lambda r=release, u=uname: os.uname_result((u[0], u[1], r, u[3], u[4])))
        assert not wholesync.is_enough(local)
        monkeypatch.undo()


def test_unknown_file_system_is_synced_file_by_file(local: Path) -> None:
    wholesync.MOUNTS.write_text(f"24 23 7:2 / {local.resolve()} rw - fuse.sshfs x rw\n")
    assert not wholesync.is_enough(local)


def test_whole_sync_syncs_and_tells_errors(tmp_path: Path) -> None:
    whole = WholeSync(tmp_path)
    whole.sync()
    whole.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        whole.sync()


async def lone_wolf(a: Member, b: Member) -> None:
    """m1 writes what nobody has, dies, and m2 serves."""
    await b.postgres.kill()
    await sql(a, "INSERT INTO t VALUES ('never acknowledged by the pair')")
    await a.postgres.kill()
    await b.postgres.start(as_standby=True, enforced=False)
    await b.postgres.promote()
    await sql(b, "INSERT INTO t VALUES ('second')")


@needs_root
@pytest.mark.parametrize("is_whole", [True, False])
async def test_rewound_data_count_only_when_all_of_them_are_on_the_disk(
    monkeypatch: pytest.MonkeyPatch, is_whole: bool
) -> None:
    async with following(monkeypatch) as (a, b):
        await lone_wolf(a, b)
        marks: list[bool] = []
        real = WholeSync.sync

        def sync(self: WholeSync) -> None:
            marks.append(a.layout.unfinished.exists())
            real(self)

        monkeypatch.setattr(WholeSync, "sync", sync)
        monkeypatch.setattr(wholesync, "is_enough", lambda _data: is_whole)
        await ladder(a, b).climb()
        assert a.board.rejoin.step is RejoinStep.DONE and a.board.rejoin.rung == "rewind"
        assert all(marks) and bool(marks) is is_whole and not a.layout.unfinished.exists()
        method = (await a.postgres.ask("SHOW recovery_init_sync_method")).one()[0]
        assert method == ("syncfs" if is_whole else "fsync")
        assert await sql(a, "SELECT x FROM t ORDER BY 1") == ["first", "second"]


@needs_root
async def test_disk_that_fails_while_a_copy_is_synced_fails_the_rung_and_is_remembered(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with following(monkeypatch) as (a, b):
        await b.postgres.kill()
        (b.layout.data / "global/pg_control").write_bytes(b"x" * 8192)
        disk, synced = volume(b), asyncio.Event()

        def fail(_whole: WholeSync) -> None:
            synced.set()
            raise OSError(errno.EIO, os.strerror(errno.EIO))

        monkeypatch.setattr(WholeSync, "sync", fail)
        monkeypatch.setattr(wholesync, "is_enough", lambda _data: True)
        climbing = ladder(b, a, disk)
        await climbing.climb()
        assert synced.is_set() and b.board.rejoin.step is RejoinStep.FAILED
        assert climbing.last is not None and "Input/output error" in climbing.last.error
        assert "EIO" in disk.suspect


@needs_root
async def test_log_of_a_stopped_server_is_read_once_until_it_runs_again(monkeypatch: pytest.MonkeyPatch) -> None:
    async with following(monkeypatch) as (_a, b):
        reads: list[int] = []
        real = walend.find_end

        async def counted(bin_dir: Path, data: Path, *, names: list[str], redo: int) -> End:
            reads.append(redo)
            return await real(bin_dir, data, names=names, redo=redo)

        monkeypatch.setattr(walend, "find_end", counted)
        await b.postgres.kill()  # reads it in the background
        control = await b.postgres.control_data()
        ends = await asyncio.gather(*(b.postgres.wal_end(control) for _ in range(3)))
        await b.postgres.kill()
        assert len(set(ends)) == 1 and await b.postgres.wal_end(control) == ends[0] and len(reads) == 1
        await b.postgres.start(as_standby=True, enforced=False)
        await b.postgres.kill()
        await b.postgres.wal_end(await b.postgres.control_data())
        assert len(reads) == 2


@needs_root
async def test_log_is_read_again_while_something_of_the_server_may_be_left(monkeypatch: pytest.MonkeyPatch) -> None:
    async with following(monkeypatch) as (_a, b):
        ends = iter(range(1, 9))

        async def moving(*_a: object, **_k: object) -> End:
            return End(1, Lsn(next(ends)))

        monkeypatch.setattr(walend, "find_end", moving)
        control = await b.postgres.control_data()
        b.postgres._died(0)
        b.board.put_pg(state=PgState.DIED)
        assert await b.postgres.wal_end(control) != await b.postgres.wal_end(control)


@needs_root
@pytest.mark.parametrize("is_old", [False, True])
async def test_primary_makes_a_checkpoint_for_a_return_only_where_its_control_file_shows_an_old_timeline(
    monkeypatch: pytest.MonkeyPatch, is_old: bool
) -> None:
    async with following(monkeypatch) as (a, _b):
        asked: list[str] = []
        ask = a.postgres.ask

        async def listened(sql: str, **more: Any) -> Any:
            asked.append(sql)
            return await ask(sql, **more)

        monkeypatch.setattr(a.postgres, "ask", listened)
        if is_old:
            monkeypatch.setattr(desk_room, "_TIMELINES", "SELECT 1, 2")
        source = (await DirectLine(a).ask("prepare", deadline_s=9))["source"]
        assert source["timeline"] == 1 and source["wal_bytes"] >= 16 * MB
        assert asked.count("CHECKPOINT") == is_old


SOURCE = Source("7", 2, "1\t0/5000000\tx\n", size_bytes=100 * MB, flush=700 * MB, wal_bytes=640 * MB)
APART = Own(Holds.WHOLE, "7", "in production", 1, end=500 * MB, redo=200 * MB, free=4096 * MB)


@pytest.mark.parametrize(
    ("own", "source", "rungs"),
    [
        (APART, SOURCE, [Rung.BASE_BACKUP]),
        (APART, msgspec.structs.replace(SOURCE, size_bytes=20 << 30), [Rung.REWIND, Rung.BASE_BACKUP]),
        (msgspec.structs.replace(APART, free=200 * MB), SOURCE, [Rung.REWIND, Rung.BASE_BACKUP]),
        (  # most of what a rewind costs is the log of a primary that has run for long
            msgspec.structs.replace(APART, redo=480 * MB),
            msgspec.structs.replace(SOURCE, flush=510 * MB, size_bytes=500 * MB),
            [Rung.BASE_BACKUP],
        ),
        (msgspec.structs.replace(APART, redo=0), SOURCE, [Rung.REWIND, Rung.BASE_BACKUP]),
        (
            msgspec.structs.replace(APART, redo=495 * MB),
            msgspec.structs.replace(SOURCE, flush=510 * MB, wal_bytes=160 * MB),
            [Rung.REWIND, Rung.BASE_BACKUP],
        ),
    ],
)
def test_copy_is_preferred_to_a_rewind_where_it_is_clearly_quicker_and_has_room(
    own: Own, source: Source, rungs: list[Rung]
) -> None:
    assert [c.rung for c in choose(own, source)] == rungs


def test_server_is_told_how_to_sync_before_it_recovers(tmp_path: Path) -> None:
    for is_whole, word in ((True, "syncfs"), (False, "fsync")):
        text = pgconf.settings_text(_settings("m1"), pgconf.Layout(), enforced=False, syncs_whole=is_whole)
        assert f"recovery_init_sync_method = {word}\n" in text
