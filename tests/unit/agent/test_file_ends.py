"""The two ends of a file transfer on a real file system: what appears, when, and what never does."""

from __future__ import annotations

import asyncio
import errno
import hashlib
import os
import random
import stat
import tempfile
import uuid
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import pytest_asyncio

from agent_world import QuietLog
from futago.agent.carry import FileCarrier
from futago.agent.file_program import Target, done_by, temporary_name
from futago.link.files import Deed, FileAnswer, FileStep, Trouble, wrong_path

CONTENT = random.Random(7).randbytes(1_300_000)


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


class Ends:
    """An agent's carrier, killed and made anew at will."""

    def __init__(self, where: Path) -> None:
        self.where = where
        self.run_id = str(uuid.uuid4())
        self.start()

    def start(self) -> None:
        self.carrier = FileCarrier(self.where / "notes", log=QuietLog())
        self.task = asyncio.get_running_loop().create_task(self.carrier.run())

    async def stop(self) -> None:
        self.task.cancel()
        await asyncio.wait({self.task})

    async def ask(self, deed: Deed, path: Path | str = "", *, source: bool = False, **more: object) -> FileAnswer:
        step = FileStep(self.run_id, deed, source, path=str(path), **more)  # type: ignore[arg-type]
        return await self.carrier.step(step)

    async def put(self, data: bytes) -> FileAnswer:
        """Write what is missing, and finish."""
        there = await self.ask(Deed.OPEN, self.where / "new")
        while there.offset < there.size:
            there = await self.ask(Deed.WRITE)
        while there.size < len(data):
            piece = data[there.size : there.size + 500_000]
            there = await self.ask(Deed.WRITE, offset=there.size, data=piece)
        return await self.ask(Deed.FINISH, size=len(data), digest=digest(data))


@pytest_asyncio.fixture
async def ends(tmp_path: Path) -> AsyncIterator[Ends]:
    made = Ends(tmp_path)
    yield made
    await made.stop()


async def test_source_gives_every_byte_in_pieces_and_their_digest(ends: Ends) -> None:
    path = ends.where / "old"
    path.write_bytes(CONTENT)
    answer = await ends.ask(Deed.OPEN, path, source=True)
    assert (answer.size, answer.offset) == (len(CONTENT), 0)
    read = b""
    while len(read) < len(CONTENT):
        read += (await ends.ask(Deed.READ, source=True, offset=len(read))).data
    assert read == CONTENT
    assert (await ends.ask(Deed.FINISH, source=True)).digest == digest(CONTENT)


async def test_source_begun_in_the_middle_tells_the_digest_of_all(ends: Ends) -> None:
    path = ends.where / "old"
    path.write_bytes(CONTENT)
    await ends.ask(Deed.OPEN, path, source=True)
    offset = 1_000_000
    answer = await ends.ask(Deed.READ, source=True, offset=offset)
    assert (answer.data, answer.offset) == (b"", offset)
    assert (await ends.ask(Deed.READ, source=True, offset=offset)).data == CONTENT[offset:]
    assert (await ends.ask(Deed.FINISH, source=True)).digest == digest(CONTENT)


async def test_source_that_changes_meanwhile_is_torn(ends: Ends) -> None:
    path = ends.where / "old"
    path.write_bytes(b"before")
    await ends.ask(Deed.OPEN, path, source=True)
    assert (await ends.ask(Deed.READ, source=True)).data == b"before"
    path.write_bytes(b"AFTER!")
    assert (await ends.ask(Deed.FINISH, source=True)).trouble is Trouble.TORN


async def test_file_appears_whole_with_its_mode_and_nothing_else_stays(ends: Ends) -> None:
    target = ends.where / "new"
    target.write_text("what was there before")
    await ends.ask(Deed.OPEN, target, mode=0o604)
    await ends.ask(Deed.WRITE, offset=0, data=CONTENT[:500_000])
    assert target.read_text() == "what was there before"
    done = await ends.put(CONTENT)
    assert done.is_done and target.read_bytes() == CONTENT
    assert sorted(p.name for p in ends.where.iterdir()) == ["new", "notes"]


