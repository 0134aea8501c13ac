"""The receiver's door for the programs of its machine: one JSON request a line, one answer a line."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import msgspec

from futago.intake.consumed import Consumed
from futago.intake.custom_traps import CustomTrapDesk
from futago.runtime.unreadable import UNREADABLE

LINE_BYTES_MAX = 1 << 20


class _Request(msgspec.Struct, frozen=True):
    op: str
    positions: dict[str, dict[str, int]] = {}
    trap: str = ""  # a custom trap in JSON
    source: str = "0.0.0.0"  # noqa: S104  its client's address
    damaged: int = 0  # places of both journals that the intake has passed over


class LocalDoor:
    """Answers.

    Args:
        status: gives the status.
        consumed: learns what had its effect.
        met_damage: is told how many places of the journals were passed over.
        traps: takes custom traps.
    """

    def __init__(
        self,
        *,
        status: Callable[[], dict[str, object]],
        consumed: Consumed,
        traps: CustomTrapDesk,
        met_damage: Callable[[int], None] = lambda places: None,
    ) -> None:
        self._status = status
        self._met_damage = met_damage
        self._consumed = consumed
        self._traps = traps

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one connection until it ends."""
        try:
            while line := await reader.readline():
                writer.write(msgspec.json.encode(await self._answer(line)) + b"\n")
                await writer.drain()
        except (OSError, ValueError):
            pass  # the other program went away, or sent a line that is far too long
        finally:
            writer.close()

    async def _answer(self, line: bytes) -> dict[str, object]:
        try:
            request = msgspec.json.decode(line, type=_Request)
        except UNREADABLE as e:
            return {"ok": False, "error": f"not a request: {e}", "hint": 'Send {"op":"status"}.'}
        if request.op == "status":
            return {"ok": True, **self._status()}
        if request.op == "prune":
            self._consumed.learn(request.positions)
            self._met_damage(request.damaged)
            return {"ok": True}
        if request.op == "trap":
            taken = await self._traps.take(request.trap.encode("utf-8", "surrogatepass"), request.source)
            return {"ok": True, "outcome": taken.outcome}
        return {"ok": False, "error": f"unknown op {request.op}", "hint": "There are: status, prune, trap."}
