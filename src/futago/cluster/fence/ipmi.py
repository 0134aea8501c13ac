"""A baseboard management controller, spoken to by ipmitool in a process of its own with a deadline.

Measured: status 55 to 100 ms, off 100 to 170 ms. `-N 1 -R 2` bounds what a dead BMC costs (6 s instead of 20); our
deadline ends it earlier still. The password is in a file that ipmitool reads, never in its arguments, where every
user could see it. `-v` makes ipmitool say why a session failed, so that a wrong password is not taken for silence.
"""

from __future__ import annotations

import re

from futago.cluster.fence import Power
from futago.runtime import process
from futago.runtime.faults import Refused, Unknown
from futago.setup.fences import FenceDevice as FenceSettings

_MEANINGS = {
    "RAKP 2 HMAC is invalid": "it refuses the password of {user}",
    "unauthorized name": "it has no user {user}",
    "invalid authentication algorithm": "it does not offer cipher suite {cipher}",
    "insufficient resources": "it has no session left",
}
"""What ipmitool says with -v when the BMC answered with a no."""
_SILENT = ("Get Auth Capabilities error", "Unable to establish", "timeout", "no response", "Could not open socket")
_STATE = re.compile(r"Chassis Power is (on|off)", re.IGNORECASE)
DEFAULT_CIPHER = "3"


class IpmiDriver:
    """One BMC, by IPMI 2.0 over the network (lanplus).

    Options: `cipher` (cipher suite, 3), `port` (623), `privilege` (ADMINISTRATOR; some BMCs let OPERATOR switch power).
    """

    has_sessions = True

    def __init__(self, settings: FenceSettings) -> None:
        options = settings.options
        self._cipher = options.get("cipher", DEFAULT_CIPHER)
        self._user = settings.user
        self._command = [
            *("ipmitool", "-v", "-I", "lanplus", "-C", self._cipher, "-N", "1", "-R", "2"),
            *("-H", settings.address, "-U", settings.user, "-f", settings.password_file),
            *(("-p", options["port"]) if "port" in options else ()),
            *(("-L", options["privilege"]) if "privilege" in options else ()),
        ]

    async def status(self, *, deadline_s: float) -> Power:
        """Ask for the chassis' power."""
        said = await self._tool("status", deadline_s=deadline_s)
        found = _STATE.search(said)
        if found is None:
            raise Unknown(f"the BMC's answer cannot be understood: {said[-120:]}")
        return Power(found[1].lower())

    async def order(self, wanted: Power, *, deadline_s: float) -> None:
        """Order `chassis power on` or `off`, which is hard."""
        await self._tool(wanted.value, deadline_s=deadline_s)

    async def _tool(self, verb: str, *, deadline_s: float) -> str:
        try:
            ended = await process.run([*self._command, "chassis", "power", verb], deadline_s=deadline_s)
        except Unknown as e:
            raise Unknown(f"it does not answer: {e}") from e
        if ended.code == 0:
            return ended.out
        said = f"{ended.err}\n{ended.out}"
        for words, meaning in _MEANINGS.items():
            if words in said:
                raise Refused(meaning.format(user=self._user, cipher=self._cipher))
        if any(words in said for words in _SILENT):
            raise Unknown("it does not answer")
        raise Refused(f"it refused `{verb}`: {ended.last_words}")
