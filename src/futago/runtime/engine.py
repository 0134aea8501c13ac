"""What the manager gives to an engine, and what an engine is.

An engine is a loop of one column (intake, monitoring, jobs, notify) that runs on the primary only, while the gate
is open. It owns no state that matters: everything is rows, so it may be cancelled anywhere and started again
elsewhere. This room holds the shapes; manager.py starts and ends engines.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from futago.runtime.log import Log
    from futago.setup.settings import Settings
    from futago.store.commit import Store


class Outward:
    """Whether effects outside the pair (orders to agents, notifications) are allowed now: only when the other
    member surely has none (S5).
    """

    def __init__(self, *, is_allowed: bool = False) -> None:
        self._event = asyncio.Event()
        self.set(is_allowed)

    @property
    def is_allowed(self) -> bool:
        """Whether an effect may begin at this instant. Ask again before each one."""
        return self._event.is_set()

    async def wait(self) -> None:
        """Wait until effects are allowed."""
        await self._event.wait()

    def set(self, is_allowed: bool) -> None:
        """For the manager only."""
        if is_allowed:
            self._event.set()
        else:
            self._event.clear()


def no_beat(_engine: str) -> None:
    """Ignore a beat (tests, tools)."""


@dataclass(frozen=True, slots=True)
class EngineContext:
    """The world of an engine for the time of one epoch.

    `epoch` goes into everything that leaves the pair. `beat(engine_name)` says that the engine's own loop has
    turned: shown to people, decides nothing.
    """

    settings: Settings
    store: Store
    epoch: int
    outward: Outward
    log: Log
    beat: Callable[[str], None] = no_beat


class Engine(Protocol):
    """A loop of one column.

    It tolerates cancellation at every await. On Unknown it re-reads its rows and goes on. Any exception that leaves
    `run` ends the manager, which systemd starts again.
    """

    async def run(self) -> None:
        """Run until cancelled."""
        ...
