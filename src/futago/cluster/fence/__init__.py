"""Stopping a member by force.

Lives here: the nouns of the port. The rooms: one file per kind of device (`ipmi`, `command`, ...), each a *driver* that
tries one thing once; `device` turns a driver into something that is believed only when it has confirmed; `levels` puts a
member's devices in order; `worker` is the desk that orders, tests and remembers. Must not live here: whom to stop, and
when.

The idea: a shot counts when the target is seen to lie. Whatever a device answers to the order, its state is read again,
and silence is a third outcome, never success.
"""

from __future__ import annotations

from enum import Enum
from typing import Protocol


class Power(Enum):
    """What a device says about the power of its machine. UNKNOWN is an answer too: "I do not know", "in between"."""

    ON = "on"
    OFF = "off"
    UNKNOWN = "unknown"


class Driver(Protocol):
    """How one kind of device is spoken to: one try each, in a process of its own, nobody waits here for an effect.

    Both raise Refused (it certainly did not happen: wrong account, unknown machine, the device says no) or Unknown (no
    answer within `deadline_s` seconds, or one that cannot be understood).

    `has_sessions`: an order is given within a session that was opened for it, so that none can wait in a device that hangs.
    """

    has_sessions: bool

    async def status(self, *, deadline_s: float) -> Power:
        """Ask for the state."""

    async def order(self, wanted: Power, *, deadline_s: float) -> Power | None:
        """Order ON or OFF (hard, without asking the operating system); return when the device has taken the order.

        Returns the state that the device told afterwards in the same breath; None: it was not asked.
        """


class FenceDevice(Protocol):
    """What can power one member off and on: a device, or several in order.

    All raise Refused (the machine is certainly as it was, or the device refuses us) or Unknown (it may be).
    """

    async def power(self) -> Power:
        """Ask for the state."""

    async def off(self) -> None:
        """Power off; return when a device confirms that the machine is off."""

    async def on(self) -> None:
        """Power on; return when a device confirms that the machine is on."""
