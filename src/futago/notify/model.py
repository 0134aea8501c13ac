"""The nouns of notification: an event as people are told of it, an entry of the outbox, the outcome of a sending.
Pure data.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from futago.inventory.model import Notification


class OutboxState(StrEnum):
    """Where an entry stands."""

    WAITING = "waiting"
    CLAIMED = "claimed"
    SENT = "sent"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Event:
    """What happened."""

    event_id: int
    occurred_utc: datetime
    priority: str
    source: str
    monitor: str | None
    host: str | None
    message: str
    epoch: int


@dataclass(frozen=True, slots=True)
class Entry:
    """One event that one notification is to tell: claimed by us.

    `possible_duplicate`: an earlier sending may have reached its receiver. `by`: the notification as declared; None
    if it is gone or not understood, and `problem` says so.
    """

    outbox_id: int
    notification: str
    attempts: int
    possible_duplicate: bool
    event: Event
    by: Notification | None
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What is to be written about an entry after a sending."""

    state: OutboxState
    error: str = ""
    possible_duplicate: bool = False
    again_after_s: float = 0.0
