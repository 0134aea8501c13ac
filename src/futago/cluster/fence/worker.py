"""The desk of the fence devices: carries out orders, and finds out every half minute whether it could.

Lives here: both members' devices, the self-test, and the outcomes as facts. Must not live here: whom to stop, and
when. The idea: a fire extinguisher with a date on it. A device that nobody has tried is not counted on, so each is
asked for its power state all the time, our own included: the peer will need that one. A device that calls a machine
off which is heard to live is as useless as a silent one, and says so before it is needed.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass, replace

from futago.cluster.facts import Board
from futago.cluster.fence import Power
from futago.cluster.fence.device import Device
from futago.cluster.fence.kinds import open_levels
from futago.cluster.fence.levels import Levels
from futago.cluster.fence.oneself import Note, read_note
from futago.cluster.model import At, Epoch, Fence, FenceOutcome
from futago.runtime.clock import S, now_at
from futago.runtime.faults import Refused, Unknown, WorldFault
from futago.runtime.log import Log
from futago.setup.settings import Settings

TEST_EVERY_S = 30.0
FRESH = 90 * S  # three tests missed
CONTRADICTION_S = 1.0  # for so long a machine that is called off is listened for


@dataclass(frozen=True, slots=True)
class Tested:
    """The last self-test of one device."""

    member: str
    driver: str
    state: Power = Power.UNKNOWN
    at: int | None = None  # of the last success
    error: str = ""
    level: int = 1  # in the order of trying; 0: not for the other member, but this one's own watchdog
    place: str = ""

    def is_fresh(self, now: int) -> bool:
        """Did it answer lately?"""
        return self.at is not None and not self.error and now - self.at <= FRESH


def label(member: str, level: int) -> str:
    """Return the key of a device: the member's name, with the level where it is not the first."""
    return {0: f"{member}/watchdog", 1: member}.get(level, f"{member}/{level}")


