"""Changing the third vote: two members' seating on real registers. Only the line between the two is of this test."""

from __future__ import annotations

import asyncio
import contextlib
import stat
import threading
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import pytest
import register_kinds
from register_kinds import Etcd, Jurors, calm, etcd, store_alone

from futago.cluster.control import Message, OperatorRefused
from futago.cluster.facts import Board
from futago.cluster.model import At, Durable, Epoch, Heartbeat, Lsn, MemberName, Peer, PgState, View
from futago.cluster.seating import Seating
from futago.register import jury as jury_room
from futago.register import kinds
from futago.register.ballot import value_of
from futago.register.memory import Memory
from futago.register.port import Register
from futago.runtime.clock import S, now_at
from futago.runtime.faults import OperatorFault, Refused
from futago.runtime.log import Log
from futago.runtime.worker import Worker
from futago.setup import paths, settings
from futago.setup.settings import Juror, MemberSettings, PairSettings, Settings
from pair_keys import PAIR

M1, M2 = MemberName("m1"), MemberName("m2")
PAIRED = View(Epoch(4), M1, frozenset({M1, M2}), Lsn(40))
SOLO = View(Epoch(5), M1, frozenset({M1}), Lsn(50))


async def _say(_text: str) -> None:
    pass


@dataclass
class Member:
    """One member: its settings file, its seating, and the register that its settings name."""

    name: str
    home: Path
    jurors: Jurors
    settings: Settings
    other: Member | None = None
    is_reachable: bool = True
    register: Register | None = None
    told: list[str] = field(default_factory=list)
    view: View = PAIRED
    silence_s: int = 0
    _carrier: asyncio.Task[None] | None = None

    def open(self) -> None:
        self.file = self.home / f"{self.name}.toml"
        self.file.write_text(settings.dump(self.settings))
        self.board = Board(cfg=self.settings.config(), started_at=At(now_at()))
        self.board.read_durable = lambda: Durable(view=self.view)
        hb = Heartbeat(
            member=M2,
            boot="b",
            seq=1,
            view=PAIRED,
            intent=Epoch(0),
            is_able=True,
            pg=PgState.STANDBY,
            timeline=1,
            flush=Lsn(1),
            replay=Lsn(1),
            is_streaming=True,
            is_disk_ok=True,
            gate_open=False,
            address_held=False,
            wants=None,
            journals_complete=True,
            is_fit=True,
            service_ok=True,
        )
        self.board.read_peer = lambda: Peer(heartbeat=hb, heard_at=At(now_at() - self.silence_s * S))
        line: Any = self
        self.seating = Seating(
            board=self.board,
            peer=line,
            system=Worker("system"),
            context=self.jurors.contexts[self.name],
            settings=lambda: self.settings,
            register=lambda: self.register,
            reload=self.reload,
            renew=self.renew,
            log=Log(),
            where=self.file,
        )
        self.renew()

    async def reload(self) -> None:
        self.settings = settings.load(self.file)
        self.renew()

    def renew(self) -> None:
        if self._carrier is not None:
            self._carrier.cancel()
        self.register = kinds.usable_or_not(
            self.settings, context=self.jurors.contexts[self.name], memory=Memory(), log=Log()
        )
        if self.register is not None:
            self._carrier = asyncio.create_task(self.register.run())

    async def ask(self, op: str, **fields: Any) -> Message:
        """The line to the other member, as control.PeerLine is."""
        assert self.other is not None
        if not self.other.is_reachable:
            raise Refused("it does not answer")
        self.other.told.append(op)
        fields = msgspec.msgpack.decode(msgspec.msgpack.encode({k: v for k, v in fields.items() if k != "say"}))
        try:
            if op == "vote":
                return await self.other.seating.seat({"op": op, **fields}, _say)
            return await self.other.seating.answer({"op": op, **fields})
        except OperatorFault as e:
            raise OperatorRefused(e.what, hint=e.hint) from e
        except Refused as e:
            raise OperatorRefused(str(e), hint="") from e

    async def vote(self, kind: str, **fields: Any) -> Message:
        return await self.seating.seat({"op": "vote", "kind": kind, **fields}, _say)


