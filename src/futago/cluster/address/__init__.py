"""The address at which clients find the serving member: the port that every way of moving it fills.

Two halves. The near half (floating.py) is this machine's own interface: the kernel takes an address or gives it up at
once, and cannot be unsure. The far half (`Mover`) is whatever leads packets here: nothing on one subnet, where a shout
to the neighbours is enough; a cloud's API or a user's program elsewhere. The far half may be slow, may refuse, and may
leave us not knowing; that is why its outcomes are three.
"""

from __future__ import annotations

from enum import Enum
from typing import Protocol


class Where(Enum):
    """What the far half says about where the address leads."""

    HERE = "here"
    ELSEWHERE = "elsewhere"


class Mover(Protocol):
    """Leads the address to this member. Each call has a deadline of its own; cancelling it ends all that it began."""

    needs_release: bool
    """Must the far half confirm before the address counts as given up? False where the taker can take it from us."""

    async def acquire(self) -> None:
        """Lead the address here, whoever has it; return when it was seen to lead here.

        Raises:
            Refused: it certainly does not lead here by this call. Unknown: it may, now or a little later.
        """

    async def release(self) -> None:
        """Lead it here no longer. Raises as `acquire`."""

    async def where(self) -> Where:
        """Ask where it leads now. Raises Refused (we may not ask) or Unknown (no answer)."""

    async def close(self) -> None:
        """End what was kept ready; the address stays as it is."""
