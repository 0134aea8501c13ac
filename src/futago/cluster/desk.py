"""What is behind the counter of control.py: the status, operators' requests, and what the other member asks of us.

Lives here: carrying a request to its end, here or at the other member, with progress. Must not live here: any
decision. The idea: a clerk who puts the request onto the board, watches what comes of it, and tells. One operator's
request at a time; the same one asked again joins the one that is under way.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import Awaitable, Callable

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
from futago.cluster.recovery import PATIENCE_S, Recovery
from futago.cluster.reports import Reporter, source_of
from futago.register import jury as jury_room
from futago.register.jury import Jury
from futago.runtime.clock import now_at
from futago.runtime.faults import FutagoFault, OperatorFault, Refused, Unknown, WorldFault
from futago.runtime.log import Log
from futago.runtime.worker import Worker
from futago.setup import files, paths
from futago.setup import settings as settings_room
from futago.setup.settings import Juror, Settings

OPERATION_S_MAX = 24 * 3600.0  # a base backup takes as long as it takes; whoever asked may leave
SWITCHOVER_S_MAX = 60.0
PEER_OP_S_MAX = 3.0
PROGRESS_S = 0.5
PAUSE_S_MAX = 8.0  # replay is resumed after this even if nobody asks for it
CHECKPOINT_S_MAX = 280.0
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
        reload: takes up changed settings.
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
        context: ssl.SSLContext,
        tell_status: Callable[[], Message],
        tell_role: Callable[[], Message],
        tell_reason: Callable[[], str],
        jury: Callable[[], Jury | None],
        reload: Callable[[], Awaitable[None]],
        ladder: Ladder,
        reporter: Reporter,
        orders: Orders,
        log: Log,
    ) -> None:
        self._board, self._postgres, self._sync, self._peer = board, postgres, sync, peer
        self._programs, self._system, self._context, self._log = programs, system, context, log
        self._tell_status, self._tell_role, self._reason = tell_status, tell_role, tell_reason
        self._jury, self._reload = jury, reload
        self._role_news = asyncio.Event()
        self._done: asyncio.Future[OpDone] | None = None
        self._resume: asyncio.TimerHandle | None = None
        self._seating = asyncio.Lock()
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
            case "jury":
                return await self._seat(request, say)
            case "recover" if request.get("plan"):
                return {"ok": True, "plan": msgspec.to_builtins(await self.recovery.plan())}
            case "recover":
                return await self.recovery.follow(say, patience_s=float(request.get("patience_s") or PATIENCE_S))
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
            raise OperatorFault(_sentence(result.text), hint="", code=f"pair.{kind.value}")
        return {"ok": True, "text": _sentence(result.text)}

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
        if op == "jury":
            return await self._seat(request, say)
        answers = {
            "replay": self._answer_replay,
            "prepare": self._answer_prepare,
            "marker": self._answer_marker,
            "settings": self._answer_settings,
            "roster": self._answer_roster,
        }
        if op not in answers:
            raise OperatorFault(f"There is no operation `{op}`.", code="control.request")
        return await answers[op](request)

    async def _answer_replay(self, request: Message) -> Message:
        """Pause or resume our replay, for the other's barrier. A pause ends by itself: nobody may forget it."""
        pause = bool(request.get("pause"))
        if self._resume is not None:
            self._resume.cancel()
            self._resume = None
        if self._board.pg.state is not PgState.STANDBY:
            raise Refused("no standby runs here")
        await self._sync.pause_own_replay(pause=pause)
        if pause:
            loop = asyncio.get_running_loop()
            self._resume = loop.call_later(PAUSE_S_MAX, lambda: asyncio.ensure_future(self._resume_late()))
        return {"ok": True}

    async def _resume_late(self) -> None:
        with contextlib.suppress(FutagoFault):
            await self._sync.pause_own_replay(pause=False)

    async def _answer_prepare(self, _request: Message) -> Message:
        """A checkpoint, without which pg_rewind would be told the wrong timeline; a slot; and what we are."""
        self._require_primary()
        await self._sync.ensure_slot()
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

    # --- the jury ---------------------------------------------------------------------------------------------------

    async def _seat(self, request: Message, say: Say) -> Message:
        """Seat a jury: the old one learns first that it is one no more, so there are never two majorities."""
        async with self._seating:
            return await self._seat_alone(request, say)

    async def _seat_alone(self, request: Message, say: Say) -> Message:
        view = self._board.read_durable().view
        if view is None or view.primary != self.settings.me:
            return await self._relay_jury(request, say)
        wanted = _jurors(request)
        await say(f"asking {', '.join(j.name for j in wanted)} for their identities")
        seated, highest = await self._identify(wanted)
        version = max(self.settings.roster, highest) + 1
        await self._retire_old(version, say)
        await say("telling the new jury who serves")
        await self._tell_new(seated, version)
        changed = msgspec.structs.replace(self.settings, jurors=seated, roster=version)
        await self._write_settings(changed)
        await self._tell_peer_settings(seated, version, say)
        return {"ok": True, "text": f"The third vote is now {', '.join(j.name for j in seated)}."}

    async def _relay_jury(self, request: Message, say: Say) -> Message:
        if request.get("is_relayed"):
            raise OperatorFault("Nobody serves now.", hint="See futago status.", code="jury.primary")
        try:
            return await self._peer.ask(
                "jury", deadline_s=SWITCHOVER_S_MAX, say=say, jurors=request.get("jurors"), is_relayed=True
            )
        except OperatorRefused as e:
            raise OperatorFault(str(e), hint=e.hint, code="jury.refused") from e

    async def _identify(self, wanted: list[Juror]) -> tuple[list[Juror], int]:
        pair_id = self.settings.pair.id
        try:
            answers = [await jury_room.identify(j, pair_id=pair_id, context=self._context) for j in wanted]
        except Refused as e:
            raise OperatorFault(
                f"A juror cannot vote: {e}.", hint="Nothing was changed; see that its agent runs.", code="jury.silent"
            ) from e
        ids = {a.acceptor_id for a in answers}
        if len(ids) != len(answers):
            raise OperatorFault("Two of the jurors are the same.", hint="Name different hosts.", code="jury.twice")
        seated = [msgspec.structs.replace(j, acceptor=a.acceptor_id) for j, a in zip(wanted, answers, strict=True)]
        return seated, max(a.roster for a in answers)

    async def _retire_old(self, version: int, say: Say) -> None:
        old, view = self._jury(), self._board.read_durable().view
        if old is None or view is None:
            return
        await say("telling the old jury that a new one is seated")
        try:
            is_ours, held = await old.put(jury_room.value(view, version=version))
        except Refused as e:
            if "old-roster" in str(e):  # an earlier attempt got this far
                return
            raise OperatorFault(
                f"A majority of the present jury does not answer ({e}), so it cannot be replaced safely.",
                hint="Bring one of its jurors back.",
                code="jury.old",
            ) from e
        if not is_ours and (held is None or held.roster < version):
            raise OperatorFault("The view has just changed.", hint="Run the same command again.", code="jury.moved")

    async def _tell_new(self, seated: list[Juror], version: int) -> None:
        view = self._board.read_durable().view
        assert view is not None
        draft = msgspec.structs.replace(self.settings, jurors=seated, roster=version)
        new = jury_room.jury_of(draft, context=self._context, log=self._log)
        carrier = asyncio.create_task(new.run())
        try:
            await asyncio.sleep(0.3)  # the connections are made meanwhile; the proposal asks again where one was late
            is_ours, _held = await new.put(jury_room.value(view, version=version))
        except Refused as e:
            raise OperatorFault(
                f"The new jury does not answer: {e}.", hint="Run the same command again.", code="jury.silent"
            ) from e
        finally:
            carrier.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await carrier
        if not is_ours:
            raise OperatorFault(
                "The jurors hold something newer.", hint="Run the same command again.", code="jury.moved"
            )

    async def _tell_peer_settings(self, seated: list[Juror], version: int, say: Say) -> None:
        if self.settings.peer is None:
            return
        try:
            rows = [msgspec.to_builtins(j) for j in seated]
            await self._peer.ask("settings", deadline_s=SETTINGS_S_MAX, jurors=rows, roster=version)
        except WorldFault as e:
            await say(f"the other member takes it up when it is back ({e})")

    async def _answer_settings(self, request: Message) -> Message:
        version = int(request.get("roster", 0))
        if version > self.settings.roster:
            jurors = [msgspec.convert(j, Juror) for j in request.get("jurors", [])]
            await self._write_settings(msgspec.structs.replace(self.settings, jurors=jurors, roster=version))
        return {"ok": True}

    async def _answer_roster(self, _request: Message) -> Message:
        rows = [msgspec.to_builtins(j) for j in self.settings.jurors]
        return {"ok": True, "jurors": rows, "roster": self.settings.roster}

    async def fetch_roster(self) -> None:
        """Take up the other member's newer jury: it was seated while this one was away. Raises Refused or Unknown."""
        answer = await self._peer.ask("roster", deadline_s=PEER_OP_S_MAX)
        await self._answer_settings(answer)
        self._log.event("jury.taken-up", roster=self.settings.roster)

    async def _write_settings(self, changed: Settings) -> None:
        def put() -> None:
            with files.lock():
                present = settings_room.load()
                merged = msgspec.structs.replace(present, jurors=changed.jurors, roster=changed.roster)
                files.write(paths.SETTINGS, settings_room.dump(merged), mode=0o644)

        try:
            await self._system.do(put, deadline_s=SETTINGS_S_MAX)
        except OSError as e:
            raise Refused(f"{paths.SETTINGS}: {e}") from e
        await self._reload()


def _jurors(request: Message) -> list[Juror]:
    try:
        wanted = [msgspec.convert(j, Juror) for j in request.get("jurors", [])]
    except (msgspec.ValidationError, TypeError) as e:
        raise OperatorFault(f"The list of jurors is wrong: {e}.", code="jury.request") from e
    if len(wanted) not in (3, 5):
        raise OperatorFault(f"A jury has 3 or 5 jurors, not {len(wanted)}.", hint="Name 3 or 5.", code="jury.size")
    return wanted


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:] + ("" if text.endswith(".") else ".")


_POSITION = (
    "SELECT pg_current_wal_flush_lsn(), "
    "('x' || substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8))::bit(32)::int"
)
