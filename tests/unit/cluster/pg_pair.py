"""A real pair of PostgreSQL servers for tests: two members on loopback, with the pair's own certificates, driven by
our rooms."""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import functools
import os
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from futago.cluster import found, pgconf
from futago.cluster.facts import Board
from futago.cluster.model import At
from futago.cluster.pgconf import Layout
from futago.cluster.pgsync import PgSync
from futago.cluster.pgwatch import PgWatch
from futago.cluster.postgres import Postgres
from futago.runtime.clock import now_at
from futago.runtime.log import Log
from futago.runtime.process import AS_POSTGRES
from futago.runtime.worker import Worker
from futago.setup import authority
from futago.setup.settings import MemberSettings, PairSettings, Settings

LOCAL = "127.0.0.1/32"
NAMES = {"m1": "127.0.0.11", "m2": "127.0.0.12"}


class ProcessUnit:
    """PostgreSQL as a child process of the test, killed as a control group would be: every process of it."""

    cgroup: Path | None = None

    def __init__(self, layout: Layout, log: Path) -> None:
        self.layout, self.log = layout, log
        self.process: subprocess.Popen[bytes] | None = None

    async def start(self) -> int:
        with self.log.open("ab") as log:
            command = [*AS_POSTGRES, str(self.layout.bin / "postgres"), "-D", str(self.layout.data)]
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd="/")
        await asyncio.sleep(0.02)
        return await self.find()

    async def find(self) -> int:
        return self.process.pid if self.process is not None and self.process.poll() is None else 0

    async def kill(self, on_stuck: Callable[[], None] | None = None) -> None:
        if self.process is None:
            return
        pids = [self.process.pid, *self.children()]
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait(5)
        self.process = None

    def children(self) -> list[int]:
        assert self.process is not None
        path = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        return [int(x) for x in path.read_text().split()] if path.exists() else []


@functools.cache
def _founded() -> Path:
    home = Path(tempfile.mkdtemp(prefix="futago-founded."))
    atexit.register(shutil.rmtree, home, ignore_errors=True)
    home.chmod(0o755)
    found.found_database(Layout(data=home / "pg/data", volume=home / "pg"))
    return home / "pg"


class Member:
    """One member's PostgreSQL rooms."""

    def __init__(self, name: str, home: Path, settings: Settings, port: int) -> None:
        self.name, self.home = name, home
        self.layout = Layout(
            data=home / "pg/data",
            volume=home / "pg",
            conf=home / "cluster/postgresql.futago.conf",
            hba=home / "cluster/pg_hba.conf",
            ident=home / "cluster/pg_ident.conf",
            tls=home / "cluster/pg-tls",
            socket_dir=home / "run",
            port=port,
        )
        self.unit = ProcessUnit(self.layout, home / "log")
        self.board = Board(cfg=settings.config(), started_at=At(now_at()))
        self.postgres = Postgres(
            board=self.board,
            settings=settings,
            layout=self.layout,
            unit=self.unit,
            system=Worker("system"),
            volume=Worker("volume"),
            log=Log(member=name),
        )
        self.watch = PgWatch(self.postgres, limit_s=1.0, volume=Worker("disk"))
        self.peer: Member | None = None
        self.sync = PgSync(self.postgres, pause_replay=self._pause)

    async def _pause(self, pause: bool) -> None:
        assert self.peer is not None
        await self.peer.sync.pause_own_replay(pause=pause)

    def found(self) -> None:
        """Put a freshly founded database here; founding itself is done once for all tests."""
        shutil.rmtree(self.layout.volume)
        subprocess.run(["cp", "-a", str(_founded()), str(self.layout.volume)], check=True)

    async def copy_from(self, other: Member) -> None:
        """Take a base backup over TLS with the member's certificate."""
        await self.postgres.write_conf(enforced=False)
        await asyncio.to_thread(self._copy, other)

    def _copy(self, other: Member) -> None:
        shutil.rmtree(self.layout.data, ignore_errors=True)
        self.layout.volume.mkdir(exist_ok=True, parents=True)
        shutil.chown(self.layout.volume, "postgres", "postgres")
        peer = self.postgres.settings.peer
        assert peer is not None
        source = pgconf.conninfo(self.name, peer, self.layout)
        command = [*AS_POSTGRES, str(self.layout.bin / "pg_basebackup"), "-D", str(self.layout.data), "-d", source]
        subprocess.run([*command, "-c", "fast", "-X", "stream"], check=True, timeout=60, cwd="/")
        assert other.layout.data != self.layout.data


def _keys(home: Path, name: str, ca: tuple[bytes, bytes]) -> tuple[tuple[Path, str, int], ...]:
    key = authority.make_key()
    holder = authority.Holder("member", name, "pair-1", (NAMES[name],))
    cert = authority.sign_request(authority.make_request(key), holder, ca_cert=ca[1], ca_key=ca[0])
    folder = home / "pki"
    folder.mkdir(parents=True)
    for file, content in (("ca.crt", ca[1]), ("own.crt", cert), ("own.key", key)):
        (folder / file).write_bytes(content)
    return tuple((folder / n, n, 0o600) for n in ("ca.crt", "own.crt", "own.key"))


def _settings(me: str) -> Settings:
    members = [MemberSettings(n, a, a, "lo") for n, a in NAMES.items()]
    return Settings(me=me, pair=PairSettings("test", "pair-1", "127.0.0.100/32"), members=members)


def _free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.11", 0))
        return int(s.getsockname()[1])


@contextlib.asynccontextmanager
async def pair(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[tuple[Member, Member]]:
    """Two members; m1 has a fresh database, neither runs."""
    hba_text = pgconf.hba_text

    def hba_of_loopback(settings: Settings, *, gate_open: bool) -> str:
        """Connections within one machine come from 127.0.0.1, whatever address they lead to."""
        return hba_text(settings, gate_open=gate_open).replace("127.0.0.11/32", LOCAL).replace("127.0.0.12/32", LOCAL)

    monkeypatch.setattr(pgconf, "hba_text", hba_of_loopback)
    home = Path(tempfile.mkdtemp(prefix="futago-pair."))
    home.chmod(0o755)
    ca_key = authority.make_key()
    ca = (ca_key, authority.make_authority("pair-1", ca_key))
    port = _free_port()
    members = []
    for name in NAMES:
        place = home / name
        place.mkdir()
        place.chmod(0o755)
        (place / "pg").mkdir()
        m = Member(name, place, _settings(name), port)
        keys = _keys(place, name, ca)
        m.postgres.keys = keys
        members.append(m)
    first, second = members
    first.peer, second.peer = second, first
    tasks = []
    try:
        await asyncio.to_thread(first.found)
        tasks = [asyncio.create_task(m.watch.run()) for m in members]
        yield first, second
    finally:
        for t in tasks:
            t.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await t
        for m in members:
            m.postgres.death.forget()
            await m.unit.kill()
            if (
                m.postgres._tasks
            ):  # asyncio hangs on a program whose start is cancelled, as the end of its loop would do
                await asyncio.wait(m.postgres._tasks, timeout=10)
        shutil.rmtree(home, ignore_errors=True)


async def until(condition: object, *, within_s: float = 30) -> None:
    """Wait until the condition holds."""
    async with asyncio.timeout(within_s):
        while not condition():  # type: ignore[operator]
            await asyncio.sleep(0.01)
