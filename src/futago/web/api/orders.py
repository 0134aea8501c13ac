"""Orders on the pair that are answered at once: the plan of a recovery, maintenance, tests, explanations."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query

from futago.web import orders
from futago.web.allow import SCHEMES, PairOperator, Reader
from futago.web.pair_model import Explanation, FenceTestOrder, FenceTests, MaintenanceOrder, OrderDone, RecoveryPlan
from futago.web.rooms import InRooms

router = APIRouter(prefix="/pair", tags=["pair"], dependencies=SCHEMES)


@router.get("/recover/plan")
async def plan(rooms: InRooms, who: PairOperator) -> RecoveryPlan:
    """Return what POST /pair/recover would do, what it would cost and what stands in the way. Changes nothing."""
    rooms.serving.require()
    return await orders.plan(rooms)


@router.post("/maintenance")
async def maintenance(rooms: InRooms, who: PairOperator, order: MaintenanceOrder) -> OrderDone:
    """Keep the pair from switching unasked while people work on it, or let it act by itself again."""
    return await orders.maintain(rooms, who, is_on=order.on)


@router.post("/fence-test")
async def fence_test(rooms: InRooms, who: PairOperator, order: FenceTestOrder) -> FenceTests:
    """Ask the power devices for their state now, from both members. Nothing is switched. Takes up to a minute."""
    return await orders.test_fences(rooms, who, member=order.member)


@router.get("/explain")
async def explanation(
    rooms: InRooms,
    who: Reader,
    failure: Annotated[str, Query(alias="if", max_length=40, description="What would happen if this failed now.")] = "",
) -> Explanation:
    """Say why the pair is in its state and, with `if`, what a failure would do now, step by step."""
    rooms.serving.require()
    return await orders.explained(rooms, failure)
