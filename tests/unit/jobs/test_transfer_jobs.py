"""Files between hosts and monitors' checks as jobs: real agents, a real PostgreSQL, managers that change in the middle."""

from __future__ import annotations

import asyncio
import random
import socket
from pathlib import Path

import pytest
from test_jobs_engine import World, operate, site, store, until_state, world

from agent_world import lines, until

__all__ = ["site", "store", "world"]
pytestmark = pytest.mark.asyncio(loop_scope="module")


def ship(source: Path, to: Path, more: str = "") -> str:
    return (
        f"kind: JobNet\nname: n\nparameters: {{DAY: {{default: d1}}}}\njobs:\n  - name: ship\n    transfer:\n"
        f"      from: {{host: h1, path: '{source}'}}\n      to: {{host: h2, path: '{to}', mode: '0600'}}\n{more}"
    )


async def detail(world: World, job: str = "ship") -> tuple[str, int | None, str, str]:
    [row] = await world.rows("SELECT state, exit_code, coalesce(output, ''), coalesce(detail, '') FROM job_run"
                             " WHERE job_name = %s ORDER BY attempt DESC LIMIT 1", job)  # fmt: skip
    return row  # type: ignore[return-value]


def big(path: Path, seed: int = 1) -> bytes:
    content = random.Random(seed).randbytes(12 << 20)
    path.write_bytes(content)
    return content


async def test_file_is_carried_and_its_variables_are_filled(world: World, tmp_path: Path) -> None:
    content = big(tmp_path / "d1.csv")
    await world.define(ship(tmp_path / "{{DAY}}.csv", tmp_path / "in.csv"))
    async with world.engine():
        assert await world.end_of(await world.start("n"), seconds=60) == "normal", await detail(world)
    assert (tmp_path / "in.csv").read_bytes() == content
    assert (tmp_path / "in.csv").stat().st_mode & 0o777 == 0o600
    state, code, output, _ = await detail(world)
    assert (state, code) == ("normal", 0) and output.startswith(f"{len(content)} bytes, sha256 ")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["d1.csv", "in.csv"]


@pytest.mark.parametrize("broken", ["h1", "h2"])
async def test_transfer_goes_on_through_switches_and_killed_agents(world: World, tmp_path: Path, broken: str) -> None:
    content = big(tmp_path / "old")
    await world.define(ship(tmp_path / "old", tmp_path / "new"))

    def began() -> bool:
        return (tmp_path / "new").exists() or any(p.stat().st_size for p in tmp_path.glob(".new*"))

    async with world.engine():
        session = await world.start("n")
        await until(began, what="some of it is there")
    size = max((p.stat().st_size for p in tmp_path.glob(".new*")), default=len(content))
    async with world.engine("m2", epoch=2):
        world.agents[broken].kill()
        await asyncio.sleep(0)
        world.agents[broken].start()
        assert await world.end_of(session, seconds=60) == "normal", await detail(world)
    assert 0 < size <= len(content) and (tmp_path / "new").read_bytes() == content
    assert list(tmp_path.glob(".new*")) == []
    assert [a for (a,) in await world.rows("SELECT attempt FROM job_run WHERE session_id = %s", session)] == [1]


async def test_file_that_was_taken_before_the_switch_does_not_come_twice(world: World, tmp_path: Path) -> None:
    (tmp_path / "old").write_text("once")
    await world.define(ship(tmp_path / "old", tmp_path / "new"))
    doubtful = asyncio.Event()

    class Deaf:
        """A store whose commits do not come back once the file is there."""

        def __getattr__(self, name: str) -> object:
            return getattr(world.store, name)

        async def commit(self, work: object, *, name: str, **more: object) -> object:
            if name == "jobs.advance" and (tmp_path / "new").exists():
                doubtful.set()
                await asyncio.Event().wait()
            return await world.store.commit(work, name=name, **more)  # type: ignore[arg-type]

    async with world.engine(store=Deaf()):
        session = await world.start("n")
        async with asyncio.timeout(60):
            await doubtful.wait()
    assert (await world.states(session))["ship"] == "running"
    (tmp_path / "new").rename(tmp_path / "taken")
    async with world.engine("m2", epoch=2):
        assert await world.end_of(session, seconds=60) == "normal", await detail(world)
    assert not (tmp_path / "new").exists() and (tmp_path / "taken").read_text() == "once"


async def test_what_cannot_be_carried_says_why_and_leaves_nothing(world: World, tmp_path: Path) -> None:
    await world.define(ship(tmp_path / "nothing", tmp_path / "new"))
    async with world.engine():
        assert await world.end_of(await world.start("n"), seconds=60) == "abnormal"
    state, code, _, why = await detail(world)
    assert (state, code) == ("abnormal", 1) and "h1" in why and "No such file" in why
    assert list(tmp_path.iterdir()) == []


async def test_variable_cannot_lead_a_path_elsewhere(world: World, tmp_path: Path) -> None:
    await world.define(ship(tmp_path / "{{DAY}}", tmp_path / "new").replace("default: d1", "default: ../../etc/passwd"))
    async with world.engine():
        assert await world.end_of(await world.start("n"), seconds=60) == "abnormal"
    assert "`..`" in (await detail(world))[3] and not (tmp_path / "new").exists()


