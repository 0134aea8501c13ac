"""The manager against a controller's socket and a real database: engines live exactly as long as the role."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import msgspec
import pytest

from futago.manager import Column, Manager
from futago.runtime import role as role_module
from futago.runtime.engine import EngineContext
from futago.runtime.faults import Refused
from futago.runtime.log import Log
from futago.runtime.role import INERT, Role, RoleWatch
from futago.setup.settings import MemberSettings, PairSettings, Settings, dump
from futago.store import migrate
from futago.store.commit import Connection, Store
from postgres_cluster import Cluster

SETTINGS = Settings(
    me="m1",
    pair=PairSettings(name="lab", id="p", floating_ip="10.0.0.100/24"),
    members=[MemberSettings(name="m1", service="10.0.0.1", heartbeat="10.1.0.1", interface="eth0")],
)


class Controller:
    """A controller's local socket as far as the manager uses it: the role stream, and beats."""

    def __init__(self) -> None:
        self.beats: list[float] = []
        self._line: dict[str, object] = {"role": "standby", "epoch": 6, "gate": "closed", "outward": False}
        self._listeners: set[asyncio.StreamWriter] = set()

    def say(self, **line: object) -> None:
        self._line = line
        for writer in self._listeners:
            writer.write(json.dumps(line).encode() + b"\n")

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = json.loads(await reader.readline())
        if request == {"op": "beat", "program": "manager"}:
            self.beats.append(time.monotonic())
            writer.write(b'{"ok":true}\n')
            writer.close()
            return
        assert request == {"op": "role"}
        self._listeners.add(writer)
        while not reader.at_eof():
            writer.write(json.dumps(self._line).encode() + b"\n")
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(0.3):
                    await reader.read()
        self._listeners.discard(writer)
        writer.close()


@dataclass
class Engines:
    """Engines that write down when they live."""

    story: list[str] = field(default_factory=list)
    contexts: list[EngineContext] = field(default_factory=list)
    work: Callable[[EngineContext], AsyncIterator[None]] | None = None

    def make(self, context: EngineContext) -> Engines:
        self.contexts.append(context)
        return self

    async def run(self) -> None:
        context = self.contexts[-1]
        self.story.append(f"begin {context.epoch}")
        try:
            await asyncio.Event().wait()
        finally:
            self.story.append(f"end {context.epoch}")


class Agents:
    """What the hub is told."""

    def __init__(self) -> None:
        self.roles: list[Role] = []

    def set_role(self, role: Role) -> None:
        self.roles.append(role)

    async def run(self) -> None:
        await asyncio.Event().wait()


async def _until(condition: Callable[[], bool], seconds: float = 60) -> float:
    began = time.monotonic()
    while not condition():
        assert time.monotonic() - began < seconds, "it did not come about"
        await asyncio.sleep(0.005)
    return time.monotonic() - began


@dataclass
class Bench:
    controller: Controller
    engines: Engines
    hub: Agents
    manager: Manager
    stop: asyncio.Event
    task: asyncio.Task[None]


@pytest.fixture
async def bench(tmp_path: Path, database: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Bench]:
    # The stand-in of the controller shares the loop with the manager, which a busy machine holds up for seconds.
    monkeypatch.setattr(role_module, "SILENCE_S_MAX", 60.0)
    monkeypatch.setattr(role_module, "GRACE_S", 60.0)
    controller, engines, hub, stop = Controller(), Engines(), Agents(), asyncio.Event()
    path = tmp_path / "controller.sock"
    server = await asyncio.start_unix_server(controller.serve, str(path))
    columns = [Column("test", engines.make)]
    manager = Manager(
        *(SETTINGS, Log(), RoleWatch(path), hub, columns),
        conninfo=database,
        controller=path,
        settings_path=tmp_path / "futago.toml",
    )
    task = asyncio.create_task(manager.run(stop))
    yield Bench(controller, engines, hub, manager, stop, task)
    stop.set()
    with contextlib.suppress(ExceptionGroup):
        await task
    server.close()


PRIMARY = {"role": "primary", "epoch": 7, "gate": "open", "outward": True}


