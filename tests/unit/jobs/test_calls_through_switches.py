"""What the manager does itself (requests, checks, transfers) when the manager changes, or may not yet act outside."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from test_job_control import web
from test_jobs_engine import World, operate, site, store, until_state, world
from test_transfer_jobs import detail, ship

from agent_world import until

__all__ = ["site", "store", "world"]
pytestmark = pytest.mark.asyncio(loop_scope="module")


def requests(url: str) -> str:
    return f"""
kind: JobNet
name: n
jobs:
  - {{name: post, http: {{url: "{url}/good", method: POST}}}}
  - {{name: again, http: {{url: "{url}/good", method: POST, repeat: true}}}}
"""


async def test_request_that_was_ordered_before_the_switch_is_made_after_it(world: World) -> None:
    with web() as (url, asked):
        await world.define(requests(url))
        world.outward.set(False)
        async with world.engine():
            session = await world.start("n")
            await until_state(world, session, "post", "ordered")
            await until_state(world, session, "again", "ordered")
        world.outward.set(True)
        async with world.engine("m2", epoch=2):
            assert await world.end_of(session) == "normal", await world.states(session)
    assert len(asked) == 2


async def test_request_waits_until_effects_outside_are_allowed_and_is_made_then_once(world: World) -> None:
    with web() as (url, asked):
        await world.define(requests(url))
        world.outward.set(False)
        async with world.engine():
            session = await world.start("n")
            await until_state(world, session, "post", "ordered")
        async with world.engine("m2", epoch=2):
            other = await world.start("n")
            await until_state(world, other, "post", "ordered")
            assert asked == []
            world.outward.set(True)
            assert await world.end_of(session) == "normal", await world.states(session)
            assert await world.end_of(other) == "normal", await world.states(other)
    assert len(asked) == 4


async def test_request_that_was_only_ordered_is_stopped_and_never_made(world: World) -> None:
    with web() as (url, asked):
        await world.define(requests(url))
        world.outward.set(False)
        async with world.engine():
            session = await world.start("n")
            await until_state(world, session, "post", "ordered")
            await until_state(world, session, "again", "ordered")
            assert await operate(world, session, "stop") == ""
            assert await world.end_of(session) == "normal"
            world.outward.set(True)
            assert await world.end_of(await world.start("n")) == "normal"
    assert await world.states(session) == {"post": "not-run", "again": "not-run"}
    assert len(asked) == 2, "those of the second session"


async def test_request_that_was_taken_and_put_off_is_stopped_and_never_made(world: World) -> None:
    class Withdrawn:
        """A store after whose commit of a beginning no effects outside are allowed any more."""

        def __getattr__(self, name: str) -> object:
            return getattr(world.store, name)

        async def commit(self, work: object, *, name: str, **more: object) -> object:
            done = await world.store.commit(work, name=name, **more)  # type: ignore[arg-type]
            if await world.rows("SELECT 1 FROM job_run WHERE state = 'running'"):
                world.outward.set(False)
            return done

    with web() as (url, asked):
        await world.define(
            f'kind: JobNet\nname: n\njobs: [{{name: post, http: {{url: "{url}/good", method: POST}}}}]\n'
        )
        async with world.engine(store=Withdrawn()):
            session = await world.start("n")
            await until_state(world, session, "post", "running")
            assert await operate(world, session, "stop", "post") == ""
            assert await world.end_of(session) == "abnormal"
        assert asked == [] and "before its start" in (await detail(world, "post"))[3]


async def test_transfer_under_way_at_the_switch_goes_on_when_effects_outside_are_allowed_later(
    world: World, tmp_path: Path
) -> None:
    (tmp_path / "old").write_text("x")
    await world.define(ship(tmp_path / "old", tmp_path / "new"))
    world.agents["h2"].kill()
    await until(lambda: not world.hubs["m1"].is_connected("h2"), what="h2 is gone")
    async with world.engine():
        session = await world.start("n")
        await until_state(world, session, "ship", "running")
    world.agents["h2"].start()
    await world.all_connected("m2")
    world.outward.set(False)
    async with world.engine("m2", epoch=2):
        other = await world.start("n")  # the board is loaded as soon as its job is ordered
        await until_state(world, other, "ship", "ordered")
        assert (await world.states(session), (tmp_path / "new").exists()) == ({"ship": "running"}, False)
        world.outward.set(True)
        assert await world.end_of(session, seconds=60) == "normal", await detail(world)
        assert await world.end_of(other, seconds=60) == "normal", await detail(world)
    assert (tmp_path / "new").read_text() == "x"


class Deaf:
    """A store whose commits of moves do not come back once a file is there."""

    def __init__(self, world: World, there: Path) -> None:
        self._world, self._there = world, there
        self.is_deaf = asyncio.Event()

    def __getattr__(self, name: str) -> object:
        return getattr(self._world.store, name)

    async def commit(self, work: object, *, name: str, **more: object) -> object:
        if name == "jobs.advance" and self._there.exists():
            self.is_deaf.set()
            await asyncio.Event().wait()
        return await self._world.store.commit(work, name=name, **more)  # type: ignore[arg-type]


async def test_transfer_that_the_manager_before_had_done_is_not_called_stopped_before_its_start(
    world: World, tmp_path: Path
) -> None:
    (tmp_path / "old").write_text("once")
    await world.define(ship(tmp_path / "old", tmp_path / "new"))
    deaf = Deaf(world, tmp_path / "new")
    async with world.engine(store=deaf):
        session = await world.start("n")
        async with asyncio.timeout(60):
            await deaf.is_deaf.wait()
    assert (await world.states(session))["ship"] == "running"
    world.outward.set(False)
    async with world.engine("m2", epoch=2):
        assert await operate(world, session, "stop", "ship") == ""
        world.outward.set(True)
        await world.end_of(session, seconds=60)
    assert (await detail(world))[0] == "normal", await detail(world)
    assert (tmp_path / "new").read_text() == "once"
