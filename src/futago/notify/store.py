"""The outbox's rows: from events to entries, and each entry's way to sent. Called inside a transaction of the
store.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from pydantic import ValidationError

from futago.inventory.model import Notification
from futago.notify.model import Entry, Event, Outcome
from futago.notify.retry import LONGEST_S
from futago.notify.select import select
from futago.store.commit import Connection

SELECT_MAX = 500  # events per transaction

IN_ORDER_ATTEMPTS_MAX = 10  # then an entry that nobody takes no longer keeps back those behind it

# The oldest open entry of each notification, if it is due. An entry that another run has claimed has perhaps been
# sent; one that this run claimed without learning of it has not (it would be in `busy`). An instant far ahead was
# written by a clock that has since been set back.
_CLAIM = """
WITH head AS (
    SELECT DISTINCT ON (notification) outbox_id, is_due, state = 'claimed' AND claimed_by <> %(me)s AS is_orphan
      FROM (SELECT *, attempts = 0 OR next_try_utc <= clock_timestamp()
                      OR next_try_utc > clock_timestamp() + %(longest)s * interval '1 second' AS is_due
              FROM outbox WHERE state IN ('waiting', 'claimed') AND notification <> ALL(%(busy)s)) o
     WHERE is_due OR attempts < %(in_order)s
     ORDER BY notification, outbox_id)
UPDATE outbox o
   SET state = 'claimed', claim_epoch = %(epoch)s, claimed_by = %(me)s, claimed_utc = clock_timestamp(),
       attempts = o.attempts + 1, possible_duplicate = o.possible_duplicate OR head.is_orphan
  FROM head, event e
 WHERE o.outbox_id = head.outbox_id AND head.is_due AND e.event_id = o.event_id
RETURNING o.outbox_id, o.notification, o.attempts, o.possible_duplicate,
          e.event_id, e.occurred_utc, e.priority, e.source, e.monitor_name, e.host_name, e.message, e.epoch,
          (SELECT spec FROM notification n WHERE n.notification_name = o.notification)
"""
_MARK = """
UPDATE outbox
   SET state = %(state)s, error = %(error)s, possible_duplicate = possible_duplicate OR %(duplicate)s,
       sent_utc = CASE WHEN %(state)s = 'sent' THEN clock_timestamp() END,
       next_try_utc = clock_timestamp() + %(after)s * interval '1 second'
 WHERE outbox_id = %(id)s AND claimed_by = %(me)s AND state = 'claimed'
"""


async def select_events(conn: Connection) -> int:
    """Turn events that name notifications into entries; return how many entries came of it."""
    cursor = await conn.execute(
        "SELECT event_id, notify FROM event WHERE notify IS NOT NULL AND selected_utc IS NULL ORDER BY event_id LIMIT %s",
        (SELECT_MAX,),
    )
    events: list[tuple[int, list[str]]] = [(row[0], row[1]) for row in await cursor.fetchall()]
    if not events:
        return 0
    declared = {row[0] for row in await (await conn.execute("SELECT notification_name FROM notification")).fetchall()}
    entries: list[tuple[Any, ...]] = []
    for event_id, named in events:
        selection = select(named, declared=declared)
        entries += [(event_id, name, "waiting", "") for name in selection.told]
        entries += [(event_id, name, "failed", f"there is no Notification `{name}`") for name in selection.missing]
    async with conn.cursor() as writer:
        await writer.executemany(
            "INSERT INTO outbox (event_id, notification, state, error) VALUES (%s, %s, %s, %s) ON CONFLICT DO NOTHING",
            entries,
        )
    await conn.execute(
        "UPDATE event SET selected_utc = clock_timestamp() WHERE event_id = ANY(%s)",
        ([event_id for event_id, _ in events],),
    )
    return len(entries)


async def claim(conn: Connection, *, me: str, epoch: int, busy: Collection[str]) -> list[Entry]:
    """Claim the oldest free entry of each notification that is not busy."""
    values = {"me": me, "epoch": epoch, "busy": list(busy), "longest": LONGEST_S, "in_order": IN_ORDER_ATTEMPTS_MAX}
    cursor = await conn.execute(_CLAIM, values)
    return sorted((_entry(row) for row in await cursor.fetchall()), key=lambda e: e.outbox_id)


def _entry(row: tuple[Any, ...]) -> Entry:
    outbox_id, notification, attempts, duplicate, *event, spec = row
    by, problem = None, f"there is no Notification `{notification}` any more"
    if spec is not None:
        try:
            by, problem = Notification.model_validate(spec), ""
        except ValidationError as e:
            problem = f"Notification `{notification}` is not understood by this version: {e}"
    return Entry(outbox_id, notification, attempts, duplicate, Event(*event), by, problem)


async def mark(conn: Connection, outbox_id: int, outcome: Outcome, *, me: str) -> None:
    """Write what became of a claimed entry. Harmless when repeated, and when the claim is not ours any more."""
    await conn.execute(
        _MARK,
        {
            "id": outbox_id,
            "me": me,
            "state": str(outcome.state),
            "error": outcome.error,
            "duplicate": outcome.possible_duplicate,
            "after": outcome.again_after_s,
        },
    )