@dataclass
class Pair:
    m1: Member
    m2: Member
    jurors: Jurors

    def rows(self, *names: str) -> list[dict[str, object]]:
        return [{"name": n, "address": "127.0.0.1", "port": self.jurors.ports[n]} for n in names]

    def same(self) -> bool:
        def vote(s: Settings) -> tuple[object, ...]:
            return s.jurors, s.roster, s.third_vote, s.pair.authority

        return vote(self.m1.settings) == vote(self.m2.settings)


@pytest.fixture(autouse=True)
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paths, "SECRETS", tmp_path / "secrets")
    monkeypatch.setattr(paths, "ETC", tmp_path)
    monkeypatch.setattr(paths, "SETTINGS", tmp_path / "none.toml")
    monkeypatch.setattr(jury_room, "PUT_S_MAX", 0.5)
    paths.SECRETS.mkdir()


@contextlib.asynccontextmanager
async def pair_of(home: Path, *, seated: int = 3) -> AsyncIterator[Pair]:
    """Two members, five acceptors; the first three are seated."""
    jurors = Jurors(home, 5)
    for name in jurors.ports:
        jurors.start(name)
        await jurors.seat(name, jurors.ports[name])
    members = [MemberSettings(n, f"192.0.2.1{i}", f"198.51.100.1{i}", "eth0") for i, n in enumerate(("m1", "m2"))]
    pair = PairSettings(name="lab", id=PAIR)
    m1, m2 = (Member(n, home, jurors, Settings(n, pair, members)) for n in ("m1", "m2"))
    m1.other, m2.other = m2, m1
    m1.open()
    m2.open()
    p = Pair(m1, m2, jurors)
    try:
        if seated:
            await m1.vote("jury", jurors=p.rows("j1", "j2", "j3"))
            assert m1.settings.roster == 1 and p.same()
        yield p
    finally:
        for m in (m1, m2):
            if m._carrier is not None:
                m._carrier.cancel()
        for name in list(jurors.tasks):
            await jurors.stop(name)


def old_register(pair: Pair, own: Settings) -> Register:
    found = kinds.usable_or_not(own, context=pair.jurors.contexts["m2"], memory=Memory(), log=Log())
    assert found is not None
    return found


def etcd_request(server: Etcd) -> dict[str, Any]:
    cert, key = server.client
    return {
        "vote": {"endpoints": [f"https://127.0.0.1:{server.port}"], "user": register_kinds.USER},
        "held": {
            "password": register_kinds.PASSWORD,
            "ca": server.ca.read_text(),
            "cert": cert.read_text(),
            "key": key.read_text(),
        },
    }


async def test_jury_gives_way_to_an_etcd_and_that_to_a_witness(tmp_path: Path) -> None:
    (tmp_path / "etcd").mkdir()
    async with pair_of(tmp_path) as p, etcd(tmp_path / "etcd") as (_, server):
        before = p.m2.settings
        await p.m1.vote("etcd", **etcd_request(server))
        assert p.same() and p.m1.settings.roster == 2 and p.m1.settings.third_vote.kind == "etcd"
        named = {Path(f) for f in p.m2.settings.third_vote.files.values()}
        assert len(named) == 4 == len(list(paths.SECRETS.iterdir()))
        assert {stat.S_IMODE(f.stat().st_mode) for f in named} == {0o600}
        assert p.m2.register is not None and p.m2.register.kind == "etcd"
        assert await calm(p.m2.register.read) == value_of(PAIRED, roster=2)
        stale = old_register(p, before)  # a member that has not heard of it
        carrier = asyncio.create_task(stale.run())
        async with asyncio.timeout(30):
            while True:
                try:
                    await stale.put(value_of(SOLO, roster=1))
                except Refused as e:
                    if "old-roster" in str(e):
                        break
                await asyncio.sleep(0.05)
        carrier.cancel()

        await p.m1.vote("witness", jurors=p.rows("j4"))
        assert p.same() and p.m1.settings.roster == 3 and [j.name for j in p.m1.settings.jurors] == ["j4"]
        assert not list(paths.SECRETS.iterdir())
        assert p.m1.register is not None and await calm(p.m1.register.read) == value_of(PAIRED, roster=3)


