"""A baseboard management controller, spoken to by ipmitool in a process of its own with a deadline.

Measured: status 55 to 100 ms, off 100 to 170 ms. `-N 1 -R 2` bounds what a dead BMC costs (6 s instead of 20); our
deadline ends it earlier still. The password is in a file that ipmitool reads, never in its arguments, where every
user could see it.
"""

from __future__ import annotations

import asyncio
import re

from futago.cluster.fence import Power
from futago.runtime import process
from futago.runtime.faults import Refused, Unknown
from futago.setup.settings import FenceDevice as FenceSettings

ASK_S_MAX = 5.0
OFF_S_MAX = 8.0
POLL_S = 0.05
_SILENT = ("Unable to establish", "timeout", "no response", "Connection timed out")
_STATE = re.compile(r"Chassis Power is (on|off)", re.IGNORECASE)


class IpmiDevice:
    """One BMC."""

    def __init__(self, settings: FenceSettings) -> None:
        self._command = [
            *("ipmitool", "-I", "lanplus", "-C", "3", "-N", "1", "-R", "2"),
            *("-H", settings.address, "-U", settings.user, "-f", settings.password_file),
        ]

    async def power(self) -> Power:
        said = await self._tool("status", deadline_s=ASK_S_MAX)
        found = _STATE.search(said)
        if found is None:
            raise Unknown(f"the BMC's answer cannot be understood: {said[:120]}")
        return Power(found[1].lower())

    async def off(self) -> None:
        try:
            async with asyncio.timeout(OFF_S_MAX):
                if await self.power() is Power.OFF:
                    return
                await self._tool("off", deadline_s=ASK_S_MAX)
                while await self.power() is not Power.OFF:  # noqa: ASYNC110  the BMC does not call back
                    await asyncio.sleep(POLL_S)
        except TimeoutError as e:
            raise Unknown(f"the BMC did not confirm the power off within {OFF_S_MAX:g} s") from e

    async def on(self) -> None:
        await self._tool("on", deadline_s=ASK_S_MAX)

    async def _tool(self, verb: str, *, deadline_s: float) -> str:
        ended = await process.run([*self._command, "chassis", "power", verb], deadline_s=deadline_s)
        if ended.code == 0:
            return ended.out
        if any(word in ended.err for word in _SILENT):
            raise Unknown(f"the BMC does not answer: {ended.last_words}")
        raise Refused(f"the BMC refused `{verb}`: {ended.last_words}")
