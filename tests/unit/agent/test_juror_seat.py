"""The juror's seat: nothing is said that is not on the disk, nobody but members is heard."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from agent_world import PAIR_ID, Keys, QuietLog, connected, loopback, until
from futago.agent import juror as room
from futago.agent.juror import Acceptor, Juror
from futago.agent.slots import SLOT_BYTES
from futago.link.frames import FrameStream
from futago.link.jurors import Identified, Identify, JurorReply
from futago.register.model import (
    NO_BALLOT,
    Accept,
    Accepted,
    Address,
    Ballot,
    Held,
    Prepare,
    Promise,
    Query,
    Reject,
    RejectReason,
    Reply,
    Value,
)
from futago.runtime.faults import Refused
from futago.setup import paths
from futago.setup.settings import AgentSettings

VALUE = Value(epoch=7, primary="m1", insync=("m1", "m2"))


async def seat(path: Path) -> Acceptor:
    acceptor = Acceptor(path, pair_id=PAIR_ID, log=QuietLog())
    await acceptor.load()
    return acceptor


def to(acceptor: Acceptor, *, acceptor_id: str | None = None) -> Address:
    return Address(pair_id=PAIR_ID, acceptor_id=acceptor_id or acceptor.acceptor_id, roster=1)


def ballot(counter: int) -> Ballot:
    return Ballot(counter, "m1", counter)


async def vote(acceptor: Acceptor, counter: int) -> tuple[Reply | Identified, Reply | Identified]:
    promised = await acceptor.answer(Prepare(to(acceptor), 1, ballot(counter)))
    return promised, await acceptor.answer(Accept(to(acceptor), 2, ballot(counter), VALUE))


async def test_votes_survive_the_juror(tmp_path: Path) -> None:
    first = await seat(tmp_path / "j")
    assert await vote(first, 3) == (Promise(1, ballot(3), NO_BALLOT, None), Accepted(2, ballot(3)))
    second = await seat(tmp_path / "j")
    assert second.acceptor_id == first.acceptor_id
    assert await second.answer(Query(to(second), 5)) == Held(5, ballot(3), ballot(3), VALUE)
    assert await second.answer(Prepare(to(second), 6, ballot(2))) == Reject(6, RejectReason.BALLOT, promised=ballot(3))


async def test_lost_file_makes_a_new_acceptor_that_does_not_vote_for_the_old_one(tmp_path: Path) -> None:
    first = await seat(tmp_path / "j")
    await vote(first, 3)
    (tmp_path / "j").unlink()
    second = await seat(tmp_path / "j")
    assert second.acceptor_id != first.acceptor_id
    answer = await second.answer(Prepare(to(second, acceptor_id=first.acceptor_id), 1, ballot(9)))
    assert isinstance(answer, Reject)
    assert answer.reason is RejectReason.WRONG_ACCEPTOR


@pytest.mark.parametrize("content", [b"", b"\0" * 2 * SLOT_BYTES, os.urandom(64)])
async def test_damaged_file_is_kept_and_has_no_vote(tmp_path: Path, content: bytes) -> None:
    first = await seat(tmp_path / "j")
    identity = first.acceptor_id
    (tmp_path / "j").write_bytes(content)
    second = await seat(tmp_path / "j")
    assert await second.answer(Identify(1)) == Identified(1, "", 0)
    answer = await second.answer(Query(to(second, acceptor_id=identity), 2))
    assert answer == Reject(2, RejectReason.UNABLE)
    assert (tmp_path / "j").read_bytes() == content


async def test_file_of_another_pair_has_no_vote(tmp_path: Path) -> None:
    await seat(tmp_path / "j")
    other = Acceptor(tmp_path / "j", pair_id="another", log=QuietLog())
    await other.load()
    assert other.acceptor_id == ""


async def test_vote_that_cannot_be_written_is_not_given_and_what_follows_starts_from_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    acceptor = await seat(tmp_path / "j")
    write = acceptor._file.write
    monkeypatch.setattr(acceptor._file, "write", _refuse)
    address = to(acceptor)
    assert await acceptor.answer(Prepare(address, 1, ballot(5))) == Reject(1, RejectReason.UNABLE)
    assert await acceptor.answer(Query(address, 2)) == Reject(2, RejectReason.UNABLE)  # not even what it held before
    monkeypatch.setattr(acceptor._file, "write", write)
    assert await acceptor.answer(Query(address, 3)) == Held(3, ballot(5), NO_BALLOT, None)
    assert (await seat(tmp_path / "j")).acceptor_id == address.acceptor_id


def _refuse(_value: bytes) -> None:
    raise Refused("the disk is full")


async def test_disk_that_hangs_makes_the_juror_unable_until_it_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "WRITE_S_MAX", 0.05)
    acceptor = await seat(tmp_path / "j")
    address = to(acceptor)
    write, gate = acceptor._file.write, __import__("threading").Event()

    def hang(value: bytes) -> None:
        gate.wait(60)
        write(value)

    monkeypatch.setattr(acceptor._file, "write", hang)
    assert await acceptor.answer(Prepare(address, 1, ballot(5))) == Reject(1, RejectReason.UNABLE)
    assert await acceptor.answer(Prepare(address, 2, ballot(5))) == Reject(2, RejectReason.UNABLE)
    gate.set()
    await until(lambda: acceptor._writing is not None and acceptor._writing.done(), what="the write ended")
    assert await acceptor.answer(Query(address, 3)) == Held(3, ballot(5), NO_BALLOT, None)


@asynccontextmanager
async def listening(tmp_path: Path, keys: Keys) -> AsyncIterator[tuple[Juror, str]]:
    address = loopback()
    own = AgentSettings(name="h1", pair_id=PAIR_ID, members=["127.0.0.1"], listen=address)
    juror = Juror(tmp_path / "j", own=own, context=keys.server("agent", "h1"), log=QuietLog())
    task = asyncio.get_running_loop().create_task(juror.run())
    try:
        await until(lambda: juror.acceptor.acceptor_id, what="loaded")
        yield juror, address
    finally:
        task.cancel()
        await asyncio.wait({task})


async def connect(keys: Keys, address: str, kind: str, name: str) -> FrameStream[JurorReply]:
    reader, writer = await connected(address, paths.PORT_JUROR, keys.client(kind, name))
    return FrameStream(reader, writer, JurorReply)


async def test_member_asks_who_sits_there_and_votes_over_mutual_tls(tmp_path: Path) -> None:
    keys = Keys(tmp_path / "keys")
    async with listening(tmp_path, keys) as (juror, address):
        stream = await connect(keys, address, "member", "m1")
        await stream.send(Identify(1))
        who = await stream.receive()
        assert who == Identified(1, juror.acceptor.acceptor_id, 0)
        await stream.send(Prepare(to(juror.acceptor), 2, ballot(1)))
        assert await stream.receive() == Promise(2, ballot(1), NO_BALLOT, None)
        await stream.close()


async def test_agents_and_strangers_are_not_heard(tmp_path: Path) -> None:
    keys, strange = Keys(tmp_path / "keys"), Keys(tmp_path / "strange")
    async with listening(tmp_path, keys) as (juror, address):
        for client in (keys.client("agent", "h2"), strange.client("member", "m1")):
            with pytest.raises((EOFError, OSError)):
                reader, writer = await asyncio.open_connection(address, paths.PORT_JUROR, ssl=client)
                stream: FrameStream[JurorReply] = FrameStream(reader, writer, JurorReply)
                await stream.send(Identify(1))
                await stream.receive()
        assert juror.acceptor.counters.answered == 0


@pytest.mark.parametrize("garbage", [b"\xff" * 64, b"\0\0\0\x03abc", b"\0\0\0\0", b"GET / HTTP/1.1\r\n\r\n"])
async def test_garbage_ends_its_connection_and_nothing_else(tmp_path: Path, garbage: bytes) -> None:
    keys = Keys(tmp_path / "keys")
    async with listening(tmp_path, keys) as (juror, address):
        good = await connect(keys, address, "member", "m1")
        bad = await connect(keys, address, "member", "m2")
        bad.writer.write(garbage)
        with pytest.raises((EOFError, OSError)):
            await bad.receive()
        await good.send(Identify(1))
        assert await good.receive() == Identified(1, juror.acceptor.acceptor_id, 0)
        assert juror._listener.counters.sessions_faulty == 1
        await good.close()
