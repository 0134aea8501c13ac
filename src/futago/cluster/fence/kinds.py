"""Which driver speaks to which kind of device; what each needs in the settings is in setup/fences.py."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from futago.cluster.fence import Driver
from futago.cluster.fence.agent import AgentDriver
from futago.cluster.fence.aws import AwsDriver
from futago.cluster.fence.command import CommandDriver
from futago.cluster.fence.device import Device
from futago.cluster.fence.ipmi import IpmiDriver
from futago.cluster.fence.levels import Levels
from futago.cluster.fence.redfish import RedfishDriver
from futago.setup.fences import FenceDevice as FenceSettings

DRIVERS: dict[str, Callable[[FenceSettings], Driver]] = {
    "ipmi": IpmiDriver,
    "redfish": RedfishDriver,
    "agent": AgentDriver,
    "aws": AwsDriver,
    "command": CommandDriver,
}


def open_device(settings: FenceSettings) -> Device:
    """Return the device that the settings name; nothing is asked yet."""
    return Device(
        DRIVERS[settings.driver](settings),
        place=f"{settings.driver} {settings.place}",
        attempts=settings.attempts,
        deadline_s=settings.deadline_s,
    )


def open_levels(settings: Sequence[FenceSettings]) -> Levels:
    """Return a member's devices in order."""
    return Levels([open_device(s) for s in settings])
