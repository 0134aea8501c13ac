"""One device, believed only when it has confirmed: read, order, read again until the state is there or the time is up.

Lives here: the order of those steps, the same for every driver. Must not live here: how a device is spoken to, and which
device comes next.
"""

from __future__ import annotations

import asyncio

from futago.cluster.fence import Driver, Power
from futago.runtime.faults import Refused, Unknown, WorldFault

ASK_S_MAX = 5.0  # one question; a BMC answers within a second or not at all
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

    async def power(self) -> Power:
        """Ask for the state, within 5 s or the device's own deadline. Raises Refused or Unknown."""
        return await self._driver.status(deadline_s=min(ASK_S_MAX, self.deadline_s))

    async def off(self) -> None:
        """Power off and return when the device says that it is off; a machine that is off needs no order.

        Raises:
            Refused: the device refuses us or the order. Unknown: it did not confirm in time.
        """
        await self._bring(Power.OFF)

    async def on(self) -> None:
        """Power on; as `off`."""
        await self._bring(Power.ON)

    async def _bring(self, wanted: Power) -> None:
        said = "nothing"
        try:
            async with asyncio.timeout(self.deadline_s):
                if await self.power() is wanted:
                    return
                await self._driver.order(wanted, deadline_s=self.deadline_s)
                while True:
                    try:
                        found = await self.power()
                    except WorldFault as e:  # some stop answering for a moment while they switch
                        said = str(e)
                    else:
                        if found is wanted:
                            return
                        said = f"that it is {found.value}"
                    await asyncio.sleep(POLL_S)
        except TimeoutError as e:
            raise Unknown(
                f"{self.place} did not confirm {wanted.value} within {self.deadline_s:g} s; it said {said}"
            ) from e
        except Refused as e:
            raise Refused(f"{self.place}: {e}") from e
        except Unknown as e:
            raise Unknown(f"{self.place}: {e}") from e
