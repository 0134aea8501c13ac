"""The manager's own runs (requests, checks, transfers) of this process: under way, or ended and not committed.

A run begins only once `running` is committed. A manager that finds one running that it did not begin itself (a switch
came between) begins it again if it may be repeated; else nobody can know what became of it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

from futago.link.orders import DETAIL_CHARS_MAX, Outcome, RunEnded
from futago.runtime.faults import WorldFault

INTERRUPTED = "the manager changed while the request was under way"
T = TypeVar("T")
Errand = Callable[[asyncio.Event], Awaitable[RunEnded]]  # does it, and ends soon after the event says so


class Calls:
    """See the module. They outlive a board that was thrown away.

    `news` is set when one has ended: its end stands in `ended` until `forget`.
    """

    def __init__(self) -> None:
        self.news = asyncio.Event()
        self.ended: dict[str, RunEnded] = {}
        self._stops: dict[str, asyncio.Event] = {}
        self._taken: set[str] = set()  # runs that are to begin here, and have not
        self._tasks: set[asyncio.Task[None]] = set()

    def __contains__(self, run_id: str) -> bool:
        return run_id in self._stops or run_id in self.ended

    def take(self, run_id: str) -> None:
        """A run that nobody has begun is to be begun here, as soon as that is committed."""
        self._taken.add(run_id)

    def has_taken(self, run_id: str) -> bool:
        """Whether a run was to begin here and has not: so it has not begun anywhere, whatever became of the commit."""
        return run_id in self._taken

    def begin(self, run_id: str, errand: Errand) -> None:
        """Begin a run, unless it is known."""
        if run_id in self:
            return
        self._taken.discard(run_id)
        stop = self._stops[run_id] = asyncio.Event()
        task = asyncio.get_running_loop().create_task(self._make(run_id, errand, stop))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def end(self, said: RunEnded) -> None:
        """A run has ended so, or nobody knows what became of it."""
        self._stops.pop(said.run_id, None)
        self._taken.discard(said.run_id)
        self.ended[said.run_id] = said
        self.news.set()

    def forget(self, run_id: str) -> None:
        """The end is committed."""
        self.ended.pop(run_id, None)

    def stop(self, run_id: str) -> None:
        """Tell a run to end."""
        if run_id in self._stops:
            self._stops[run_id].set()

    async def close(self) -> None:
        """End everything that is under way."""
        tasks = set(self._tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    async def _make(self, run_id: str, errand: Errand, stop: asyncio.Event) -> None:
        try:
            said = await errand(stop)
        except (WorldFault, OSError, RuntimeError) as e:  # RuntimeError: uvloop, of a helper process that has died
            said = RunEnded(run_id, Outcome.UNKNOWN, detail=str(e)[:DETAIL_CHARS_MAX])
        self.end(said)


async def unless(stop: asyncio.Event, work: Coroutine[Any, Any, T]) -> T | None:
    """Return what `work` does; None, with the work cancelled, if `stop` is set before."""
    doing, stopping = asyncio.ensure_future(work), asyncio.ensure_future(stop.wait())
    try:
        await asyncio.wait({doing, stopping}, return_when=asyncio.FIRST_COMPLETED)
        return doing.result() if doing.done() else None
    finally:
        for one in (doing, stopping):
            one.cancel()
        await asyncio.wait({doing, stopping})
