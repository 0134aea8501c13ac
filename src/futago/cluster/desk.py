"""What is behind the counter of control.py: the status, operators' requests, and what the other member asks of us.

Lives here: carrying a request to its end, here or at the other member, with progress. Must not live here: any
decision. The idea: a clerk who puts the request onto the board, watches what comes of it, and tells. One operator's
request at a time; the same one asked again joins the one that is under way.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable

import msgspec

from futago.cluster import explain, pgwire
from futago.cluster.control import Message, OperatorRefused, PeerLine, Say
from futago.cluster.facts import Board
from futago.cluster.model import At, Op, OpDone, OpKind, PgState
from futago.cluster.observers import Programs
from futago.cluster.orders import Orders
from futago.cluster.pgsync import PgSync
from futago.cluster.postgres import Postgres
from futago.cluster.recover import Ladder
from futago.cluster.recovery import PATIENCE_S, Recovery, sentence
from futago.cluster.reports import Reporter, source_of
from futago.cluster.seating import Seating
from futago.runtime.clock import now_at
from futago.runtime.faults import FutagoFault, OperatorFault, Refused, Unknown
from futago.runtime.log import Log
from futago.runtime.worker import Worker
from futago.setup.settings import Settings

OPERATION_S_MAX = 24 * 3600.0  # a base backup takes as long as it takes; whoever asked may leave
SWITCHOVER_S_MAX = 60.0
PEER_OP_S_MAX = 3.0
PROGRESS_S = 0.5
PAUSE_S_MAX = 8.0  # replay is resumed after this even if nobody asks for it
CHECKPOINT_S_MAX = 280.0
PATIENCE_S_MAX = 86_400.0
SETTINGS_S_MAX = 5.0

_KINDS = {
    "recover": OpKind.RECOVER,
    "switchover": OpKind.SWITCHOVER,
    "force-primary": OpKind.FORCE_PRIMARY,
}


class ControllerDesk:
    """Implements control.Desk.

    Args:
        tell_status, tell_role: return the present objects; role_bell: set and replaced at each turn.
        tell_reason: returns the sentence of the present decision.
        seating: changes the third vote.
        ladder, reporter: of this member's recovery.
        orders: the operators' short orders.
    """

    def __init__(
        self,
        *,
        board: Board,
        postgres: Postgres,
        sync: PgSync,
        peer: PeerLine,
        programs: Programs,
        system: Worker,
        tell_status: Callable[[], Message],
        tell_role: Callable[[], Message],
        tell_reason: Callable[[], str],
        seating: Seating,
        ladder: Ladder,
        reporter: Reporter,
        orders: Orders,
        log: Log,
    ) -> None:
        self._board, self._postgres, self._sync, self._peer = board, postgres, sync, peer
        self._programs, self._system, self._log = programs, system, log
        self._tell_status, self._tell_role, self._reason = tell_status, tell_role, tell_reason
        self.seating = seating
        self._role_news = asyncio.Event()
        self._done: asyncio.Future[OpDone] | None = None
        self._resume: asyncio.TimerHandle | None = None
        self.settings: Settings = postgres.settings
        self.orders = orders
        self.recovery = Recovery(
            board=board,
            peer=peer,
            ladder=ladder,
            reporter=reporter,
            tell_status=tell_status,
            tell_reason=tell_reason,
            request=self._request,
            end=self.op_done,
            marker=self._answer_marker,
            log=log,
        )

    # --- told -------------------------------------------------------------------------------------------------------

    def status(self) -> Message:
        return self._tell_status()

    def role(self) -> Message:
        return self._tell_role()

    def facts(self) -> Message:
        return {"facts": explain.pack(self._board.facts(), now_at()).decode()}

    def turned(self) -> None:
        """The controller's loop has turned: whoever waits for a new role looks."""
        self._role_news.set()
        self._role_news = asyncio.Event()

    async def role_changed(self, known: Message) -> None:
        while self._tell_role() == known:
            await self._role_news.wait()

    def beat(self, program: str) -> None:
        self._programs.beat(program)

    def op_done(self, done: OpDone) -> None:
        """The decision says that the operator's request has ended."""
        if self._board.op.kind is OpKind.NONE:
            return
        self._log.event("operation.ended", kind=self._board.op.kind.value, ok=done.ok, text=done.text)
        self._board.put(op=Op())
        if self._done is not None and not self._done.done():
            self._done.set_result(done)

    # --- operators --------------------------------------------------------------------------------------------------

    async def operate(self, request: Message, say: Say) -> Message:
        op = str(request.get("op"))
        match op:
            case "jury" | "vote":
                return await self.seating.seat(request, _to_whoever_listens(say))
            case "recover" if request.get("plan"):
                return {"ok": True, "plan": msgspec.to_builtins(await self.recovery.plan())}
            case "recover":
                return await self.recovery.follow(say, patience_s=_patience(request))
            case "maintenance" | "fence-test":
                return await self.orders.carry_out(request, say)
            case "force-primary":
                self.orders.require_confirmation(request)
        view = self._board.read_durable().view
        if op == "switchover" and view is not None and view.primary != self.settings.me:
            return await self._relay("switchover", say)
        return await self._run(_KINDS[op], say)

    async def _run(self, kind: OpKind, say: Say) -> Message:
        done = self._request(kind)
        said = ""
        limit = SWITCHOVER_S_MAX if kind is OpKind.SWITCHOVER else OPERATION_S_MAX
        loop = asyncio.get_running_loop()
        ends = loop.time() + limit
        while not done.done():
            now = self._reason()
            if now != said:
                said = now
                await say(now)
            await asyncio.wait([done], timeout=PROGRESS_S)
            if loop.time() > ends:
                raise Unknown(f"not ended within {limit:g} s; it goes on: see futago status")
        result = done.result()
        if not result.ok:
            raise OperatorFault(
                sentence(result.text, self._board.cfg.me, self._board.cfg.peer), hint="", code=f"pair.{kind.value}"
            )
        return {"ok": True, "text": sentence(result.text, self._board.cfg.me, self._board.cfg.peer)}

    def _request(self, kind: OpKind) -> asyncio.Future[OpDone]:
        present = self._board.op.kind
        if present is kind and self._done is not None and not self._done.done():
            return self._done
        if present is not OpKind.NONE:
            raise OperatorFault(
                f"Another request is under way: {present.value}.", hint="Wait until it has ended.", code="pair.busy"
            )
        self._done = asyncio.get_running_loop().create_future()
        if kind is OpKind.RECOVER:  # whoever asks again wants it tried again
            self._board.put_fence(is_powered_on_again=False)
        self._board.put(op=Op(kind, At(now_at())))
        if kind is OpKind.RECOVER:  # each request may power a silent member on once, whatever earlier ones did
            self._board.put_fence(is_powered_on_again=False)
        self._log.event("operation.begun", kind=kind.value)
        return self._done

    async def _relay(self, op: str, say: Say) -> Message:
        try:
            return await self._peer.ask(op, deadline_s=SWITCHOVER_S_MAX + 5, say=say)
        except OperatorRefused as e:
            raise OperatorFault(str(e), hint=e.hint, code=f"pair.{op}") from e

    # --- the other member -------------------------------------------------------------------------------------------

    async def serve_peer(self, request: Message, say: Say) -> Message:
        op = request.get("op")
        if op in ("recover", "report", "clock", "progress"):
            return await self.recovery.answer(request)
        if op in ("sign", "fence-test"):
            return await self.orders.carry_out({**request, "is_relayed": True}, say)
        if op == "switchover":
            return await self._run(OpKind.SWITCHOVER, say)
        if op == "vote":
            return await self.seating.seat(request, _to_whoever_listens(say))
        if op in ("settings", "roster", "give-up"):
            return await self.seating.answer(request)
        answers = {
            "replay": self._answer_replay,
            "prepare": self._answer_prepare,
            "marker": self._answer_marker,
        }
        if op not in answers:
            raise OperatorFault(f"There is no operation `{op}`.", code="control.request")
        return await answers[op](request)

    async def _answer_replay(self, request: Message) -> Message:
        """Pause or resume our replay, for the other's barrier. A pause ends by itself: nobody may forget it, and one that was
        not confirmed, or not ended, may be there all the same.
        """
        if self._board.pg.state is not PgState.STANDBY:
            raise Refused("no standby runs here")
        pause = bool(request.get("pause"))
        if pause:
            self._resume_later()
        await self._sync.pause_own_replay(pause=pause)
        if not pause and self._resume is not None:
            self._resume.cancel()
            self._resume = None
        return {"ok": True}

    def _resume_later(self) -> None:
        if self._resume is not None:
            self._resume.cancel()
        loop = asyncio.get_running_loop()
        self._resume = loop.call_later(PAUSE_S_MAX, lambda: asyncio.ensure_future(self._resume_late()))

    async def _resume_late(self) -> None:
        """Resume; try again for as long as a standby runs that does not do so."""
        self._resume = None
        try:
            await self._sync.pause_own_replay(pause=False)
        except FutagoFault as e:
            self._log.warning("replay.not-resumed", error=str(e))
            if self._resume is None and self._board.pg.state is PgState.STANDBY:
                self._resume_later()

    async def _answer_prepare(self, _request: Message) -> Message:
        """A slot; a checkpoint if there was none since the promotion, for pg_rewind reads our timeline from the control
        file; and what we are.
        """
        self._require_primary()
        await self._sync.ensure_slot()
        noted, present = (await self._postgres.ask(_TIMELINES)).one()
        if noted != present:
            await self._postgres.ask("CHECKPOINT", deadline_s=CHECKPOINT_S_MAX)
        return {"ok": True, "source": msgspec.to_builtins(await source_of(self._postgres))}

    async def _answer_marker(self, _request: Message) -> Message:
        """Write a mark, and say where it is."""
        self._require_primary()
        await self._postgres.ask(f"SET synchronous_commit = 'local'; {pgwire.EMPTY_COMMIT}")
        row = (await self._postgres.ask(_POSITION)).one()
        return {"ok": True, "lsn": pgwire.lsn(row[0]), "timeline": int(row[1] or 0)}

    def _require_primary(self) -> None:
        if self._board.pg.state is not PgState.PRIMARY:
            raise Refused("no primary runs here")


