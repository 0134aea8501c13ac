"""Asking a fence device for its machine's power state, once, at set-up. Switching power is the controller's business.

The password goes through a file that only root can read, never through a command line or the environment of a
long-lived program.
"""

from __future__ import annotations

import os
import re
import tempfile
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from futago.runtime.faults import OperatorFault, Refused
from futago.setup import machine
from futago.setup.files import fence_password_file, read_secret
from futago.setup.settings import FenceDevice

DEADLINE_S = 15.0


@dataclass(frozen=True, slots=True)
class FencePlan:
    """A fence device and the password to it, before the password has its own file."""

    device: FenceDevice
    password: str


def parse_fence(url: str, password_file: Path | None, *, member: str) -> FencePlan:
    """Return the fence device that `ipmi://user@address` names, with the password from the file.

    Raises:
        OperatorFault: another scheme, a part missing or too many, or no usable password.
    """
    example = "Write it as in ipmi://admin@192.0.2.201 and give the password with --fence-password-file."
    parts = urlsplit(url)
    if parts.scheme != "ipmi":
        raise OperatorFault(
            f"--fence: there is no fence driver `{parts.scheme or url}`; there is: ipmi.",
            hint=example,
            code="fence.driver",
        )
    if parts.password:
        raise OperatorFault(
            "--fence: a password in a command line can be read by everybody on this machine.",
            hint=example,
            code="fence.password",
        )
    if not parts.username or not parts.hostname or parts.path not in ("", "/") or parts.query or parts.fragment:
        raise OperatorFault(f"--fence: `{url}` is not complete.", hint=example, code="fence.address")
    if not re.fullmatch(r"[A-Za-z0-9._:-]+", parts.hostname) or not re.fullmatch(
        r"[A-Za-z0-9._@-]{1,32}", parts.username
    ):
        raise OperatorFault(
            f"--fence: `{url}` holds characters that no address or user has.", hint=example, code="fence.address"
        )
    if password_file is None:
        raise OperatorFault("--fence needs --fence-password-file.", hint=example, code="fence.password")
    password = read_secret(password_file, option="--fence-password-file")
    where = fence_password_file(member)
    return FencePlan(FenceDevice("ipmi", parts.hostname, parts.username, str(where)), password)


def power_state(plan: FencePlan) -> str:
    """Return "on" or "off", in the device's own opinion.

    Raises:
        Refused: it does not answer, refuses the user or password, or says neither.
    """
    descriptor, name = tempfile.mkstemp(prefix="futago-fence-")
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as f:
            f.write(plan.password)
        said = _ipmi(plan, Path(name))
    finally:
        Path(name).unlink()
    for state in ("on", "off"):
        if f"Chassis Power is {state}" in said:
            return state
    raise Refused(f"it says `{said.strip()[:100]}`")


def _ipmi(plan: FencePlan, password_file: Path) -> str:
    device = plan.device
    args = ["ipmitool", "-v", "-I", "lanplus", "-C", "3", "-N", "1", "-R", "2", "-H", device.address, "-U", device.user]
    done = machine.attempt([*args, "-f", str(password_file), "chassis", "power", "status"], deadline_s=DEADLINE_S)
    if done.returncode == 0:
        return done.stdout
    for said, meaning in _MEANINGS.items():
        if said in done.stderr:
            raise Refused(meaning.format(user=device.user))
    raise Refused(f"ipmitool said: {(done.stderr.strip().splitlines() or ['nothing'])[-1][:200]}")


_MEANINGS = {
    "RAKP 2 HMAC is invalid": "it refuses the password of {user}",
    "unauthorized name": "it has no user {user}",
    "Get Auth Capabilities error": "it does not answer",
    "invalid authentication algorithm": "it does not offer cipher suite 3",
}
"""What ipmitool says with -v, and what that means."""