async def test_contact_with_the_old_one_ends_when_it_is_retired_and_not_before(tmp_path: Path) -> None:
    async with pair_of(tmp_path) as p:
        board, at, seen = p.m1.board, At(now_at()), dict[str, bool]()
        board.put_register(contact_at=at, read_at=at)

        async def say(text: str) -> None:
            seen[text] = board.register.contact_at is not None

        await p.m1.seating.seat({"op": "vote", "kind": "witness", "jurors": p.rows("j4")}, say)
        assert list(seen.items()) == [
            ("asking j4 whether it can hold the third vote", True),
            ("telling the old one that it is replaced", True),
            ("telling the new one who serves", False),
        ]


async def test_what_cannot_hold_the_vote_changes_nothing(tmp_path: Path) -> None:
    async with pair_of(tmp_path) as p:
        port = register_kinds.free_port()
        for kind, fields, expected in (
            ("etcd", {"vote": {"endpoints": [f"http://127.0.0.1:{port}"]}, "held": {}}, "cannot hold the third vote"),
            ("etcd", {"vote": {}}, "endpoints is missing"),
            ("jury", {"jurors": p.rows("j1", "j2")}, "3 or 5 jurors, not 2"),
            ("witness", {"jurors": [{"name": "j9", "address": "127.0.0.1", "port": port}]}, "cannot hold"),
            ("oracle", {}, "must be one of"),
        ):
            before = p.m1.file.read_text()
            with pytest.raises(OperatorFault, match=expected):
                await p.m1.vote(kind, **fields)
            assert p.m1.file.read_text() == before and p.same()
            assert not list(paths.SECRETS.iterdir())


async def test_lost_majority_is_given_up_by_both_members_the_other_one_first(tmp_path: Path) -> None:
    async with pair_of(tmp_path) as p:
        for name in ("j1", "j2"):
            await p.jurors.stop(name)
        p.m2.is_reachable = False
        with pytest.raises(OperatorFault, match="cannot agree to give up"):
            await p.m1.vote("jury", jurors=p.rows("j3", "j4", "j5"))
        assert p.same() and p.m1.settings.roster == 1 and len(p.m1.settings.jurors) == 3
        p.m2.is_reachable = True
        await p.m1.vote("jury", jurors=p.rows("j3", "j4", "j5"))
        assert p.same() and p.m1.settings.roster == 3
        assert p.m2.told[-2:] == ["give-up", "settings"]
        assert p.m2.register is not None and await calm(p.m2.register.read) == value_of(PAIRED, roster=3)


async def test_member_with_a_question_under_way_does_not_give_the_vote_up(tmp_path: Path) -> None:
    async with pair_of(tmp_path) as p:
        for name in ("j1", "j2"):
            await p.jurors.stop(name)
        assert p.m2.register is not None
        question = asyncio.create_task(p.m2.register.put(value_of(SOLO, roster=1)))
        await asyncio.sleep(0)
        with pytest.raises(OperatorFault, match="question to the third vote is under way"):
            await p.m1.seating._give_up(msgspec.structs.replace(p.m1.settings, roster=2), _say)
        with pytest.raises(Refused):
            await question
        p.m2.board.put_register(view=SOLO)  # it has heard that it won, and not written that yet
        with pytest.raises(OperatorFault, match="change of view is under way"):
            await p.m1.vote("jury", jurors=p.rows("j3", "j4", "j5"))
        assert p.m1.settings.roster == p.m2.settings.roster == 1


async def test_member_that_is_broken_off_while_it_gives_the_vote_up_goes_on_asking_it(tmp_path: Path) -> None:
    async with pair_of(tmp_path) as p:
        slow = threading.Event()
        disk = asyncio.create_task(p.m2.seating._system.do(slow.wait, deadline_s=60))
        old = p.m2.register
        vote = {"roster": 2, "authority": "register", "jurors": [], "third_vote": {}}
        giving = asyncio.create_task(p.m2.seating.answer({"op": "give-up", "vote": vote}))
        await asyncio.sleep(0.05)
        assert not giving.done() and old is not None
        with pytest.raises(Refused):  # from the first step on nothing is asked of it any more
            await old.read()
        giving.cancel()  # the line to the other member has closed
        with pytest.raises(asyncio.CancelledError):
            await giving
        slow.set()
        await disk
        assert p.m2.register is not old and p.m2.register is not None
        assert await calm(p.m2.register.read) == value_of(PAIRED, roster=1)