async def test_mode_is_that_of_the_definition_whatever_the_umask(ends: Ends) -> None:
    before = os.umask(0)
    try:
        await ends.ask(Deed.OPEN, ends.where / "new", mode=0o604)
        await ends.ask(Deed.FINISH, size=0, digest=digest(b""))
    finally:
        os.umask(before)
    assert stat.S_IMODE((ends.where / "new").stat().st_mode) == 0o604


async def test_what_an_agent_that_was_killed_had_written_is_gone_on_with(ends: Ends) -> None:
    await ends.ask(Deed.OPEN, ends.where / "new")
    await ends.ask(Deed.WRITE, offset=0, data=CONTENT[:700_000])
    await ends.stop()
    ends.start()
    assert (await ends.ask(Deed.OPEN, ends.where / "new")).size == 700_000
    assert (await ends.put(CONTENT)).is_done and (ends.where / "new").read_bytes() == CONTENT


async def test_what_is_not_what_was_sent_never_appears(ends: Ends) -> None:
    await ends.ask(Deed.OPEN, ends.where / "new")
    await ends.ask(Deed.WRITE, offset=0, data=CONTENT[:700_000])
    await ends.stop()
    (temporary,) = ends.where.glob(".new*")
    with temporary.open("r+b") as f:  # a power cut took what was not synced
        f.seek(600_000)
        f.write(b"\0" * 4096)
    ends.start()
    assert (await ends.put(CONTENT)).trouble is Trouble.TORN
    assert not (ends.where / "new").exists()
    assert (await ends.put(CONTENT)).is_done and (ends.where / "new").read_bytes() == CONTENT


async def test_file_that_was_taken_away_after_it_appeared_does_not_come_again(ends: Ends) -> None:
    await ends.put(CONTENT)
    (ends.where / "new").unlink()
    await ends.stop()
    ends.start()
    again = await ends.ask(Deed.OPEN, ends.where / "new")
    assert again.is_done and (again.size, again.digest) == (len(CONTENT), digest(CONTENT))
    assert not (ends.where / "new").exists()


async def test_rename_that_a_power_cut_took_is_made_by_whoever_asks_next(ends: Ends) -> None:
    await ends.put(CONTENT)
    await ends.stop()
    (ends.where / "new").rename(ends.where / temporary_name("new", ends.run_id))
    ends.start()
    assert (await ends.ask(Deed.OPEN, ends.where / "new")).is_done
    assert (ends.where / "new").read_bytes() == CONTENT


async def test_newer_manager_that_is_known_keeps_the_file_from_appearing(ends: Ends) -> None:
    await ends.ask(Deed.OPEN, ends.where / "new")
    await ends.ask(Deed.WRITE, offset=0, data=b"abc")
    step = FileStep(ends.run_id, Deed.FINISH, is_source=False, size=3, digest=digest(b"abc"))
    assert (await ends.carrier.step(step, lambda: False)).trouble is Trouble.AGAIN
    assert not (ends.where / "new").exists()


async def test_what_is_no_plain_file_is_refused(ends: Ends) -> None:
    os.mkfifo(ends.where / "pipe")
    (ends.where / "link").symlink_to(ends.where / "elsewhere")
    (ends.where / "directory").mkdir()
    for name in ("pipe", "directory", "nothing"):
        assert (await ends.ask(Deed.OPEN, ends.where / name, source=True)).trouble is Trouble.REFUSED
    for name in ("pipe", "directory", "link", "no-such/file"):
        assert (await ends.ask(Deed.OPEN, ends.where / name)).trouble is Trouble.REFUSED
    assert not (ends.where / "elsewhere").exists()


