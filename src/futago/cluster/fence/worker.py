"""The desk of the fence devices: carries out orders, and finds out every half minute whether it could.

Lives here: both members' devices, the self-test, and the outcomes as facts. Must not live here: whom to stop, and
when. The idea: a fire extinguisher with a date on it. A device that nobody has tried is not counted on, so each is
asked for its power state all the time, our own included: the peer will need that one.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass, replace

from futago.cluster.facts import Board
from futago.cluster.fence import FenceDevice, Power
from futago.cluster.fence.ipmi import IpmiDevice
from futago.cluster.model import At, Epoch, Fence, FenceOutcome
from futago.runtime.clock import S, now_at
from futago.runtime.faults import Refused, Unknown, WorldFault
from futago.runtime.log import Log
from futago.setup.settings import FenceDevice as FenceSettings
from futago.setup.settings import Settings

TEST_EVERY_S = 30.0
FRESH = 90 * S  # three tests missed

_KINDS: dict[str, Callable[[FenceSettings], FenceDevice]] = {"ipmi": IpmiDevice}


@dataclass(frozen=True, slots=True)
class Tested:
    """The last self-test of one device."""

    member: str
    driver: str
    state: Power = Power.UNKNOWN
    at: int | None = None  # of the last success
    error: str = ""

    def is_fresh(self, now: int) -> bool:
        """Did it answer lately?"""
        return self.at is not None and not self.error and now - self.at <= FRESH


class FenceDesk:
    """Both members' devices."""

    def __init__(self, settings: Settings, *, board: Board, log: Log) -> None:
        self._board, self._log = board, log
        self.tested: dict[str, Tested] = {}
        self._devices: dict[str, FenceDevice] = {}
        self._settings = settings
        self._news = asyncio.Event()
        self.reload(settings)

    def reload(self, settings: Settings) -> None:
        """Take up changed settings."""
        self._settings = settings
        with_device = {m.name: m.fence for m in settings.members if m.fence is not None}
        self._devices = {name: _KINDS[f.driver](f) for name, f in with_device.items()}
        self.tested = {name: self.tested.get(name, Tested(name, f.driver)) for name, f in with_device.items()}
        peer = settings.peer
        self._board.put_fence(is_configured=peer is not None and peer.name in self._devices)
        self._news.set()

    async def off(self, epoch: Epoch) -> None:
        """Power the other member off. The outcome becomes the fact; never raises a fault of the world."""
        device = self._peer_device()
        if device is None:
            return
        self._board.put(
            fence=Fence(
                is_configured=True, outcome=FenceOutcome.PENDING, epoch=epoch, at=None, is_powered_on_again=False
            )
        )
        try:
            await device.off()
            outcome, why = FenceOutcome.OFF, ""
        except Refused as e:
            outcome, why = FenceOutcome.FAILED, str(e)
        except Unknown as e:
            outcome, why = FenceOutcome.UNKNOWN, str(e)
        except asyncio.CancelledError:
            self._board.put_fence(outcome=FenceOutcome.UNKNOWN, at=At(now_at()))
            raise
        self._log.event("fence.off", epoch=epoch, outcome=outcome.value, why=why)
        self._note(self._settings.peer.name if self._settings.peer else "", Power.OFF if not why else None, why)
        self._board.put_fence(outcome=outcome, at=At(now_at()))

    async def on(self, epoch: Epoch) -> None:
        """Power the other member on. Raises Refused or Unknown."""
        device = self._peer_device()
        if device is None:
            raise Refused("the other member has no fence device")
        await device.on()
        self._log.event("fence.on", epoch=epoch)
        if self._board.fence.epoch != epoch:  # asked for without a shot before
            self._board.put(fence=Fence(is_configured=True, epoch=epoch))
        self._board.put_fence(is_powered_on_again=True)

    def forget(self, epoch: Epoch) -> None:
        """What was done to the other member in an earlier epoch says nothing about this one."""
        if self._board.fence.is_powered_on_again and self._board.fence.epoch != epoch:
            self._board.put_fence(is_powered_on_again=False)

    async def peer_power(self) -> Power:
        """Ask the other member's device now. Raises Refused or Unknown."""
        device = self._peer_device()
        if device is None:
            raise Refused("the other member has no fence device")
        return await device.power()

    async def run(self) -> None:
        """Test all devices for ever; at once after new settings, since a device that was never tested protects
        nobody."""
        while True:
            self._news.clear()
            async with asyncio.TaskGroup() as group:
                for name, device in list(self._devices.items()):
                    group.create_task(self._test(name, device))
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(TEST_EVERY_S):
                    await self._news.wait()

    async def _test(self, name: str, device: FenceDevice) -> None:
        try:
            self._note(name, await device.power(), "")
        except WorldFault as e:
            if not self.tested[name].error:
                self._log.warning("fence.test-failed", member=name, error=str(e))
            self._note(name, None, str(e))

    def _note(self, name: str, state: Power | None, error: str) -> None:
        if name not in self.tested:
            return
        was = self.tested[name]
        if state is None:
            self.tested[name] = replace(was, state=Power.UNKNOWN, error=error)
        else:
            self.tested[name] = replace(was, state=state, at=now_at(), error="")

    def _peer_device(self) -> FenceDevice | None:
        peer = self._settings.peer
        return self._devices.get(peer.name) if peer is not None else None
