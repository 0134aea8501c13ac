"""The fencing token: the highest epoch this agent has ever been told of, on disk before it counts.

Whoever declares a lower epoch gives no orders here, however well it is connected (invariant I7). The value only ever
grows.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

from futago.agent.slots import SlotFile
from futago.runtime.faults import Corrupt


class EpochFence:
    """Keeps the highest epoch in a two-slot file."""

    def __init__(self, path: Path) -> None:
        self._file = SlotFile(path)
        self._where = path
        self._lock = asyncio.Lock()
        self.highest = 0

    def load(self) -> None:
        """Read the file (blocking; once, at the start).

        Raises:
            Corrupt: it cannot be trusted; without it a stale member might be obeyed.
            Refused: it cannot be read.
        """
        content = self._file.read()
        if content is None:
            return
        if not content.isdigit():
            raise Corrupt(f"{self._where}: not an epoch")
        self.highest = int(content)

    def admits(self, epoch: int) -> bool:
        """Tell whether orders of `epoch` may be taken."""
        return epoch >= self.highest

    async def learn(self, epoch: int) -> None:
        """Raise the mark to `epoch` if that is higher; it counts once it is on disk.

        Raises:
            Refused: it is not on disk.
        """
        async with self._lock:
            if epoch > self.highest:
                await asyncio.to_thread(self._file.write, str(epoch).encode("ascii"))
                self.highest = epoch
