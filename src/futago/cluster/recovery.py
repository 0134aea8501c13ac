"""An operator's recovery of the pair, from the plan to the proof, and what either member can tell of it meanwhile.

Lives here: the request as a task of its own, joined by whoever asks again; when to give up; the proof at the end; the
other member's progress. Must not live here: what the members do (decide.py), or how one climbs (recover.py). The idea:
a nurse beside the bed. She calls the doctors, stays when the visitors leave, tells everybody the same, and takes the
pulse before she says that all is well.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from futago.cluster import plan as plan_room
from futago.cluster.control import Message, PeerLine, Say
from futago.cluster.facts import Board
from futago.cluster.model import OpDone, OpKind, PgState, RejoinStep
from futago.cluster.pgwire import lsn_text
from futago.cluster.plan import Plan
from futago.cluster.preflight import Report
from futago.cluster.recover import Ladder
from futago.cluster.reports import Reporter
from futago.cluster.rungs import Climb
from futago.cluster.situation import Situation
from futago.runtime.clock import S, now_at
from futago.runtime.faults import FutagoFault, OperatorFault, Refused, Unknown, WorldFault
from futago.runtime.log import Log

PROGRESS_S = 0.5
REPEAT = 30 * S  # the same word again, so that whoever listens knows that somebody is there
PATIENCE_S = 300.0  # a server's firmware takes minutes before its first program runs
FAILURES_MAX = 3  # of the ladder, until a person is asked
ASK_S_MAX = 1.0
REPORT_S_MAX = 30.0
TELL_S_MAX = 3.0
PROOF_S_MAX = 15.0
REFUSED_CODE = "pair.recover"

Json = dict[str, Any]


class Recovery:
    """The recovery of the pair as seen from this member.

    Args:
        tell_status: returns the status object; tell_reason: the sentence of the present decision.
        request: puts an operator's request onto the board; end: takes it off with an answer.
        marker: writes a mark on our primary, as the other member may ask for.
    """

    def __init__(
        self,
        *,
        board: Board,
        peer: PeerLine,
        ladder: Ladder,
        reporter: Reporter,
        tell_status: Callable[[], Json],
        tell_reason: Callable[[], str],
        request: Callable[[OpKind], asyncio.Future[OpDone]],
        end: Callable[[OpDone], None],
        marker: Callable[[Message], Awaitable[Message]],
        log: Log,
    ) -> None:
        self._board, self._peer, self._ladder, self._reporter, self._log = board, peer, ladder, reporter, log
        self._tell_status, self._tell_reason = tell_status, tell_reason
        self._request, self._end, self._marker = request, end, marker
        self._task: asyncio.Task[Message] | None = None
        self._peer_told: Json = {}
        self._is_curious = True
        self._why_ended: OperatorFault | None = None

    # --- the plan -------------------------------------------------------------------------------------------------

    async def plan(self) -> Plan:
        """Ask both members how they are, and return what a recovery would do. Changes nothing."""
        own = await self._reporter.report()
        peer: Report | None = None
        clock_s: float | None = None
        error_s = 0.0
        if self._talks():
            with contextlib.suppress(WorldFault, msgspec.ValidationError):
                clock_s, error_s = await self._compare_clocks()
                answer = await self._peer.ask("report", deadline_s=REPORT_S_MAX)
                peer = msgspec.convert(answer.get("report"), Report)
        return plan_room.make(self._tell_status(), own, peer, clock_s=clock_s, clock_error_s=error_s)

    async def _compare_clocks(self) -> tuple[float, float]:
        began = time.time()
        theirs = float((await self._peer.ask("clock", deadline_s=ASK_S_MAX)).get("utc", 0.0))
        ended = time.time()
        return theirs - (began + ended) / 2, max(0.0, ended - began) / 2

    def _sentence(self, text: str) -> str:
        return sentence(text, self._board.cfg.me, self._board.cfg.peer)

    # --- the work -------------------------------------------------------------------------------------------------

    def begin(self, *, is_asked_by_peer: bool = False, patience_s: float = PATIENCE_S) -> asyncio.Task[Message]:
        """Begin, or join what is under way. The task goes on when nobody waits for it."""
        if self._task is None or self._task.done():
            work = self._join_peers() if is_asked_by_peer else self._recover(patience_s)
            self._task = asyncio.create_task(work, name="recovery")
            self._task.add_done_callback(_retrieve)
        return self._task

    async def follow(self, say: Say, *, patience_s: float = PATIENCE_S) -> Message:
        """Begin or join, and tell what happens until the end. Raises FutagoFault as the recovery ended."""
        task, said, said_at = self.begin(patience_s=patience_s), "", 0
        while not task.done():
            now = self._now()
            if now != said or now_at() - said_at > REPEAT:
                said, said_at = now, now_at()
                await say(now)
            await asyncio.wait([task], timeout=PROGRESS_S)
        return task.result()

    async def _recover(self, patience_s: float) -> Message:
        made = await self.plan()
        if not made.is_needed:
            return await self._result(None)
        if made.refusal:
            raise OperatorFault(self._sentence(made.refusal), hint=made.repair, code=REFUSED_CODE)
        before = self._climbs()
        telling = asyncio.create_task(self._keep_telling())
        try:
            done = await self._wait(patience_s, before)
        finally:
            telling.cancel()
        if not done.ok:
            raise self._why_ended or OperatorFault(self._sentence(done.text), code=REFUSED_CODE)
        await self._ask_peer()
        climbed = next((c for c in self._climbs() if c.ok and c not in before), None)
        return await self._result(climbed)

    async def _join_peers(self) -> Message:
        """The other member's operator recovers the pair: our rules have to know; proof and answer are given there."""
        done = await self._wait(PATIENCE_S, self._climbs())
        return {"ok": done.ok, "text": self._sentence(done.text)}

    async def _wait(self, patience_s: float, before: list[Climb]) -> OpDone:
        self._why_ended = None
        done = self._request(OpKind.RECOVER)
        began = now_at()
        while not done.done():
            await asyncio.wait([done], timeout=PROGRESS_S)
            reason = self._reason_to_end(began, patience_s, before)
            if reason is not None and not done.done():
                self._why_ended = reason
                self._end(OpDone(ok=False, text=reason.what))
        return done.result()

    def _reason_to_end(self, began: int, patience_s: float, before: list[Climb]) -> OperatorFault | None:
        for climb in self._climbs():
            if not climb.ok and climb not in before and (climb.repair or climb.failures >= FAILURES_MAX):
                hint = (
                    climb.repair or f"See `journalctl -u futago-controller` on {climb.member}, then repeat the command."
                )
                what = f"{climb.member} could not be brought back ({climb.rung or 'preparing'}): {climb.error}."
                return OperatorFault(what, hint=hint, code=REFUSED_CODE)
        heard_at = self._board.read_peer().heard_at or 0
        if not self._talks() and now_at() - max(began, heard_at) > patience_s * S:
            peer = self._board.cfg.peer
            hint = f"See that {peer} has power, that it boots, that its networks work and futago-controller runs on it."
            return OperatorFault(f"{peer} has not spoken for {patience_s:g} s.", hint=hint, code=REFUSED_CODE)
        return None

    async def _keep_telling(self) -> None:
        """Have the other member work on it too, as soon as it can be told: it may have to be powered on and boot
        first."""
        while True:
            with contextlib.suppress(FutagoFault, OSError, EOFError, TimeoutError):
                await self._peer.ask("recover", deadline_s=TELL_S_MAX, begin_only=True)
            await asyncio.sleep(PROGRESS_S)

    # --- the end --------------------------------------------------------------------------------------------------

    async def _result(self, climbed: Climb | None) -> Message:
        proof = await self._prove()
        words = f"a mark at {proof['mark']} on timeline {proof['timeline']} was replayed on {proof['replayed_on']}"
        if climbed is None:
            text = f"The pair is paired: both members hold every write, and {words}."
        else:
            more = " The copy was read back and is right." if climbed.was_verified else ""
            text = f"The pair is paired again: {climbed.member} came back by {climbed.rung}, and {words}.{more}"
        return {
            "ok": True,
            "text": text,
            "rung": "none" if climbed is None else climbed.rung,
            "climb": None if climbed is None else msgspec.to_builtins(climbed),
            "proof": proof,
        }

    async def _prove(self) -> Json:
        """Have the primary write a mark, and see it replayed on the standby. Raises Refused or Unknown."""
        is_here = self._board.pg.state is PgState.PRIMARY
        answer = await self._marker({}) if is_here else await self._peer.ask("marker", deadline_s=PROOF_S_MAX)
        mark, timeline = int(answer.get("lsn", 0)), int(answer.get("timeline", 0))
        ends = now_at() + int(PROOF_S_MAX * S)
        while self._replayed(is_here=is_here) < mark:
            if now_at() > ends:
                raise Unknown(f"the members are paired, but a mark was not replayed within {PROOF_S_MAX:g} s")
            await asyncio.sleep(0.02)
        where = self._board.cfg.peer if is_here else self._board.cfg.me
        return {"mark": lsn_text(mark), "timeline": timeline, "replayed_on": str(where)}

    def _replayed(self, *, is_here: bool) -> int:
        if not is_here:
            return int(self._board.pg.replay)
        hb = self._board.read_peer().heartbeat
        return 0 if hb is None else int(hb.replay)

    # --- telling --------------------------------------------------------------------------------------------------

    def own_story(self) -> Json:
        """Return how far the recovery is on this member, and how the last one ended."""
        rejoin, last, now = self._board.rejoin, self._ladder.last, self._ladder.progress
        is_running = rejoin.step is RejoinStep.RUNNING
        is_failed = last is not None and not last.ok and not is_running
        return {
            "running": is_running,
            "member": str(self._board.cfg.me),
            "rung": rejoin.rung or ("" if last is None else last.rung),
            "progress": now.text if is_running else "",
            "percent": now.percent if is_running else None,
            "done_bytes": now.done if is_running else 0,
            "total_bytes": now.total if is_running else 0,
            "error": last.error if is_failed and last else "",
            "repair": last.repair if is_failed and last else "",
            "last": None if last is None else msgspec.to_builtins(last),
        }

    def story(self) -> Json:
        """Return how far the recovery of the pair is, on whichever member it happens."""
        own, peer = self.own_story(), self._peer_told
        is_peers = bool(peer) and (peer.get("running") or (not own["running"] and self._is_newer(peer, own)))
        chosen = dict(peer if is_peers else own)
        return chosen | {"asked": self._board.op.kind is OpKind.RECOVER}

    @staticmethod
    def _is_newer(a: Json, b: Json) -> bool:
        ends = [(x.get("last") or {}).get("ended_utc", "") for x in (a, b)]
        return bool(ends[0] > ends[1])

    def _now(self) -> str:
        story, reason = self.story(), self._tell_reason()
        if not story["running"]:
            return reason
        percent = "" if story["percent"] is None else f" {story['percent']} %"
        return f"{story['member']} [{story['rung'] or 'prepare'}]{percent} {story['progress']}"

    def _climbs(self) -> list[Climb]:
        found = [] if self._ladder.last is None else [self._ladder.last]
        with contextlib.suppress(msgspec.ValidationError):
            if self._peer_told.get("last"):
                found.append(msgspec.convert(self._peer_told["last"], Climb))
        return found

    def _talks(self) -> bool:
        return Situation(self._board.facts(), now_at()).talks

    async def run(self) -> None:
        """Know the other member's progress while the pair is not whole, and once after that; until cancelled."""
        while True:
            view = self._board.read_durable().view
            is_whole = view is not None and not view.is_solo
            if self._talks() and (self._is_curious or not is_whole or self._board.op.kind is OpKind.RECOVER):
                self._is_curious = not await self._ask_peer() or not is_whole
            await asyncio.sleep(2 * PROGRESS_S)

    async def _ask_peer(self) -> bool:
        try:
            answer = await self._peer.ask("progress", deadline_s=ASK_S_MAX)
        except (WorldFault, OSError):
            return False
        story = answer.get("story")
        self._peer_told = story if isinstance(story, dict) else {}
        return True

    # --- asked by the other member --------------------------------------------------------------------------------

    async def answer(self, request: Message) -> Message:
        """Answer `report`, `clock`, `progress`, or begin what the other's operator asked for."""
        match request.get("op"):
            case "report":
                return {"ok": True, "report": msgspec.to_builtins(await self._reporter.report())}
            case "clock":
                return {"ok": True, "utc": time.time()}
            case "progress":
                return {"ok": True, "story": self.own_story()}
            case "recover":
                self.begin(is_asked_by_peer=True)
                return {"ok": True}
        raise Refused(f"there is no operation `{request.get('op')}`")


def _retrieve(task: asyncio.Task[Message]) -> None:
    if not task.cancelled():
        task.exception()


def sentence(text: str, *names: str) -> str:
    """Return a clause as a sentence. A member's name keeps its small letter."""
    first = text[:1] if text.startswith(tuple(n for n in names if n)) else text[:1].upper()
    return first + text[1:] + ("" if text.endswith(".") else ".")