async def test_link_in_the_place_of_the_temporary_file_is_not_followed(ends: Ends) -> None:
    victim = ends.where / "victim"
    victim.write_text("precious")
    (ends.where / temporary_name("new", ends.run_id)).symlink_to(victim)
    assert (await ends.ask(Deed.OPEN, ends.where / "new")).trouble is Trouble.REFUSED
    (ends.where / temporary_name("new", ends.run_id)).unlink()
    os.link(victim, ends.where / temporary_name("new", ends.run_id))
    assert (await ends.ask(Deed.OPEN, ends.where / "new")).trouble is Trouble.REFUSED
    assert victim.read_text() == "precious"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root becomes another user")
async def test_what_the_user_may_not_read_or_write_is_refused_and_what_is_made_is_the_users(ends: Ends) -> None:
    secret = ends.where / "secret"
    secret.write_text("of root")
    secret.chmod(0o600)
    for place in (ends.where, *ends.where.parents):
        if Path(tempfile.gettempdir()) in place.parents:
            place.chmod(0o755)
    assert (await ends.ask(Deed.OPEN, secret, source=True, user="nobody")).trouble is Trouble.REFUSED
    assert (await ends.ask(Deed.OPEN, ends.where / "new", user="nobody")).trouble is Trouble.REFUSED
    inbox = ends.where / "inbox"
    inbox.mkdir()
    os.chown(inbox, 65534, 65534)
    await ends.ask(Deed.OPEN, inbox / "new", user="nobody")
    assert (await ends.ask(Deed.FINISH, size=0, digest=digest(b""))).is_done
    assert (inbox / "new").stat().st_uid == 65534


async def test_stranger_steps_are_refused(ends: Ends) -> None:
    assert (await ends.ask(Deed.PUBLISH)).trouble is Trouble.REFUSED
    ends.run_id = "../../etc/passwd"
    assert (await ends.ask(Deed.OPEN, ends.where / "new")).trouble is Trouble.REFUSED


@pytest.mark.parametrize("path", ["relative", "/a/../b", "/a//b", "/a/", "/a/./b", "/a\nb", "/" + "a" * 1001, "/", ""])
def test_paths_that_play_tricks_are_named(path: str) -> None:
    assert wrong_path(path)


def test_plain_paths_are_fine_and_long_names_have_room_for_the_run() -> None:
    assert wrong_path("/exports/2026-12-31 月次.csv") == ""
    name = temporary_name("月" * 85, str(uuid.uuid4()))
    assert len(name.encode()) <= 255 and name.startswith(".月")


def _noted_step(where: Path) -> FileStep:
    return FileStep(str(uuid.uuid4()), Deed.OPEN, is_source=False, path=str(where / "new"))


def test_rename_of_a_helper_that_was_killed_before_it_synced_is_made_to_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever is told that the file is in its place is told that it stays there through a power cut."""
    (tmp_path / "new").write_bytes(b"renamed, its directory not synced")
    synced: list[str] = []

    def fsync(fd: int, real: Callable[[int], None] = os.fsync) -> None:
        real(fd)
        synced.append(os.readlink(f"/proc/self/fd/{fd}"))

    monkeypatch.setattr(os, "fsync", fsync)
    assert Target(_noted_step(tmp_path), has_note=True).is_done
    assert synced == [str(tmp_path)]


def test_file_that_is_in_its_place_is_not_called_refused_because_the_disk_does_not_sync(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = _noted_step(tmp_path)
    end = Target(step)
    done_by(end, FileStep(step.run_id, Deed.WRITE, is_source=False, data=b"abc"))
    done_by(end, FileStep(step.run_id, Deed.FINISH, is_source=False, size=3, digest=digest(b"abc")))

    def fsync(_fd: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "fsync", fsync)
    answer = done_by(end, FileStep(step.run_id, Deed.PUBLISH, is_source=False))
    assert (tmp_path / "new").read_bytes() == b"abc"
    assert (answer.trouble, answer.is_done) == (Trouble.AGAIN, False)
