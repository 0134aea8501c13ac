"""What a running job writes, seen through the manager's window: a real agent, a real hub, a real socket."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import pytest

from agent_world import AgentProcess, Keys, QuietLog, active, loopback, make_hub, order, until
from futago.jobs.hub import AgentHub
from futago.jobs.window import AskedOutput, OutputWindow, Part, ask
from futago.link.orders import OUTPUT_KEPT_BYTES_MAX, PART_BYTES_MAX


@dataclass
class World:
    hub: AgentHub
    agent: AgentProcess
    socket: Path

    async def read(self, run_id: str, offset: int = 0) -> Part:
        return await ask(AskedOutput("h1", run_id, offset), path=self.socket)

    async def written(self, run_id: str, text: bytes) -> Part:
        """Wait until the run has written so much."""
        for _ in range(3000):
            part = await self.read(run_id)
            if part.data.endswith(text):
                return part
            await asyncio.sleep(0.02)
        raise AssertionError(f"{part} does not end with {text!r}")


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    keys, address = Keys(tmp_path / "keys"), loopback()
    hub = make_hub(keys, address)
    socket = tmp_path / "manager.sock"
    hub.beside.append(OutputWindow(hub, path=socket, log=QuietLog()).run)
    task = asyncio.get_running_loop().create_task(hub.run())
    agent = AgentProcess(tmp_path / "h1", keys, name="h1", members=[address]).start()
    hub.set_role(active(1))
    try:
        await until(lambda: hub.is_connected("h1") and socket.exists(), what="agent connected")
        yield World(hub, agent, socket)
    finally:
        agent.destroy()
        task.cancel()
        await asyncio.wait({task})


async def test_output_of_a_running_job_is_shown_as_it_grows(world: World, tmp_path: Path) -> None:
    go = tmp_path / "go"
    world.hub.order("h1", order("r1", f"echo one; until [ -e {go} ]; do sleep 0.02; done; echo two; exit 3"))
    first = await world.written("r1", b"one\n")
    assert first == Part(0, b"one\n", 4, is_ended=False)
    go.touch()
    await world.written("r1", b"two\n")
    for _ in range(3000):
        rest = await world.read("r1", 4)
        if rest.is_ended:
            break
        await asyncio.sleep(0.02)
    assert rest == Part(4, b"two\n", 8, is_ended=True)


async def test_long_output_comes_in_parts_and_jumps_over_what_was_not_kept(world: World) -> None:
    half, size = OUTPUT_KEPT_BYTES_MAX // 2, 3 * OUTPUT_KEPT_BYTES_MAX
    world.hub.order(
        "h1", order("r1", f"head -c {half} /dev/zero | tr '\\0' a; head -c {size - half} /dev/zero | tr '\\0' b")
    )
    for _ in range(3000):
        part = await world.read("r1", size)
        if part.is_ended:
            break
        await asyncio.sleep(0.02)
    at, parts = 0, list[Part]()
    while at < size:
        part = await world.read("r1", at)
        assert 0 < len(part.data) <= PART_BYTES_MAX
        parts.append(part)
        at = part.offset + len(part.data)
    assert b"".join(p.data for p in parts) == b"a" * half + b"b" * half
    jumps = [p.offset for before, p in pairwise(parts) if p.offset != before.offset + len(before.data)]
    assert jumps == [size - half]


async def test_run_that_the_host_does_not_have_and_host_that_is_away(world: World) -> None:
    assert (await world.read("r9")).size == -1
    world.agent.kill()
    await until(lambda: not world.hub.is_connected("h1"), what="gone")
    assert await world.read("r9") == Part()
    assert await ask(AskedOutput("h1", "r1"), path=world.socket.with_name("nobody")) == Part()


async def test_line_that_is_no_question_ends_the_conversation_only(world: World) -> None:
    reader, writer = await asyncio.open_unix_connection(str(world.socket))
    writer.write(b"{]\n")
    assert await reader.read() == b""
    writer.close()
    assert (await world.read("r9")).size == -1