class FenceDesk:
    """Both members' devices.

    Args:
        settings: the pair's.
        board: takes the outcomes, and knows when the peer was last heard.
        log: where orders and failing tests are told.
        read_note: what the guard says of this machine's watchdog.
    """

    def __init__(
        self, settings: Settings, *, board: Board, log: Log, read_note: Callable[[], Note | None] = read_note
    ) -> None:
        self._board, self._log, self._read_note = board, log, read_note
        self.tested: dict[str, Tested] = {}
        self._levels: dict[str, Levels] = {}
        self._settings = settings
        self._news = asyncio.Event()
        self.reload(settings)

    def reload(self, settings: Settings) -> None:
        """Take up changed settings."""
        before = self._settings
        self._settings = settings
        self._levels = {m.name: open_levels(m.fence) for m in settings.members if m.fence}
        known = self.tested if before.members == settings.members else {}
        self.tested = {
            label(m.name, level): known.get(label(m.name, level), Tested(m.name, d.driver, level=level, place=d.place))
            for m in settings.members
            for level, d in enumerate(m.fence, start=1)
        }
        peer = settings.peer
        self._board.put_fence(is_configured=peer is not None and peer.name in self._levels)
        self._news.set()

    async def off(self, epoch: Epoch) -> None:
        """Power the other member off. The outcome becomes the fact; never raises a fault of the world."""
        levels = self._peer_levels()
        if levels is None:
            return
        self._board.put(
            fence=Fence(
                is_configured=True, outcome=FenceOutcome.PENDING, epoch=epoch, at=None, is_powered_on_again=False
            )
        )
        try:
            await levels.off(lambda: not self._has_learned(epoch))
            outcome, why = FenceOutcome.OFF, ""
        except Refused as e:
            outcome, why = FenceOutcome.FAILED, str(e)
        except Unknown as e:
            outcome, why = FenceOutcome.UNKNOWN, str(e)
        except asyncio.CancelledError:
            self._board.put_fence(outcome=FenceOutcome.UNKNOWN, at=At(now_at()))
            raise
        by = levels.cut_by if outcome is FenceOutcome.OFF else ""
        self._log.event("fence.off", epoch=epoch, outcome=outcome.value, by=by, why=why)
        self._board.put_fence(outcome=outcome, at=At(now_at()))
        self._news.set()  # what the devices say now is worth knowing at once

    def _has_learned(self, epoch: Epoch) -> bool:
        """The other member has put our view on its disk: it has stopped, and need not be stopped by force. It may have been
        reset by its own watchdog while a device of its was silent.
        """
        hb = self._board.read_peer().heartbeat
        return hb is not None and hb.view is not None and hb.view.epoch >= epoch

    async def on(self, epoch: Epoch) -> None:
        """Power the other member on. Raises Refused or Unknown."""
        levels = self._peer_levels()
        if levels is None:
            raise Refused("the other member has no fence device")
        await levels.on()
        self._log.event("fence.on", epoch=epoch)
        if self._board.fence.epoch != epoch:  # asked for without a shot before
            self._board.put(fence=Fence(is_configured=True, epoch=epoch))
        self._board.put_fence(is_powered_on_again=True)

    def forget(self, epoch: Epoch) -> None:
        """What was done to the other member in an earlier epoch says nothing about this one."""
        if self._board.fence.is_powered_on_again and self._board.fence.epoch != epoch:
            self._board.put_fence(is_powered_on_again=False)

    async def peer_power(self) -> Power:
        """Ask the other member's devices now. Raises Refused or Unknown."""
        levels = self._peer_levels()
        if levels is None:
            raise Refused("the other member has no fence device")
        return await levels.power()

    def device(self, member: str, level: int) -> Device | None:
        """Return a member's device by its place in the order, from 1; None if it has none there."""
        levels = self._levels.get(member)
        return levels.devices[level - 1] if levels is not None and 1 <= level <= len(levels.devices) else None

    # --- the self-test ----------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Test all devices for ever; at once after new settings, since a device that was never tested protects
        nobody.
        """
        while True:
            self._news.clear()
            await self.test()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(TEST_EVERY_S):
                    await self._news.wait()

    async def test(self, member: str | None = None) -> tuple[Tested, ...]:
        """Ask every device, or those of one member, for its power state now, with the real account; return what came
        of it. Never raises a fault of the world.
        """
        async with asyncio.TaskGroup() as group:
            for name, levels in list(self._levels.items()):
                for number, device in enumerate(levels.devices, start=1):
                    if member in (None, name):
                        group.create_task(self._test(name, number, device))
        if member in (None, self._settings.me):
            self._look_at_watchdog()
        return tuple(t for t in self.tested.values() if member in (None, t.member))

    def _look_at_watchdog(self) -> None:
        """Take up what the guard says of this machine's own watchdog; on a machine that has none that is no news, unless
        the settings require one.
        """
        me, mode = self._settings.me, self._settings.pair.watchdog
        note = self._read_note()
        key = label(me, 0)
        if mode == "off" or (note is None and mode != "required"):
            self.tested.pop(key, None)
            return
        error = "this machine has none, or the guard does not run" if note is None else note.error
        place = "" if note is None else f"{note.device} {note.identity} {note.timeout_s} s"
        was = self.tested.get(key)
        if error and (was is None or not was.error):
            self._log.warning("watchdog.not-armed", error=error)
        state = Power.UNKNOWN if error else Power.ON
        self.tested[key] = Tested(me, "watchdog", state, None if error else now_at(), error, level=0, place=place)

    async def _test(self, member: str, level: int, device: Device) -> None:
        key = label(member, level)
        try:
            state = await device.power()
            error = await self._contradiction(member) if state is Power.OFF else ""
            if error and (state := await device.power()) is not Power.OFF:
                error = ""  # it was switched on meanwhile
        except WorldFault as e:
            state, error = Power.UNKNOWN, str(e)
        was = self.tested.get(key)
        if was is None:  # the settings have changed meanwhile
            return
        if error and not was.error:
            self._log.warning("fence.test-failed", member=member, device=device.place, error=error)
        elif was.error and not error:
            self._log.event("fence.test-passed", member=member, device=device.place, state=state.value)
        self.tested[key] = (
            replace(was, state=state, error=error) if error else replace(was, state=state, at=now_at(), error="")
        )

    async def _contradiction(self, member: str) -> str:
        """Return what is wrong with a device that calls a member off: we are that member, or hear it live. Empty if
        nothing is.
        """
        if member == self._settings.me:
            return "it says that this machine is off, which runs: it is another machine's device, or it lies"
        answered_at = now_at()
        await asyncio.sleep(CONTRADICTION_S)
        heard_at = self._board.read_peer().heard_at
        if heard_at is not None and heard_at > answered_at + CONTRADICTION_S / 2 * S:
            return f"it says that {member} is off, which is heard to run: it is another machine's device, or it lies"
        return ""

    def _peer_levels(self) -> Levels | None:
        peer = self._settings.peer
        return self._levels.get(peer.name) if peer is not None else None
