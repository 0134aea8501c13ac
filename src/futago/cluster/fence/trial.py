"""The full proof of a power device: the standby of a protected pair is really powered off, and on again.

Lives here: when that may be done, and the order of its steps. Must not live here: what the pair makes of it; to the rules
this is a standby that lost its power, and they react as always. The idea: a fire drill in which the door is really
locked. So nobody is sent through it while the other door is blocked.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from futago.cluster.fence import Power
from futago.cluster.fence.device import Device
from futago.runtime.faults import OperatorFault, WorldFault
from futago.runtime.log import Log

REACT_S_MAX = 30.0  # until the pair goes on with one member and has had its own shot at the one that is off
LOOK_S = 0.1


@dataclass(frozen=True, slots=True)
class Trial:
    """One trial.

    Args:
        member: whose device it is: the standby.
        device: the device.
        why_not: returns why nobody may be powered off now, as a sentence; empty if it may be done.
        has_reacted: has the pair gone on without the member, and done with it what it does?
        log: where the trial is told.
    """

    member: str
    device: Device
    why_not: Callable[[], str]
    has_reacted: Callable[[], bool]
    log: Log

    async def run(self, say: Callable[[str], Awaitable[None]]) -> str:
        """Power off, wait until the pair has reacted, power on; return what was found out, as a sentence.

        Raises:
            OperatorFault: it may not be done now; nothing was switched.
            Refused, Unknown: the device did not confirm; the sentence says what may be on or off.
        """
        if why := self.why_not():
            raise OperatorFault(why, hint="Nothing was switched; see futago status.", code="fence.trial")
        if await self.device.power() is not Power.ON:
            raise OperatorFault(
                f"{self.device.place} does not say that {self.member} is on.",
                hint="Nothing was switched; see futago fence test.",
                code="fence.trial",
            )
        self.log.event("fence.trial", member=self.member, device=self.device.place)
        await say(f"powering {self.member} off by {self.device.place}")
        off_s = await self._timed(self.device.off())
        await say(f"{self.device.place} confirmed off after {off_s:.1f} s; waiting for the pair to go on without it")
        reacted = await self._wait()
        if not reacted:
            await say(f"the pair has not gone on without {self.member} after {REACT_S_MAX:g} s")
        await say(f"powering {self.member} on")
        on_s = await self._timed(self.device.on())
        self.log.event("fence.trial-passed", member=self.member, device=self.device.place, off_s=off_s, on_s=on_s)
        return f"{self.device.place} powered {self.member} off in {off_s:.1f} s and on in {on_s:.1f} s."

    async def _timed(self, work: Awaitable[None]) -> float:
        began = time.monotonic()
        try:
            await work
        except WorldFault as e:
            self.log.error("fence.trial-failed", member=self.member, device=self.device.place, error=str(e))
            raise
        return time.monotonic() - began

    async def _wait(self) -> bool:
        """Wait for the reaction, so that nobody shoots at a member that boots already."""
        end = time.monotonic() + REACT_S_MAX
        while not self.has_reacted():
            if time.monotonic() > end:
                return False
            await asyncio.sleep(LOOK_S)
        return True
