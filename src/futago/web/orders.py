"""Short orders on the pair that a person or a program gives over the web: asked, answered, and in the audit trail.

Lives here: the audit line before the order, the question to the controller, the shapes of its answers. Must not live
here: operations that take long (operations.py). Explanations are played through in this process, not in the
controller's: they cost processor time.
"""

from __future__ import annotations

import asyncio
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from futago.access import store as rows
from futago.access.model import Principal
from futago.cluster import explain
from futago.runtime.faults import OperatorFault, Unknown
from futago.runtime.unreadable import UNREADABLE
from futago.store.commit import Connection
from futago.web.pair_model import Explanation, FenceTests, OrderDone, RecoveryPlan, WhatIf, WhatIfStep
from futago.web.rooms import Rooms

M = TypeVar("M", bound=BaseModel)
PLAN_S_MAX = 60.0
ORDER_S_MAX = 30.0
TEST_S_MAX = 110.0
FACTS_S_MAX = 2.0


async def plan(rooms: Rooms) -> RecoveryPlan:
    """Return what a recovery would do. Raises OperatorFault, ControllerSilent or Unknown."""
    answer = await rooms.controller.ask({"op": "recover", "plan": True}, deadline_s=PLAN_S_MAX)
    return _shaped(answer.get("plan"), RecoveryPlan)


async def maintain(rooms: Rooms, who: Principal, *, is_on: bool) -> OrderDone:
    """Turn maintenance on or off. Raises as `plan`."""
    await _record(rooms, who, f"pair.maintenance-{'on' if is_on else 'off'}")
    answer = await rooms.controller.ask({"op": "maintenance", "on": is_on}, deadline_s=ORDER_S_MAX)
    return _shaped(answer, OrderDone)


async def test_fences(rooms: Rooms, who: Principal, *, member: str = "") -> FenceTests:
    """Ask the power devices now, from both members. Raises as `plan`."""
    await _record(rooms, who, "pair.fence-test", member)
    answer = await rooms.controller.ask({"op": "fence-test", "member": member}, deadline_s=TEST_S_MAX)
    return _shaped(answer, FenceTests)


async def explained(rooms: Rooms, failure: str = "") -> Explanation:
    """Say why the pair is in its state and, if a failure is named, what it would do. Raises as `plan`."""
    known = {f.value: f for f in explain.Failure}
    if failure and failure not in known:
        raise OperatorFault(
            f"`{failure}` is not a failure that can be asked about.",
            hint=f"There are: {', '.join(known)}.",
            code="explain.failure",
        )
    answer = await rooms.controller.ask({"op": "facts"}, deadline_s=FACTS_S_MAX)
    try:
        facts, now = explain.unpack(str(answer.get("facts", "")).encode())
    except UNREADABLE as e:
        raise Unknown(f"the controller's facts cannot be read: {e}") from e
    why = await asyncio.to_thread(explain.why, facts, now)
    found = await asyncio.to_thread(explain.what_if, facts, now, known[failure]) if failure else None
    return Explanation(why=list(why), failures=list(known), what_if=None if found is None else _what_if(found))


def _what_if(found: explain.Answer) -> WhatIf:
    steps = tuple(WhatIfStep(at_ms=s.at_ms, member=s.member, rule=s.rule, text=s.text) for s in found.steps)
    return WhatIf(
        failure=found.failure.value,
        title=found.title,
        outcome=found.outcome.value,
        serves=found.serves,
        pause_ms=found.pause_ms,
        lost=found.lost,
        sentences=list(found.sentences),
        steps=steps,
        command=found.command,
    )


async def _record(rooms: Rooms, who: Principal, deed: str, target: str = "") -> None:
    """Write the audit line; without it nothing is ordered."""

    async def work(conn: Connection) -> None:
        await rows.record(conn, who, rows.Deed(deed, target) if target else rows.Deed(deed))

    await rooms.serving.require().store.commit(work, name="web.audit")


def _shaped(raw: object, shape: type[M]) -> M:
    try:
        return shape.model_validate(raw)
    except ValidationError as e:
        raise Unknown(f"the controller's answer cannot be understood: {e.errors(include_url=False)[0]}") from e
