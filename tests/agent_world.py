"""A pair's keys, its hubs and real agent processes, for tests of the agent link.

Every address is a loopback address of its own (127.x.y.z), so the product's fixed ports never collide between tests.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import signal
import ssl
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from futago.jobs.hub import AgentHub
from futago.link import tls
from futago.link.orders import Order
from futago.runtime.log import Log
from futago.runtime.role import GateState, Role, RoleKind
from futago.setup import authority, settings

PAIR_ID = "testpair"
WAIT_S = 60.0  # far more than anything here takes; a test that waits so long has failed


class QuietLog(Log):
    """Keeps lines instead of writing them."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[tuple[str, str, dict[str, object]]] = []

    def bind(self, **_fields: object) -> QuietLog:
        return self

    def _write(self, level: str, event: str, fields: dict[str, object]) -> None:
        self.lines.append((level, event, fields))

    def count(self, event: str) -> int:
        return sum(1 for _, e, _ in self.lines if e == event)


def loopback() -> str:
    """Return a loopback address that nobody else uses (almost surely)."""
    a, b, c = (secrets.randbelow(250) + 2 for _ in range(3))
    return f"127.{a}.{b}.{c}"


@dataclass(slots=True)
class Keys:
    """One authority and the certificates it signed, as files below `where`."""

    where: Path
    pair_id: str = PAIR_ID
    ca_key: bytes = field(default_factory=authority.make_key)
    ca_cert: bytes = b""

    def __post_init__(self) -> None:
        self.where.mkdir(parents=True, exist_ok=True)
        self.ca_cert = authority.make_authority(self.pair_id, self.ca_key)
        (self.where / "ca.crt").write_bytes(self.ca_cert)

    def issue(self, kind: str, name: str, into: Path | None = None) -> Path:
        """Make a key and certificate; return the directory that holds own.crt, own.key, ca.crt."""
        into = into or self.where / f"{kind}-{name}"
        into.mkdir(parents=True, exist_ok=True)
        key = authority.make_key()
        holder = authority.Holder(kind=kind, name=name, pair_id=self.pair_id)
        cert = authority.sign_request(authority.make_request(key), holder, ca_cert=self.ca_cert, ca_key=self.ca_key)
        (into / "own.key").write_bytes(key)
        (into / "own.crt").write_bytes(cert)
        (into / "ca.crt").write_bytes(self.ca_cert)
        return into

    def server(self, kind: str, name: str) -> ssl.SSLContext:
        at = self.issue(kind, name)
        return tls.server_context(cert=at / "own.crt", key=at / "own.key", ca=at / "ca.crt")

    def client(self, kind: str, name: str) -> ssl.SSLContext:
        at = self.issue(kind, name)
        return tls.client_context(cert=at / "own.crt", key=at / "own.key", ca=at / "ca.crt")


def pair_settings(me: str = "m1") -> settings.Settings:
    members = [
        settings.MemberSettings(name=f"m{i}", service=f"10.9.1.1{i}", heartbeat=f"10.9.2.1{i}", interface="eth0")
        for i in (1, 2)
    ]
    pair = settings.PairSettings(name="test", id=PAIR_ID, floating_ip="10.9.1.100/24")
    return settings.Settings(me=me, pair=pair, members=members)


def active(epoch: int) -> Role:
    return Role(role=RoleKind.PRIMARY, epoch=epoch, gate=GateState.OPEN, outward=True, primary="m1")


def standby(epoch: int) -> Role:
    return Role(role=RoleKind.STANDBY, epoch=epoch, primary="m2")


def make_hub(
    keys: Keys,
    address: str,
    *,
    me: str = "m1",
    log: Log | None = None,
    members: Callable[[], list[str]] = lambda: [],
) -> AgentHub:
    context = keys.server("member", me)
    return AgentHub(pair_settings(me), log or QuietLog(), listen=address, context=context, members=members)


class AgentProcess:
    """A real `futago agent run` with a file tree of its own."""

    def __init__(self, root: Path, keys: Keys, *, name: str, members: list[str]) -> None:
        self.root = root
        self.name = name
        self.address = loopback()
        self.process: subprocess.Popen[bytes] | None = None
        etc = root / "etc/futago"
        keys.issue("agent", name, etc / "pki")
        own = settings.AgentSettings(name=name, pair_id=keys.pair_id, members=members, listen=self.address)
        (etc / "agent.toml").write_text(settings.dump(own))

    @property
    def var(self) -> Path:
        return self.root / "var/lib/futago-agent"

    @property
    def runs(self) -> Path:
        return self.var / "runs"

    def start(self) -> AgentProcess:
        self.root.mkdir(parents=True, exist_ok=True)
        with (self.root / "agent.log").open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-c", "import sys; from futago.agent.main import main; sys.exit(main())"],
                env={**os.environ, "FUTAGO_ROOT": str(self.root)},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        return self

    def kill(self, number: int = signal.SIGKILL) -> None:
        """Kill the agent process alone, as a crash does; its runs go on."""
        if self.process is not None:
            self.process.send_signal(number)
            self.process.wait(timeout=WAIT_S)
            self.process = None

    def log_text(self) -> str:
        return (self.root / "agent.log").read_text()

    def destroy(self) -> None:
        """End the agent and whatever its runs left."""
        self.kill()
        for started in self.runs.glob("*/started"):
            words = started.read_bytes().rsplit(b")", 1)[-1].split()
            if len(words) > 3 and words[3].isdigit():
                _kill_session(int(words[3]))


def _kill_session(session: int) -> None:
    """Kill every process of it, until there is none: one may be starting another just now."""
    end = time.monotonic() + WAIT_S
    while (found := [pid for pid in _processes() if _lives_in(pid, session)]) and time.monotonic() < end:
        for pid in found:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.001)


def _processes() -> list[int]:
    return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]


def _lives_in(pid: int, session: int) -> bool:
    try:
        state, _, _, its_session, *_ = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return False
    return int(its_session) == session and state not in "ZX"


async def until(condition: Callable[[], object], *, what: str, seconds: float = WAIT_S) -> None:
    """Wait until the condition holds; fail with `what` when it does not in time."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"not within {seconds} s: {what}"
        await asyncio.sleep(0.01)


async def connected(
    address: str, port: int, context: ssl.SSLContext
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Connect as soon as somebody listens there."""
    async with asyncio.timeout(WAIT_S):
        while True:
            try:
                return await asyncio.open_connection(address, port, ssl=context)
            except ConnectionRefusedError:
                await asyncio.sleep(0.01)


def lines(path: Path) -> list[str]:
    """Return the lines that commands appended to the oracle file."""
    return path.read_text().splitlines() if path.exists() else []


def order(run_id: str, command: str, *, epoch: int = 1, **more: object) -> Order:
    return Order(run_id=run_id, epoch=epoch, command=command, **more)  # type: ignore[arg-type]
