"""The settings of a fence device, `[[members.fence]]`: which device can power a member off, in order of preference.

Light, as settings.py is: the controller reads it at start-up. Lives here: the nouns and what each kind of device needs.
Must not live here: how a device is spoken to (cluster/fence, one file per kind). A new kind is a row in SHAPES here, a
file there, and a row in cluster/fence/kinds.py.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

LEVELS_MAX = 4
ATTEMPTS_MAX = 10
DEADLINE_S = (1.0, 300.0)  # clouds stop a machine in a minute
DEFAULT_DEADLINE_S = 10.0


class FenceDevice(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One device that can power one member off.

    Args:
        driver: a key of SHAPES.
        address: where it answers; what that means is the driver's business.
        user: the account on it.
        password_file: holds the account's password; readable by root only.
        program: what is run, for the drivers that run something of the user's.
        options: what the driver takes besides, by name.
        attempts: how often the device is tried before the next one is.
        deadline_s: seconds that one attempt may take until the device confirms.
    """

    driver: str
    address: str = ""
    user: str = ""
    password_file: str = ""
    program: str = ""
    options: dict[str, str] = {}
    attempts: int = 1
    deadline_s: float = DEFAULT_DEADLINE_S

    @property
    def place(self) -> str:
        """The device in one word, for people."""
        return self.address or self.program


@dataclass(frozen=True, slots=True)
class Shape:
    """What a kind of device needs, and may be given. `options`: None if it takes any."""

    needs: frozenset[str]
    may: frozenset[str] = frozenset()
    options: frozenset[str] | None = frozenset()
    needs_options: frozenset[str] = frozenset()


_ACCOUNT = frozenset({"address", "user", "password_file"})
SHAPES = {
    "ipmi": Shape(needs=_ACCOUNT, options=frozenset({"cipher", "port", "privilege"})),
    "redfish": Shape(needs=_ACCOUNT, options=frozenset({"fingerprint", "port", "system"})),
    "agent": Shape(needs=frozenset({"program"}), may=_ACCOUNT, options=None),
    "aws": Shape(
        needs=frozenset({"address"}),
        may=_ACCOUNT,
        options=frozenset({"region", "endpoint"}),
        needs_options=frozenset({"region"}),
    ),
    "command": Shape(needs=frozenset({"program"}), may=_ACCOUNT),
}
_FIELDS = ("address", "user", "password_file", "program")


def shot_s_max(devices: Sequence[FenceDevice]) -> float:
    """Return how many seconds it takes at most until the last of a member's devices has been tried."""
    return sum(d.attempts * d.deadline_s for d in devices)


def problem(device: FenceDevice) -> str:
    """Return what is wrong with the settings of a device, as half a sentence that begins with its field; empty if they
    can be used.
    """
    shape = SHAPES.get(device.driver)
    if shape is None:
        return f"driver is `{device.driver}`; there is: {', '.join(sorted(SHAPES))}"
    for field in _FIELDS:
        value = getattr(device, field)
        if field in shape.needs and not value:
            return f"{field} is missing, which the driver {device.driver} needs"
        if value and field not in shape.needs | shape.may:
            return f"{field} has no meaning for the driver {device.driver}"
    if device.user and not device.password_file:
        return f"password_file is missing: {device.user} has a password"
    return _problem_of_options(device, shape) or _problem_of_patience(device)


def _problem_of_options(device: FenceDevice, shape: Shape) -> str:
    if missing := shape.needs_options - set(device.options):
        return f"options.{min(missing)} is missing, which the driver {device.driver} needs"
    unknown = set() if shape.options is None else set(device.options) - shape.options
    if unknown:
        known = ", ".join(sorted(shape.options or ())) or "none"
        return f"options.{min(unknown)} is not an option of the driver {device.driver}; there is: {known}"
    for name, value in device.options.items():
        if not re.fullmatch(r"[A-Za-z0-9_-]{1,64}", name) or not value.isprintable():
            return f"options.{name} holds characters that no option has"
    return ""


def _problem_of_patience(device: FenceDevice) -> str:
    if not 1 <= device.attempts <= ATTEMPTS_MAX:
        return f"attempts is {device.attempts}; it must be 1 to {ATTEMPTS_MAX}"
    low, high = DEADLINE_S
    if not low <= device.deadline_s <= high:
        return f"deadline_s is {device.deadline_s:g}; it must be {low:g} to {high:g}"
    return ""
