"""What a listing of files holds, on a real file system; asked as managers ask it."""

from __future__ import annotations

import asyncio
import os
import uuid
from pathlib import Path

import pytest

from agent_world import QuietLog
from futago.agent.carry import FileCarrier
from futago.agent.listing import TooMany, list_files
from futago.link.files import LIST_FILES_MAX, Deed, FileAnswer, FileStep, Trouble, wrong_pattern


def fill(where: Path, *names: str) -> None:
    for name in names:
        (where / name).parent.mkdir(parents=True, exist_ok=True)
        (where / name).write_text(name)


def names(where: Path, pattern: str) -> list[str]:
    return [f.name for f in list_files(str(where), pattern)]


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("*.csv", ["a.csv", "b.csv"]),
        ("[a]*", ["a.csv", "a.txt"]),
        ("in/*", ["in/c.csv"]),
        ("*/*.csv", ["in/c.csv"]),
        ("**/*.csv", ["a.csv", "b.csv", "in/c.csv", "in/deep/d.csv"]),
        ("in/**/*", ["in/c.csv", "in/deep/d.csv"]),
        (".*", [".hidden"]),
        (".dir/*", [".dir/e.csv"]),
        ("nothing", []),
    ],
)
def test_names_match_as_in_a_shell_and_links_and_directories_are_no_files(
    tmp_path: Path, pattern: str, found: list[str]
) -> None:
    fill(tmp_path, "a.csv", "b.csv", "a.txt", ".hidden", ".dir/e.csv", "in/c.csv", "in/deep/d.csv", "in/deep/.f.csv")
    (tmp_path / "link.csv").symlink_to(tmp_path / "a.csv")
    (tmp_path / "linked").symlink_to(tmp_path / "in")
    (tmp_path / "dir.csv").mkdir()
    os.mkfifo(tmp_path / "pipe.csv")
    assert names(tmp_path, pattern) == found


def test_listing_says_what_a_file_is(tmp_path: Path) -> None:
    fill(tmp_path, "a")
    status = (tmp_path / "a").stat()
    [one] = list_files(str(tmp_path), "a")
    assert (one.inode, one.size, one.mtime_ns) == (status.st_ino, 1, status.st_mtime_ns)


def test_more_than_fits_is_an_error_and_no_part_of_it(tmp_path: Path) -> None:
    for i in range(LIST_FILES_MAX + 1):
        (tmp_path / f"{i}").touch()
    with pytest.raises(TooMany, match="2000"):
        list_files(str(tmp_path), "*")
    assert len(list_files(str(tmp_path), "1*")) == 1112 - 1


@pytest.mark.parametrize("pattern", ["", "/a", "a//b", "../a", "a/./b", "**", "a/**", "**/**/a", "a\nb", "x" * 1001])
def test_patterns_that_make_no_sense_are_named(pattern: str) -> None:
    assert wrong_pattern(pattern)


async def test_agent_lists_as_the_user_and_says_why_it_cannot(tmp_path: Path) -> None:
    carrier = FileCarrier(tmp_path / "notes", log=QuietLog())
    ends = asyncio.get_running_loop().create_task(carrier.run())

    async def ask(path: Path | str, pattern: str, user: str = "") -> FileAnswer:
        step = FileStep(
            str(uuid.uuid4()), Deed.LIST, is_source=True, path=str(path), pattern=pattern, user=user, ticket=7
        )
        return await carrier.step(step)

    try:
        fill(tmp_path, "in/a", "in/b")
        for _ in range(3):
            answer = await ask(tmp_path / "in", "*")
            assert (answer.trouble, answer.ticket) == (Trouble.NONE, 7)
            assert [f.name for f in answer.listed] == ["a", "b"]
        fill(tmp_path, "in/c")
        assert [f.name for f in (await ask(tmp_path / "in", "*")).listed] == ["a", "b", "c"]
        gone = await ask(tmp_path / "none", "*")
        assert gone.trouble is Trouble.REFUSED and "No such file" in gone.fault
        for path, pattern in (("/a/../b", "*"), (tmp_path, "../*"), ("relative", "*")):
            assert (await ask(path, pattern)).trouble is Trouble.REFUSED
        assert (await ask(tmp_path, "*", user="no-such-user")).trouble is Trouble.REFUSED
        if os.geteuid() == 0:
            (tmp_path / "in").chmod(0o700)
            assert (await ask(tmp_path / "in", "*", user="nobody")).trouble is Trouble.REFUSED
    finally:
        ends.cancel()
        await asyncio.wait({ends})
