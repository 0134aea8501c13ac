"""Stopping a member by force: the port that every kind of device fills, one file per kind."""

from __future__ import annotations

from enum import Enum
from typing import Protocol


class Power(Enum):
    """What a device says about the power of its machine."""

    ON = "on"
    OFF = "off"
    UNKNOWN = "unknown"


class FenceDevice(Protocol):
    """One device that can power one member off and on."""

    async def power(self) -> Power:
        """Ask the state. Raises Refused if the device refuses us, Unknown if it does not answer."""

    async def off(self) -> None:
        """Power off; return when the device says that it is off.

        Raises:
            Refused: the device says that the machine is still on, or refuses us. Unknown: it does not say.
        """

    async def on(self) -> None:
        """Order power on. Raises as `off`."""
