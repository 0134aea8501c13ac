"""Requests that were signed without a time, and were taken: remembered, so that no copy of one starts anything.

A delivery is known by its signature and by what its sender calls it. The row is written in the transaction that makes
the session, so both members know it, and a switch forgets nothing. It stays when its session is removed.
"""

from __future__ import annotations

from dataclasses import dataclass

from futago.jobs.store import Connection, fetch
from futago.runtime.faults import OperatorFault


@dataclass(frozen=True, slots=True)
class Delivery:
    """A genuine request. `mac`: its signature, 32 bytes; `name`: what the sender calls it, empty: nothing."""

    mac: bytes
    name: str = ""


class Copied(OperatorFault):
    """A request brings what has been taken before, under another name: a copy, since names are not signed."""

    def __init__(self, trigger: str, session_id: int) -> None:
        super().__init__(
            f"Trigger `{trigger}` has taken the same signed bytes before, as another delivery, and started run {session_id}"
            " by them.",
            hint="Deliver that one again, by its own id; or, if the sender means it anew, let it send a text that differs.",
            code="jobs.copied-request",
        )
        self.session_id = session_id


async def known_session(conn: Connection, trigger: str, delivery: Delivery) -> int | None:
    """Return the session that a delivery has started; None: it is new.

    Raises:
        Copied: its bytes are known under another name.
    """
    rows = await fetch(
        conn,
        "SELECT session_id, delivery FROM trigger_delivery WHERE trigger_name = %s AND (delivery = %s OR mac = %s)"
        " ORDER BY delivery = %s DESC NULLS LAST LIMIT 1",
        trigger,
        delivery.name,
        delivery.mac,
        delivery.name,
    )
    if not rows:
        return None
    session_id, name = rows[0]
    if delivery.name and name and name != delivery.name:
        raise Copied(trigger, int(session_id))
    return int(session_id)


async def note(conn: Connection, trigger: str, delivery: Delivery, session_id: int) -> None:
    """Remember a delivery that has started a session.

    Raises:
        Copied: another transaction has taken the same bytes in this instant.
    """
    inserted = await fetch(
        conn,
        "INSERT INTO trigger_delivery (trigger_name, mac, delivery, session_id) VALUES (%s, %s, nullif(%s, ''), %s)"
        " ON CONFLICT DO NOTHING RETURNING 1",
        trigger,
        delivery.mac,
        delivery.name,
        session_id,
    )
    if not inserted and await known_session(conn, trigger, delivery) != session_id:
        raise Copied(trigger, session_id)
