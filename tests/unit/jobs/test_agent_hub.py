"""The hub against agents that break the rules, and against its own role."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from agent_world import WAIT_S, Keys, active, connected, loopback, make_hub, order, standby, until
from futago.jobs import hub as room
from futago.jobs.hub import AgentHub, Connected, Heard
from futago.link.frames import FrameStream, encode
from futago.link.orders import Beat, FromManager, Hello, Order, OrderTaken, RoleChanged, Welcome
from futago.setup import paths

Stream = FrameStream[FromManager]


class Site:
    def __init__(self, hub: AgentHub, keys: Keys, address: str) -> None:
        self.hub, self.keys, self.address = hub, keys, address

    async def connect(self, name: str = "h1", *, hello: Hello | None = None) -> Stream:
        context = self.keys.client("agent", name)
        reader, writer = await connected(self.address, paths.PORT_AGENT, context)
        stream: Stream = FrameStream(reader, writer, FromManager)
        await stream.send(hello or Hello(agent=name, boot="b", version="1", epoch=0))
        return stream


@pytest_asyncio.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    keys, address = Keys(tmp_path / "keys"), loopback()
    hub = make_hub(keys, address)
    task = asyncio.get_running_loop().create_task(hub.run())
    yield Site(hub, keys, address)
    task.cancel()
    await asyncio.wait({task})


async def closed(stream: Stream) -> bool:
    try:
        while True:
            await asyncio.wait_for(stream.receive(), WAIT_S)
    except (EOFError, OSError):
        return True


async def test_agent_is_told_the_role_at_once_and_at_every_change(site: Site) -> None:
    stream = await site.connect()
    assert await stream.receive() == Welcome("m1", 0, is_active=False)
    site.hub.set_role(standby(4))
    site.hub.set_role(standby(4))
    site.hub.set_role(active(5))
    assert await stream.receive() == RoleChanged(4, is_active=False)
    assert await stream.receive() == RoleChanged(5, is_active=True)


async def test_standby_sends_no_orders_and_keeps_nothing_of_what_agents_say(site: Site) -> None:
    site.hub.set_role(standby(3))
    stream = await site.connect()
    await stream.receive()
    assert not site.hub.order("h1", order("r1", "true", epoch=3))
    await stream.send(OrderTaken("r1"))
    await until(lambda: site.hub.counters.ignored == 1, what="ignored")
    assert site.hub.inbox.empty()


async def test_what_was_said_before_a_change_of_role_is_not_heard_after_it(site: Site) -> None:
    site.hub.set_role(active(1))
    stream = await site.connect()
    await stream.send(OrderTaken("r1"))
    await until(lambda: site.hub.inbox.qsize() == 2, what="heard")
    site.hub.set_role(standby(2))
    site.hub.set_role(active(3))
    assert site.hub.inbox.empty()


@pytest.mark.parametrize(
    "frame",
    [
        b"\xff" * 40,
        b"\0\0\0\x02{}",
        encode(Hello(agent="h1", boot="b", version="1", epoch=0)),  # a second one
        encode(Order("r1", 1, "true")),  # not an agent's to say
        encode({"type": "ended", "run_id": 5}),
    ],
)
async def test_agent_that_breaks_the_rules_loses_its_session_and_no_other(site: Site, frame: bytes) -> None:
    site.hub.set_role(active(1))
    good, bad = await site.connect("h1"), await site.connect("h2")
    await until(lambda: site.hub.is_connected("h2"), what="connected")
    bad.writer.write(frame)
    assert await closed(bad)
    await until(lambda: not site.hub.is_connected("h2"), what="gone")
    await good.send(OrderTaken("r1"))
    await until(lambda: site.hub.inbox.qsize() == 3, what="the other is heard")


async def test_agent_cannot_speak_in_the_name_of_another(site: Site) -> None:
    stream = await site.connect("h1", hello=Hello(agent="h2", boot="b", version="1", epoch=0))
    assert await closed(stream)
    assert site.hub.connected == []
    assert site.hub.counters.strangers == 1


async def test_silent_agent_is_given_up(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "SILENCE_S", 0.3)
    monkeypatch.setattr(room, "BEAT_S", 0.1)
    stream = await site.connect()
    await until(lambda: site.hub.is_connected("h1"), what="connected")
    assert await stream.receive() == Welcome("m1", 0, is_active=False)
    assert await stream.receive() == Beat()
    await until(lambda: not site.hub.is_connected("h1"), what="given up")


async def test_agent_that_does_not_read_is_disconnected_not_waited_for(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.hub.set_role(active(1))
    stream = await site.connect()
    await until(lambda: site.hub.is_connected("h1"), what="connected")
    session = site.hub._sessions["h1"]
    monkeypatch.setattr(session, "outbox", asyncio.Queue(maxsize=1))
    session.outbox.put_nowait(Beat())
    assert not site.hub.order("h1", order("r1", "true"))
    await until(lambda: not site.hub.is_connected("h1"), what="disconnected")
    assert site.hub.counters.overrun == 1
    assert await closed(stream)


async def test_newer_session_of_an_agent_ends_the_older_one(site: Site) -> None:
    site.hub.set_role(active(1))
    first = await site.connect()
    await until(lambda: site.hub.is_connected("h1"), what="connected")
    second = await site.connect()
    assert await closed(first)
    await second.send(OrderTaken("r1"))
    events = [await asyncio.wait_for(site.hub.inbox.get(), WAIT_S) for _ in range(3)]
    assert [type(e) for e in events] == [Connected, Connected, Heard]
