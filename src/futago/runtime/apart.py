"""Work in a task of its own, so that what a TaskGroup leaves behind dies with it.

Python 3.11.2, which Debian 12 has, leaks: when a child of a TaskGroup fails while its parent waits at the group's
end, the parent keeps one cancellation request for ever, and every later `asyncio.timeout` in that task ends as a
cancellation instead of a TimeoutError; the task dies without a word. So whoever lives on after a failed group runs
the group through here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


async def apart(work: Coroutine[Any, Any, T]) -> T:
    """Return the result of `work`, run in a task of its own; cancelling the caller cancels it."""
    return await asyncio.create_task(work)
