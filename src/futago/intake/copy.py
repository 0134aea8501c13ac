"""The copy of the other member's journal on this disk: checked record by record, appended as it came."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

from futago.intake.journal import repair
from futago.intake.model import Position, Protocol, Record
from futago.intake.segment import scan, walk
from futago.intake.wire import Records
from futago.intake.writer import Batch, JournalWriter
from futago.runtime.faults import RemoteProtocolFault

INTERVAL_S = 0.01  # between syncs of the copy
REMEMBERED = frozenset({int(Protocol.SNMP_UDP), int(Protocol.CUSTOM_TRAP)})  # their repetitions are known by them
ROOM_BYTES = 16 << 20  # more than that waits for the disk: do not take more from the network


class JournalCopy:
    """Appends what the peer sends. To be made inside the running loop.

    Args:
        root: where the copy is.
        last, damaged: incarnation -> last sequence in it, and places that do not pass their check; from `repair`.
    """

    def __init__(self, root: Path, last: dict[str, int], *, damaged: int = 0) -> None:
        self._loop = asyncio.get_running_loop()
        self._news = asyncio.Event()
        self._flow = asyncio.Event()
        self._handed = dict(last)
        self.damaged = damaged
        self.last = dict(last)  # incarnation -> last durable sequence
        # Told of the notifications and custom traps that were taken, with their incarnation.
        self.on_notifications: Callable[[str, list[Record]], None] = lambda incarnation, records: None
        self.writer = JournalWriter(root, on_synced=self._tell, interval_s=INTERVAL_S)

    @classmethod
    def open(cls, root: Path) -> JournalCopy:
        """Repair what is on the disk and go on behind it."""
        found = repair(root, are_all_ended=False)
        return cls(root, found.last, damaged=found.damaged)

    @property
    def position(self) -> Position | None:
        """What was synced last, since this receiver started; else the end of the newest incarnation."""
        if self.writer.synced is not None:
            return self.writer.synced
        if self.last:
            incarnation = list(self.last)[-1]
            return Position(incarnation, self.last[incarnation])
        return None

    def has(self, position: Position) -> bool:
        """Return whether everything up to `position` of that incarnation is durable here."""
        return self.last.get(position.incarnation, 0) >= position.sequence

    def append(self, message: Records) -> None:
        """Take records; those that are here already are passed over.

        Raises:
            RemoteProtocolFault: they do not pass their check.
        """
        found = walk(message.data, choose=REMEMBERED)
        if found.end != len(message.data) or not found.first or found.last != message.last:
            raise RemoteProtocolFault("records that do not pass their check")
        known = self._handed.get(message.incarnation.id, 0)
        first, data = found.first, message.data
        if first <= known:
            unknown = [record for record in scan(data).records if record.sequence > known]
            data = data[len(data) - sum(record.stored_bytes for record in unknown) :]
            first = unknown[0].sequence if unknown else 0
        if data:
            self._handed[message.incarnation.id] = message.last
            self.writer.append(Batch(message.incarnation, first, message.last, len(data), [data]))
            if found.chosen:
                self.on_notifications(message.incarnation.id, found.chosen)

    async def room(self) -> None:
        """Wait while the disk does not keep up."""
        while self.writer.pending_bytes > ROOM_BYTES:
            self._flow.clear()
            await self._flow.wait()

    async def settle(self) -> None:
        """Wait until everything that was taken is durable."""
        while self.writer.pending_bytes:
            self._flow.clear()
            await self._flow.wait()
        self._note()

    async def synced_after(self, said: Position | None) -> Position:
        """Return what is synced, as soon as that is not `said`."""
        while True:
            self._news.clear()
            synced = self.writer.synced
            if synced is not None and synced != said:
                return synced
            await self._news.wait()

    def close(self) -> None:
        """Write what was taken and end."""
        self.writer.close()

    def _tell(self) -> None:  # in the writing thread
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._synced)

    def _synced(self) -> None:
        self._note()
        self._news.set()
        self._flow.set()

    def _note(self) -> None:
        synced = self.writer.synced
        if synced is None:
            return
        for incarnation, handed in self._handed.items():  # in the order in which the writer took them
            if incarnation == synced.incarnation:
                self.last[incarnation] = max(self.last.get(incarnation, 0), synced.sequence)
                return
            self.last[incarnation] = handed