def _patience(request: Message) -> float:
    """Return for how many seconds a silent member is waited for. Raises OperatorFault if that makes no sense."""
    asked = request.get("patience_s", PATIENCE_S)
    if isinstance(asked, bool) or not isinstance(asked, int | float) or not 1 <= asked <= PATIENCE_S_MAX:
        text = f"A patience of {asked!r} seconds makes no sense; it is 1 to {PATIENCE_S_MAX:g}."
        raise OperatorFault(text, code="pair.patience")
    return float(asked)


def _to_whoever_listens(say: Say) -> Say:
    """Say it, and go on if nobody hears it any more.

    For what must not stop half way because somebody pressed Ctrl-C: a third vote that both members have given up, with
    none in its place, leaves a question that was put to the old one open, and the pair cannot be paired before the
    command is run again.
    """

    async def said(text: str) -> None:
        with contextlib.suppress(OSError, RuntimeError):  # the latter is uvloop's word for a closed transport
            await say(text)

    return said


_TIMELINES = (
    "SELECT (SELECT timeline_id FROM pg_control_checkpoint()), "
    "('x' || substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8))::bit(32)::int"
)
_POSITION = (
    "SELECT pg_current_wal_flush_lsn(), "
    "('x' || substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8))::bit(32)::int"
)
