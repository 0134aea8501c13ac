"""Monitoring's rows: read what is declared, write what was found. Called inside a transaction of the store."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from psycopg.types.json import Jsonb
from pydantic import TypeAdapter, ValidationError

from futago.inventory.model import PingMonitor, PollingMonitor, TcpMonitor
from futago.monitoring.model import Change, Check, Pair, Pending, Ping, State, Status, Tcp
from futago.store.commit import Connection

PRIORITIES = {
    Status.OK: "info",
    Status.WARNING: "warning",
    Status.CRITICAL: "critical",
    Status.UNKNOWN: "unknown",
}
_SPEC: TypeAdapter[PingMonitor | TcpMonitor] = TypeAdapter(PollingMonitor)

_FINGERPRINT = """
SELECT md5(concat_ws('|',
    (SELECT string_agg(monitor_name || ' ' || version, ',' ORDER BY monitor_name) FROM monitor WHERE kind IN ('ping', 'tcp')),
    (SELECT string_agg(scope_name || ' ' || version, ',' ORDER BY scope_name) FROM scope),
    (SELECT string_agg(concat_ws(' ', host_name, address, is_registered), ',' ORDER BY host_name) FROM host)))
"""
_PAIRS = """
SELECT m.monitor_name, m.spec, h.host_name, host(h.address)
  FROM monitor m
  JOIN host h ON CASE WHEN m.scope_name = '*' THEN h.is_registered
       ELSE EXISTS (SELECT FROM scope_host s WHERE s.scope_name = m.scope_name AND s.host_name = h.host_name) END
 WHERE m.kind IN ('ping', 'tcp') AND m.is_enabled
"""
_WRITE_STATES = """
UPDATE monitor_state s
   SET status = b.status, since_utc = b.since_utc, failures = b.failures, next_due_utc = b.next_due_utc
  FROM unnest(%s::text[], %s::text[], %s::timestamptz[], %s::text[], %s::timestamptz[], %s::int[], %s::timestamptz[])
       AS b (monitor_name, host_name, expected, status, since_utc, failures, next_due_utc)
 WHERE s.monitor_name = b.monitor_name AND s.host_name = b.host_name AND s.next_due_utc = b.expected
RETURNING s.monitor_name, s.host_name
"""


@dataclass(frozen=True, slots=True)
class Declared:
    """What is to be monitored, as of one instant.

    `refused`: monitors whose row this program does not understand. `without_address`: hosts in a scope that cannot be
    asked, since nobody has said where they are.
    """

    fingerprint: str
    checks: dict[Pair, Check]
    states: dict[Pair, State]
    refused: dict[str, str]
    without_address: set[str]


async def fingerprint(conn: Connection) -> str:
    """Return a value that changes when anything that monitoring depends on is declared anew."""
    row = await (await conn.execute(_FINGERPRINT)).fetchone()
    assert row
    return str(row[0])


async def load(conn: Connection) -> Declared:
    """Return the checks and the states that the rows hold."""
    mark = await fingerprint(conn)
    specs: dict[str, PingMonitor | TcpMonitor] = {}
    refused: dict[str, str] = {}
    without_address: set[str] = set()
    checks: dict[Pair, Check] = {}
    for monitor, spec, host, address in await (await conn.execute(_PAIRS)).fetchall():
        if address is None:
            without_address.add(host)
        if monitor in refused or address is None:
            continue
        try:
            found = specs.get(monitor) or specs.setdefault(monitor, _SPEC.validate_python(spec))
        except ValidationError as e:
            refused[monitor] = str(e)
            continue
        checks[Pair(monitor, host)] = check_of(found, host=host, address=address)
    rows = await conn.execute(
        "SELECT monitor_name, host_name, status, since_utc, failures, next_due_utc FROM monitor_state"
    )
    states = {Pair(m, h): State(Status(s), since, n, due) for m, h, s, since, n, due in await rows.fetchall()}
    return Declared(mark, checks, states, refused, without_address)


def check_of(spec: PingMonitor | TcpMonitor, *, host: str, address: str) -> Check:
    """Return what a monitor does for one host."""
    pair = Pair(spec.name, host)
    probe = Tcp(spec.port) if isinstance(spec, TcpMonitor) else Ping()
    return Check(pair, address, probe, spec.interval, spec.timeout, spec.failures, tuple(spec.notify))


async def begin(conn: Connection, states: Mapping[Pair, State]) -> None:
    """Write the first rows of new pairs; a row that is there already stays as it is."""
    await conn.execute(
        "INSERT INTO monitor_state (monitor_name, host_name, status, since_utc, failures, next_due_utc)"
        " SELECT b.* FROM unnest(%s::text[], %s::text[], %s::text[], %s::timestamptz[], %s::int[], %s::timestamptz[])"
        " AS b (m, h, s, since, n, due) JOIN monitor ON monitor_name = b.m JOIN host ON host_name = b.h"
        " ON CONFLICT DO NOTHING",
        [
            [p.monitor for p in states],
            [p.host for p in states],
            [str(s.status) for s in states.values()],
            [s.since_utc for s in states.values()],
            [s.failures for s in states.values()],
            [s.next_due_utc for s in states.values()],
        ],
    )


async def write(conn: Connection, batch: Mapping[Pair, Pending], *, epoch: int) -> set[Pair]:
    """Write states, samples and events of a batch; return the pairs whose row was as expected.

    A pair that is not returned has been written already by an earlier attempt, or its row is gone: nothing of it is
    written, so an attempt may be repeated after an unknown outcome.
    """
    written = await _write_states(conn, batch)
    await _write_samples(conn, {pair: batch[pair] for pair in written})
    await _write_events(conn, (change for pair in written for change in batch[pair].changes), epoch)
    return written


async def _write_states(conn: Connection, batch: Mapping[Pair, Pending]) -> set[Pair]:
    states = [p.state for p in batch.values()]
    columns: list[list[Any]] = [
        [p.monitor for p in batch],
        [p.host for p in batch],
        [p.expected_due_utc for p in batch.values()],
        [str(s.status) for s in states],
        [s.since_utc for s in states],
        [s.failures for s in states],
        [s.next_due_utc for s in states],
    ]
    rows = await (await conn.execute(_WRITE_STATES, columns)).fetchall()
    return {Pair(m, h) for m, h in rows}


async def _write_samples(conn: Connection, batch: Mapping[Pair, Pending]) -> None:
    async with (
        conn.cursor() as cursor,
        cursor.copy("COPY sample (monitor_name, host_name, at_utc, value, ok) FROM STDIN") as copy,
    ):
        for pair, pending in batch.items():
            for result in pending.results:
                await copy.write_row((pair.monitor, pair.host, result.at_utc, result.value, result.is_ok))


async def _write_events(conn: Connection, changes: Iterable[Change], epoch: int) -> None:
    rows = [
        (
            c.at_utc,
            PRIORITIES[c.after],
            c.pair.monitor,
            c.pair.host,
            c.text,
            Jsonb({"before": c.before, "after": c.after}),
            epoch,
            list(c.notify) or None,
        )
        for c in changes
    ]
    if rows:
        async with conn.cursor() as cursor:
            await cursor.executemany(
                "INSERT INTO event (occurred_utc, priority, source, monitor_name, host_name, message, detail, epoch, notify)"
                " VALUES (%s, %s, 'monitor', %s, %s, %s, %s, %s, %s)",
                rows,
            )
