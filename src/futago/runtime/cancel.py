"""One trap of asyncio before Python 3.13: a task group that ends with faults forgets that its task was cancelled.

A task that is cancelled at the very moment when one of its group's children fails gets the group's faults and no
CancelledError. Whoever catches such faults and goes on would run for ever: it runs the group through `apart` (the other
trap of task groups, see there) and then calls `heed_cancellation`.
"""

from __future__ import annotations

import asyncio


def heed_cancellation() -> None:
    """Raise CancelledError if somebody has asked the present task to end.

    Not for a task that awaits task groups itself: Python 3.11.2 leaves a request behind that nobody made.

    Source: asyncio.TaskGroup.__aexit__ of 3.11: the group of faults replaces the CancelledError; `cancelling()` keeps
    count of the requests.
    """
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError
