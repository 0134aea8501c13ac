"""Operators' short orders: maintenance, the test of the power devices, and the words that a forced start needs.

Lives here: carrying such an order to its end on both members. Must not live here: what follows for the pair
(decide.py). The idea: the sign on a switch that says "people at work". It hangs on both members, outlives restarts,
and the newer of two signs counts, so that one member may have been away when it was hung or taken off.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from functools import partial
from pathlib import Path

import msgspec

from futago.cluster.control import Message, PeerLine, Say
from futago.cluster.decide import decide
from futago.cluster.facts import Board
from futago.cluster.fence.trial import Trial
from futago.cluster.fence.worker import FenceDesk, Tested
from futago.cluster.model import FenceOutcome
from futago.cluster.situation import Situation
from futago.runtime.clock import now_at
from futago.runtime.faults import OperatorFault, Refused, Unknown, WorldFault
from futago.runtime.log import Log
from futago.runtime.unreadable import UNREADABLE
from futago.runtime.worker import Worker
from futago.setup import files, paths
from futago.setup.settings import Settings

MAINTENANCE = paths.CLUSTER / "maintenance.json"
WRITE_S_MAX = 5.0
TEST_S_MAX = 45.0
PEER_S_MAX = 60.0
COMPARE_S = 1.0


class Sign(msgspec.Struct, frozen=True):
    """Is the pair in maintenance? The higher number is the newer sign."""

    on: bool = False
    number: int = 0


def read_sign(path: Path = MAINTENANCE) -> Sign:
    """Return the sign that hangs on this member; none hangs where it cannot be read."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=Sign)
    except (OSError, *UNREADABLE):
        return Sign()


class Orders:
    """The short orders on this member.

    Args:
        settings: returns the present settings.
        system: the thread of the system disk.
        forget_peers_sign: the last word of a silent peer about maintenance counts no more.
    """

    def __init__(
        self,
        *,
        board: Board,
        peer: PeerLine,
        fences: FenceDesk,
        system: Worker,
        settings: Callable[[], Settings],
        forget_peers_sign: Callable[[], None],
        log: Log,
        path: Path = MAINTENANCE,
    ) -> None:
        self._board, self._peer, self._fences, self._system = board, peer, fences, system
        self._settings, self._forget_peers_sign, self._log, self._path = settings, forget_peers_sign, log, path
        self.sign = read_sign(path)
        board.put(maintenance=self.sign.on)

    async def carry_out(self, request: Message, say: Say) -> Message:
        """Carry out `maintenance` or `fence-test`, or answer the other member's `sign`. Raises FutagoFault."""
        if request.get("op") == "fence-test":
            return await self._test_fences(request, say)
        if request.get("op") == "sign":
            return await self._compare(request)
        return await self._maintain(is_on=bool(request.get("on")), say=say)

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
        peer = self._board.cfg.peer
        await self._hang(Sign(is_on, self.sign.number + 1))
        told = ""
        if self._settings().peer is not None:
            try:
                await self._exchange()
            except (WorldFault, OSError) as e:
                self._forget_peers_sign()
                told = f" {peer} could not be told ({e}); it learns it as soon as it is heard."
                await say(told.strip())
        if is_on:
            text = "Maintenance is on: nobody takes over, hands over or powers the other on unasked. End it with `futago maintenance off`."
        else:
            text = "Maintenance is off: the pair acts by itself again."
        return {"ok": True, "text": text + told, "maintenance": is_on}

    async def _exchange(self) -> None:
        """Show the other member our sign, and take its own if that is newer. Raises Refused or Unknown."""
        mine = msgspec.to_builtins(self.sign)
        answer = await self._peer.ask("sign", deadline_s=WRITE_S_MAX + 1, sign=mine)
        await self._take(answer.get("sign"))

    async def _compare(self, request: Message) -> Message:
        await self._take(request.get("sign"))
        return {"ok": True, "sign": msgspec.to_builtins(self.sign)}

    async def _take(self, raw: object) -> None:
        try:
            theirs = msgspec.convert(raw, Sign)
        except msgspec.ValidationError as e:
            raise Refused(f"the other member's sign cannot be understood: {e}") from e
        if theirs.number > self.sign.number:
            await self._hang(theirs)

    async def _hang(self, sign: Sign) -> None:
        data = msgspec.json.encode(sign)
        try:
            await self._system.do(lambda: files.write(self._path, data, mode=0o644), deadline_s=WRITE_S_MAX)
        except OSError as e:
            raise Refused(f"{self._path}: {e}") from e
        self.sign = sign
        self._board.put(maintenance=sign.on)
        self._log.event("maintenance", on=sign.on, number=sign.number)

    async def run(self) -> None:
        """See that both members have the newest sign; until cancelled."""
        while True:
            await asyncio.sleep(COMPARE_S)
            s = Situation(self._board.facts(), now_at())
            if s.talks and s.hb is not None and s.hb.maintenance != self.sign.on:
                with contextlib.suppress(WorldFault, OSError):
                    await self._exchange()

    # --- power devices --------------------------------------------------------------------------------------------

    async def _test_fences(self, request: Message, say: Say) -> Message:
        """Ask the devices now, from both members: each must be able to stop the other."""
        member = self._member(request) if request.get("member") else None
        if request.get("power_cycle"):
            return await self._try_power(request, say)
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

    async def _try_power(self, request: Message, say: Say) -> Message:
        """Really power the standby off and on, by one of its devices."""
        member, level = self._member(request), int(request.get("level") or 1)
        device = self._fences.device(member, level)
        if device is None:
            raise OperatorFault(f"{member} has no power device {level}.", hint="See futago status.", code="fence.none")
        if request.get("confirm") != member:
            raise OperatorFault(
                f"{member} would be powered off without being asked; it was not confirmed.",
                hint=f"Confirm with its name, `{member}`.",
                code="pair.confirm",
            )
        view = self._board.read_durable().view
        trial = Trial(
            member,
            device,
            why_not=lambda: self._why_no_trial(member),
            has_reacted=partial(self._has_reacted, 0 if view is None else view.epoch),
            log=self._log,
        )
        text = await trial.run(say)
        return {"ok": True, "passed": True, "tests": [], "text": text}

    def _why_no_trial(self, member: str) -> str:
        facts = self._board.facts()
        view, decision = facts.durable.view, decide(facts, now_at())
        if view is None or view.primary != facts.cfg.me or member != facts.cfg.peer:
            return f"Only the standby is powered off for a test, by the member that serves; {member} is not the standby here."
        if facts.maintenance:
            return "The pair is in maintenance, in which it would not go on without the standby."
        return "" if decision.is_protected else f"The pair is not protected: {decision.reason}"

    def _has_reacted(self, before: int) -> bool:
        """There is a newer view than `before`, the epoch with the standby in it, and no shot is under way."""
        view = self._board.read_durable().view
        return view is not None and view.epoch > before and self._board.fence.outcome is not FenceOutcome.PENDING

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
