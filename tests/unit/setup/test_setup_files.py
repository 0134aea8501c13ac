"""Files are written whole or not at all, with their mode from the first instant on, and nothing is left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from futago.runtime.faults import OperatorFault
from futago.setup import files


def test_a_file_gets_content_and_mode_and_a_second_write_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "deep/down/file"
    assert files.write(path, "one", mode=0o640)
    before = path.stat()
    assert not files.write(path, "one", mode=0o640)
    assert (path.stat().st_ino, path.stat().st_mode & 0o777) == (before.st_ino, 0o640)
    assert files.write(path, "one", mode=0o600)
    assert files.write(path, "two", mode=0o600)
    assert (path.read_text(), path.stat().st_mode & 0o777) == ("two", 0o600)
    assert [p.name for p in path.parent.iterdir()] == ["file"]


def test_a_file_that_need_not_be_durable_is_still_written_in_one_step_and_waits_for_no_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forbidden(fd: int) -> None:
        raise AssertionError("a sync")

    path = tmp_path / "gate"
    path.write_text("before")
    held = path.open()
    monkeypatch.setattr(os, "fsync", forbidden)
    assert files.write(path, "after", mode=0o640, is_durable=False)
    assert (path.read_text(), held.read()) == ("after", "before")
    assert [p.name for p in tmp_path.iterdir()] == ["gate"]


def test_what_a_killed_writer_left_is_removed_by_the_next(tmp_path: Path) -> None:
    path = tmp_path / "key"
    code = f"""
import os, signal
from pathlib import Path
from futago.setup import files
files.os.fsync = lambda fd: os.kill(os.getpid(), signal.SIGKILL)
files.write(Path({str(path)!r}), "secret", mode=0o600)
"""
    done = subprocess.run([sys.executable, "-c", code], check=False, timeout=120)
    assert done.returncode == -signal.SIGKILL
    (left,) = tmp_path.iterdir()
    assert left.stat().st_mode & 0o777 == 0o600
    mine = tmp_path / f".key.new-{os.getpid()}x"  # not a writer's: left alone
    mine.touch()
    files.write(path, "other", mode=0o600)
    assert sorted(p.name for p in tmp_path.iterdir()) == [mine.name, "key"]


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    files.write(path, "old", mode=0o644)

    def full(fd: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        files.write(path, "new", mode=0o644)
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("text", ["", "\n", "a\nb\n", "\n\n"])
def test_a_password_file_holds_one_line_and_nothing_else(tmp_path: Path, text: str) -> None:
    path = tmp_path / "password"
    path.write_text(text)
    with pytest.raises(OperatorFault, match="one line"):
        files.read_secret(path, option="--x")


def test_a_password_keeps_its_spaces(tmp_path: Path) -> None:
    path = tmp_path / "password"
    path.write_text(" pass word \n")
    assert files.read_secret(path, option="--x") == " pass word "
