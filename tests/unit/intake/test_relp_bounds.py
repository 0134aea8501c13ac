"""RELP clients that do not keep to it: memory stays bounded, and nothing that was taken is lost or recorded twice."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from test_relp_frames import feed, frame

from futago.intake import relp, relp_server
from futago.intake.journal import new_incarnation
from futago.intake.listen import Addresses, Counters
from futago.intake.model import DATA_BYTES_MAX
from futago.intake.options import Connections
from futago.intake.own import OwnJournal
from futago.intake.relp import REMEMBERED_NS, Memory, RelpFraming, Repetitions, Sent
from futago.intake.relp_server import UNFINISHED_NS, UNREAD_NS, RelpConnection, RelpDesk
from futago.intake.turns import Turns
from futago.intake.writer import JournalWriter

LIMIT_S = 20


@contextlib.asynccontextmanager
async def served(tmp: Path) -> AsyncIterator[tuple[RelpDesk, tuple[str, int]]]:
    """A real desk on a real journal and socket, whose kernel holds little of what is not read."""
    journal = OwnJournal(JournalWriter(tmp / "own"), new_incarnation(None))
    counters = Counters()
    desk = RelpDesk(
        journal=journal,
        turns=Turns(counters),
        addresses=Addresses(),
        counters=counters,
        durable=lambda: journal.sequence,
    )
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    sock.bind(("127.0.0.1", 0))
    server = await asyncio.get_running_loop().create_server(lambda: RelpConnection(desk), sock=sock)
    try:
        yield desk, sock.getsockname()
    finally:
        server.close()
        for connection in tuple(desk.opened):
            connection.give_up()
        await asyncio.sleep(0)
        journal.hand()
        journal.writer.close()


def tend(desk: RelpDesk, later_ns: int) -> None:
    for connection in tuple(desk.opened):
        connection.tend(desk.journal.clock.now_ns() + later_ns, Connections())


async def connected(where: tuple[str, int]) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    sock.setblocking(False)
    await asyncio.get_running_loop().sock_connect(sock, where)
    return await asyncio.open_connection(sock=sock, limit=4096)


async def until(holds: Callable[[], object], desk: RelpDesk) -> None:
    async with asyncio.timeout(LIMIT_S):
        while not holds():
            desk.release()
            await asyncio.sleep(0.005)


async def test_a_client_that_reads_no_answers_is_not_read_either_and_loses_nothing(tmp_path: Path) -> None:
    count = 40_000
    async with served(tmp_path) as (desk, where):
        reader, writer = await connected(where)
        writer.write(b"".join(frame(n % 999_999 + 1, b"syslog", b"<13>%d" % n) for n in range(count)))
        await until(lambda: any(one._is_unread for one in desk.opened), desk)
        for _ in range(50):
            desk.release()
            await asyncio.sleep(0.005)
        (one,) = desk.opened
        assert one.transport is not None
        assert one.transport.get_write_buffer_size() < 1 << 20
        assert desk.counters.syslog_relp < count, "it takes what it cannot acknowledge"
        said = 0

        async def read() -> None:
            nonlocal said
            while said < count:
                said += (await reader.read(4096)).count(b"\n")

        reading = asyncio.create_task(read())
        await until(reading.done, desk)
        assert desk.counters.syslog_relp == desk.counters.relp_acknowledged == count
        writer.close()


async def test_a_client_that_never_reads_is_ended_and_its_frames_are_known_when_it_comes_again(tmp_path: Path) -> None:
    async with served(tmp_path) as (desk, where):
        _, writer = await connected(where)
        writer.write(b"".join(frame(n + 1, b"syslog", b"<13>%d" % n) for n in range(40_000)))
        await until(lambda: any(one._is_unread for one in desk.opened), desk)
        taken = desk.counters.syslog_relp
        tend(desk, UNREAD_NS + 1)
        assert not desk.opened
        _, again = await connected(where)
        again.write(frame(1, b"syslog", b"<13>%d" % (taken - 1)))
        await until(lambda: desk.counters.relp_repeated, desk)
        assert desk.counters.syslog_relp == taken
        writer.close()
        again.close()


async def test_a_frame_that_does_not_end_is_ended(tmp_path: Path) -> None:
    async with served(tmp_path) as (desk, where):
        _, writer = await connected(where)
        writer.write(frame(1, b"syslog", b"<13>whole") + b"2 syslog 500 <13>half")
        await until(lambda: desk.unfinished_bytes, desk)
        tend(desk, UNFINISHED_NS // 2)
        assert desk.opened
        tend(desk, UNFINISHED_NS + UNFINISHED_NS // 2)
        assert not desk.opened
        assert desk.unfinished_bytes == 0
        assert desk.counters.relp_faults == 1
        writer.close()


async def test_unfinished_frames_of_all_together_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relp_server, "UNFINISHED_BYTES_MAX", 200_000)
    async with served(tmp_path) as (desk, where):
        writers = [(await connected(where))[1] for _ in range(12)]
        for n, writer in enumerate(writers):
            writer.write(b"1 syslog 60000 " + b"x" * (20_000 + 1000 * n))
        await until(lambda: desk.counters.relp_faults >= 2, desk)
        assert desk.unfinished_bytes <= 200_000
        assert desk.unfinished_bytes == sum(one.unfinished_bytes for one in desk.opened)
        for writer in writers:
            writer.close()
        await until(lambda: not desk.opened, desk)
        assert desk.unfinished_bytes == 0


def test_of_a_frame_that_is_too_long_no_more_is_held_than_is_kept() -> None:
    size = relp.FRAME_BYTES_MAX
    framing, sent = RelpFraming(), frame(7, b"syslog", b"y" * size) + frame(8, b"syslog", b"next")
    found = []
    for at in range(0, len(sent), 10_000):
        found += framing.receive_data(sent[at : at + 10_000])
        assert framing.pending_bytes <= DATA_BYTES_MAX + 10_000
    assert [(one.number, len(one.data), one.is_cut) for one in found] == [(7, DATA_BYTES_MAX, True), (8, 4, False)]


def test_the_memory_of_broken_connections_is_bounded_in_connections_frames_and_age(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(relp, "CONNECTIONS_MAX", 100)
    monkeypatch.setattr(relp, "FRAMES_MAX", 500)
    monkeypatch.setattr(relp, "SOURCE_FRAMES_MAX", 200)
    memory, honest, hostile = Memory(), b"h" * 16, b"x" * 16
    mine = Repetitions(memory, honest)
    feed(mine, b"a", b"b", first=1)
    mine.broke(1)
    for n in range(1000):
        one = Repetitions(memory, hostile)
        feed(one, *(b"%d %d" % (n, k) for k in range(n % 40 + 1)), first=10)
        one.broke(2)
        assert memory.frames <= 202
    for n in range(300):
        one = Repetitions(memory, b"%016d" % n)
        feed(one, *(b"%d %d" % (n, k) for k in range(4)), first=10)
        one.broke(3)
        assert memory.frames <= 500
        assert memory.connections <= 100
    memory.forget_older(REMEMBERED_NS + 2)
    assert feed(Repetitions(memory, hostile), b"999 0", first=20) == [20], "too old"
    memory.forget_older(REMEMBERED_NS + 4)
    assert (memory.frames, memory.connections) == (0, 0)


def test_a_sender_that_breaks_thousands_of_connections_does_not_make_others_be_forgotten() -> None:
    memory, honest = Memory(), b"h" * 16
    mine = Repetitions(memory, honest)
    feed(mine, b"a", b"b", first=1)
    mine.broke(1)
    for n in range(3 * relp.CONNECTIONS_MAX):
        memory.broke(b"x" * 16, [Sent(b"%d" % n, mine._unacknowledged[0].position)], 2)
    assert feed(Repetitions(memory, honest), b"a", b"b", first=9) == []
