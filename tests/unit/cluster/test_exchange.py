"""The two lines of the controller: heartbeats that go over real sockets, begun, renewed and ended."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from futago.cluster import exchange as room
from futago.cluster.exchange import Exchange
from futago.cluster.facts import Board
from futago.cluster.model import At, Cas, Epoch, MemberName, Register, View
from futago.cluster.word import word
from futago.runtime.clock import now_at
from futago.runtime.log import Log
from futago.setup.settings import MemberSettings, PairSettings, Settings

MEMBERS = [
    MemberSettings("m1", service="127.0.0.11", heartbeat="127.0.1.11", interface="lo"),
    MemberSettings("m2", service="127.0.0.12", heartbeat="127.0.1.12", interface="lo"),
]


class End:
    """One member's end, with settings that can be changed."""

    def __init__(self, me: str) -> None:
        self.settings = Settings(me, PairSettings("p", "id", profile="fast", authority="fence"), MEMBERS)
        self.board = Board(cfg=self.settings.config(), started_at=At(now_at()))
        self.news = 0
        self.exchange = Exchange(
            board=self.board,
            boot=f"boot of {me}",
            context=ssl.create_default_context(),
            settings=lambda: self.settings,
            compose=lambda: word(self.board.facts()),
            on_change=self._changed,
            log=Log(),
        )

    def _changed(self) -> None:
        self.news += 1

    @property
    def heard(self) -> bool:
        return self.exchange.peer_fact().heartbeat is not None

    @property
    def hears_maintenance(self) -> bool:
        heartbeat = self.exchange.peer_fact().heartbeat
        return heartbeat is not None and heartbeat.maintenance


async def until(found: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not found():
            await asyncio.sleep(0.01)


@pytest.fixture(autouse=True)
def _key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    key = tmp_path / "key"
    key.write_bytes(b"k" * 32)
    monkeypatch.setattr(room.paths, "HEARTBEAT_KEY", key)


async def test_members_hear_each_other_until_one_says_goodbye() -> None:
    a, b = End("m1"), End("m2")
    assert a.exchange.peer_fact().watching_since == a.board.started_at and a.exchange.peer_program == ""
    a.exchange.say_now()  # nothing runs yet: nothing happens
    async with asyncio.TaskGroup() as group:
        a.exchange.start(group)
        b.exchange.start(group)
        await until(lambda: a.heard and b.heard)
        assert a.news and a.exchange.peer_program and a.exchange.peer_roster == 0
        b.board.maintenance = True
        b.exchange.say_now()
        await until(lambda: a.hears_maintenance)
        await b.exchange.say_bye()
        await until(lambda: a.exchange.peer_fact().said_bye)
        for task in [*a.exchange.tasks(), *b.exchange.tasks()]:
            task.cancel()


async def test_sign_of_a_silent_member_can_be_forgotten() -> None:
    a, b = End("m1"), End("m2")
    async with asyncio.TaskGroup() as group:
        a.exchange.start(group)
        b.exchange.start(group)
        b.board.maintenance = True
        await until(lambda: a.hears_maintenance)
        for task in b.exchange.tasks():
            task.cancel()
        await asyncio.gather(*b.exchange.tasks(), return_exceptions=True)
        a.board.bell.clear()
        a.exchange.forget_peers_sign()
        assert not a.hears_maintenance and a.board.bell.is_set()
        for task in a.exchange.tasks():
            task.cancel()


async def test_line_in_use_is_left_alone_when_something_else_changes_and_begun_anew_with_its_own_settings() -> None:
    a = End("m1")
    async with asyncio.TaskGroup() as group:
        a.exchange.start(group)
        (line,) = a.exchange.tasks()
        assert a.exchange.register is None and not a.board.register.is_configured and a.exchange.health(now_at()) == []
        before, a.settings = a.settings, msgspec.structs.replace(a.settings, roster=3)
        a.exchange.follow(before)
        assert list(a.exchange.tasks()) == [line]
        before, a.settings = a.settings, msgspec.structs.replace(a.settings, members=MEMBERS[:1])
        a.exchange.follow(before)
        assert a.exchange.tasks() == [] and line.cancelling()
        a.settings = before
        a.exchange.follow(msgspec.structs.replace(before, members=MEMBERS[:1]))
        (fresh,) = a.exchange.tasks()
        assert fresh is not line
        fresh.cancel()


async def test_what_was_heard_of_the_same_member_outlives_changed_settings() -> None:
    a, b = End("m1"), End("m2")
    async with asyncio.TaskGroup() as group:
        a.exchange.start(group)
        b.exchange.start(group)
        await until(lambda: a.heard and b.heard and all(x.echo_at for x in a.exchange.peer_fact().links))
        known, before = a.exchange.peer_fact(), a.settings
        a.settings = msgspec.structs.replace(before, pair=msgspec.structs.replace(before.pair, authority="register"))
        a.exchange.follow(before)
        now = a.exchange.peer_fact()
        assert now.heartbeat is not None and now.watching_since == known.watching_since
        assert (now.heard_at or 0) >= (known.heard_at or 0) and all(x.echo_at for x in now.links)
        await until(lambda: (a.exchange.peer_fact().heard_at or 0) > (now.heard_at or 0))  # and it goes on
        moved = [a.settings.members[0], msgspec.structs.replace(MEMBERS[1], name="m3")]
        before, a.settings = a.settings, msgspec.structs.replace(a.settings, members=moved)
        a.exchange.follow(before)
        assert not a.heard  # another member: nothing is known of it
        for task in [*a.exchange.tasks(), *b.exchange.tasks()]:
            task.cancel()


async def test_contact_with_one_third_vote_says_nothing_of_the_next() -> None:
    a = End("m1")
    async with asyncio.TaskGroup() as group:
        a.exchange.start(group)
        view = View(Epoch(3), MemberName("m1"), frozenset((MemberName("m1"),)))
        at = At(now_at())
        a.board.put_register(view=view, read_at=at, contact_at=at, asked_at=at, cas=Cas.DONE, cas_epoch=Epoch(3))
        a.exchange.renew_register()
        assert a.board.register == Register(view=view)
        for task in a.exchange.tasks():
            task.cancel()
