"""What receivers say of themselves: told once in a while, counted whole, and events in the end."""

from __future__ import annotations

import asyncio
import socket
import time
from pathlib import Path

from journals import all_rows, engine, eventually
from receivers import ReceiverProcess, everything

from futago.intake.consume import Places
from futago.intake.model import Protocol
from futago.intake.notices import EVERY_NS, Notices, read
from futago.store.commit import Store

Pair = tuple[ReceiverProcess, ReceiverProcess]


def said(
    notices: Notices, now_ns: int, drops: int = 0, why: str | None = None, unbound: tuple[str, ...] = ()
) -> list[str]:
    return [one.message for one in notices.look(now_ns, drops=drops, congestion=why, unbound=unbound)]


def test_drops_are_counted_whole_and_told_once_in_a_while() -> None:
    notices = Notices("m1")
    assert said(notices, 1) == []
    assert "lost 5 datagrams" in said(notices, 2, drops=5)[0]
    assert said(notices, 3, drops=9) == []
    assert said(notices, 4, drops=14) == []
    assert "lost 9 datagrams" in said(notices, EVERY_NS + 3, drops=14)[0]
    assert said(notices, 3 * EVERY_NS, drops=14) == []


def test_a_stop_is_told_and_its_end() -> None:
    notices = Notices("m1")
    assert "does not take messages: disk full" in said(notices, 1, why="disk full")[0]
    assert said(notices, 2, why="disk full") == []
    assert said(notices, 3) == ["m1 takes messages again."]
    assert said(notices, 4, why="again") == [], "a disk that comes and goes is told once in a while"
    assert said(notices, 5) == []
    assert len(said(notices, EVERY_NS + 2, why="again")) == 1


def test_ports_that_cannot_be_served_are_told_and_their_return() -> None:
    notices = Notices("m1")
    assert "tcp 514" in said(notices, 1, unbound=("tcp 514",))[0]
    assert said(notices, 2, unbound=("tcp 514",)) == []
    assert said(notices, 3) == ["m1 receives on every port again."]


def test_a_flood_that_the_kernel_must_drop_becomes_an_event(pair: Pair) -> None:
    one, _ = pair
    assert one.process is not None
    one.process.send_signal(19)
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
            for n in range(60_000):  # more than the kernel's buffer holds, whatever its size
                s.sendto(b"<13>%d" % n + b"x" * 1400, ("127.0.0.1", one.syslog_udp))
    finally:
        one.process.send_signal(18)
    status = one.wait(lambda s: s["counters"]["kernel_drops"] > 0)
    until = time.monotonic() + 30
    while not (found := [r for r in everything(one.root / "own") if r.protocol == Protocol.NOTICE]):
        assert time.monotonic() < until
        time.sleep(0.1)
    notice = read(found[0].data)
    assert notice is not None
    assert (notice.member, notice.priority) == ("m1", "critical")
    dropped = status["counters"]["kernel_drops"]
    assert notice.detail["dropped"] == dropped
    one.wait(lambda s: s["counters"]["syslog_udp"] == 60_000 - dropped)


async def test_a_notice_is_one_event_of_the_member(pair: Pair, database: str, store: Store, tmp_path: Path) -> None:
    one, two = pair
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        one.write_options(f"[relp]\nport = {port}\n")
        await asyncio.to_thread(one.wait, lambda s: s["unbound"])
        places = Places(one.root / "own", one.root / "peer", one.root / "receiver.sock", tmp_path / "none.toml")
        async with engine(store, places):
            await eventually(database, "SELECT count(*) FROM event", 1)
    found = await all_rows(database, "SELECT priority, source, monitor_name, host_name, message FROM event")
    message = f"m1 cannot receive on every port: relp: tcp 127.0.0.1 {port}: Address already in use"
    assert found == [("warning", "message", "receiver", "m1", message)]
    assert await all_rows(database, "SELECT host_name FROM host") == []
    assert two.own() == []


def test_damage_that_only_the_receiver_met_is_told_whole_and_once_in_a_while() -> None:
    notices = Notices("m2")

    def told(now_ns: int, damaged: int) -> list[str]:
        found = notices.look(now_ns, drops=0, congestion=None, unbound=(), damaged=damaged)
        return [one.message for one in found]

    assert told(1, 0) == []
    assert "2 places were not sent" in told(2, 2)[0]
    assert told(3, 5) == []
    assert "3 places were not sent" in told(EVERY_NS + 3, 5)[0]


def test_a_standby_tells_of_damage_that_it_meets_while_it_sends_its_journal(pair: Pair) -> None:
    one, two = pair
    two.stop()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        for n in range(10):
            s.sendto(b"<13>number %d" % n, ("127.0.0.1", one.syslog_udp))
    one.wait(lambda s: s["counters"]["syslog_udp"] == 10 and s["own"]["synced"] == s["own"]["last"])
    damaged = [path for path in (one.root / "own").glob("*/*.seg") if b"number 3" in path.read_bytes()]
    content = bytearray(damaged[0].read_bytes())
    content[content.index(b"number 3")] ^= 0x20
    with damaged[0].open("r+b") as file:
        file.write(content[: content.index(b"number 4")])  # the rest grows meanwhile
    two.start()
    one.wait(lambda s: s["damaged"] == 1 and s["complete"], limit_s=30)
    assert len(two.copy()) == 9
    until = time.monotonic() + 30
    while not any(b"1 places were not sent" in r.data for r in everything(one.root / "own")):
        assert time.monotonic() < until
        time.sleep(0.05)
