"""An operator's recovery as a task: joined, left alone, given up with a reason, proved at the end. The other member's
half and the rules are played by the test; the boards, the ladder's records and the plan are real."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import msgspec
import pytest

from futago.cluster import recovery as room
from futago.cluster.facts import Board
from futago.cluster.model import (
    At,
    Config,
    Durable,
    Epoch,
    Facts,
    Lsn,
    MemberName,
    Op,
    OpDone,
    OpKind,
    Peer,
    Pg,
    PgState,
    Rejoin,
    RejoinStep,
    View,
)
from futago.cluster.preflight import Report
from futago.cluster.recovery import Recovery
from futago.cluster.rungs import Climb, Holds, Own, Progress, Source
from futago.cluster.volume import Look
from futago.cluster.word import word
from futago.runtime.clock import MS, S, now_at
from futago.runtime.faults import OperatorFault, Refused
from futago.runtime.log import Log

A, B = MemberName("m1"), MemberName("m2")
CFG = Config(me=A, peer=B, h=200 * MS, k=10, bias=300 * MS, t_stall=2 * S)
ROOMY = Look(free=9 << 30, total=20 << 30)
SOURCE = Source("7", 1, "", size_bytes=1 << 20, flush=100)


class Stage:
    """m1 serves alone; m2 is away, and is played through `line`."""

    def __init__(self) -> None:
        view = View(Epoch(3), A, frozenset({A}))
        self.board = Board(cfg=CFG, started_at=At(now_at()))
        self.board.read_durable = lambda: Durable(view=view)
        self.board.put(pg=Pg(state=PgState.PRIMARY, flush=Lsn(100)))
        self.peer = Peer(watching_since=At(now_at()))
        self.board.read_peer = lambda: self.peer
        self.state = "solo"
        self.asked: list[str] = []
        self.story: dict[str, Any] = {}
        self.report: Report | None = Report(
            "m2", "1", time.time(), "stopped", volume=ROOMY, own=Own(Holds.WHOLE, "7", "shut down", 1, 50)
        )
        self.done: asyncio.Future[OpDone] | None = None
        ladder: Any = type("L", (), {"last": None, "progress": Progress()})()
        reporter: Any = type("R", (), {"report": self._own_report})()
        self.recovery = Recovery(
            board=self.board, peer=self, ladder=ladder, reporter=reporter, tell_status=self.status,  # type: ignore[arg-type]
            tell_reason=lambda: "m1 serves alone.", request=self._request, end=self.end, marker=self._marker, log=Log(),
        )  # fmt: skip

    async def _own_report(self) -> Report:
        return Report("m1", "1", time.time(), "primary", source=SOURCE)

    async def _marker(self, _request: Any) -> dict[str, Any]:
        return {"ok": True, "lsn": 200, "timeline": 1}

    def _request(self, kind: OpKind) -> asyncio.Future[OpDone]:
        self.done = asyncio.get_running_loop().create_future()
        self.board.put(op=Op(kind, At(now_at())))
        return self.done

    def end(self, done: OpDone) -> None:
        self.board.put(op=Op())
        assert self.done is not None
        self.done.set_result(done)

    def speak(self, *, replay: int = 0) -> None:
        """The other member is heard."""
        view = self.board.read_durable().view
        mine = word(Facts(cfg=replace(CFG, me=B, peer=A), durable=Durable(view=view), pg=Pg(replay=Lsn(replay))))
        self.peer = replace(self.peer, heartbeat=mine, heard_at=At(now_at()))

    def status(self) -> dict[str, Any]:
        return {
            "state": self.state, "primary": "m1", "reason": "m1 serves alone.", "not_protected": [], "links": [],
            "members": [{"name": "m1"}, {"name": "m2"}], "third_vote": {"kind": "none", "ok": False},
            "fences": [{"member": "m2", "driver": "ipmi", "ok": True, "state": "on", "error": ""}],
        }  # fmt: skip

    async def ask(self, op: str, *, deadline_s: float, **_fields: object) -> dict[str, Any]:
        self.asked.append(op)
        if self.peer.heartbeat is None or self.report is None:
            raise Refused("m2 cannot be reached")
        answers: dict[str, dict[str, Any]] = {
            "report": {"report": msgspec.to_builtins(self.report)},
            "clock": {"utc": time.time()},
            "progress": {"story": self.story},
            "recover": {},
        }
        return {"ok": True, **answers[op]}


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "PROGRESS_S", 0.02)


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(30):
        while not condition():
            await asyncio.sleep(0.005)


async def nothing(_text: str) -> None:
    pass


def climb(**changes: Any) -> dict[str, Any]:
    base = Climb(member="m2", rung="rewind", ok=True, ended_utc="2026-01-01T00:00:00", mark=150, timeline=1)
    found: dict[str, Any] = msgspec.to_builtins(msgspec.structs.replace(base, **changes))
    return found


async def test_recovery_names_the_rung_and_proves_the_end(quick: None) -> None:
    stage = Stage()
    stage.speak()
    told: list[str] = []

    async def say(text: str) -> None:
        told.append(text)

    task = asyncio.create_task(stage.recovery.follow(say))
    await until(lambda: stage.done)
    stage.story = {"running": True, "member": "m2", "rung": "rewind", "progress": "half", "percent": 50, "last": None}
    looking = asyncio.create_task(stage.recovery.run())
    await until(lambda: any("m2 [rewind] 50 % half" in t for t in told))
    stage.story = {"running": False, "member": "m2", "rung": "rewind", "progress": "", "last": climb()}
    stage.end(OpDone(ok=True, text="paired"))
    await asyncio.sleep(0.1)
    assert not task.done()  # paired, but the mark has not been replayed
    stage.speak(replay=200)
    answer = await task
    looking.cancel()
    assert answer["rung"] == "rewind" and answer["climb"]["member"] == "m2"
    assert answer["proof"] == {"mark": "0/C8", "timeline": 1, "replayed_on": "m2"}
    assert "recover" in stage.asked  # the other member was told


async def test_second_request_joins_and_the_first_may_leave(quick: None) -> None:
    stage = Stage()
    stage.speak()
    first = asyncio.create_task(stage.recovery.follow(nothing))
    await until(lambda: stage.done)
    first.cancel()
    await asyncio.wait([first])
    second = asyncio.create_task(stage.recovery.follow(nothing))
    await asyncio.sleep(0.05)
    stage.speak(replay=200)
    stage.end(OpDone(ok=True, text="paired"))
    assert (await second)["ok"] and stage.asked.count("report") == 1


async def test_member_that_never_speaks_ends_it_with_a_refusal(quick: None) -> None:
    stage = Stage()
    with pytest.raises(OperatorFault) as refused:
        await stage.recovery.follow(nothing, patience_s=0.2)
    assert "m2 has not spoken" in refused.value.what and "power" in refused.value.hint
    assert stage.board.op.kind is OpKind.NONE


async def test_failure_that_needs_a_person_ends_it_at_once_and_an_old_one_does_not(quick: None) -> None:
    stage = Stage()
    stage.speak()
    stage.story = {"running": False, "last": climb(ok=False, error="the disk fails", repair="Replace it.", failures=9)}
    await stage.recovery._ask_peer()
    task = asyncio.create_task(stage.recovery.follow(nothing))
    await until(lambda: stage.done)
    await asyncio.sleep(0.1)
    assert not task.done()  # that was before the request
    worse = climb(ok=False, error="the disk fails", repair="Replace it.", failures=10)
    stage.story = {"running": False, "last": worse}
    await stage.recovery._ask_peer()
    with pytest.raises(OperatorFault) as refused:
        await task
    assert "the disk fails" in refused.value.what and refused.value.hint == "Replace it."


async def test_blocking_check_refuses_before_anything_is_asked_for(quick: None) -> None:
    stage = Stage()
    stage.speak()
    assert stage.report is not None
    stage.report = msgspec.structs.replace(stage.report, pg_version=14)
    own = stage.recovery._reporter.report

    async def report() -> Report:
        return msgspec.structs.replace(await own(), pg_version=15)

    stage.recovery._reporter.report = report  # type: ignore[method-assign]
    with pytest.raises(OperatorFault) as refused:
        await stage.recovery.follow(nothing)
    assert "PostgreSQL 14" in refused.value.what and stage.done is None


async def test_whole_pair_is_only_proved(quick: None) -> None:
    stage = Stage()
    stage.state = "paired"
    stage.speak(replay=200)
    answer = await stage.recovery.follow(nothing)
    assert answer["rung"] == "none" and stage.done is None and stage.recovery.story()["running"] is False


async def test_story_is_that_of_the_member_that_climbs(quick: None) -> None:
    stage = Stage()
    stage.speak()
    stage.story = {"running": True, "member": "m2", "rung": "basebackup", "progress": "x", "percent": 7, "last": None}
    await stage.recovery._ask_peer()
    assert (stage.recovery.story()["member"], stage.recovery.story()["percent"]) == ("m2", 7)
    stage.story = {}
    await stage.recovery._ask_peer()
    stage.board.put(rejoin=Rejoin(step=RejoinStep.RUNNING, rung="follow"))
    stage.recovery._ladder.progress = Progress("there", 1, 4)
    assert (stage.recovery.story()["member"], stage.recovery.story()["percent"]) == ("m1", 25)
