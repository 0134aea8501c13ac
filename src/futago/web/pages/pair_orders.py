"""The parts of the pair's panel that answer an order at once: the plan of a recovery, maintenance, the test of power
devices, what a failure would do now.

Shapes data for the templates; a refusal is a part too, with its hint.
"""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from futago.runtime.faults import OperatorFault, Unknown
from futago.web import orders
from futago.web.allow import PairOperator, Reader
from futago.web.faults import HttpFault, body_of
from futago.web.model import ErrorBody
from futago.web.render import render
from futago.web.rooms import InRooms

router = APIRouter()


@router.get("/parts/pair/plan")
async def plan(request: Request, rooms: InRooms, who: PairOperator) -> Response:
    """What a recovery would do."""
    rooms.serving.require()
    return await _part(request, "parts/plan.html", orders.plan(rooms), as_name="plan")


@router.post("/parts/pair/maintenance")
async def maintenance(request: Request, rooms: InRooms, who: PairOperator, on: bool) -> Response:
    """Hang the sign, or take it off."""
    return await _part(request, "parts/ordered.html", orders.maintain(rooms, who, is_on=on), as_name="done")


@router.post("/parts/pair/fence-test")
async def fence_test(request: Request, rooms: InRooms, who: PairOperator) -> Response:
    """Ask the power devices now."""
    return await _part(request, "parts/fence_tests.html", orders.test_fences(rooms, who), as_name="found")


@router.get("/parts/pair/explain")
async def explanation(
    request: Request,
    rooms: InRooms,
    who: Reader,
    failure: Annotated[str, Query(alias="if", max_length=40)] = "",
) -> Response:
    """Why the pair is so, and what a failure would do."""
    rooms.serving.require()
    return await _part(request, "parts/explained.html", orders.explained(rooms, failure), as_name="found")


async def _part(request: Request, template: str, answer: Awaitable[Any], *, as_name: str) -> Response:
    """Render what an order answered, or why it was refused."""
    try:
        values: dict[str, Any] = {as_name: await answer}
        return render(request, template, refused=None, **values)
    except HttpFault:
        raise
    except OperatorFault as fault:
        return render(request, template, refused=body_of(fault))
    except Unknown as fault:
        unclear = ErrorBody(error=str(fault), code="pair.unknown")
        return render(request, template, refused=unclear)
