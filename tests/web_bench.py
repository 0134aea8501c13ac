"""The web program on a bench: the real application over a real PostgreSQL, with a stand-in for the controller that
speaks its socket's protocol and does what a test tells it.

The stand-in decides nothing: it repeats a role and a status, and answers operations from a script.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any
from unittest.mock import patch

import httpx

from futago.access import store as access_rows
from futago.access.bootstrap import ADMIN
from futago.access.model import AccessRole, Account
from futago.access.passwords import hash_password
from futago.access.tokens import hash_secret
from futago.runtime import role as role_room
from futago.runtime.log import Log
from futago.runtime.role import RoleWatch
from futago.setup.fences import FenceDevice
from futago.setup.settings import MemberSettings, PairSettings, Settings
from futago.store.commit import Connection, Store
from futago.web.app import make_rooms
from futago.web.controller_link import ControllerLink
from futago.web.rooms import Rooms

NewClient = Callable[..., httpx.AsyncClient]
PASSWORD = "correct-horse-battery"
TOKEN = "bench-token-0123456789-0123456789-0123456789"


def settings(me: str = "m1", *, network: str = "10.91.1") -> Settings:
    """Return a pair of two members whose service addresses are in `network`."""

    def member(name: str, last: int) -> MemberSettings:
        fence = FenceDevice(driver="ipmi", address=f"10.92.1.{last}", user="futago", password_file="/dev/null")
        return MemberSettings(
            name=name, service=f"{network}.{last}", heartbeat=f"10.93.1.{last}", interface="eth0", fence=[fence]
        )

    return Settings(
        me=me,
        pair=PairSettings(name="lab", id="0123456789abcdef", floating_ip=f"{network}.100/24"),
        members=[member("m1", 11), member("m2", 12)],
    )


def role(kind: str, *, gate: str = "closed", epoch: int = 7, primary: str | None = "m1") -> dict[str, Any]:
    """Return a line of the role stream."""
    view = {"epoch": epoch, "primary": primary, "insync": ["m1", "m2"]} if primary else None
    return {
        "role": kind,
        "epoch": epoch,
        "solo": False,
        "gate": gate,
        "outward": gate == "open",
        "primary": primary,
        "view": view,
    }


SERVING = role("primary", gate="open")
STANDBY = role("standby", primary="m2", epoch=8)


def status(**changes: Any) -> dict[str, Any]:
    """Return the status of a protected pair, with changes."""
    members = [
        {"name": n, "role": r, "reachable": True, "pg": r, "timeline": 3, "flush_lsn": "0/30001A8"}
        | {"replay_lag_bytes": 0, "gate": g, "address": r == "primary", "fit": True, "able": True}
        | {"boot": "b", "version": "0.1.0"}
        for n, r, g in (("m1", "primary", "open"), ("m2", "standby", "closed"))
    ]
    steps = [("detected", 2012.3), ("won", 2049.8), ("fenced", 2311.0), ("promoted", 2188.4), ("gate", 2203.1)]
    steps += [("address", 2330.5), ("outward", 2334.9)]
    whole: dict[str, Any] = {
        "pair": "lab",
        "state": "paired",
        "protected": True,
        "primary": "m1",
        "epoch": 7,
        "reason": "Both members are in sync.",
        "rule": "P1",
        "command": "",
        "not_protected": [],
        "members": members,
        "links": [
            {"name": "service", "up": True, "last_heard_ms": 84.0},
            {"name": "heartbeat", "up": True, "last_heard_ms": 61.0},
        ],
        "fences": [
            {"member": m, "driver": "ipmi", "state": "on", "tested_ago_s": 12.0, "ok": True, "error": ""}
            for m in ("m1", "m2")
        ],
        "third_vote": {
            "kind": "jury",
            "ok": True,
            "epoch": 7,
            "knows_view": True,
            "jurors": [{"name": n, "ok": True, "error": ""} for n in ("web1", "web2", "db1")],
        },
        "journals": {"complete": True, "own": {"last": 10, "synced": 10}, "peer": {"last": 9}},
        "last_switch": {
            "kind": "failover",
            "epoch": 7,
            "from": "m2",
            "to": "m1",
            "utc": datetime.now(UTC).isoformat(),
            "steps": [{"name": n, "ms": ms} for n, ms in steps],
        },
        "recovery": {"running": False, "rung": "", "progress": "", "error": ""},
        "utc": datetime.now(UTC).isoformat(),
    }
    return whole | changes


PLAN: dict[str, Any] = {
    "is_needed": True, "wrong": ["m1 serves alone; m2 is silent."], "back": "m2", "source": "m1", "refusal": "",
    "repair": "",
    "steps": [
        {"what": "rewind", "text": "undo on m2 what m1 never had", "bytes_max": 2 << 30, "seconds": 22.5,
         "is_destructive": True},
        {"what": "add", "text": "make m2 part of the pair", "bytes_max": 0, "seconds": 2, "is_destructive": False},
    ],
    "checks": [
        {"name": "room", "member": "m2", "grade": "ok", "text": "9216 MiB free, 2304 MiB needed", "repair": ""},
        {"name": "clock", "member": "m2", "grade": "warn", "text": "the members' clocks differ by 4.2 s",
         "repair": "Let both members follow the same time servers."},
    ],
}  # fmt: skip
"""A plan of a recovery as the controller tells it."""


@dataclass
class StandIn:
    """Speaks the controller's local protocol.

    Args:
        answers: the lines that answer any operation; `replies` by operation (`plan` is a recovery's) go before them.
    """

    path: Path
    role: dict[str, Any] = field(default_factory=lambda: dict(SERVING))
    status: dict[str, Any] = field(default_factory=status)
    answers: list[dict[str, Any]] = field(default_factory=lambda: [{"ok": True}])
    answer_pause_s: float = 0.0
    replies: dict[str, dict[str, Any]] = field(default_factory=lambda: {"plan": {"ok": True, "plan": PLAN}})
    asked: list[str] = field(default_factory=list)
    requests: list[dict[str, Any]] = field(default_factory=list)
    beats: int = 0
    _news: asyncio.Event = field(default_factory=asyncio.Event)

    def become(self, line: dict[str, Any]) -> None:
        """Tell this role from now on."""
        self.role = line
        self._news.set()
        self._news = asyncio.Event()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[StandIn]:
        """Listen for the length of the block."""
        server = await asyncio.start_unix_server(self._serve, str(self.path))
        try:
            yield self
        finally:
            server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, asyncio.CancelledError):  # the loop ends connections so
            while line := await reader.readline():
                await self._answer(json.loads(line), writer)
        writer.close()

    async def _answer(self, request: dict[str, Any], writer: asyncio.StreamWriter) -> None:
        match request["op"]:
            case "role":
                while True:
                    news = self._news
                    await self._say(writer, self.role)
                    with suppress(TimeoutError):
                        await asyncio.wait_for(news.wait(), 0.5)
            case "status":
                await self._say(writer, {"ok": True, "status": self.status})
            case "beat":
                assert request["program"] == "web"
                self.beats += 1
                await self._say(writer, {"ok": True})
            case operation:
                operation = "plan" if request.get("plan") else operation
                self.asked.append(operation)
                self.requests.append(request)
                for answer in [self.replies[operation]] if operation in self.replies else self.answers:
                    await asyncio.sleep(self.answer_pause_s)
                    await self._say(writer, answer)

    @staticmethod
    async def _say(writer: asyncio.StreamWriter, line: dict[str, Any]) -> None:
        writer.write(json.dumps(line).encode() + b"\n")
        await writer.drain()


@dataclass
class Bench:
    """The rooms of one member's web program, with its loops running."""

    rooms: Rooms
    watch: RoleWatch
    controller: StandIn
    store: Store


_password_hash = cache(hash_password)  # slow on purpose; once is enough


async def _admin(conn: Connection) -> None:
    await access_rows.add_account(conn, Account(ADMIN, _password_hash(PASSWORD), AccessRole.ADMIN, is_enabled=True))
    await access_rows.put_token(conn, token_name="bench", secret_hash=hash_secret(TOKEN), account_name=ADMIN)


@asynccontextmanager
async def _patience() -> AsyncIterator[None]:
    """The stand-in of the controller and the program share a loop with the test, which a busy machine holds up for seconds."""
    with patch.object(role_room, "SILENCE_S_MAX", 60.0):
        yield


@asynccontextmanager
async def bench(
    conninfo: str, folder: Path, *, me: str = "m1", loops: bool = True, network: str = "10.91.1"
) -> AsyncIterator[Bench]:
    """Run everything but the listening socket; the administrator and a token exist.

    Args:
        network: where the members say they are; a client that follows these addresses must find loopback.
        loops: False leaves the loops to `futago.web.app.serve`, which runs them too.
    """
    log = Log(program="web", member=me)
    store = await Store.open(conninfo=conninfo, application_name="bench")
    await store.commit(_admin, name="bench.admin")
    controller = StandIn(folder / f"{me}.sock")

    async def open_store() -> Store:
        return await Store.open(conninfo=conninfo, application_name="futago-web", log=log)

    async with _patience(), controller.running():
        watch = RoleWatch(controller.path, log=log)
        link = ControllerLink(controller.path, log=log)
        rooms = make_rooms(
            settings=settings(me, network=network), watch=watch, controller=link, open_store=open_store, log=log
        )
        beside = (watch.run, rooms.serving.run, rooms.pulse.run, rooms.operations.run, link.beat)
        tasks = [asyncio.create_task(run()) for run in beside if loops]
        try:
            if loops:
                await until(lambda: rooms.serving.health().serving)
            yield Bench(rooms, watch, controller, store)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await rooms.serving.close()
            await store.close()


async def until(condition: Callable[[], object], *, seconds: float = 60) -> None:
    """Wait until a condition holds; fail after that many seconds."""
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.005)
