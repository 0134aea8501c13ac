"""One thread for work that may block on a disk, so that the loop never does.

Lives here: the thread and the deadline of waiting for it. The idea: a clerk behind a counter. We hand over a slip and
wait for a while; if the clerk does not come back we go on without the answer, and whatever the clerk was doing may
still get done. So a deadline here is `Unknown`, never "it did not happen". A daemon thread: one that hangs in the
kernel must not keep us alive.
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar, TypeVarTuple, Unpack

from futago.runtime.clock import now_at
from futago.runtime.faults import Unknown

T = TypeVar("T")
Ts = TypeVarTuple("Ts")
PENDING_MAX = 16  # slips that wait behind a stuck one; more would only pile up


@dataclass(frozen=True, slots=True)
class _Slip(Generic[T]):
    work: Callable[[], T]
    answer: asyncio.Future[T]


class Worker:
    """Does blocking work one piece after another in a thread of its own."""

    def __init__(self, name: str) -> None:
        self._slips: queue.Queue[_Slip[object]] = queue.Queue(PENDING_MAX)
        self._loop = asyncio.get_running_loop()
        self._busy_since: int | None = None
        threading.Thread(target=self._serve, name=name, daemon=True).start()

    @property
    def busy_ns(self) -> int:
        """How long the present piece of work has taken; 0 when idle."""
        since = self._busy_since
        return 0 if since is None else now_at() - since

    async def do(self, work: Callable[[], T], *, deadline_s: float) -> T:
        """Return the result of `work`, or raise what it raised.

        Raises:
            Unknown: not done within the deadline; it may still get done.
        """
        answer: asyncio.Future[T] = self._loop.create_future()
        try:
            self._slips.put_nowait(_Slip(work, answer))  # type: ignore[arg-type]
        except queue.Full as e:
            raise Unknown("the disk's thread is stuck") from e
        answer.add_done_callback(_retrieve)  # after a deadline nobody else looks at it
        try:
            async with asyncio.timeout(deadline_s):
                return await asyncio.shield(answer)
        except TimeoutError as e:
            raise Unknown(f"not done within {deadline_s:g} s; it may still happen") from e

    def _serve(self) -> None:
        while True:
            slip = self._slips.get()
            self._busy_since = now_at()
            try:
                result, fault = slip.work(), None
            except Exception as e:  # noqa: BLE001  handed to whoever waits
                result, fault = None, e
            self._busy_since = None
            self.call_in_loop(_answer, slip.answer, result, fault)

    def call_in_loop(self, call: Callable[[Unpack[Ts]], object], *args: *Ts) -> None:
        """From the thread: have the loop call this; nothing happens when the loop has ended."""
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(call, *args)


def _answer(answer: asyncio.Future[object], result: object, fault: Exception | None) -> None:
    if answer.done():
        return
    if fault is not None:
        answer.set_exception(fault)
    else:
        answer.set_result(result)


def _retrieve(answer: asyncio.Future[T]) -> None:
    if not answer.cancelled():
        answer.exception()
