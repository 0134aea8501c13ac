"""A baseboard management controller, spoken to by ipmitool in a process of its own with a deadline.

Measured: status 55 to 100 ms, off 100 to 170 ms. `-N 1 -R 2` bounds what a dead BMC costs (6 s instead of 20); our
deadline ends it earlier still. The password is in a file that ipmitool reads, never in its arguments, where every
user could see it. `-v` makes ipmitool say why a session failed, so that a wrong password is not taken for silence.
"""

from __future__ import annotations

import re
from pathlib import Path

from futago.cluster.fence import Power
from futago.runtime import process
from futago.runtime.faults import Refused, Unknown, WorldFault
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
_OFF = str(Path(__file__).with_name("ipmi_off.txt"))
"""The order and the question after it, for `ipmitool exec`, which goes on after a line that the BMC refused (ipmitool(1))."""
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
        said = await self._run(["chassis", "power", "status"], deadline_s=deadline_s)
        found = _STATE.search(said)
        if found is None:
            raise Unknown(f"the BMC's answer cannot be understood: {said[-120:]}")
        return Power(found[1].lower())

    async def order(self, wanted: Power, *, deadline_s: float) -> Power | None:
        """Order `chassis power on` or `off`, which is hard. An off is asked after within the same session: a session costs more than both."""
        if wanted is Power.ON:
            await self._run(["chassis", "power", "on"], deadline_s=deadline_s)
            return None
        ended = await self._ended(["exec", _OFF], deadline_s=deadline_s)
        found = _STATE.search(ended.out)
        if found is not None and found[1].lower() == "off":
            return Power.OFF  # some refuse to power off what is off: the state counts
        if ended.code:
            raise self._fault("power off", ended)
        return None

    async def _run(self, words: list[str], *, deadline_s: float) -> str:
        ended = await self._ended(words, deadline_s=deadline_s)
        if ended.code:
            raise self._fault(" ".join(words[1:]), ended)
        return ended.out

    async def _ended(self, words: list[str], *, deadline_s: float) -> process.Ended:
        try:
            return await process.run([*self._command, *words], deadline_s=deadline_s)
        except Unknown as e:
            raise Unknown(f"it does not answer: {e}") from e

    def _fault(self, order: str, ended: process.Ended) -> WorldFault:
        said = f"{ended.err}\n{ended.out}"
        for words, meaning in _MEANINGS.items():
            if words in said:
                return Refused(meaning.format(user=self._user, cipher=self._cipher))
        if any(words in said for words in _SILENT):
            return Unknown("it does not answer")
        return Refused(f"it refused `{order}`: {ended.last_words}")
