"""Several devices of one member, in order: first this, then that.

The idea: keys on a ring. The first one that turns locks the door, and that one must turn again when it is to be opened.
A device that says neither yes nor no may still act later; that is harmless in the direction of off,
which is wanted, and the only one that is tried further.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from futago.cluster.fence import Power
from futago.cluster.fence.device import Device
from futago.runtime.faults import Refused, Unknown, WorldFault


class Levels:
    """A member's devices.

    Args:
        devices: at least one, in order of preference.
    """

    def __init__(self, devices: Sequence[Device]) -> None:
        self.devices = tuple(devices)
        self._cut_by: Device | None = None

    @property
    def cut_by(self) -> str:
        """The device that confirmed the last off; empty if none has."""
        return self._cut_by.place if self._cut_by is not None else ""

    async def power(self) -> Power:
        """Return the answer of the first device that gives one. Raises Refused or Unknown if none does."""
        faults: list[WorldFault] = []
        for device in self.devices:
            try:
                found = await device.power()
            except WorldFault as e:
                faults.append(e)
                continue
            if found is not Power.UNKNOWN or device is self.devices[-1]:
                return found
        raise _sum(faults)

    async def off(self, is_wanted: Callable[[], bool] = lambda: True) -> None:
        """Power off by the first device that confirms it, each tried as often as its settings say.

        Args:
            is_wanted: asked before each further try: a machine that came back meanwhile and is harmless is left alone.

        Raises:
            Refused: every device refused, so nothing was done. Unknown: none confirmed, and one may have done it.
        """
        faults: list[WorldFault] = []
        for device in self.devices:
            for _ in range(device.attempts):
                if faults and not is_wanted():
                    raise _sum([*faults, Unknown("not tried further: it is not wanted any more")])
                try:
                    await device.off()
                except WorldFault as e:
                    faults.append(e)
                else:
                    self._cut_by = device
                    return
        raise _sum(faults)

    async def on(self) -> None:
        """Power on by all devices at once, which each order nothing if the machine is on already: behind a socket that is
        on again there may be a machine that waits for its button.

        Raises:
            Refused, Unknown: the device that cut the power does not confirm, or none does.
        """
        results = await asyncio.gather(*(device.on() for device in self.devices), return_exceptions=True)
        faults: list[WorldFault] = []
        for device, result in zip(self.devices, results, strict=True):
            if isinstance(result, WorldFault):
                faults.append(result)
                if device is self._cut_by:
                    raise result
            elif result is not None:
                raise result
        if len(faults) == len(self.devices):
            raise _sum(faults)


def _sum(faults: Sequence[WorldFault]) -> WorldFault:
    """Return one fault for several: it may have happened as soon as one may."""
    told = "; ".join(dict.fromkeys(str(f) for f in faults)) or "no device knows"
    return Refused(told) if faults and all(isinstance(f, Refused) for f in faults) else Unknown(told)