async def test_engines_run_promptly_after_the_role_came(bench: Bench) -> None:
    await _until(lambda: bool(bench.hub.roles) and bench.hub.roles[-1].epoch == 6)
    assert bench.engines.story == []
    begin, end = [], []
    for epoch in range(7, 107, 10):  # the quickest counts: a busy machine holds up some
        bench.controller.say(**PRIMARY | {"epoch": epoch})
        begin.append(await _until(lambda epoch=epoch: bench.engines.story[-1:] == [f"begin {epoch}"]))
        assert bench.manager.outward.is_allowed
        assert bench.hub.roles[-1].epoch == epoch
        bench.controller.say(role="standby", epoch=epoch + 1, gate="closed", outward=False)
        end.append(await _until(lambda epoch=epoch: bench.engines.story[-1] == f"end {epoch}"))
        if min(begin) < 0.5 and min(end) < 0.3:
            break
    assert min(begin) < 0.5 and min(end) < 0.3  # 0.1 s on a quiet machine


async def test_engines_do_not_run_while_the_gate_is_closed(bench: Bench) -> None:
    bench.controller.say(**PRIMARY | {"gate": "closed"})
    await _until(lambda: bench.hub.roles[-1:] != [] and bench.hub.roles[-1].epoch == 7)
    await asyncio.sleep(0.1)
    assert bench.engines.story == []
    assert not bench.manager.outward.is_allowed


async def test_lost_role_ends_engines_at_once_and_the_next_epoch_begins_anew(bench: Bench) -> None:
    bench.controller.say(**PRIMARY)
    await _until(lambda: bench.engines.story == ["begin 7"])
    bench.controller.say(role="standby", epoch=8, gate="closed", outward=False)
    await _until(lambda: bench.engines.story[-1] == "end 7")
    assert not bench.manager.outward.is_allowed
    bench.controller.say(**PRIMARY | {"epoch": 9, "outward": False})
    await _until(lambda: bench.engines.story[-1] == "begin 9")
    assert not bench.manager.outward.is_allowed, "outward effects wait for their own permission"
    bench.controller.say(**PRIMARY | {"epoch": 9, "outward": True})
    await _until(lambda: bench.manager.outward.is_allowed)
    assert bench.engines.story == ["begin 7", "end 7", "begin 9"]


async def test_new_epoch_of_a_serving_primary_replaces_the_engines(bench: Bench) -> None:
    bench.controller.say(**PRIMARY)
    await _until(lambda: bench.engines.story == ["begin 7"])
    bench.controller.say(**PRIMARY | {"epoch": 8})
    await _until(lambda: bench.engines.story == ["begin 7", "end 7", "begin 8"])
    assert bench.engines.contexts[0].store is not bench.engines.contexts[1].store


async def test_member_that_joins_is_in_the_settings_of_the_engines_without_a_restart(bench: Bench) -> None:
    bench.controller.say(**PRIMARY)
    await _until(lambda: bench.engines.story == ["begin 7"])
    assert bench.engines.contexts[0].settings.peer is None
    newcomer = MemberSettings(name="m2", service="10.0.0.2", heartbeat="10.1.0.2", interface="eth0")
    joined = msgspec.structs.replace(SETTINGS, members=[*SETTINGS.members, newcomer])
    _write(bench.manager.settings_path, "not settings")
    await asyncio.sleep(1.2)
    assert bench.engines.story == ["begin 7"]
    _write(bench.manager.settings_path, dump(joined))
    await _until(lambda: bench.engines.story == ["begin 7", "end 7", "begin 7"])
    assert bench.engines.contexts[1].settings.peer == newcomer
    assert bench.manager.outward.is_allowed
    seated = msgspec.structs.replace(joined, roster=1)  # concerns no engine
    _write(bench.manager.settings_path, dump(seated))
    await _until(lambda: bench.manager.settings == seated)
    await asyncio.sleep(0.1)
    assert bench.engines.story == ["begin 7", "end 7", "begin 7"]


def _write(path: Path, text: str) -> None:
    path.with_suffix(".new").write_text(text)
    path.with_suffix(".new").rename(path)


