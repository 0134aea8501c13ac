"""The trap that runtime/cancel.py is for, and that it is one."""

from __future__ import annotations

import asyncio

from futago.runtime.apart import apart
from futago.runtime.cancel import heed_cancellation


async def test_cancellation_that_meets_a_fault_in_a_task_group_is_not_forgotten() -> None:
    rounds = 0

    async def fail_when_cancelled() -> None:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            raise OSError("closing failed") from None

    async def work() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(fail_when_cancelled())

    async def keep_going() -> None:
        nonlocal rounds
        while True:
            rounds += 1
            try:
                await apart(work())
            except* OSError:
                pass
            heed_cancellation()

    task = asyncio.get_running_loop().create_task(keep_going())
    for _ in range(5):
        await asyncio.sleep(0)
    task.cancel()
    done, _ = await asyncio.wait({task}, timeout=30)
    task.cancel()
    assert done == {task}
    assert task.cancelled()
    assert rounds == 1
