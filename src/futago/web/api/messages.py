"""What becomes of received messages: whether the definitions are at work, the messages that are kept, the live view."""

from __future__ import annotations

from fastapi import APIRouter

from futago.web import queries
from futago.web.allow import SCHEMES, Reader
from futago.web.model import RulesAtWork
from futago.web.rooms import InRooms

router = APIRouter(tags=["messages"], dependencies=SCHEMES)


@router.get("/rules")
async def rules(rooms: InRooms, who: Reader) -> RulesAtWork:
    """Say whether the message monitors, hosts and scopes of this moment are what messages are held against."""
    return await rooms.serving.require().store.read(queries.rules_at_work, name="web.rules")
