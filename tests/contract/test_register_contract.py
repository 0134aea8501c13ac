"""What every kind of third vote promises (register/port.py), tried on each: one suite, real backends."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import signal
from pathlib import Path

import pytest
import register_kinds
from register_kinds import World, world_of

from futago.register import jury as jury_room
from futago.register.cell import CellRegister
from futago.register.compare import Seat
from futago.register.memory import Memory
from futago.register.model import Value
from futago.register.port import Register
from futago.runtime.clock import now_at
from futago.runtime.faults import Refused, Unknown
from pair_keys import PAIR

KINDS = ("jury", "witness", "etcd", "objectstore")
DEPTHS = range(5)  # how many pieces of a conversation pass before replies are lost, or requests delayed


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jury_room, "PUT_S_MAX", register_kinds.PUT_S)
    monkeypatch.setattr(jury_room, "READ_S_MAX", register_kinds.READ_S)


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def value(epoch: int, primary: str = "m1", *, roster: int = 1, alone: bool = True) -> Value:
    insync = (primary,) if alone else ("m1", "m2")
    return Value(epoch=epoch, primary=primary, insync=insync, floor=epoch * 10, roster=roster)


async def calm_read(register: Register) -> Value | None:
    """Read, however long the connections take to come back."""
    async with asyncio.timeout(20):
        while True:
            with contextlib.suppress(Refused):
                return await register.read()
            await asyncio.sleep(0.05)


async def calm_put(register: Register, new: Value) -> tuple[bool, Value | None]:
    """Put until the outcome is sure."""
    async with asyncio.timeout(20):
        while True:
            with contextlib.suppress(Refused, Unknown):
                return await register.put(new)
            await asyncio.sleep(0.05)


async def test_newer_views_are_stored_and_older_ones_refused(kind: str, tmp_path: Path) -> None:
    async with world_of(kind, tmp_path) as w:
        mine, other = await w.member("m1"), await w.member("m2")
        assert mine.kind == kind and mine.version == 1
        assert await mine.seat(value(3)) == (True, value(3))
        assert await other.read() == value(3)
        assert await other.put(value(3, "m2")) == (False, value(3))
        assert await other.put(value(2, "m2")) == (False, value(3))
        assert await mine.put(value(3)) == (True, value(3))  # the same again: it is held
        assert await other.put(value(4, "m2")) == (True, value(4, "m2"))
        assert await mine.read() == value(4, "m2")
        assert all(h.ok for h in mine.health(now_at())), mine.health(now_at())
        assert now_at() - mine.heard_at() < 5_000_000_000


async def test_of_two_members_that_ask_at_once_one_wins(kind: str, tmp_path: Path) -> None:
    async with world_of(kind, tmp_path) as w:
        mine, other = await w.member("m1"), await w.member("m2")
        await mine.seat(value(1))
        for epoch in range(2, 14):
            outcomes = await asyncio.gather(calm_put(mine, value(epoch, "m1")), calm_put(other, value(epoch, "m2")))
            assert [is_ours for is_ours, _ in outcomes].count(True) == 1, (epoch, outcomes)
            winner = value(epoch, "m1" if outcomes[0][0] else "m2")
            assert {held for _, held in outcomes} == {winner}
            assert await calm_read(mine) == await calm_read(other) == winner


async def test_lost_replies_are_never_taken_for_a_yes_or_a_no(kind: str, tmp_path: Path) -> None:
    async with world_of(kind, tmp_path) as w:
        mine = await w.member("m1")
        await mine.seat(value(1))
        stored_unseen = 0
        for number, depth in enumerate([*DEPTHS] * 3):  # on a busy machine a request may be late, too
            if number >= len(DEPTHS) and stored_unseen:
                break
            new, outcome = value(10 + number), ""
            w.loses_replies(depth)
            try:
                is_ours, _ = await mine.put(new)
                outcome = "done" if is_ours else "refused"
            except Unknown:
                outcome = "unknown"
            except Refused:
                outcome = "refused"
            w.loses_replies(None)
            held = await calm_read(mine)  # Unknown, so it is read again: now it is known
            assert outcome != "done" or held == new, depth
            assert outcome != "refused" or held != new, depth
            stored_unseen += outcome == "unknown" and held == new
        assert stored_unseen > 0  # at some depth the value had been stored and nobody was told


async def test_late_requests_of_a_put_are_void_once_a_later_put_has_ended(kind: str, tmp_path: Path) -> None:
    async with world_of(kind, tmp_path) as w:
        before = value(5, alone=False)
        mine, other = await w.member("m1"), await w.member("m2")
        await mine.seat(before)
        kept = 0
        for depth in DEPTHS:
            w.delays_requests(depth)
            with contextlib.suppress(Unknown, Refused):
                await mine.put(value(6))
            late = [(relay, list(relay.kept)) for relay in w.relays]
            for relay in w.relays:
                relay.requests, relay.kept = None, []
            if await calm_read(other) != before:
                break  # so many pieces pass that the put arrives
            kept += sum(len(pieces) for _, pieces in late)
            settled, held = await calm_put(mine, before)  # what a member does to settle an open question
            assert settled and held == before
            for relay, pieces in late:
                relay.kept = pieces
            await w.deliver()
            assert await calm_read(other) == before, f"a request that was {depth} pieces deep arrived after the end"
        assert kept > 0


async def test_refused_put_makes_earlier_ones_void_too(kind: str, tmp_path: Path) -> None:
    async with world_of(kind, tmp_path) as w:
        mine, other = await w.member("m1"), await w.member("m2")
        await mine.seat(value(5, alone=False))
        for depth in DEPTHS:
            w.delays_requests(depth)
            with contextlib.suppress(Unknown, Refused):
                await mine.put(value(6 + depth))
            late = [(relay, list(relay.kept)) for relay in w.relays]
            for relay in w.relays:
                relay.requests, relay.kept = None, []
            held = await calm_read(other)
            assert held is not None
            assert await calm_put(mine, value(4)) == (False, held)
            for relay, pieces in late:
                relay.kept = pieces
            await w.deliver()
            assert await calm_read(other) == held, depth


async def test_value_that_reached_one_juror_alone_is_void_after_a_refused_put(tmp_path: Path) -> None:
    async with world_of("jury", tmp_path) as w:
        before = value(5, alone=False)
        mine, other = await w.member("m1"), await w.member("m2")
        await mine.seat(before)
        first, *rest = w.relays
        for relay in rest:
            relay.requests = 1  # their promises are asked for; the value does not reach them
        with pytest.raises(Unknown):
            await mine.put(value(6))
        for relay in rest:
            relay.requests, relay.kept = None, []
        first.requests = first.replies = 0  # now it is the first that cannot be reached
        assert await calm_put(mine, value(4)) == (False, before)
        first.requests, first.replies, first.kept = None, None, []
        async with asyncio.timeout(20):
            while not all(h.ok for h in other.health(now_at())):
                with contextlib.suppress(Refused):
                    assert await other.read() == before
                await asyncio.sleep(0.02)
        assert await other.read() == before


async def test_what_was_stored_survives_the_death_of_the_backend(kind: str, tmp_path: Path) -> None:
    async with world_of(kind, tmp_path) as w:
        mine = await w.member("m1")
        await mine.seat(value(1))
        for epoch in range(2, 5 if w.is_durable else 3):
            roster = 1 if w.is_durable else epoch - 1
            assert (await mine.put(value(epoch, roster=roster)))[0]
            await _await(w)
            if w.is_durable:
                assert await calm_read(mine) == value(epoch)
            else:  # the store came back without anything: it is a new one, and has no vote until it is seated
                with pytest.raises(Refused, match="lost its memory"):
                    await mine.read()
                with pytest.raises(Refused, match="lost its memory"):
                    await mine.put(value(epoch + 1))
                assert [h.ok for h in mine.health(now_at())] == [False]
                mine = await w.member("m1", version=roster + 1)
                assert (await mine.seat(value(epoch, roster=roster + 1)))[0]


async def _await(w: World) -> None:
    done = w.restart()
    assert asyncio.iscoroutine(done)
    await done


async def test_newer_seating_ends_the_vote_of_the_older_one(kind: str, tmp_path: Path) -> None:
    """A change of the register: the old one learns that it is one no more, then the new one is told who serves."""
    async with world_of(kind, tmp_path) as w:
        mine, other = await w.member("m1"), await w.member("m2")
        await mine.seat(value(7))
        assert (await mine.put(value(7, roster=2)))[0]
        for register in (mine, other):
            with pytest.raises(Refused, match="old-roster"):
                await register.put(value(8, "m2"))
            with pytest.raises(Refused, match="old-roster"):
                await register.read()
        new = await w.member("m1", version=2)
        assert (await new.seat(value(7, roster=2)))[0]
        assert await new.put(value(8, roster=2)) == (True, value(8, roster=2))


async def test_retired_register_answers_nothing_more(kind: str, tmp_path: Path) -> None:
    async with world_of(kind, tmp_path) as w:
        mine = await w.member("m1")
        await mine.seat(value(1))
        under_way = asyncio.create_task(mine.put(value(2)))
        await asyncio.sleep(0)
        assert not mine.retire()  # one is under way
        assert (await under_way)[0]
        assert mine.retire()
        with pytest.raises(Refused, match="replaced"):
            await mine.put(value(3))
        with pytest.raises(Refused, match="replaced"):
            await mine.read()


async def test_memory_of_what_was_shown_finds_a_register_that_went_back(tmp_path: Path) -> None:
    """An etcd that is put back to an old copy of its disk."""
    async with register_kinds.etcd(tmp_path) as (w, server):
        note = tmp_path / "memory.json"
        mine = await w.member("m1", memory=Memory(note))
        await mine.seat(value(1))
        await server.kill()
        shutil.copytree(tmp_path / "data", tmp_path / "copy")
        await server.start()
        assert (await calm_put(mine, value(2)))[0]
        await server.kill()
        shutil.rmtree(tmp_path / "data")
        shutil.copytree(tmp_path / "copy", tmp_path / "data")
        await server.start()
        with pytest.raises(Refused, match="went back"):
            await mine.put(value(3))
        await register_kinds.until(note.exists)
        again = await w.member("m1", memory=Memory(note))
        with pytest.raises(Refused, match="went back"):
            await again.read()


async def test_juror_restored_from_an_old_copy_is_noticed_and_not_counted(tmp_path: Path) -> None:
    async with register_kinds.jury(tmp_path, 3) as (w, jurors):
        mine = await w.member("m1")
        await mine.put(value(1))
        old = jurors.file("j1").read_bytes()
        assert (await mine.put(value(2)))[0]
        await jurors.stop("j1")
        jurors.file("j1").write_bytes(old)
        jurors.start("j1")
        async with asyncio.timeout(20):
            while "old copy" not in mine.health(now_at())[0].error:
                with contextlib.suppress(Refused):
                    assert await mine.read() == value(2)
                await asyncio.sleep(0.05)
        assert [h.ok for h in mine.health(now_at())] == [False, True, True]
        await jurors.stop("j2")
        with pytest.raises(Refused, match="old copy"):  # one honest juror is no majority
            await mine.read()


@pytest.mark.parametrize("what", ["password", "account", "key"])
async def test_etcd_that_refuses_us_is_said_to(what: str, tmp_path: Path) -> None:
    async with register_kinds.etcd(tmp_path) as (_, server):
        cell = {
            "password": server.cell(server.port, password="wrong"),
            "account": server.cell(server.port, password=""),
            "key": server.cell(server.port, key="other/pair/view"),
        }[what]
        with pytest.raises(Refused):
            await cell.get(deadline_s=2)
        assert cell.parts()[0][2]
        cell.close()


async def test_etcd_member_that_hangs_costs_a_moment_and_a_lost_majority_costs_the_vote(tmp_path: Path) -> None:
    async with register_kinds.etcd_of_three(tmp_path) as (cell, members):
        seat = Seat(PAIR, "s", 1)
        mine = CellRegister(cell, kind="etcd", seat=seat, me="m1", memory=Memory(), read_s=4, put_s=4)
        await mine.seat(value(1))
        await cell.warm()
        assert [h.ok for h in mine.health(now_at())] == [True] * 3
        asked = max(cell.parts(), key=lambda part: part[1] or 0)[0]
        hanging = int(asked.rpartition(":")[2])
        members[hanging].send_signal(signal.SIGSTOP)
        try:
            assert (await calm_put(mine, value(2)))[0]  # the leader may be the one that hangs: then others elect one
            assert [h.error for h in mine.health(now_at()) if h.name == asked] != [""]
            began = now_at()
            assert (await mine.put(value(3)))[0]
            assert now_at() - began < 550_000_000, "the one that hangs is not asked first again"
            second = next(port for port in members if port != hanging)
            members[second].kill()
            with pytest.raises((Refused, Unknown)):
                await mine.put(value(4))
        finally:
            members[hanging].send_signal(signal.SIGCONT)
        held = await calm_read(mine)
        assert held in (value(3), value(4))
        assert await calm_put(mine, value(5)) == (True, value(5))
