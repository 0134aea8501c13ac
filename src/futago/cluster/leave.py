"""Leaving in good order, when the machine is shut down: hand over or be let go, then put everything away.

The idea: a nurse at the end of a shift. She does not walk out; she sees the next one at the bed first. A controller
that is merely restarted does none of this: its successor is there in half a second and finds everything as it was.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

from futago.cluster.model import Decision, Facts
from futago.runtime import process
from futago.runtime.clock import S, now_at
from futago.runtime.faults import WorldFault
from futago.runtime.loop import DecisionLoop

if TYPE_CHECKING:
    from futago.cluster.bridge import Controller

HAND_OVER_S_MAX = 6.0
LOOK_S = 0.02


async def is_machine_stopping() -> bool:
    """Is this the machine's shutdown, rather than a restart of the controller alone?"""
    try:
        ended = await process.run(["systemctl", "is-system-running"], deadline_s=1.0)
    except WorldFault:
        return False
    return ended.out.strip() == "stopping"


async def leave(controller: Controller, loop: DecisionLoop[Facts, Decision]) -> None:
    """Have the other member serve, or let us go; then stop PostgreSQL, give up the address, say goodbye."""
    board = controller.board
    controller.log.event("controller.leaving")
    board.put(is_leaving=True)
    controller.exchange.say_now()
    done = asyncio.Event()
    turning = asyncio.create_task(loop.run(done))
    ends = now_at() + int(HAND_OVER_S_MAX * S)
    while _is_needed(controller) and now_at() < ends:  # noqa: ASYNC110  the bell belongs to the loop
        await asyncio.sleep(LOOK_S)
    done.set()
    board.bell.set()
    await turning
    await controller.executor.close()
    with contextlib.suppress(WorldFault):
        await controller.address.drop()
    with contextlib.suppress(WorldFault):
        await controller.postgres.stop()
    controller.put_away()
    await controller.exchange.say_bye()


def _is_needed(controller: Controller) -> bool:
    """Is this member in a paired view, so that the other one has to be asked before it may go?"""
    view = controller.keeper.durable.view
    return view is not None and not view.is_solo and controller.settings.me in view.insync
