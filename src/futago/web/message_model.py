"""What goes over the wire about received messages: what is asked, what is found. Pure shapes."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from pydantic import AwareDatetime, Field, StringConstraints

from futago.web.model import Shape

MessageKind = Annotated[str, StringConstraints(max_length=30)]  # syslog, snmptrap: as monitors call it


class MessageFilter(Shape):
    """Which messages are wanted."""

    text: Annotated[
        str,
        Field(
            max_length=500,
            description='Parts that all occur in the text, in any case, between blanks; "..." keeps blanks.',
        ),
    ] = ""
    host: Annotated[str, Field(max_length=255)] | None = None
    kind: MessageKind | None = None


class MessagePage(MessageFilter):
    """Which of the kept messages are wanted; the newest come first."""

    severity: Annotated[int, Field(ge=0, le=7, description="Syslog: at least as grave as this (0 to 7).")] | None = None
    since_utc: AwareDatetime | None = None
    until_utc: AwareDatetime | None = None
    before: Annotated[int, Field(ge=0, description="Only messages with a smaller id.")] | None = None
    limit: Annotated[int, Field(ge=1, le=1000)] = 100


class Message(Shape):
    """One kept message."""

    message_id: int
    received_utc: datetime
    host_name: str
    address: str
    kind: str
    severity: int | None = Field(description="Of syslog: 0 emergency to 7 debug; null if it had none.")
    text: str


class Messages(Shape):
    """One page, the newest first."""

    messages: list[Message]
    next: int | None = Field(
        description="Go on with `before` = this; null: nothing more. A page may be short, even empty, and have a next: "
        "the time for one answer was over."
    )


class KeptMessages(Shape):
    """How much is kept."""

    rows: int
    from_utc: datetime | None
    to_utc: datetime | None
    segments: int
    not_indexed: int = Field(description="Segments without a search index yet; they are searched by reading.")
    bytes: int
