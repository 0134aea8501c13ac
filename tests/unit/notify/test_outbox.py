"""The outbox against a real database and a real SMTP server on loopback, which keeps what it takes."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from email import message_from_bytes, policy
from email.message import EmailMessage

import pytest
from aiosmtpd.smtp import SMTP, Envelope, Session

from futago.inventory.apply import apply
from futago.inventory.definitions import parse
from futago.notify import outbox as outbox_module
from futago.notify import retry
from futago.notify.outbox import OutboxEngine
from futago.runtime.engine import EngineContext, Outward
from futago.runtime.log import Log
from futago.setup.settings import MemberSettings, PairSettings, Settings
from futago.store.commit import Connection, Store
from postgres_cluster import Cluster

SETTINGS = Settings(
    me="m1",
    pair=PairSettings(name="lab", id="p1", floating_ip="10.0.0.100/24"),
    members=[MemberSettings(name="m1", service="10.0.0.1", heartbeat="10.1.0.1", interface="eth0")],
)


@dataclass
class Sink:
    """A mail server. `after_taking` runs when a mail is kept and before the client is told so."""

    mails: list[EmailMessage] = field(default_factory=list)
    answer: str = "250 OK"
    rcpt_answer: str = "250 OK"
    after_taking: Callable[[], Awaitable[None]] | None = None
    port: int = 0
    _server: asyncio.Server | None = None

    async def start(self) -> None:
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(
            lambda: SMTP(self, enable_SMTPUTF8=False, loop=loop), "127.0.0.1", self.port
        )
        self.port = self._server.sockets[0].getsockname()[1]

    def stop(self) -> None:
        if self._server:
            self._server.close()

    async def handle_RCPT(self, _s: SMTP, _x: Session, envelope: Envelope, address: str, _o: list[str]) -> str:
        if self.rcpt_answer.startswith("2") or "good" in address:
            envelope.rcpt_tos.append(address)
            return "250 OK"
        return self.rcpt_answer

    async def handle_DATA(self, server: SMTP, _session: Session, envelope: Envelope) -> str:
        if self.answer.startswith("2"):
            assert isinstance(envelope.content, bytes)
            self.mails.append(message_from_bytes(envelope.content, policy=policy.default))
        if self.after_taking:
            await self.after_taking()
        if self.answer == "hang up":
            assert server.transport
            server.transport.abort()
        return self.answer


@pytest.fixture
async def sink() -> AsyncIterator[Sink]:
    made = Sink()
    await made.start()
    yield made
    made.stop()


async def _declare(
    store: Store, sink: Sink, *, to: str = "ops@lab.test", name: str = "ops", timeout: str = "60s"
) -> None:
    text = (
        f"{{kind: Notification, name: {name}, channel: mail, to: [{to}], from: futago@lab.test, timeout: {timeout},"
        f" smtp: {{host: 127.0.0.1, port: {sink.port}}}}}"
    )

    async def work(conn: Connection) -> None:
        await apply(conn, parse(text))

    await store.commit(work, name="test.apply")


async def _event(store: Store, message: str = "web1: critical", notify: str = "ops") -> None:
    async def work(conn: Connection) -> None:
        await conn.execute(
            "INSERT INTO event (occurred_utc, priority, source, monitor_name, host_name, message, epoch, notify)"
            " VALUES (now(), 'critical', 'monitor', 'ping', 'web1', %s, 7, %s)",
            (message, notify.split(",")),
        )

    await store.commit(work, name="test.event")


async def _rows(store: Store, query: str) -> list[tuple[object, ...]]:
    async def work(conn: Connection) -> list[tuple[object, ...]]:
        return await (await conn.execute(query.encode())).fetchall()

    return await store.read(work, name="test.rows")


async def _until(store: Store, query: str, wanted: list[tuple[object, ...]], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while (found := await _rows(store, query)) != wanted:
        assert time.monotonic() < deadline, found
        await asyncio.sleep(0.02)


async def _unknown(store: Store) -> None:
    """Wait until a commit has ended in doubt, and a little longer."""
    async with asyncio.timeout(60):
        while not store.counters.unknown:
            await asyncio.sleep(0.02)
    await asyncio.sleep(0.5)


@dataclass
class Running:
    task: asyncio.Task[None]
    outward: Outward


@contextlib.asynccontextmanager
async def _running(store: Store, *, epoch: int = 7, is_allowed: bool = True) -> AsyncIterator[Running]:
    outward = Outward(is_allowed=is_allowed)
    task = asyncio.create_task(OutboxEngine(EngineContext(SETTINGS, store, epoch, outward, Log())).run())
    try:
        yield Running(task, outward)
        assert not task.done() or task.cancelled(), task
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


SENT = "SELECT state, possible_duplicate, attempts FROM outbox ORDER BY outbox_id"


async def test_event_that_names_a_notification_is_mailed_once(store: Store, sink: Sink) -> None:
    await _declare(store, sink, to="ops@lab.test, second@lab.test")
    async with _running(store):
        await _event(store, "web1: critical; kein Würfel\nzweite Zeile " + "x" * 3000)
        await _until(store, SENT, [("sent", False, 1)])
        await asyncio.sleep(0.5)
    [mail] = sink.mails
    assert mail["To"] == "ops@lab.test, second@lab.test" and mail["From"] == "futago@lab.test"
    assert mail["Subject"].startswith("[lab] CRITICAL: web1: critical; kein Würfel zweite Zeile xxx")
    assert mail["Message-ID"] == "<futago.p1.1@lab.test>"
    assert mail["X-Futago-Possible-Duplicate"] is None and mail["X-Futago-Event"] == "1"
    assert "zweite Zeile " + "x" * 3000 in mail.get_content() and "Host:     web1" in mail.get_content()


async def test_event_that_names_none_is_not_mailed(store: Store, sink: Sink) -> None:
    async def work(conn: Connection) -> None:
        await conn.execute(
            "INSERT INTO event (occurred_utc, priority, source, message, epoch) VALUES (now(), 'info', 'api', 'x', 1)"
        )

    await _declare(store, sink)
    async with _running(store):
        await store.commit(work, name="test.event")
        await asyncio.sleep(0.6)
    assert sink.mails == [] and await _rows(store, SENT) == []


async def test_nothing_leaves_before_outward_effects_are_allowed(store: Store, sink: Sink) -> None:
    await _declare(store, sink)
    async with _running(store, is_allowed=False) as running:
        await _event(store)
        await _until(store, SENT, [("waiting", False, 0)])
        await asyncio.sleep(0.5)
        assert sink.mails == [] and await _rows(store, SENT) == [("waiting", False, 0)]
        running.outward.set(True)
        await _until(store, SENT, [("sent", False, 1)])
    assert len(sink.mails) == 1


async def test_death_between_taking_and_marking_gives_a_second_mail_that_says_so(store: Store, sink: Sink) -> None:
    await _declare(store, sink)
    await _event(store)
    async with _running(store, epoch=7) as running:

        async def die() -> None:
            running.task.cancel()

        sink.after_taking = die
        with contextlib.suppress(asyncio.CancelledError):
            await running.task
    assert len(sink.mails) == 1 and await _rows(store, SENT) == [("claimed", False, 1)]
    sink.after_taking = None
    async with _running(store, epoch=8):
        await _until(store, SENT, [("sent", True, 2)])
    first, second = sink.mails
    assert first["X-Futago-Possible-Duplicate"] is None and second["X-Futago-Possible-Duplicate"] == "yes"
    assert first["Message-ID"] == second["Message-ID"]
    assert second["X-Futago-Epoch"] == "8"
    assert "may be the second mail" in second.get_content()


async def test_connection_lost_after_the_data_gives_a_second_mail_that_says_so(store: Store, sink: Sink) -> None:
    await _declare(store, sink)
    sink.answer = "hang up"

    async def keep() -> None:
        sink.mails.append(EmailMessage())

    sink.after_taking = keep
    async with _running(store):
        await _event(store)
        await _until(store, SENT, [("waiting", True, 1)])
        sink.answer, sink.after_taking = "250 OK", None
        await _until(store, SENT, [("sent", True, 2)])
    assert sink.mails[1]["X-Futago-Possible-Duplicate"] == "yes"


async def test_refused_mail_is_tried_again_and_is_no_duplicate(store: Store, sink: Sink) -> None:
    await _declare(store, sink)
    sink.stop()
    async with _running(store):
        await _event(store)
        await _until(store, "SELECT state, attempts > 0 FROM outbox", [("waiting", True)])
        [(error,)] = await _rows(store, "SELECT error FROM outbox")
        assert f"mail server 127.0.0.1:{sink.port}" in str(error)
        await sink.start()
        sink.answer = "451 later"
        await _until(store, "SELECT error FROM outbox", [(f"mail server 127.0.0.1:{sink.port} answered 451 later",)])
        assert sink.mails == []
        sink.answer = "250 OK"
        await _until(store, "SELECT state, possible_duplicate FROM outbox", [("sent", False)])
    assert len(sink.mails) == 1


async def test_mail_server_that_hangs_before_the_data_is_refused_at_the_deadline(store: Store) -> None:
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    server = await asyncio.start_server(silent, "127.0.0.1", 0)
    await _declare(store, Sink(port=server.sockets[0].getsockname()[1]), timeout="2s")
    async with _running(store):
        await _event(store)
        await _until(store, SENT, [("waiting", False, 1)])
    server.close()


async def test_one_refused_receiver_does_not_keep_the_mail_from_the_others(store: Store, sink: Sink) -> None:
    await _declare(store, sink, to="good@lab.test, bad@lab.test")
    sink.rcpt_answer = "550 no such person"
    async with _running(store):
        await _event(store)
        await _until(store, "SELECT state, error FROM outbox",
                     [("sent", "refused by the server: bad@lab.test: 550 no such person")])  # fmt: skip
    assert len(sink.mails) == 1


async def test_notification_that_does_not_exist_is_a_visible_failure(store: Store, sink: Sink) -> None:
    await _declare(store, sink)
    async with _running(store):
        await _event(store, notify="ops,nobody")
        await _until(store, "SELECT notification, state, error FROM outbox ORDER BY 1",
                     [("nobody", "failed", "there is no Notification `nobody`"), ("ops", "sent", "")])  # fmt: skip


async def test_mails_of_one_notification_leave_in_the_order_of_their_events(
    store: Store, sink: Sink, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retry, "FIRST_S", 0.1)
    await _declare(store, sink)
    sink.answer = "451 later"
    async with _running(store):
        for i in range(10):
            await _event(store, f"number {i}")
        await _until(store, "SELECT count(*) FROM outbox", [(10,)])
        await asyncio.sleep(0.5)
        sink.answer = "250 OK"
        await _until(store, "SELECT count(*) FROM outbox WHERE state = 'sent'", [(10,)])
    assert [m["Subject"] for m in sink.mails] == [f"[lab] CRITICAL: number {i}" for i in range(10)]


async def test_doubtful_commits_around_a_sending_neither_lose_nor_repeat_it(
    store: Store, sink: Sink, postgres: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The standby goes away at the worst instant: the mail is taken, the mark cannot be committed for a while."""
    monkeypatch.setattr(outbox_module, "DEADLINE_S", 0.3)
    await _declare(store, sink)
    standby = contextlib.ExitStack()

    async def lose_the_standby() -> None:
        await asyncio.to_thread(standby.enter_context, postgres.absent_standby())

    async with _running(store):
        sink.after_taking = lose_the_standby
        await _event(store)
        await _unknown(store)
        assert len(sink.mails) == 1
        await asyncio.to_thread(standby.close)
        await _until(store, SENT, [("sent", False, 1)])
        await asyncio.sleep(0.5)
    assert len(sink.mails) == 1


async def test_doubtful_claim_is_taken_up_again_without_a_mark(
    store: Store, sink: Sink, postgres: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox_module, "DEADLINE_S", 0.3)
    await _declare(store, sink)
    async with _running(store, is_allowed=False) as running:
        await _event(store)
        await _until(store, SENT, [("waiting", False, 0)])
        with postgres.absent_standby():
            running.outward.set(True)
            await _unknown(store)
            assert sink.mails == []
        await _until(store, "SELECT state, possible_duplicate FROM outbox", [("sent", False)])
    [mail] = sink.mails
    assert mail["X-Futago-Possible-Duplicate"] is None
