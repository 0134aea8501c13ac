"""The lamp on the wall: a role is believed only while the controller keeps saying it."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from futago.runtime import role as role_module
from futago.runtime.faults import RemoteProtocolFault
from futago.runtime.role import INERT, GateState, Role, RoleKind, RoleWatch, parse_line

Say = Callable[[asyncio.StreamWriter], None]
LINE = {
    "role": "primary", "epoch": 7, "solo": False, "gate": "open", "outward": True, "primary": "m1",
    "view": {"epoch": 7, "primary": "m1", "insync": ["m1", "m2"]},
}  # fmt: skip


@contextlib.asynccontextmanager
async def controller(
    path: Path, say: Callable[[asyncio.StreamWriter], None]
) -> AsyncIterator[list[asyncio.StreamWriter]]:
    open_now: list[asyncio.StreamWriter] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert json.loads(await reader.readline()) == {"op": "role"}
        open_now.append(writer)
        say(writer)
        await reader.read()
        writer.close()

    server = await asyncio.start_unix_server(serve, str(path))
    try:
        yield open_now
    finally:
        server.close()
        for w in open_now:
            w.transport.abort()


@contextlib.asynccontextmanager
async def running(watch: RoleWatch) -> AsyncIterator[None]:
    task = asyncio.create_task(watch.run())
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


def test_role_line_is_read_whole() -> None:
    role = parse_line(json.dumps(LINE).encode())
    assert role.role is RoleKind.PRIMARY and role.gate is GateState.OPEN and role.is_active
    assert role.view is not None and role.view.insync == ("m1", "m2")


@pytest.mark.parametrize("line", [b"", b"{", b'{"role":"king"}', b'{"role":"primary","epoch":"x"}', b"[1]"])
def test_line_that_is_no_role_is_refused(line: bytes) -> None:
    with pytest.raises(RemoteProtocolFault):
        parse_line(line)


async def test_watch_is_inert_without_a_controller(tmp_path: Path) -> None:
    watch = RoleWatch(tmp_path / "none.sock")
    async with running(watch):
        await asyncio.sleep(0.02)
        assert watch.role == INERT and not watch.role.is_active


async def test_watch_follows_and_goes_inert_when_the_controller_dies(tmp_path: Path) -> None:
    path = tmp_path / "c.sock"
    watch = RoleWatch(path)
    async with running(watch):
        async with controller(path, lambda w: w.write(json.dumps(LINE).encode() + b"\n")):
            role = await asyncio.wait_for(watch.changed(INERT), 30)
            assert role.is_active and role.epoch == 7
        assert await asyncio.wait_for(watch.changed(role), 30) == INERT


async def test_controller_that_takes_its_time_for_the_first_line_is_heard(tmp_path: Path) -> None:
    def say(w: asyncio.StreamWriter) -> None:
        asyncio.get_running_loop().call_later(0.5, w.write, json.dumps(LINE).encode() + b"\n")

    watch = RoleWatch(tmp_path / "c.sock")
    async with running(watch), controller(tmp_path / "c.sock", say):
        assert (await asyncio.wait_for(watch.changed(INERT), 30)).is_active


async def test_watch_keeps_the_role_while_a_killed_controller_comes_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(role_module, "GRACE_S", 10.0)
    path = tmp_path / "c.sock"
    watch = RoleWatch(path)
    seen: list[Role] = []
    async with running(watch):
        async with controller(path, lambda w: w.write(json.dumps(LINE).encode() + b"\n")):
            role = await asyncio.wait_for(watch.changed(INERT), 30)
        noting = asyncio.create_task(_note(watch, seen))
        await asyncio.sleep(0.3)
        path.unlink(missing_ok=True)
        async with controller(path, lambda w: w.write(json.dumps(LINE).encode() + b"\n")):
            await asyncio.sleep(0.5)
            assert watch.role == role and not seen
        noting.cancel()


async def _note(watch: RoleWatch, seen: list[Role]) -> None:
    while True:
        seen.append(await watch.changed())


async def test_watch_goes_inert_when_a_living_socket_falls_silent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(role_module, "SILENCE_S_MAX", 0.5)
    path = tmp_path / "c.sock"
    watch = RoleWatch(path)
    async with running(watch), controller(path, lambda w: w.write(json.dumps(LINE).encode() + b"\n")):
        role = await asyncio.wait_for(watch.changed(INERT), 30)
        assert await asyncio.wait_for(watch.changed(role), 30) == INERT


async def test_changed_returns_at_once_when_the_known_role_is_already_old(tmp_path: Path) -> None:
    watch = RoleWatch(tmp_path / "none.sock")
    other = Role(role=RoleKind.STANDBY, epoch=3)
    assert await asyncio.wait_for(watch.changed(other), 30) == INERT
