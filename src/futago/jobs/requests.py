"""The engine's hand in what the manager does itself (a request, a check, a transfer): when it may begin, and what its
end does on the board.

It begins only once `running` is committed, and only while outward effects are allowed. What the rows call
running when the board is made anew is either known to this process, or was cut off by a switch.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from futago.jobs.board import Board, Entry
from futago.jobs.calls import INTERRUPTED, Calls
from futago.jobs.claims import presentable
from futago.jobs.errands import Errands
from futago.jobs.model import JobState
from futago.jobs.plan import ByManager
from futago.link.orders import Outcome, RunEnded
from futago.runtime.clock import now_utc
from futago.runtime.engine import Outward


class Requests:
    """See the module. One for each board; `calls` outlives it. `urgent()` is called when there is something to commit."""

    def __init__(
        self, board: Board, calls: Calls, errands: Errands, outward: Outward, urgent: Callable[[], None]
    ) -> None:
        self._board = board
        self._calls = calls
        self._errands = errands
        self._outward = outward
        self._urgent = urgent

    def order(self, entry: Entry) -> None:
        """Have the beginning of an ordered request committed."""
        if self._outward.is_allowed and self._board.take_order(entry.run_id, now_utc()):
            self._urgent()

    def begin(self, entry: Entry) -> None:
        """Make the request of a job whose beginning is committed."""
        work = entry.job.work
        if isinstance(work, ByManager) and entry.is_committed and entry.state is JobState.RUNNING:
            if entry.is_stopping and entry.run_id not in self._calls:
                self._calls.end(RunEnded(entry.run_id, Outcome.NOT_STARTED, detail="stopped before its start"))
            elif self._outward.is_allowed:
                self._calls.begin(entry.run_id, self._errands.of(entry.run_id, work, self._board.variables(entry)))

    def take_up(self) -> None:
        """Go on with requests that the rows call running: this process knows of them, or they were cut off."""
        for entry in list(self._board.entries.values()):
            work = entry.job.work
            if not isinstance(work, ByManager) or entry.state is not JobState.RUNNING or entry.run_id in self._calls:
                continue
            if work.may_repeat:
                self.begin(entry)
            else:
                self._calls.end(RunEnded(entry.run_id, Outcome.UNKNOWN, detail=INTERRUPTED))
        self._calls.news.set()

    def let_out(self) -> None:
        """Outward effects have become allowed: begin what has been waiting for it."""
        for entry in [e for e in self._board.entries.values() if e.is_call]:
            self.order(entry)
            self.begin(entry)

    async def hear(self, room: asyncio.Event) -> None:
        """Put the ends of requests on the board, until cancelled; `room` is set while it takes more."""
        while True:
            await self._calls.news.wait()
            self._calls.news.clear()
            await room.wait()
            for said in list(self._calls.ended.values()):
                if self._board.end(presentable(said), now_utc()):
                    self._urgent()
                elif said.run_id not in self._board.entries:
                    self._calls.forget(said.run_id)
