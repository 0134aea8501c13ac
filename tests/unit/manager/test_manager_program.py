"""The manager as the program that systemd starts, with every engine, on a real database."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from aiosmtpd.smtp import SMTP, Envelope, Session
from test_manager import Controller

from futago.inventory.apply import apply
from futago.inventory.definitions import parse
from futago.setup import authority
from futago.setup.settings import MemberSettings, PairSettings, Settings, dump
from futago.store import migrate
from futago.store.commit import Connection, Store
from postgres_cluster import Cluster

SETTINGS = Settings(
    me="m1",
    pair=PairSettings(name="lab", id="pair-1", floating_ip="10.0.0.100/24"),
    members=[MemberSettings(name="m1", service="127.0.0.1", heartbeat="127.0.0.1", interface="lo")],
)
PRIMARY = {"role": "primary", "epoch": 7, "gate": "open", "outward": True}


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    """A server of our own: its database is left as the program leaves it."""
    made = Cluster()
    try:
        made.create()
        yield made
    finally:
        made.destroy()


@pytest.fixture
def root(tmp_path: Path, cluster: Cluster) -> Path:
    """The files of a member that has been set up."""
    for directory in ("etc/futago/pki", "run/futago", "var/lib/futago/journal/own", "var/lib/futago/journal/peer"):
        (tmp_path / directory).mkdir(parents=True)
    (tmp_path / "run/futago/pg").symlink_to(cluster.home)
    (tmp_path / "etc/futago/futago.toml").write_text(dump(SETTINGS))
    ca_key, own_key = authority.make_key(), authority.make_key()
    ca = authority.make_authority("pair-1", ca_key)
    holder = authority.Holder(kind="member", name="m1", pair_id="pair-1")
    own = authority.sign_request(authority.make_request(own_key), holder, ca_cert=ca, ca_key=ca_key)
    for name, content in {"ca.crt": ca, "own.crt": own, "own.key": own_key}.items():
        (tmp_path / "etc/futago/pki" / name).write_bytes(content)
    return tmp_path


class Mails:
    """A mail server that keeps subjects."""

    def __init__(self) -> None:
        self.subjects: list[str] = []

    async def handle_DATA(self, _server: SMTP, _session: Session, envelope: Envelope) -> str:
        content = envelope.content if isinstance(envelope.content, bytes) else b""
        self.subjects += [line.decode() for line in content.splitlines() if line.startswith(b"Subject:")]
        return "250 OK"


@pytest.fixture
async def store(cluster: Cluster) -> AsyncIterator[Store]:
    opened = await Store.open(conninfo=cluster.conninfo, application_name="test")
    yield opened
    await opened.close()


async def _value(store: Store, query: str) -> object:
    async def work(conn: Connection) -> object:
        row = await (await conn.execute(query.encode())).fetchone()
        return row[0] if row else None

    return await store.read(work, name="test.value")


async def _until(store: Store, query: str, seconds: float = 60) -> float:
    began = time.monotonic()
    while not await _value(store, query):
        assert time.monotonic() - began < seconds, query
        await asyncio.sleep(0.02)
    return time.monotonic() - began


async def _apply(store: Store, text: str) -> None:
    async def work(conn: Connection) -> None:
        await apply(conn, parse(text))

    await store.commit(work, name="test.apply")


async def test_program_waits_serves_and_ends_as_it_is_told(root: Path, store: Store, cluster: Cluster) -> None:
    controller, mails = Controller(), Mails()
    server = await asyncio.start_unix_server(controller.serve, str(root / "run/futago/controller.sock"))
    sink = await asyncio.get_running_loop().create_server(lambda: SMTP(mails), "127.0.0.1", 0)
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "futago", "run", "manager", env={**os.environ, "FUTAGO_ROOT": str(root)}
    )
    try:
        await _wait_for_beats(controller)
        controller.say(**PRIMARY)
        await _until_current(store)
        watched = socket.create_server(("127.0.0.1", 0))
        await _apply(store, _text(watched.getsockname()[1], sink.sockets[0].getsockname()[1]))
        await _until(store, "SELECT count(*) = 1 FROM monitor_state WHERE status = 'ok'")
        watched.close()
        await _until(store, "SELECT count(*) = 1 FROM outbox WHERE state = 'sent'")
        assert mails.subjects == [s for s in mails.subjects if "CRITICAL: port on here (127.0.0.1): critical" in s]
        assert len(mails.subjects) == 1

        controller.say(role="standby", epoch=8, gate="closed")
        await _until(
            store, "SELECT NOT EXISTS (SELECT FROM pg_stat_activity WHERE application_name = 'futago-manager')"
        )
        before = await _value(store, "SELECT count(*) FROM sample")
        await asyncio.sleep(2)
        assert await _value(store, "SELECT count(*) FROM sample") == before
        assert not cluster.rows("SELECT 1 FROM pg_stat_activity WHERE application_name = 'futago-manager'")

        controller.say(**PRIMARY | {"epoch": 9})
        took = await _until(store, f"SELECT count(*) > {before} FROM sample")
        assert took < 1, "what is due runs at once"
        child.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(child.wait(), 60) == 0
    finally:
        if child.returncode is None:
            child.kill()
            await child.wait()
        server.close()
        sink.close()


async def _wait_for_beats(controller: Controller) -> None:
    began = time.monotonic()
    while len(controller.beats) < 2:
        assert time.monotonic() - began < 60, "the program does not beat"
        await asyncio.sleep(0.05)


async def _until_current(store: Store) -> None:
    began = time.monotonic()
    while not await migrate.is_current(store):
        assert time.monotonic() - began < 60, "no schema"
        await asyncio.sleep(0.05)


def _text(port: int, smtp: int) -> str:
    return f"""
{{kind: Host, name: here, address: 127.0.0.1}}
---
{{kind: Notification, name: ops, channel: mail, to: [o@lab.test], from: f@lab.test, smtp: {{host: 127.0.0.1, port: {smtp}}}}}
---
{{kind: Monitor, name: port, check: tcp, port: {port}, scope: "*", interval: 1s, timeout: 1s, failures: 2, notify: [ops]}}
---
{{kind: JobNet, name: net, jobs: [{{name: a, host: here, command: "true"}}]}}
---
{{kind: Schedule, name: hourly, job_net: net, cron: "0 * * * *"}}
"""