async def test_dead_controller_makes_the_manager_inert(tmp_path: Path, bench: Bench) -> None:
    bench.controller.say(**PRIMARY)
    await _until(lambda: bench.engines.story == ["begin 7"])
    bench.controller.say(role="none", epoch=0)
    await _until(lambda: bench.engines.story[-1] == "end 7")
    assert bench.hub.roles[-1].epoch == 0 and bench.hub.roles[-1] == Role() == INERT


async def test_beats_reach_the_controller_five_times_a_second(bench: Bench) -> None:
    await _until(lambda: len(bench.controller.beats) >= 6)
    await _until(lambda: 0.15 < sorted(b - a for a, b in pairwise(bench.controller.beats[-6:]))[2] < 0.3)


async def test_controller_that_is_away_is_told_once_and_so_is_its_return(
    tmp_path: Path, bench: Bench, capsys: pytest.CaptureFixture[str]
) -> None:
    told: list[str] = []

    def tells(event: str) -> bool:
        told.extend(json.loads(line)["event"] for line in capsys.readouterr().err.splitlines())
        return event in told

    await _until(lambda: len(bench.controller.beats) >= 1)
    path = tmp_path / "controller.sock"
    path.rename(tmp_path / "away.sock")
    await _until(lambda: tells("manager.controller_away"))
    beats = len(bench.controller.beats)
    await asyncio.sleep(1.2)  # two beats more that fail are not told
    (tmp_path / "away.sock").rename(path)
    await _until(lambda: tells("manager.controller_back"))
    assert len(bench.controller.beats) > beats
    assert told.count("manager.controller_away") == 1


async def test_engine_that_the_world_threw_out_is_started_again(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    async def run_out() -> None:
        bench.engines.story.append("thrown out")
        if len(bench.engines.story) < 3:
            raise Refused("no connection")
        await asyncio.Event().wait()

    monkeypatch.setattr(bench.engines, "run", run_out)
    bench.controller.say(**PRIMARY)
    await _until(lambda: bench.engines.story == ["thrown out"] * 3)


async def test_bug_in_an_engine_ends_the_program(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    async def run_bad() -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(bench.engines, "run", run_bad)
    bench.controller.say(**PRIMARY)
    with pytest.raises(ExceptionGroup):
        await asyncio.wait_for(bench.task, 60)


async def test_commit_that_hangs_on_the_standby_does_not_delay_the_end_of_an_epoch(
    bench: Bench, postgres: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def insert(conn: Connection) -> None:
        await conn.execute("INSERT INTO scope (scope_name) VALUES ('x')")

    async def run_commit() -> None:
        await bench.engines.contexts[-1].store.commit(insert, name="test.hang")

    monkeypatch.setattr(bench.engines, "run", run_commit)
    with postgres.absent_standby():
        bench.controller.say(**PRIMARY)
        await _until(lambda: "futago-manager" in [name for _, name in postgres.waiting()])
        bench.controller.say(role="standby", epoch=8, gate="closed")
        await _until(lambda: bench.hub.roles[-1].epoch == 8)  # the commit would hang for as long as this test lasts
        assert "futago-manager" in [name for _, name in postgres.waiting()], "the commit must not be cancelled"


async def test_blank_database_gets_its_schema_before_the_engines_begin(tmp_path: Path, postgres: Cluster) -> None:
    postgres.sql("CREATE DATABASE bare OWNER futago TEMPLATE template0", database="postgres")
    postgres.sql("ALTER SCHEMA public OWNER TO futago", database="bare")
    controller, engines, stop = Controller(), Engines(), asyncio.Event()
    controller.say(**PRIMARY)
    server = await asyncio.start_unix_server(controller.serve, str(tmp_path / "c"))
    conninfo = postgres.conninfo_of("bare")
    watch = RoleWatch(tmp_path / "c")
    manager = Manager(SETTINGS, Log(), watch, Agents(), [Column("t", engines.make)], conninfo, tmp_path / "c")
    task = asyncio.create_task(manager.run(stop))
    await _until(lambda: engines.story == ["begin 7"], 10)
    store = await Store.open(conninfo=conninfo, application_name="test")
    assert await migrate.is_current(store)
    await store.close()
    stop.set()
    await task
    assert engines.story == ["begin 7", "end 7"]
    server.close()
    postgres.drop_database("bare")
