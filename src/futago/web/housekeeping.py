"""What the web's own tables no longer need goes, in small pieces, now and then: expired logins, old event keys."""

from __future__ import annotations

import asyncio
from datetime import timedelta

from futago.access import store as rows
from futago.runtime.clock import now_utc
from futago.runtime.faults import WorldFault
from futago.runtime.log import Log
from futago.store.commit import Connection
from futago.web.serving import Serving

ROUND_S = 600.0
PIECE = 1000  # rows a transaction: the standby must not wait long
PIECES = 100  # a round
EVENT_KEY_LIFE = timedelta(days=7)


async def run(serving: Serving, *, log: Log) -> None:
    """Prune every ROUND_S until cancelled."""
    while True:
        await asyncio.sleep(ROUND_S)
        try:
            for _ in range(PIECES):
                if await serving.require().store.commit(_prune, name="web.prune") < PIECE:
                    break
        except WorldFault as e:  # another round will come
            log.event("web.prune_put_off", why=str(e))


async def _prune(conn: Connection) -> int:
    sessions = await rows.prune(conn, now_utc=now_utc(), limit=PIECE)
    cursor = await conn.execute(
        "DELETE FROM api_event_key WHERE (account_name, event_key) IN"
        " (SELECT account_name, event_key FROM api_event_key WHERE created_utc < %s LIMIT %s)",
        (now_utc() - EVENT_KEY_LIFE, PIECE),
    )
    return max(sessions, cursor.rowcount)
