"""The managed machines and devices."""

from __future__ import annotations

from fastapi import APIRouter

from futago.web import queries
from futago.web.allow import SCHEMES, Reader
from futago.web.model import Hosts
from futago.web.rooms import InRooms

router = APIRouter(tags=["inventory"], dependencies=SCHEMES)


@router.get("/hosts")
async def hosts(rooms: InRooms, who: Reader) -> Hosts:
    """Return all hosts, each with the worst status of its monitors."""
    return Hosts(hosts=await rooms.serving.require().store.read(queries.hosts, name="web.hosts"))
