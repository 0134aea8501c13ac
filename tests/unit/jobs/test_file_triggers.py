"""Nets that files start: real agents, a real PostgreSQL, managers that change in the middle; each change once."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from test_jobs_engine import Doubtful, World, site, store, world

from futago.inventory.definitions import parse
from futago.jobs.file_watch import Settled, changes, identity
from futago.link.files import Listed
from futago.runtime.faults import OperatorFault

__all__ = ["site", "store", "world"]
loop = pytest.mark.asyncio(loop_scope="module")


def trigger(where: Path | str, more: str = "", *, files: str = "*.csv", rest: str = "") -> str:
    return f"""
kind: JobNet
name: n
parameters: {{FILE: {{default: ""}}, SIZE: {{type: integer, default: "0"}}}}
jobs: [{{name: a, wait: 1h}}]
---
kind: Trigger
name: t
job_net: n
file: {{host: h1, path: '{where}', files: '{files}', interval: 1s{more}}}
set: {{FILE: name, SIZE: size}}
{rest}
"""


async def holds(what: Callable[[], Awaitable[bool]], world: World) -> None:
    end = asyncio.get_running_loop().time() + 60
    while not await what():
        assert asyncio.get_running_loop().time() < end, world.log.lines
        await asyncio.sleep(0.05)


async def started(world: World) -> list[str]:
    return [str(n) for (n,) in await world.rows("SELECT variables->>'FILE' FROM job_session ORDER BY session_id")]


async def has_begun(world: World) -> None:
    async def begun() -> bool:
        return bool(await world.rows("SELECT 1 FROM trigger_watch WHERE since_utc IS NOT NULL"))

    await holds(begun, world)


async def has_started(world: World, *names: str) -> None:
    async def all_of_them() -> bool:
        return len(await started(world)) >= len(names)

    await holds(all_of_them, world)
    assert sorted(await started(world)) == sorted(names)


async def has_seen(world: World, count: int) -> None:
    async def seen() -> bool:
        return await world.rows("SELECT count(*) FROM trigger_file") == [(count,)]

    await holds(seen, world)


def deliver(path: Path, text: str = "x") -> None:
    fresh = path.with_name("." + path.name)
    fresh.write_text(text)
    fresh.rename(path)


@loop
async def test_each_new_file_starts_the_net_once_with_its_name_and_what_was_there_starts_nothing(
    world: World, tmp_path: Path
) -> None:
    deliver(tmp_path / "old.csv")
    await world.define(trigger(tmp_path))
    async with world.engine():
        await has_begun(world)
        deliver(tmp_path / "new.csv", "12345")
        deliver(tmp_path / "new.txt")
        await has_started(world, "new.csv")
        assert await world.rows("SELECT trigger, variables->>'SIZE' FROM job_session") == [("trigger t", "5")]
        os.unlink(tmp_path / "new.csv")
        await has_seen(world, 1)
        deliver(tmp_path / "new.csv")
        await has_started(world, "new.csv", "new.csv")


@loop
async def test_what_comes_while_nobody_looks_starts_once_after_the_switch(world: World, tmp_path: Path) -> None:
    await world.define(trigger(tmp_path))
    async with world.engine():
        await has_begun(world)
        deliver(tmp_path / "a.csv")
        await has_started(world, "a.csv")
    deliver(tmp_path / "b.csv")
    world.agents["h1"].kill()
    world.agents["h1"].start()
    async with world.engine("m2", epoch=2):
        deliver(tmp_path / "c.csv")
        await has_started(world, "a.csv", "b.csv", "c.csv")
    async with world.engine("m1", epoch=3):
        deliver(tmp_path / "d.csv")
        await has_started(world, "a.csv", "b.csv", "c.csv", "d.csv")


@loop
async def test_commits_of_unknown_outcome_start_nothing_twice_and_lose_nothing(world: World, tmp_path: Path) -> None:
    await world.define(trigger(tmp_path))
    async with world.engine():
        await has_begun(world)
    doubtful = Doubtful(world.store, seed=5, odds=0.5)
    names = [f"{i}.csv" for i in range(12)]
    for name in names:
        deliver(tmp_path / name)
    async with world.engine("m1", epoch=2, store=doubtful):
        await has_seen(world, len(names))
    await doubtful.settle()
    async with world.engine("m2", epoch=3):
        deliver(tmp_path / "last.csv")
        await has_started(world, "last.csv", *names)
    assert doubtful.doubts.total() >= 3


@loop
async def test_change_and_deletion_start_the_net_if_they_are_asked_for(world: World, tmp_path: Path) -> None:
    for name in ("changed.csv", "gone.csv"):
        deliver(tmp_path / name)
    net, _, one = trigger(tmp_path / "changed.csv", ", when: changed").replace(", files: '*.csv'", "").partition("---")
    other = (
        one.replace("name: t", "name: u").replace("changed.csv", "gone.csv").replace("when: changed", "when: deleted")
    )
    await world.define(f"{net}---{one}---{other.replace(', SIZE: size', '')}")
    async with world.engine():

        async def begun() -> bool:
            return await world.rows("SELECT count(since_utc) FROM trigger_watch") == [(2,)]

        await holds(begun, world)
        deliver(tmp_path / "changed.csv", "more")
        os.unlink(tmp_path / "gone.csv")
        await has_started(world, "changed.csv", "gone.csv")


@loop
async def test_directory_that_cannot_be_read_is_said_once_and_counts_as_unchanged(world: World, tmp_path: Path) -> None:
    inbox = tmp_path / "in"
    inbox.mkdir()
    deliver(inbox / "a.csv")
    await world.define(trigger(inbox))
    async with world.engine():
        await has_begun(world)
        inbox.rename(tmp_path / "away")

        async def said() -> bool:
            return bool(await world.rows("SELECT 1 FROM trigger_watch WHERE fault <> ''"))

        await holds(said, world)
    async with world.engine("m2", epoch=2):
        (tmp_path / "away").rename(inbox)
        deliver(inbox / "b.csv")
        await has_started(world, "b.csv")

        async def mended() -> bool:
            return not await said()

        await holds(mended, world)
    [(message, priority, host)] = await world.rows("SELECT message, priority, host_name FROM event")
    assert "cannot look" in message and "No such file" in message and (priority, host) == ("warning", "h1")


@loop
async def test_what_cannot_be_started_is_said_once_for_each_file(world: World, tmp_path: Path) -> None:
    await world.define(trigger(tmp_path).replace("SIZE: size", "SIZE: modified"))
    async with world.engine():
        await has_begun(world)
        deliver(tmp_path / "a.csv")
        await has_seen(world, 1)
    found = await world.rows("SELECT message, priority, detail->>'file' FROM event")
    assert [(priority, file) for _, priority, file in found] == [("critical", "a.csv")]
    assert "Trigger t could not start anything" in found[0][0] and await started(world) == []


@loop
async def test_trigger_that_rests_forgets_and_another_pattern_begins_anew(world: World, tmp_path: Path) -> None:
    await world.define(trigger(tmp_path))
    async with world.engine():
        await has_begun(world)
        await world.define(trigger(tmp_path, rest="enabled: false"))

        async def forgotten() -> bool:
            return not await world.rows("SELECT 1 FROM trigger_watch")

        await holds(forgotten, world)
        deliver(tmp_path / "a.csv")
        deliver(tmp_path / "a.txt")
        await world.define(trigger(tmp_path, files="*.txt", rest="if_open: skip"))
        await has_begun(world)
        await has_seen(world, 1)
        deliver(tmp_path / "b.txt")
        deliver(tmp_path / "c.txt")
        await has_seen(world, 3)
        assert len(await started(world)) == 1


def listed(name: str, inode: int = 1, size: int = 0, mtime_ns: int = 0) -> Listed:
    return Listed(name, inode, size, mtime_ns)


def at_once(*found: Listed) -> Settled:
    settled = Settled()
    settled.look(found, 0.0)
    return settled


def test_another_file_under_the_same_name_is_a_new_one_and_growing_is_not() -> None:
    before, grown, other = listed("a"), listed("a", size=9, mtime_ns=9), listed("a", inode=2)
    seen = {"a": identity("created", before)}
    assert changes("created", seen, [grown], at_once(grown)) == []
    [change] = changes("created", seen, [other], at_once(other))
    assert change.starts and change.file == other


def test_file_that_comes_does_not_count_as_changed_nor_does_one_that_goes() -> None:
    a, b = listed("a"), listed("b")
    found = changes("changed", {"a": identity("changed", a)}, [b], at_once(b))
    assert [(c.name, c.starts) for c in found] == [("a", False), ("b", False)]


def test_file_counts_once_it_has_looked_the_same_for_long_enough() -> None:
    settled = Settled(10.0)
    first, more = listed("a"), listed("a", size=1)
    counted = []
    for now, file in ((0.0, first), (9.0, first), (9.5, more), (12.0, more), (19.4, more), (19.5, more)):
        settled.look([file], now)
        counted.append(bool(changes("created", {}, [file], settled)))
    assert counted == [False] * 5 + [True]


def test_oldest_files_come_first() -> None:
    files = [listed("a", mtime_ns=3), listed("b", mtime_ns=1), listed("c", mtime_ns=2)]
    assert [c.name for c in changes("created", {}, files, at_once(*files))] == ["b", "c", "a"]


@pytest.mark.parametrize(
    ("file", "why"),
    [
        ("{host: h, path: relative}", "file.path"),
        ("{host: h, path: /a/../b}", r"\.\."),
        ("{host: h, path: /a}", "right under"),
        ("{host: h, path: /a, files: '**'}", r"\*\*"),
        ("{host: h, path: /a/b, interval: 10ms}", "interval"),
        ("{host: h, path: /a/b, when: deleted, settle: 1s}", "settle"),
    ],
)
def test_senseless_watches_are_refused_with_a_reason(file: str, why: str) -> None:
    with pytest.raises(OperatorFault, match=why):
        parse(f"kind: Trigger\nname: t\njob_net: n\nfile: {file}\n")


def test_single_file_is_a_pattern_that_matches_nothing_else() -> None:
    [definition] = parse("kind: Trigger\nname: t\njob_net: n\nfile: {host: h, path: '/in/a[1]*.csv'}\n")
    file = definition.object.file  # type: ignore[attr-defined]
    assert (file.directory, file.pattern) == ("/in", "a[[]1][*].csv")
