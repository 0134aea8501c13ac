"""One device, believed only when it has confirmed: ask, order, ask again until the state is there or the time is up.

Where an order can only be given over a session that was just opened, the question before an order to power off is left out: it would be a part of every
outage, and a device that hangs gets no order either way. Elsewhere it comes first, so that an order does not wait in a hanging device for later. What
an order ended with is weighed against what the device then says: some refuse an order that changes nothing.

Lives here: the order of those steps, the same for every driver. Must not live here: how a device is spoken to, and which
device comes next.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from futago.cluster.fence import Driver, Power
from futago.runtime.faults import Refused, Unknown, WorldFault

ASK_S = 5.0  # one question; a BMC answers within a second or not at all
ASK_S_MAX = 30.0  # a cloud or a hypervisor takes its time; the self-test of every device waits for this one
POLL_S = 0.1


class Device:
    """One device of one member.

    Args:
        driver: how it is spoken to.
        place: what it is, for people, such as `ipmi 192.0.2.201`.
        attempts: how often `Levels` tries it.
        deadline_s: seconds for one `off` or `on`, confirmation included.
    """

    def __init__(self, driver: Driver, *, place: str, attempts: int = 1, deadline_s: float = 10.0) -> None:
        self._driver = driver
        self.place = place
        self.attempts = attempts
        self.deadline_s = deadline_s
        self._said = "nothing"

    async def power(self) -> Power:
        """Ask for the state: within 5 s, of a slow device within half of its deadline. Raises Refused or Unknown."""
        slow_s = min(ASK_S_MAX, self.deadline_s / 2)
        return await self._driver.status(deadline_s=min(self.deadline_s, max(ASK_S, slow_s)))

    async def off(self) -> None:
        """Power off and return when the device says that it is off.

        Raises:
            Refused: the device refuses us or the order. Unknown: it did not confirm in time.
        """
        async with self._bounded(Power.OFF):
            if not self._driver.has_sessions and await self.power() is Power.OFF:
                return
            try:
                said = await self._driver.order(Power.OFF, deadline_s=self.deadline_s)
            except WorldFault as fault:
                await self._weigh(fault)
            else:
                if said is not Power.OFF:
                    await self._until(Power.OFF)

    async def on(self) -> None:
        """Power on, unless it is on; as `off`."""
        async with self._bounded(Power.ON):
            if await self.power() is not Power.ON:
                await self._driver.order(Power.ON, deadline_s=self.deadline_s)
                await self._until(Power.ON)

    async def _weigh(self, fault: WorldFault) -> None:
        """Return if the machine is off all the same; else raise what the order ended with."""
        try:
            found = await self.power()
        except WorldFault:
            raise fault from None
        if found is not Power.OFF:
            raise fault

    async def _until(self, wanted: Power) -> None:
        while True:
            try:
                found = await self.power()
            except WorldFault as e:  # some stop answering for a moment while they switch
                self._said = str(e)
            else:
                if found is wanted:
                    return
                self._said = f"that it is {found.value}"
            await asyncio.sleep(POLL_S)

    @asynccontextmanager
    async def _bounded(self, wanted: Power) -> AsyncIterator[None]:
        """Set the deadline, and say of every fault which device it was."""
        self._said = "nothing"
        try:
            async with asyncio.timeout(self.deadline_s):
                yield
        except TimeoutError as e:
            late = f"{self.place} did not confirm {wanted.value} within {self.deadline_s:g} s; it said {self._said}"
            raise Unknown(late) from e
        except Refused as e:
            raise Refused(f"{self.place}: {e}") from e
        except Unknown as e:
            raise Unknown(f"{self.place}: {e}") from e
