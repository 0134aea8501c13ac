"""Triggers: nets that events and requests from outside start.

    event ──(one commit)──► firing ──(one commit)──► session, and the firing is gone

That an event fires a trigger is written by the database together with the event, whoever writes it; so no event is
missed, and none fires twice, whatever becomes of the members in between. A request brings a key, under which it
starts one session.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from pydantic import ValidationError

from futago.jobs import store
from futago.jobs.deliveries import Delivery, known_session, note
from futago.jobs.sessions import Opened, key_of_start, open_session
from futago.jobs.store import Connection, EventRow, fetch
from futago.jobs.trigger_definitions import Trigger
from futago.runtime.clock import now_utc
from futago.runtime.engine import EngineContext
from futago.runtime.faults import OperatorFault, WorldFault

ROUND_S = 0.2
FIRINGS_MAX = 100  # read at once

_FIRINGS = """
SELECT f.firing_id, f.trigger_name, t.spec, e.event_id, e.host_name, e.monitor_name, e.priority, e.message,
       e.occurred_utc
  FROM trigger_firing f LEFT JOIN job_trigger t USING (trigger_name) LEFT JOIN event e ON e.event_id = f.event_id
 ORDER BY f.firing_id LIMIT %s
"""


@dataclass(frozen=True, slots=True)
class Firing:
    """An event that fires a trigger. `event`: the fields that a trigger may ask about; None: it has been removed."""

    firing_id: int
    trigger: str
    spec: Mapping[str, Any] | None
    event: Mapping[str, str] | None


async def read_firings(conn: Connection) -> list[Firing]:
    """Return the oldest firings."""
    return [_firing(*row) for row in await fetch(conn, _FIRINGS, FIRINGS_MAX)]


def _firing(firing_id: int, trigger: str, spec: Mapping[str, Any] | None, event_id: int | None, *fields: Any) -> Firing:
    if event_id is None:
        return Firing(firing_id, trigger, spec, None)
    host, monitor, priority, message, occurred = fields
    event = {
        "event_id": str(event_id),
        "host": host or "",
        "monitor": monitor or "",
        "priority": str(priority),
        "message": str(message),
        "occurred": _text(occurred),
    }
    return Firing(firing_id, trigger, spec, event)


def _text(instant: datetime) -> str:
    return instant.isoformat()


class Triggers:
    """Starts what events fire, until cancelled. `fired()` is called after each commit that started a session."""

    def __init__(self, context: EngineContext, fired: Callable[[], None]) -> None:
        self._context = context
        self._fired = fired
        self._log = context.log.bind(engine="triggers")

    async def run(self) -> None:
        """Work until cancelled. A failed round is made again."""
        while True:
            try:
                is_all = await self.round()
            except WorldFault as e:  # what became of it stands in the rows, which the next round reads
                self._log.warning("triggers.round_failed", error=str(e))
                is_all = True
            if is_all:
                await asyncio.sleep(ROUND_S)

    async def round(self) -> bool:
        """Deal with the firings that are there, oldest first; return whether that was all.

        Raises:
            Refused, Unknown: of the store.
        """
        firings = await self._context.store.read(read_firings, name="jobs.firings")
        for firing in firings:
            await self._fire(firing)
        return len(firings) < FIRINGS_MAX

    async def _fire(self, firing: Firing) -> None:
        async def write(conn: Connection) -> Opened | None:
            if not await _take(conn, firing.firing_id):
                return None
            return await _start(conn, firing)

        try:
            opened = await self._context.store.commit(write, name="jobs.trigger")
        except OperatorFault as e:  # the net is gone, or a value is wrong: the event is dealt with, and people are told
            await self._complain(firing, e.what)
            return
        if opened is not None:
            self._log.event("trigger.fired", trigger=firing.trigger, session_id=opened.session_id)
            self._fired()

    async def _complain(self, firing: Firing, why: str) -> None:
        event = EventRow(
            occurred_utc=now_utc(),
            priority="critical",
            host_name=None,
            message=f"Trigger {firing.trigger} could not start anything: {why}",
            detail={"trigger": firing.trigger, "event": dict(firing.event or {})},
        )
        net = str((firing.spec or {}).get("job_net", ""))

        async def write(conn: Connection) -> None:
            if await _take(conn, firing.firing_id):
                owner = await store.net_owner(conn, net) or ""
                await store.add_events(conn, [replace(event, owner=owner)], epoch=self._context.epoch)

        await self._context.store.commit(write, name="jobs.trigger_failed")


async def _take(conn: Connection, firing_id: int) -> bool:
    """Remove a firing; return whether it was there."""
    return bool(await fetch(conn, "DELETE FROM trigger_firing WHERE firing_id = %s RETURNING 1", firing_id))


async def _start(conn: Connection, firing: Firing) -> Opened | None:
    """Start what a firing is to start; None: nothing any more."""
    if firing.spec is None or firing.event is None:
        return None
    trigger = read_spec(firing.trigger, firing.spec)
    if not trigger.wants(firing.event):
        return None
    return await start_for(conn, trigger, firing.event, key=f"event:{trigger.name}:{firing.event['event_id']}")


async def start_for(conn: Connection, trigger: Trigger, of: Mapping[str, Any], *, key: str | None) -> Opened | None:
    """Start the net of a trigger for an event or a file; None: a session is open, and the trigger is to wait for its end.

    Raises:
        OperatorFault: the net is gone, or a value is wrong.
    """
    if trigger.if_open == "skip" and await _is_open(conn, trigger.job_net):
        return None
    return await _open(conn, trigger, of, key=key)


async def start_by_request(
    conn: Connection, trigger: Trigger, body: Mapping[str, Any], key: str, delivery: Delivery | None = None
) -> Opened:
    """Start the net of a trigger that a request has fired, or return the session that this key started before.

    Args:
        key: of the request; empty: every request is another one.
        delivery: of one that was signed without a time: it is remembered for good.

    Raises:
        OperatorFault: the trigger is not enabled, the net is gone, a value is wrong, or (Copied) it is a copy of another.
    """
    known = await known_session(conn, trigger.name, delivery) if delivery else None
    if known is not None:
        return Opened(known, is_new=False)
    if not trigger.enabled:
        raise OperatorFault(
            f"Trigger `{trigger.name}` is not enabled.", hint="Enable it.", code="jobs.trigger-disabled"
        )
    opened = await _open(conn, trigger, body, key=key_of_start("hook", trigger.name, key=key) if key else None)
    if delivery is not None:
        await note(conn, trigger.name, delivery, opened.session_id)
    return opened


async def read_trigger(conn: Connection, name: str) -> tuple[Trigger, bytes | None] | None:
    """Return a trigger and the hash of its secret; None: there is none of that name."""
    rows = await fetch(
        conn,
        "SELECT spec, secret_hash FROM job_trigger LEFT JOIN trigger_secret USING (trigger_name) WHERE trigger_name = %s",
        name,
    )
    return (read_spec(name, rows[0][0]), rows[0][1]) if rows else None


async def read_triggers(conn: Connection) -> list[tuple[Trigger, datetime | None]]:
    """Return all triggers by name, each with the instant since which it has its secret."""
    rows = await fetch(
        conn,
        "SELECT trigger_name, spec, s.created_utc FROM job_trigger LEFT JOIN trigger_secret s USING (trigger_name)"
        " ORDER BY trigger_name",
    )
    return [(read_spec(str(name), spec), since) for name, spec, since in rows]


async def put_secret(conn: Connection, name: str, secret_hash: bytes) -> None:
    """Give a trigger this secret, instead of the one that it had."""
    await conn.execute(
        "INSERT INTO trigger_secret (trigger_name, secret_hash) VALUES (%s, %s)"
        " ON CONFLICT (trigger_name) DO UPDATE SET secret_hash = excluded.secret_hash, created_utc = now()",
        (name, secret_hash),
    )


def read_spec(name: str, spec: Mapping[str, Any]) -> Trigger:
    """Return a trigger as it is kept.

    Raises:
        OperatorFault: another version wrote it.
    """
    try:
        return Trigger.model_validate(dict(spec))
    except ValidationError as e:
        raise OperatorFault(
            f"Trigger `{name}` cannot be read: {e}",
            hint="Another version wrote it: apply it again.",
            code="jobs.refused",
        ) from e


async def _is_open(conn: Connection, net: str) -> bool:
    query = "SELECT 1 FROM job_session WHERE net_name = %s AND state IN ('starting', 'running') LIMIT 1"
    return bool(await fetch(conn, query, net))


async def _open(conn: Connection, trigger: Trigger, of: Mapping[str, Any], *, key: str | None) -> Opened:
    try:
        parameters = trigger.values(of)
    except ValueError as e:
        raise OperatorFault(f"Trigger `{trigger.name}`: {e}.", hint="See `set`.", code="jobs.parameter") from e
    return await open_session(
        conn, trigger.job_net, trigger=f"trigger {trigger.name}", trigger_key=key, parameters=parameters
    )
