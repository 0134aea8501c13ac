"""The address of the pair as its controller sees it: the near half and the far half together.

Lives here: the order of the two halves, what counts as held, and looking again while it is worn. Must not live here:
when it may be held (rules.py). The idea: a sign over the door and the entry in the street directory. The sign goes up
first and comes down first, for it is ours; the entry follows as fast as its keeper works, and is read again now and
then, since others may write there too.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from futago.cluster.address import Mover, Where
from futago.cluster.address.floating import FloatingAddress
from futago.runtime.faults import Refused, Unknown, WorldFault
from futago.runtime.log import Log

LOOK_AGAIN_S = 5.0  # each look is a call to somebody's API


class CarriedAddress:
    """Both halves.

    Args:
        near: the address on our own interface.
        mover: the far half; None where the neighbours need only be told.
        on_change: called when `is_held` may have changed.
    """

    def __init__(self, near: FloatingAddress, *, mover: Mover | None, on_change: Callable[[], None], log: Log) -> None:
        self.near, self._mover, self._on_change, self._log = near, mover, on_change, log
        self._leads_here: bool | None = None
        self._error = ""
        self._look: asyncio.Task[None] | None = None

    @property
    def is_held(self) -> bool | None:
        """True: it is surely ours. False: surely given up. None: in between, or unknown."""
        near = self.near.is_held
        if self._mover is None or near is self._leads_here:
            return near
        return None

    @property
    def has_carrier(self) -> bool:
        return self.near.has_carrier

    @property
    def interface(self) -> str:
        return self.near.interface

    @property
    def addresses(self) -> tuple[str, ...]:
        """The addresses on our own interface, without prefix length; what the guard would take away."""
        return self.near.addresses

    def conflict(self) -> str:
        """Return the hardware address of another machine that answers for it; empty if none does."""
        return self.near.conflict()

    def answers(self) -> bool | None:
        """Does anybody answer for it while it is not ours? None: not known. To be called again and again."""
        return self.near.answers()

    def trouble(self) -> str:
        """Return why this member itself cannot keep it; empty if it can."""
        return self.near.trouble()

    def error(self) -> str:
        """Return what is wrong with it, for people; empty if nothing is."""
        return self.near.trouble() or self._error

    async def hold(self) -> None:
        """Take it. Raises Refused or Unknown."""
        self.near.hold()
        if self._mover is None:
            return
        try:
            await self._mover.acquire()
        except WorldFault as e:
            self._put(leads_here=None, error=f"the address cannot be led here: {e}")
            raise
        except asyncio.CancelledError:
            self._put(leads_here=None, error="")
            raise
        self._put(leads_here=True, error="")
        self._log.event("address.leads-here")
        if self._look is None:
            self._look = asyncio.create_task(self._keep_looking())

    async def drop(self) -> None:
        """Give it up: our own half at once, whatever the other half does. Raises Refused or Unknown."""
        self.drop_now()
        if self._mover is not None and self._mover.needs_release and self._leads_here is not False:
            try:
                await self._mover.release()
            except WorldFault as e:
                self._put(leads_here=None, error=f"the address cannot be given up: {e}")
                raise
            self._put(leads_here=False, error="")

    def drop_now(self) -> None:
        """Give up what needs nobody but our own kernel. Raises Refused."""
        if self._look is not None:
            self._look.cancel()
            self._look = None
        self.near.drop()
        if self._mover is not None and not self._mover.needs_release:
            self._put(leads_here=False, error="")

    async def close(self) -> None:
        """End watching; everything stays as it is."""
        if self._look is not None:
            self._look.cancel()
        self.near.close()
        if self._mover is not None:
            await self._mover.close()

    def _put(self, *, leads_here: bool | None, error: str) -> None:
        has_changed = (leads_here, error) != (self._leads_here, self._error)
        self._leads_here, self._error = leads_here, error
        if has_changed:
            self._on_change()

    async def _keep_looking(self) -> None:
        """An API that is silent disturbs nobody who is served; one that says "elsewhere" does."""
        assert self._mover is not None
        while True:
            await asyncio.sleep(LOOK_AGAIN_S)
            try:
                where = await self._mover.where()
            except (Refused, Unknown) as e:
                self._put(leads_here=self._leads_here, error=f"nobody tells where the address leads: {e}")
                continue
            if where is Where.HERE:
                self._put(leads_here=self._leads_here, error="")
            else:
                self._log.warning("address.led-away")
                self._put(leads_here=False, error="the address leads elsewhere")
