"""What the routes share: one object, made by app.py, reached from a request.

Lives here because FastAPI hands a route its request and nothing else. No logic.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, cast

from fastapi import Depends, Request

from futago.runtime.log import Log
from futago.setup.settings import Settings
from futago.web.controller_link import ControllerLink
from futago.web.identity import Identity
from futago.web.live import Live
from futago.web.operations import Operations
from futago.web.pulse import Pulse
from futago.web.serving import Serving


@dataclass(frozen=True, slots=True)
class Rooms:
    """Everything a route may use."""

    settings: Settings
    serving: Serving
    controller: ControllerLink
    identity: Identity
    operations: Operations
    pulse: Pulse
    live: Live
    log: Log


def rooms_of(request: Request) -> Rooms:
    """Return the rooms of the application that got this request."""
    return cast(Rooms, request.app.state.rooms)


InRooms = Annotated[Rooms, Depends(rooms_of)]
