"""Both receivers, real senders, a real database, and the primary dies: every message is there exactly once."""

from __future__ import annotations

import socket
import threading
import time

import pytest
from journals import add_monitor, all_rows, engine, eventually
from receivers import ReceiverProcess

from futago.intake.consume import Places
from futago.runtime.clock import S
from futago.store.commit import Store

NUMBERED = {"match": r"SEQ=(?P<seq>\S+)", "priority": "info", "message": "{seq}"}


def places(receiver: ReceiverProcess) -> Places:
    return Places(receiver.root / "own", receiver.root / "peer", receiver.root / "receiver.sock")


class Sender:
    """Gives each numbered message to both members, half of them by TCP with a queue for each target, like rsyslog."""

    def __init__(self, *receivers: ReceiverProcess, content: bytes = b"Nov 22 11:00:00 web1 app[7]: SEQ=%d") -> None:
        self._receivers = receivers
        self._content = b"<13>" + content
        self.sent = 0
        self._stop = threading.Event()
        self._queues: list[list[bytes]] = [[] for _ in receivers]
        self._lines: list[socket.socket | None] = [None for _ in receivers]
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        while not self._stop.is_set():
            for _ in range(5):
                self.sent += 1
                data = self._content % self.sent
                for n, receiver in enumerate(self._receivers):
                    if self.sent % 2:
                        udp.sendto(data, ("127.0.0.1", receiver.syslog_udp))
                    else:
                        self._queues[n].append(data)
            for n in range(len(self._receivers)):
                self._flush(n)
            time.sleep(0.01)

    def _flush(self, n: int) -> None:
        """Send what waits for one target, one frame at a time, so that a frame is either sent or still in the queue."""
        try:
            line = self._lines[n]
            if line is None:
                line = self._lines[n] = socket.create_connection(
                    ("127.0.0.1", self._receivers[n].syslog_tcp), timeout=1
                )
            while self._queues[n]:
                line.sendall(b"%d %b" % (len(self._queues[n][0]), self._queues[n][0]))
                del self._queues[n][0]
        except OSError:
            self._lines[n] = None

    def stop(self) -> int:
        self._stop.set()
        self._thread.join()
        for n in range(len(self._receivers)):
            self._flush(n)
            if line := self._lines[n]:
                line.close()
        return self.sent


async def test_undated_messages_are_there_once_when_the_first_primary_did_not_yet_know_its_peer(
    database: str, store: Store, pair: tuple[ReceiverProcess, ReceiverProcess], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its peer has joined and receives, and the primary dies before its engines heard of that."""
    monkeypatch.setattr("futago.intake.merge.WINDOW_NS", 1 * S)
    one, two = pair
    await add_monitor(database, "numbered", "syslog", NUMBERED)
    sender = Sender(one, two, content=b"SEQ=%d")
    try:
        async with engine(store, places(one), me="m1", is_alone=True):
            await eventually(database, "SELECT max(occurred_utc) - min(occurred_utc) > '2.5 s' FROM event", True)
        one.kill()
        async with engine(store, places(two), me="m2", epoch=8):
            seen = sender.sent
            await eventually(database, f"SELECT count(*) > {seen + 100} FROM event", True)
            sent = sender.stop()
            status = two.wait(lambda s: s["own"]["synced"] == s["own"]["last"])
            await eventually(
                database,
                f"SELECT sequence >= {status['own']['synced']} FROM intake_position"
                f" WHERE incarnation = '{status['incarnation']}'",
                True,
            )
    finally:
        sender.stop()
    found = [int(str(row[0])) for row in await all_rows(database, "SELECT message FROM event")]
    assert sorted(found) == list(range(1, sent + 1))


async def test_every_message_is_there_once_through_the_loss_of_either_member(
    database: str, store: Store, pair: tuple[ReceiverProcess, ReceiverProcess]
) -> None:
    one, two = pair
    await add_monitor(database, "numbered", "syslog", NUMBERED)
    sender = Sender(one, two)
    try:
        async with engine(store, places(one), me="m1"):
            await eventually(database, "SELECT count(*) > 200 FROM event", True)
        one.kill()
        async with engine(store, places(two), me="m2", epoch=8):
            seen = sender.sent
            await eventually(database, f"SELECT count(*) > {seen + 100} FROM event", True)
            one.start()
            for each in (one, two):
                each.wait(lambda s: s["complete"], limit_s=15)
            seen = sender.sent
            await eventually(database, f"SELECT count(*) > {seen} FROM event", True)
        two.kill()
        async with engine(store, places(one), me="m1", epoch=9):
            seen = sender.sent
            await eventually(database, f"SELECT count(*) > {seen + 100} FROM event", True)
            two.start()
            for each in (one, two):
                each.wait(lambda s: s["complete"], limit_s=15)
            sent = sender.stop()
            await eventually(database, f"SELECT count(*) >= {sent} FROM event", True)
            for receiver in (one, two):
                status = receiver.wait(lambda s: s["own"]["synced"] == s["own"]["last"] and s["complete"])
                await eventually(
                    database,
                    f"SELECT sequence >= {status['own']['synced']} FROM intake_position"
                    f" WHERE incarnation = '{status['incarnation']}'",
                    True,
                )
    finally:
        sender.stop()
    found = [int(str(row[0])) for row in await all_rows(database, "SELECT message FROM event")]
    assert sorted(set(found)) == list(range(1, sent + 1))
    assert len(found) == sent