async def test_transfer_to_an_absent_host_waits_and_can_be_stopped(world: World, tmp_path: Path) -> None:
    (tmp_path / "old").write_text("x")
    await world.define(ship(tmp_path / "old", tmp_path / "new"))
    world.agents["h2"].kill()
    await until(lambda: not world.hubs["m1"].is_connected("h2"), what="h2 is gone")
    async with world.engine():
        session = await world.start("n")
        await until_state(world, session, "ship", "running")
        assert await operate(world, session, "stop", "ship") == ""
        await world.end_of(session, seconds=60)
    world.agents["h2"].start()
    assert "nothing has appeared" in (await detail(world))[3] and not (tmp_path / "new").exists()


def ship_all(source: Path, to: Path, files: str, more: str = "") -> str:
    return ship(source, to, more).replace(f"path: '{source}'", f"path: '{source}', files: '{files}'")


async def test_all_files_that_match_are_carried_with_their_directories(world: World, tmp_path: Path) -> None:
    out, inbox = tmp_path / "out", tmp_path / "in"
    contents = {"a.csv": "a", "b {{DAY}}.csv": "b", "deep/down/c.csv": "c", "deep/x.txt": "no", ".hidden.csv": "no"}
    for name, text in contents.items():
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        (out / name).write_text(text)
    inbox.mkdir()
    await world.define(ship_all(out, inbox, "**/*.csv"))
    async with world.engine():
        assert await world.end_of(await world.start("n"), seconds=60) == "normal", await detail(world)
    found = {str(p.relative_to(inbox)): p.read_text() for p in inbox.rglob("*") if p.is_file()}
    assert found == {name: text for name, text in contents.items() if text != "no"}
    assert (inbox / "deep" / "down").stat().st_mode & 0o777 == 0o700
    assert (
        "3 files, 3 bytes" in (await detail(world))[2]
        and "deep/down/c.csv: 1 bytes, sha256 " in (await detail(world))[2]
    )


async def test_several_files_go_on_through_a_switch_and_each_comes_once(world: World, tmp_path: Path) -> None:
    out, inbox = tmp_path / "out", tmp_path / "in"
    out.mkdir()
    inbox.mkdir()
    for i in range(8):
        (out / f"{i}").write_text(f"{i}")
    content = big(out / "8")
    await world.define(ship_all(out, inbox, "*"))
    async with world.engine():
        session = await world.start("n")
        await until((inbox / "2").exists, what="some are there")
    (inbox / "0").rename(tmp_path / "taken")
    async with world.engine("m2", epoch=2):
        world.agents["h2"].kill()
        world.agents["h2"].start()
        assert await world.end_of(session, seconds=60) == "normal", await detail(world)
    assert sorted(p.name for p in inbox.iterdir()) == [str(i) for i in range(1, 9)]
    assert (inbox / "8").read_bytes() == content and (tmp_path / "taken").read_text() == "0"


async def test_no_file_that_matches_is_abnormal_and_so_is_one_that_cannot_be_written(
    world: World, tmp_path: Path
) -> None:
    out, inbox = tmp_path / "out", tmp_path / "in"
    out.mkdir()
    inbox.mkdir()
    await world.define(ship_all(out, inbox, "*.{{DAY}}"))
    async with world.engine():
        assert await world.end_of(await world.start("n"), seconds=60) == "abnormal"
        assert "matches *.d1" in (await detail(world))[3]
        for name in ("a.d1", "b.d1"):
            (out / name).write_text(name)
        (inbox / "b.d1").mkdir()
        assert await world.end_of(await world.start("n"), seconds=60) == "abnormal"
    [(code, why)] = await world.rows(
        "SELECT exit_code, detail FROM job_run WHERE job_name = 'ship' ORDER BY session_id DESC LIMIT 1"
    )
    assert code == 1 and "1 of 2 files are there; b.d1: " in why and (inbox / "a.d1").read_text() == "a.d1"


async def test_check_of_a_monitor_has_three_results(world: World) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with socket.create_server(("127.0.0.1", 0)) as other:
            closed = other.getsockname()[1]
        await world.define(
            f"""
kind: Host
name: here
address: 127.0.0.1
---
kind: Host
name: nowhere
address: 255.255.255.255
---
kind: Scope
name: none
hosts: []
---
{{kind: Monitor, name: open, scope: none, check: tcp, port: {port}}}
---
{{kind: Monitor, name: closed, scope: none, check: tcp, port: {closed}}}
---
{{kind: Monitor, name: logs, scope: none, check: syslog, patterns: [{{match: x, priority: info}}]}}
---
kind: JobNet
name: n
jobs:
  - {{name: well, check: {{monitor: open, host: here}}}}
  - {{name: bad, check: {{monitor: closed, host: here}}}}
  - {{name: nobody-knows, check: {{monitor: open, host: nowhere}}}}
  - {{name: senseless, check: {{monitor: logs, host: here}}}}
  - {{name: after-bad, host: h1, command: 'echo bad >>{world.oracle}', after: [{{job: bad, value: 2}}]}}
"""
        )
        async with world.engine():
            session = await world.start("n")
            await world.end_of(session, seconds=60)
    assert await world.states(session) == {
        "well": "normal", "bad": "abnormal", "nobody-knows": "unknown", "senseless": "abnormal", "after-bad": "normal",
    }  # fmt: skip
    assert lines(world.oracle) == ["bad"]
    assert "connected" in (await detail(world, "well"))[2] and "syslog" in (await detail(world, "senseless"))[3]
