"""Operators' short orders: maintenance, the test of the power devices, and the words that a forced start needs.

Lives here: carrying such an order to its end on this member, or to the member that it is about. Must not live here:
what follows for the pair (decide.py). The idea: the log book of a ship: who leaves the bridge signs out, so that
nobody counts on a hand that is not there, and the entry outlives a restart.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

from futago.cluster.control import Message, OperatorRefused, PeerLine, Say
from futago.cluster.facts import Board
from futago.cluster.fence.worker import FenceDesk, Tested
from futago.cluster.model import PgState
from futago.cluster.situation import Situation
from futago.runtime.clock import S, now_at
from futago.runtime.faults import OperatorFault, Refused, Unknown, WorldFault
from futago.runtime.log import Log
from futago.runtime.worker import Worker
from futago.setup import files, paths
from futago.setup.settings import Settings

MAINTENANCE = paths.CLUSTER / "maintenance"
LEAVE_S_MAX = 60.0
WRITE_S_MAX = 5.0
TEST_S_MAX = 45.0
PEER_S_MAX = 75.0
POLL_S = 0.1


def is_in_maintenance(path: Path = MAINTENANCE) -> bool:
    """Was this member taken out of service before its controller started?"""
    return path.exists()


class Orders:
    """The short orders on this member.

    Args:
        settings: returns the present settings.
        system: the thread of the system disk.
    """

    def __init__(
        self,
        *,
        board: Board,
        peer: PeerLine,
        fences: FenceDesk,
        system: Worker,
        settings: Callable[[], Settings],
        log: Log,
        path: Path = MAINTENANCE,
    ) -> None:
        self._board, self._peer, self._fences, self._system = board, peer, fences, system
        self._settings, self._log, self._path = settings, log, path

    async def carry_out(self, request: Message, say: Say) -> Message:
        """Carry out `maintenance` or `fence-test`. Raises FutagoFault."""
        if request.get("op") == "fence-test":
            return await self._test_fences(request, say)
        member = self._member(request)
        if member == self._board.cfg.me:
            return await self._maintain(is_on=bool(request.get("on")), say=say)
        if request.get("is_relayed"):
            raise Refused(f"this member is {self._board.cfg.me}, not {member}")
        try:
            return await self._peer.ask(
                "maintenance", deadline_s=PEER_S_MAX, say=say, member=member, on=bool(request.get("on"))
            )
        except OperatorRefused as e:
            raise OperatorFault(str(e), hint=e.hint, code="pair.maintenance") from e

    def _member(self, request: Message) -> str:
        member = str(request.get("member") or self._board.cfg.me)
        names = [m.name for m in self._settings().members]
        if member not in names:
            raise OperatorFault(
                f"There is no member `{member}`.", hint=f"There are {', '.join(names)}.", code="pair.member"
            )
        return member

    # --- maintenance ----------------------------------------------------------------------------------------------

    async def _maintain(self, *, is_on: bool, say: Say) -> Message:
        me, peer = self._board.cfg.me, self._board.cfg.peer
        if not is_on:
            await self._sign(is_on=False)
            text = f"{me} is out of maintenance. It comes back by itself, or by `futago recover`."
            return {"ok": True, "text": text, "member": str(me), "maintenance": False}
        self._require_dispensable()
        await self._sign(is_on=True)
        await say(f"{me} is leaving: {peer} goes on alone")
        ends = now_at() + int(LEAVE_S_MAX * S)
        while not self._has_left():
            if now_at() > ends:
                await self._sign(is_on=False)
                raise OperatorFault(
                    f"{peer} did not take over within {LEAVE_S_MAX:g} s, so {me} stays in service.",
                    hint="See futago status; nothing has been changed.",
                    code="pair.maintenance",
                )
            await asyncio.sleep(POLL_S)
        text = f"{me} is in maintenance: {peer} serves alone, and {me} may be stopped. End it with `futago maintenance off`."
        return {"ok": True, "text": text, "member": str(me), "maintenance": True}

    def _require_dispensable(self) -> None:
        """Nobody may take the only member with all data out of service."""
        s = Situation(self._board.facts(), now_at())
        if s.dv is None or not s.cfg.has_peer:
            raise OperatorFault("There is no pair yet.", hint="See futago status.", code="pair.maintenance")
        if s.is_primary and (s.is_alone or not s.is_peer_fit):
            raise OperatorFault(
                f"Only {s.cfg.me} can serve now; {s.cfg.peer} could not go on alone.",
                hint="Bring the pair back first: futago recover.",
                code="pair.maintenance",
            )

    def _has_left(self) -> bool:
        """The other member serves in a view without us, and knows it."""
        s = Situation(self._board.facts(), now_at())
        is_out = s.dv is not None and s.cfg.me not in s.dv.insync
        return is_out and s.hb is not None and s.is_equal and s.hb.pg is PgState.PRIMARY and s.hb.gate_open

    async def _sign(self, *, is_on: bool) -> None:
        def put() -> None:
            if is_on:
                files.write(self._path, "", mode=0o644)
            else:
                self._path.unlink(missing_ok=True)
                files.sync_directory(self._path.parent)

        try:
            await self._system.do(put, deadline_s=WRITE_S_MAX)
        except OSError as e:
            raise Refused(f"{self._path}: {e}") from e
        self._board.put(maintenance=is_on)
        self._log.event("maintenance", on=is_on)

    # --- power devices --------------------------------------------------------------------------------------------

    async def _test_fences(self, request: Message, say: Say) -> Message:
        """Ask the devices now, from both members: each must be able to stop the other."""
        member = self._member(request) if request.get("member") else None
        await say("asking the power devices")
        try:
            async with asyncio.timeout(TEST_S_MAX):
                rows = [self._row(t) for t in await self._fences.test(member)]
        except TimeoutError as e:
            raise Unknown(f"the power devices did not answer within {TEST_S_MAX:g} s") from e
        if request.get("is_relayed"):
            return {"ok": True, "tests": rows}
        if self._settings().peer is not None:
            rows += await self._peers_tests(member)
        if not rows:
            hint = "Name one in the settings (members.fence), then systemctl reload futago-controller on both members."
            raise OperatorFault("No power device is configured.", hint=hint, code="fence.none")
        bad = [r for r in rows if not r["ok"]]
        text = f"{len(rows) - len(bad)} of {len(rows)} tests passed."
        return {"ok": True, "passed": not bad, "tests": rows, "text": text}

    async def _peers_tests(self, member: str | None) -> list[Message]:
        me, peer = str(self._board.cfg.me), str(self._board.cfg.peer)
        try:
            answer = await self._peer.ask("fence-test", deadline_s=PEER_S_MAX, member=member or "")
        except WorldFault as e:
            about = member or me
            blank = {"driver": "", "device": "", "level": 1, "state": "unknown"}
            return [{"from": peer, "member": about, **blank, "ok": False, "error": f"{peer} could not be asked: {e}"}]
        return list(answer.get("tests", []))

    def _row(self, tested: Tested) -> Message:
        return {
            "from": str(self._board.cfg.me),
            "member": tested.member,
            "driver": tested.driver,
            "device": tested.place,
            "level": tested.level,
            "state": tested.state.value,
            "ok": not tested.error,
            "error": tested.error,
        }

    # --- the forced start -----------------------------------------------------------------------------------------

    def require_confirmation(self, request: Message) -> None:
        """A forced start needs the pair's name, typed by somebody who has read what may be lost."""
        name = self._settings().pair.name
        if request.get("confirm") != name:
            raise OperatorFault(
                f"A forced start may lose what only {self._board.cfg.peer} holds; it was not confirmed.",
                hint=f"See that {self._board.cfg.peer} is off and stays off, then confirm with the pair's name, `{name}`.",
                code="pair.confirm",
            )
