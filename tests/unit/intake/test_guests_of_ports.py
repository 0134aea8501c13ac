"""Senders that connect and mean it badly: too many, in the middle of a handshake or a frame for ever, silent; bounded all."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
from receivers import ReceiverProcess, everything

from free_ports import free_port
from futago.intake import guests as room
from futago.intake import notices
from futago.intake.guests import Door, Guests
from futago.intake.journal import new_incarnation
from futago.intake.listen import Addresses, Counters, tcp_socket
from futago.intake.model import Flag, Protocol, Record
from futago.intake.options import Connections
from futago.intake.own import OwnJournal
from futago.intake.tcp_syslog import TcpSyslog
from futago.intake.turns import Turns
from futago.intake.writer import JournalWriter
from futago.runtime.clock import S

LIMIT_S = 20
ONE, OTHER = b"\x01" * 16, b"\x02" * 16
Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class World:
    """A real port with a real journal behind it."""

    def __init__(self, root: Path, limits: Connections) -> None:
        self.journal = OwnJournal(JournalWriter(root), new_incarnation(None))
        self.counters, self.opened, self.root = Counters(), set[TcpSyslog](), root
        self.guests = Guests(self.counters, lambda: limits)
        self.addresses = Addresses()
        self.sock = tcp_socket("127.0.0.1", 0)

    def inside(self) -> TcpSyslog:
        return TcpSyslog(
            journal=self.journal,
            turns=Turns(self.counters),
            addresses=self.addresses,
            counters=self.counters,
            opened=self.opened,
            guests=self.guests,
        )

    def pass_time(self, seconds: int) -> None:
        """Look after the connections as if they had been looked after each second, for so long."""
        now_ns = self.journal.clock.now_ns()
        for passed in range(seconds + 1):
            self.guests.tend(now_ns + passed * S, tuple(self.opened))

    async def connected(self) -> Streams:
        return await asyncio.open_connection(*self.sock.getsockname())

    async def until(self, holds: Callable[[], object]) -> None:
        async with asyncio.timeout(LIMIT_S):
            while not holds():
                await asyncio.sleep(0.005)

    async def records(self) -> list[Record]:
        self.journal.hand()
        await self.until(lambda: self.journal.synced_sequence == self.journal.sequence)
        return everything(self.root)


@contextlib.asynccontextmanager
async def served(root: Path, limits: Connections, *, secured: ssl.SSLContext | None = None) -> AsyncIterator[World]:
    world = World(root, limits)
    door = Door(world.sock, world.guests, world.inside, packed=world.addresses.packed, context=secured)
    door.open()
    try:
        yield world
    finally:
        door.close()
        world.guests.close()
        for one in tuple(world.opened):
            one.give_up()
        await asyncio.sleep(0)
        world.journal.writer.close()


async def test_a_line_that_does_not_end_is_kept_as_cut_and_its_connection_ended(tmp_path: Path) -> None:
    async with served(tmp_path, Connections(unfinished_s=30)) as world:
        reader, writer = await world.connected()
        writer.write(b"<13>whole\n<13>half")
        await world.until(lambda: world.guests.unfinished_bytes == 8)
        world.pass_time(29)
        assert world.counters.tcp_timed_out == 0
        world.pass_time(40)
        assert await reader.read() == b""
        assert [(r.data, r.flags) for r in await world.records()] == [(b"<13>whole", 0), (b"<13>half", Flag.CUT)]
        assert (world.counters.tcp_timed_out, world.guests.unfinished_bytes) == (1, 0)
        await world.until(lambda: world.guests.count == 0)
        writer.close()


@pytest.mark.parametrize("begun", [b"100 <13>counted", b"9999999 <13>" + b"x" * 70_000, b"12"])
async def test_a_counted_frame_that_does_not_end_is_none(tmp_path: Path, begun: bytes) -> None:
    async with served(tmp_path, Connections(unfinished_s=30)) as world:
        _, writer = await world.connected()
        writer.write(b"7 <13>one" + begun)
        await world.until(lambda: any(one._framing.is_unfinished for one in world.opened))
        await world.until(lambda: world.guests.unfinished_bytes or len(begun) > 70_000)
        world.pass_time(40)
        await world.until(lambda: world.guests.count == 0)
        found = await world.records()
        assert found[0].data == b"<13>one"
        assert len(found) == (2 if len(begun) != 15 else 1)
        assert all(r.flags == Flag.CUT for r in found[1:])
        writer.close()


async def test_who_goes_on_and_who_is_silent_between_frames_stays(tmp_path: Path) -> None:
    async with served(tmp_path, Connections(unfinished_s=30)) as world:
        _, writer = await world.connected()
        writer.write(b"<13>one\n")
        await world.until(lambda: world.counters.syslog_tcp == 1)
        world.pass_time(100_000)
        writer.write(b"<13>two\n")
        await world.until(lambda: world.counters.syslog_tcp == 2)
        writer.close()


async def test_time_in_which_we_were_stopped_or_did_not_read_does_not_count(tmp_path: Path) -> None:
    async with served(tmp_path, Connections(unfinished_s=30, idle_s=60)) as world:
        _, writer = await world.connected()
        writer.write(b"<13>half")
        await world.until(lambda: world.guests.unfinished_bytes)
        now_ns = world.journal.clock.now_ns()
        world.guests.tend(now_ns, tuple(world.opened))
        world.guests.tend(now_ns + 3600 * S, tuple(world.opened))  # the first look after a frozen hour
        world.guests.tend(now_ns + 3602 * S, tuple(world.opened))
        assert len(world.opened) == 1
        world.journal.is_disk_short = True
        for passed in range(3602, 3800):
            world.guests.tend(now_ns + passed * S, tuple(world.opened))
        assert len(world.opened) == 1
        writer.close()


async def test_silence_ends_a_connection_only_where_the_options_say_so(tmp_path: Path) -> None:
    async with served(tmp_path, Connections(idle_s=60)) as world:
        reader, writer = await world.connected()
        await world.until(lambda: world.opened)
        world.pass_time(59)
        assert len(world.opened) == 1
        world.pass_time(62)
        assert await reader.read() == b""
        assert world.counters.tcp_idle == 1
        writer.close()


async def test_unfinished_frames_of_many_connections_hold_no_more_than_the_bound(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "UNFINISHED_BYTES_MAX", 200_000)
    async with served(tmp_path, Connections()) as world:
        writers = []
        for n in range(8):
            _, writer = await world.connected()
            writer.write(b"60000 <13>" + b"x" * (40_000 + n))
            writers.append(writer)
        await world.until(lambda: len(world.opened) < 8 and world.guests.unfinished_bytes > 100_000)
        assert world.guests.unfinished_bytes <= 200_000
        assert world.guests.unfinished_bytes == sum(one._framing.pending_bytes for one in world.opened)
        for writer in writers:
            writer.close()


async def test_one_sender_may_not_take_all_places_nor_all_senders_more_than_there_are(tmp_path: Path) -> None:
    counters = Counters()
    guests = Guests(counters, lambda: Connections(max=5, per_sender=3))
    assert [guests.admit(ONE, "one") for _ in range(4)] == [True, True, True, False]
    assert "one holds 3" in guests.last_refusal
    assert [guests.admit(OTHER, "other") for _ in range(3)] == [True, True, False]
    assert (counters.tcp_refused, guests.count) == (2, 5)
    guests.leave(ONE)
    assert guests.admit(OTHER, "other")


@pytest.fixture
def secured(pki: Path) -> Iterator[ssl.SSLContext]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pki / "m1.crt", pki / "m1.key")
    yield context


def client_context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


async def test_who_does_not_shake_hands_is_ended_and_makes_room_for_who_does(
    tmp_path: Path, secured: ssl.SSLContext
) -> None:
    async with served(tmp_path, Connections(max=3, handshake_s=60), secured=secured) as world:
        silent = [await world.connected() for _ in range(3)]
        await world.until(lambda: world.guests.shaking == 3)
        _, writer = await asyncio.open_connection(*world.sock.getsockname(), ssl=client_context())
        writer.write(b"<13>in\n")
        await world.until(lambda: world.counters.syslog_tcp == 1)
        assert (world.guests.count, world.guests.shaking, world.counters.tls_failed) == (3, 2, 1)
        with contextlib.suppress(ConnectionResetError):
            assert await silent[0][0].read() == b""
        assert not silent[1][0].at_eof()
        for _, one in [*silent, (None, writer)]:
            one.close()
        await world.until(lambda: world.guests.count == 0)


async def test_a_handshake_that_does_not_end_ends_in_time(tmp_path: Path, secured: ssl.SSLContext) -> None:
    async with served(tmp_path, Connections(handshake_s=1), secured=secured) as world:
        reader, writer = await world.connected()
        writer.write(b"\x16\x03\x01")
        async with asyncio.timeout(LIMIT_S):
            with contextlib.suppress(ConnectionResetError):
                await reader.read()
        await world.until(lambda: world.guests.count == world.guests.shaking == 0)
        assert world.counters.tls_failed == 1
        writer.close()
        _, other = await world.connected()
        other.write(b"this is no TLS\n" * 10)
        await world.until(lambda: world.counters.tls_failed == 2)
        await world.until(lambda: world.guests.count == 0)
        other.close()


def test_a_receiver_keeps_the_bounds_that_its_options_say_and_tells_of_it(tmp_path: Path, pki: Path) -> None:
    one = ReceiverProcess("m1", tmp_path / "m1", pki, "m2", free_port(), free_port())
    tls = free_port()
    one.write_options(f"[syslog_tls]\nport = {tls}\n[connections]\nper_sender = 3\nhandshake_s = 60\n")
    one.start()
    try:
        one.wait(lambda s: not s["unbound"], limit_s=30)
        with contextlib.ExitStack() as held:
            for count, port in enumerate((one.syslog_tcp, one.syslog_tcp, tls), start=1):
                held.enter_context(socket.create_connection(("127.0.0.1", port), timeout=LIMIT_S))
                one.wait(lambda s, count=count: s["counters"]["tcp_open"] == count, limit_s=30)
            held.enter_context(socket.create_connection(("127.0.0.1", tls), timeout=LIMIT_S))
            one.wait(lambda s: s["counters"]["tcp_refused"] == 1, limit_s=30)
            until = time.monotonic() + 30
            while not (told := told_by(one)):
                assert time.monotonic() < until
                time.sleep(0.05)
        one.wait(lambda s: s["counters"]["tcp_open"] == 0 and s["counters"]["tls_failed"] == 1, limit_s=30)
        with client_context().wrap_socket(socket.create_connection(("127.0.0.1", tls))) as s:
            s.sendall(b"<13>there is room again\n")
            one.wait(lambda s: s["counters"]["syslog_tls"] == 1, limit_s=30)
    finally:
        one.stop()
    assert "refused 1 connections" in told[0]
    assert "127.0.0.1 holds 3" in told[0]
    assert [r.data for r in one.own()] == [b"<13>there is room again"]


def told_by(one: ReceiverProcess) -> list[str]:
    found = [notices.read(r.data) for r in everything(one.root / "own") if r.protocol == Protocol.NOTICE]
    return [notice.message for notice in found if notice is not None]
