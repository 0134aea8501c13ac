"""The engine's hand in what the manager does itself (a request, a check, a transfer): when it may begin, and what its
end does on the board.

It begins only once `running` is committed, and only while outward effects are allowed; what has to wait for that is put
off. What the rows call running when the board is made anew was begun by this process, or taken by it and not begun, or it
was cut off by a switch: only the last may have had an effect that nobody here knows of.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from futago.jobs.board import Board, Entry
from futago.jobs.calls import INTERRUPTED, Calls
from futago.jobs.claims import presentable
from futago.jobs.errands import Errands
from futago.jobs.model import JobState
from futago.jobs.plan import ByManager, Transfer
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
        self._put_off: set[str] = set()  # runs that wait until outward effects are allowed

    def order(self, entry: Entry) -> None:
        """Have the beginning of an ordered request committed."""
        if not entry.is_committed or entry.state is not JobState.ORDERED or entry.is_stopping:
            return
        if not self._outward.is_allowed:
            self._put_off.add(entry.run_id)
        elif self._board.take_order(entry.run_id, now_utc()):
            self._calls.take(entry.run_id)
            self._urgent()

    def begin(self, entry: Entry) -> None:
        """Make the request of a job whose beginning is committed, or end it without."""
        work, run_id = entry.job.work, entry.run_id
        if not isinstance(work, ByManager) or not entry.is_committed or entry.state is not JobState.RUNNING:
            return
        if run_id in self._calls:
            return
        is_resumed = not self._calls.has_taken(run_id)
        if entry.is_stopping and not is_resumed:
            self._calls.end(RunEnded(run_id, Outcome.NOT_STARTED, detail="stopped before its start"))
        elif is_resumed and (not work.may_repeat or (entry.is_stopping and not isinstance(work, Transfer))):
            self._calls.end(RunEnded(run_id, Outcome.UNKNOWN, detail=INTERRUPTED))
        elif not self._outward.is_allowed:
            self._put_off.add(run_id)
        else:
            errand = self._errands.of(run_id, work, self._board.variables(entry), is_resumed=is_resumed)
            self._calls.begin(run_id, errand)
            if entry.is_stopping:  # a transfer finds out whether its file is there
                self._calls.stop(run_id)

    def stop(self, entry: Entry) -> None:
        """End a request: one that is only ordered has not been begun by anybody."""
        if entry.state is not JobState.ORDERED:
            self._calls.stop(entry.run_id)
        elif self._board.never_taken(entry.run_id, now_utc()):
            self._urgent()

    def take_up(self) -> None:
        """Go on with what the rows call ordered or running."""
        for entry in [e for e in self._board.entries.values() if e.is_call]:
            self.order(entry)
            self.begin(entry)
        self._calls.news.set()

    def let_out(self) -> None:
        """Begin what has been put off, if outward effects are allowed now; what is to be stopped ends without."""
        waiting, self._put_off = self._put_off, set()
        for entry in [self._board.entries[run_id] for run_id in waiting if run_id in self._board.entries]:
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
