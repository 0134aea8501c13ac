"""A failed TaskGroup leaves nothing behind in whoever lives on."""

from __future__ import annotations

import asyncio

import pytest

from futago.runtime.apart import apart


async def _failing_group() -> None:
    async def fail() -> None:
        await asyncio.sleep(0)
        raise OSError("gone")

    async with asyncio.TaskGroup() as group:
        group.create_task(fail())
        group.create_task(asyncio.sleep(10))


async def test_timeout_after_a_failed_group_is_a_timeout() -> None:
    with pytest.raises(ExceptionGroup):
        await apart(_failing_group())
    task = asyncio.current_task()
    assert task is not None and task.cancelling() == 0
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await asyncio.sleep(1)


async def test_cancelling_the_caller_cancels_the_work() -> None:
    ended = asyncio.Event()

    async def work() -> None:
        try:
            await asyncio.sleep(10)
        finally:
            ended.set()

    caller = asyncio.create_task(apart(work()))
    await asyncio.sleep(0.01)
    caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller
    assert ended.is_set()
