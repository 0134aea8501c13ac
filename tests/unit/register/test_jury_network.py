"""The jury over real TLS: real acceptors on loopback, one dead, one hanging, one that lost its file."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from free_ports import free_port
from futago.agent.juror import Juror as JurorServer
from futago.cluster.model import Epoch, Lsn, MemberName, View
from futago.link import tls
from futago.link.jurors import Identified
from futago.register import jury as jury_room
from futago.register.jury import Jury
from futago.runtime.clock import now_at
from futago.runtime.faults import Refused
from futago.runtime.log import Log
from futago.setup.settings import AgentSettings, Juror
from pair_keys import PAIR, Keys


class Bench:
    """Three jurors on loopback."""

    def __init__(self, home: Path) -> None:
        self.home, self.keys = home, Keys(home)
        self.tasks: dict[str, asyncio.Task[None]] = {}
        self.servers: dict[str, JurorServer] = {}
        self.ports = {n: free_port() for n in ("j1", "j2", "j3")}
        cert, key, ca = self.keys.issue("member", "m1")
        self.context = tls.client_context(cert=cert, key=key, ca=ca)

    def start(self, name: str) -> None:
        cert, key, ca = self.keys.issue("agent", name)
        own = AgentSettings(name=name, pair_id=PAIR, members=[], listen="127.0.0.1")
        context = tls.server_context(cert=cert, key=key, ca=ca)
        server = JurorServer(self.home / f"{name}.acceptor", own=own, context=context, log=Log(), port=self.ports[name])
        self.servers[name] = server
        self.tasks[name] = asyncio.create_task(server.run())

    async def stop(self, name: str) -> None:
        task = self.tasks.pop(name)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        if (writing := self.servers[name].acceptor._writing) is not None:
            await asyncio.wait({writing}, timeout=60)  # it would make its file anew

    def jurors(self) -> list[Juror]:
        return [Juror(n, "127.0.0.1", p) for n, p in self.ports.items()]

    async def seated(self) -> list[Juror]:
        found = []
        for j in self.jurors():
            answer = await self.identify(j)
            found.append(Juror(j.name, j.address, j.port, answer.acceptor_id))
        return found

    async def identify(self, juror: Juror) -> Identified:
        async with asyncio.timeout(60):
            while True:
                with contextlib.suppress(Refused):
                    return await jury_room.identify(juror, pair_id=PAIR, context=self.context)
                await asyncio.sleep(0.05)

    def jury(self, jurors: list[Juror], *, me: str = "m1", version: int = 1) -> Jury:
        return Jury(pair_id=PAIR, me=me, jurors=jurors, version=version, context=self.context, log=Log())


@contextlib.asynccontextmanager
async def bench(home: Path) -> AsyncIterator[tuple[Bench, Jury]]:
    b = Bench(home)
    for name in b.ports:
        b.start(name)
    jury = b.jury(await b.seated())
    carrier = asyncio.create_task(jury.run())
    try:
        await _connected(jury, 3)
        yield b, jury
    finally:
        carrier.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await carrier
        for name in list(b.tasks):
            await b.stop(name)


async def _connected(jury: Jury, count: int) -> None:
    async with asyncio.timeout(60):
        while sum(m.stream is not None for m in jury._messengers.values()) < count:
            await asyncio.sleep(0.01)


def view(epoch: int, primary: str = "m1") -> View:
    return View(Epoch(epoch), MemberName(primary), frozenset({MemberName(primary)}), Lsn(5))


async def test_value_is_stored_read_back_and_never_replaced_by_an_older_epoch(tmp_path: Path) -> None:
    async with bench(tmp_path) as (_, jury):
        assert await jury.read() is None
        assert (await jury.put(jury_room.value(view(3), version=1)))[0]
        held = await jury.read()
        assert held is not None and (held.epoch, held.primary) == (3, "m1")
        is_ours, held = await jury.put(jury_room.value(view(3, "m2"), version=1))
        assert not is_ours and held is not None and held.primary == "m1"
        assert all(ok for _, ok, _ in jury.health(now_at()))


async def test_two_members_that_ask_at_once_do_not_both_win(tmp_path: Path) -> None:
    async with bench(tmp_path) as (b, jury):
        other = b.jury(await b.seated(), me="m2")
        carrier = asyncio.create_task(other.run())
        await _connected(other, 3)
        for epoch in range(5, 10):
            won = await asyncio.gather(
                jury.put(jury_room.value(view(epoch, "m1"), version=1)),
                other.put(jury_room.value(view(epoch, "m2"), version=1)),
            )
            held = await jury.read()
            assert [w[0] for w in won].count(True) == 1
            assert held is not None and held.primary == ("m1" if won[0][0] else "m2")
        carrier.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await carrier


async def test_one_dead_juror_does_not_matter_and_two_do(tmp_path: Path) -> None:
    async with bench(tmp_path) as (b, jury):
        await b.stop("j3")
        assert (await jury.put(jury_room.value(view(4), version=1)))[0]
        await b.stop("j2")
        with pytest.raises(Refused, match=r"silent: .*j2"):
            await jury.read()
        b.start("j2")
        await _connected(jury, 2)
        held = await jury.read()
        assert held is not None and held.epoch == 4


async def test_juror_that_lost_its_file_has_no_vote(tmp_path: Path) -> None:
    async with bench(tmp_path) as (b, jury):
        await jury.put(jury_room.value(view(4), version=1))
        for name in ("j1", "j2"):
            await b.stop(name)
            (tmp_path / f"{name}.acceptor").unlink()
            b.start(name)
        await b.identify(b.jurors()[0])
        await b.identify(b.jurors()[1])
        await _connected(jury, 3)
        with pytest.raises(Refused, match="wrong-acceptor"):
            await jury.read()
        assert [ok for _, ok, _ in jury.health(now_at())] == [False, False, True]


async def test_juror_that_takes_requests_and_never_answers_delays_nothing(tmp_path: Path) -> None:
    async with bench(tmp_path) as (b, jury):
        await b.stop("j1")
        silent = await asyncio.start_server(lambda r, w: asyncio.sleep(60), "127.0.0.1", b.ports["j1"])
        began = now_at()
        assert (await jury.put(jury_room.value(view(7), version=1)))[0]
        assert now_at() - began < 1_000_000_000
        silent.close()


async def test_somebody_else_at_a_jurors_address_is_not_believed(tmp_path: Path) -> None:
    async with bench(tmp_path) as (b, _):
        wrong = Juror("j9", "127.0.0.1", b.ports["j1"])
        with pytest.raises(Refused, match="j9"):
            await jury_room.identify(wrong, pair_id=PAIR, context=b.context)
