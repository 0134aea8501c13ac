"""Custom traps: messages that programs send by HTTP, to be matched by monitors like any other message.

The receiver of this member records the trap; 201 says that it is in the journals of both members, whatever becomes of
either. A key makes a repetition safe, also when it reaches the other member after a switch.
"""

from __future__ import annotations

import asyncio
import uuid
from http import HTTPStatus
from pathlib import Path
from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Header, Response
from pydantic import Field, field_validator

from futago.intake import custom_traps
from futago.intake.custom_traps import Trap
from futago.intake.model import DATA_BYTES_MAX
from futago.runtime.faults import Refused, Unknown
from futago.runtime.unreadable import UNREADABLE
from futago.setup import paths
from futago.web.allow import SCHEMES, Poster
from futago.web.faults import HttpFault, conflict
from futago.web.model import Shape
from futago.web.rooms import InRooms

router = APIRouter(tags=["traps"], dependencies=SCHEMES)

RECEIVER: Path = paths.RECEIVER_SOCKET
ANSWER_S_MAX = custom_traps.ACKNOWLEDGED_S_MAX + 2.0
LINE_BYTES_MAX = 1 << 20
Value = str | int | float | bool | None


class NewTrap(Shape):
    """A custom trap."""

    message: Annotated[str, Field(min_length=1, max_length=8192)]
    host: Annotated[
        str, Field(max_length=255, description="The declared host that it is about; else the client's address counts.")
    ] = ""
    fields: dict[Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_-]{0,63}$")], Value] = Field(
        default={}, max_length=100, description="Names and values, for patterns and templates."
    )

    @field_validator("message", "host", "fields")
    @classmethod
    def _can_be_stored(cls, value: Any) -> Any:
        texts = [value] if isinstance(value, str) else [one for one in value.values() if isinstance(one, str)]
        for text in texts:
            if "\0" in text or any(0xD800 <= ord(character) < 0xE000 for character in text):
                raise ValueError("it holds a character that cannot be stored (NUL, or half of a pair)")
        return value


class PostedTrap(Shape):
    """What became of a trap."""

    repeated: bool = Field(description="The key was known: nothing was recorded again.")


@router.post(
    "/traps",
    status_code=201,
    responses={
        200: {"model": PostedTrap, "description": "The key was known: nothing was recorded again."},
        504: {"description": "The outcome is unknown: repeat with the same Idempotency-Key."},
    },
)
async def post(
    new: NewTrap,
    response: Response,
    rooms: InRooms,
    who: Poster,
    idempotency_key: Annotated[str | None, Header(min_length=1, max_length=200)] = None,
) -> PostedTrap:
    """Take a custom trap. The answer comes when it is in the journals of both members."""
    rooms.serving.require()
    trap = Trap(
        account=who.account,
        key=idempotency_key or str(uuid.uuid4()),
        message=new.message,
        host=new.host,
        fields={name: _text(value) for name, value in sorted(new.fields.items())},
    )
    data = msgspec.json.encode(trap).decode()
    if len(data.encode()) > DATA_BYTES_MAX:
        raise HttpFault(
            HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "A trap has at most 64 KiB.", hint="Send less.", code="trap.too-long"
        )
    posted = _posted(await _hand(data, who.address or "0.0.0.0"))  # noqa: S104  a client without an address
    response.status_code = 200 if posted.repeated else 201
    return posted


def _text(value: Value) -> str:
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()


def _posted(outcome: str) -> PostedTrap:
    if outcome in (custom_traps.RECORDED, custom_traps.REPEATED):
        return PostedTrap(repeated=outcome == custom_traps.REPEATED)
    if outcome == custom_traps.CONFLICT:
        raise conflict("This Idempotency-Key was used for another trap.", hint="Draw a new key.", code="trap.key-used")
    if outcome == custom_traps.UNKNOWN:
        raise Unknown(
            "the trap is recorded here, and the other member has not confirmed it: repeat it with the same key"
        )
    raise Refused("the receiver takes nothing now: its disk is full, or too much waits")


async def _hand(data: str, source: str) -> str:
    """Return what the receiver says of a trap."""
    request = msgspec.json.encode({"op": "trap", "trap": data, "source": source}) + b"\n"
    is_sent = False
    try:
        async with asyncio.timeout(ANSWER_S_MAX):
            reader, writer = await asyncio.open_unix_connection(str(RECEIVER), limit=LINE_BYTES_MAX)
            try:
                is_sent = True
                writer.write(request)
                answer = msgspec.json.decode(await reader.readline())
            finally:
                writer.close()
        return str(answer["outcome"])
    except (OSError, TimeoutError, KeyError, *UNREADABLE) as e:
        if is_sent:
            raise Unknown("the receiver did not answer: repeat the trap with the same key") from e
        raise Refused("the receiver of this member does not run") from e