async def test_store_that_lost_everything_is_seated_anew(tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    async with pair_of(tmp_path, seated=0) as p, store_alone(tmp_path / "store") as server:
        request = server.request()
        await p.m1.vote("objectstore", **request)
        assert p.same() and p.m1.settings.roster == 1
        await server.kill()
        await server.start()
        assert p.m1.register is not None
        with pytest.raises(Refused, match="lost its memory"):
            await calm(p.m1.register.read, but="does not|no answer|refused")
        await p.m1.vote("objectstore", **request)
        assert p.same() and p.m1.settings.roster > 1
        assert await calm(p.m1.register.read) == value_of(PAIRED, roster=p.m1.settings.roster)


async def test_who_decides_changes_only_while_the_pair_is_complete(tmp_path: Path) -> None:
    async with pair_of(tmp_path) as p:
        for view, silence_s in ((SOLO, 0), (PAIRED, 60)):
            p.m1.view, p.m1.silence_s = view, silence_s
            with pytest.raises(OperatorFault, match="only while the pair is complete"):
                await p.m1.vote("none")
        p.m1.view, p.m1.silence_s = PAIRED, 0
        await p.m1.vote("none")
        assert p.same() and p.m1.settings.pair.authority == "fence" and p.m1.register is None
        p.m2.is_reachable = False
        with pytest.raises(OperatorFault, match="cannot agree"):
            await p.m1.vote("jury", jurors=p.rows("j1", "j2", "j3"))
        assert p.same() and p.m1.settings.pair.authority == "fence"
        p.m2.is_reachable = True
        await p.m1.vote("jury", jurors=p.rows("j1", "j2", "j3"))
        assert p.same() and p.m1.settings.pair.authority == "register"
        assert p.m2.told[-2:] == ["give-up", "settings"]


async def test_member_that_was_away_takes_up_what_was_seated(tmp_path: Path) -> None:
    (tmp_path / "etcd").mkdir()
    async with pair_of(tmp_path) as p, etcd(tmp_path / "etcd") as (_, server):
        p.m2.is_reachable = False
        await p.m1.vote("etcd", **etcd_request(server))
        assert not p.same()
        contents = {f: f.read_text() for f in paths.SECRETS.iterdir()}
        fetched = await p.m1.seating.answer({"op": "roster"})
        for file in contents:  # they share a disk here: what the other one gets must come over the line
            file.unlink()
        await p.m2.seating.answer({"op": "settings", "vote": fetched["vote"]})
        assert p.same() and {f: f.read_text() for f in paths.SECRETS.iterdir()} == contents


async def test_standby_passes_the_request_on_to_the_member_that_serves(tmp_path: Path) -> None:
    async with pair_of(tmp_path) as p:
        await p.m2.vote("witness", jurors=p.rows("j5"))
        assert p.same() and [j.name for j in p.m1.settings.jurors] == ["j5"] and "vote" in p.m1.told


async def test_files_are_taken_to_their_own_place_only(tmp_path: Path) -> None:
    async with pair_of(tmp_path) as p:
        vote = {
            "roster": 9,
            "authority": "register",
            "jurors": [msgspec.to_builtins(j) for j in p.m1.settings.jurors],
            "third_vote": {},
        }
        for where in ("/etc/shadow", str(paths.SECRETS / "token.key"), str(paths.SECRETS / "vote-x/../../y")):
            with pytest.raises(Refused, match="no place"):
                await p.m2.seating.answer({"op": "settings", "vote": {**vote, "held": {where: "x"}}})
        assert p.m2.settings.roster == 1
        assert isinstance(p.m1.settings.jurors[0], Juror)
