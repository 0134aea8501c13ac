"""Definitions to rows, all or nothing, in the caller's transaction.

Applying the same text twice changes nothing: only a row that differs gets a new version, and versions are what the
engines watch. What a text does not mention stays as it is. References are checked here, against the text and the
database together, so that a file may name what an earlier one defined.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import cast

from psycopg import sql
from psycopg.types.json import Jsonb

from futago.inventory.definitions import Definition, complaint
from futago.inventory.model import Host, Kind, PingMonitor, Scope
from futago.store.commit import Connection

LOCK = 0x6170706C79  # "apply": one at a time


@dataclass(slots=True)
class Summary:
    """What an apply did, each object as ``Kind name``."""

    created: list[str] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)
    unchanged: list[str] = field(default_factory=list)

    def add(self, definition: Definition, is_new: bool | None) -> None:
        """Note one object; None: it was there already, and equal."""
        into = self.unchanged if is_new is None else self.created if is_new else self.changed
        into.append(f"{definition.kind} {definition.name}")


@dataclass(frozen=True, slots=True)
class Table:
    """Where a kind of object lives: its table, the key, and what is kept in columns of their own."""

    name: str
    key: str
    columns: tuple[str, ...]


TABLES = {
    Kind.HOST: Table("host", "host_name", ("address", "is_registered")),
    Kind.SCOPE: Table("scope", "scope_name", ()),
    Kind.NOTIFICATION: Table("notification", "notification_name", ("spec", "channel")),
    Kind.MONITOR: Table("monitor", "monitor_name", ("spec", "kind", "scope_name", "is_enabled")),
    Kind.JOB_NET: Table("job_net", "net_name", ("spec",)),
    Kind.JOB_UNIT: Table("job_unit", "unit_name", ("spec",)),
    Kind.JOB_QUEUE: Table("job_queue", "queue_name", ("spec",)),
    Kind.CALENDAR: Table("calendar", "calendar_name", ("spec",)),
    Kind.SCHEDULE: Table("schedule", "schedule_name", ("spec",)),
    Kind.TRIGGER: Table("job_trigger", "trigger_name", ("spec",)),
}


async def apply(conn: Connection, definitions: Sequence[Definition]) -> Summary:
    """Write the definitions; return what changed. To be run inside `Store.commit`.

    Raises:
        OperatorFault: a reference to what does not exist, or an address that another host has.
    """
    await conn.execute("SELECT pg_advisory_xact_lock(%s)", (LOCK,))
    await _check_references(conn, definitions)
    summary = Summary()
    for kind in Kind:
        chosen = [d for d in definitions if d.kind is kind]
        if kind is Kind.HOST:
            await _free_addresses(conn, chosen)
        if chosen:
            write = _write_scopes if kind is Kind.SCOPE else _write
            for definition, is_new in zip(chosen, await write(conn, kind, chosen), strict=True):
                summary.add(definition, is_new)
    await _forget_states(conn)
    return summary


def _row(definition: Definition) -> tuple[object, ...]:
    """Return the values of the key and the columns of `TABLES`."""
    spec = Jsonb(definition.object.model_dump(mode="json"))
    match definition.kind:
        case Kind.HOST:
            return (definition.name, cast("Host", definition.object).address, True)
        case Kind.SCOPE:
            return (definition.name,)
        case Kind.NOTIFICATION:
            return (definition.name, spec, "mail")
        case Kind.MONITOR:
            monitor = cast("PingMonitor", definition.object)
            return (monitor.name, spec, monitor.check, monitor.scope, monitor.enabled)
        case Kind.JOB_NET | Kind.JOB_UNIT | Kind.JOB_QUEUE | Kind.CALENDAR | Kind.SCHEDULE | Kind.TRIGGER:
            return (definition.name, spec)


async def _write(conn: Connection, kind: Kind, chosen: list[Definition]) -> list[bool | None]:
    """Write the objects of one kind; return for each: True created, False changed, None unchanged."""
    outcomes: list[bool | None] = []
    async with conn.cursor() as cursor:
        await cursor.executemany(_upsert(TABLES[kind]), [_row(d) for d in chosen], returning=True)
        async for result in cursor.results():
            row = await result.fetchone()
            outcomes.append(None if row is None else bool(row[0]))
    return outcomes


async def _write_scopes(conn: Connection, _kind: Kind, chosen: list[Definition]) -> list[bool | None]:
    """Write scopes and their members; the outcomes are as in `_write`."""
    return [await _write_scope(conn, d.name, cast("Scope", d.object)) for d in chosen]


async def _write_scope(conn: Connection, name: str, scope: Scope) -> bool | None:
    inserted = await conn.execute("INSERT INTO scope (scope_name) VALUES (%s) ON CONFLICT DO NOTHING", (name,))
    gone = await conn.execute(
        "DELETE FROM scope_host WHERE scope_name = %s AND host_name <> ALL(%s)", (name, scope.hosts)
    )
    come = await conn.execute(
        "INSERT INTO scope_host SELECT DISTINCT %s, unnest(%s::text[]) ON CONFLICT DO NOTHING", (name, scope.hosts)
    )
    if inserted.rowcount:
        return True
    if not (gone.rowcount or come.rowcount):
        return None
    await conn.execute("UPDATE scope SET version = version + 1 WHERE scope_name = %s", (name,))
    return False


def _upsert(table: Table) -> sql.Composed:
    columns = [sql.Identifier(c) for c in table.columns]
    return sql.SQL(
        "INSERT INTO {table} AS old ({key}, {columns}) VALUES ({values}) ON CONFLICT ({key}) DO UPDATE"
        " SET {set}, version = old.version + 1 WHERE ({old}) IS DISTINCT FROM ({new}) RETURNING xmax = 0"
    ).format(
        table=sql.Identifier(table.name),
        key=sql.Identifier(table.key),
        columns=sql.SQL(", ").join(columns),
        values=sql.SQL(", ").join(sql.Placeholder() * (len(columns) + 1)),
        set=sql.SQL(", ").join(sql.SQL("{0} = excluded.{0}").format(c) for c in columns),
        old=sql.SQL(", ").join(sql.SQL("old.{}").format(c) for c in columns),
        new=sql.SQL(", ").join(sql.SQL("excluded.{}").format(c) for c in columns),
    )


async def _check_references(conn: Connection, definitions: Sequence[Definition]) -> None:
    needed: dict[Kind, set[str]] = {}
    for definition in definitions:
        for reference in definition.object.references():
            needed.setdefault(reference.kind, set()).add(reference.name)
    known = {kind: {d.name for d in definitions if d.kind is kind} for kind in Kind}
    for kind in needed:
        known[kind] |= await _names(conn, kind)
    complaints = [
        f"{d.place(r.path)}: there is no {r.kind} `{r.name}`{_suggestion(r.name, known[r.kind])}"
        for d in definitions
        for r in d.object.references()
        if r.name not in known[r.kind]
    ]
    if complaints:
        raise complaint(complaints)


def _suggestion(name: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean `{close[0]}`?" if close else ""


async def _names(conn: Connection, kind: Kind) -> set[str]:
    table = TABLES[kind]
    query = sql.SQL("SELECT {} FROM {}").format(sql.Identifier(table.key), sql.Identifier(table.name))
    return {str(row[0]) for row in await (await conn.execute(query)).fetchall()}


async def _free_addresses(conn: Connection, hosts: list[Definition]) -> None:
    """Make room for the addresses of `hosts`: among themselves (two may swap), and from hosts that nobody
    registered.
    """
    wanted = {str(cast("Host", d.object).address): d for d in hosts}
    twice = [
        f"{d.place(('address',))}: address `{a}` is given twice"
        for d in hosts
        if wanted[a := str(cast("Host", d.object).address)] is not d
    ]
    names = [d.name for d in hosts]
    rows = await (
        await conn.execute(
            "SELECT host_name, host(address), is_registered FROM host"
            " WHERE address = ANY(%s::inet[]) AND host_name <> ALL(%s)",
            (list(wanted), names),
        )
    ).fetchall()
    taken = [
        f"{wanted[address].place(('address',))}: address `{address}` belongs to Host `{other}` already"
        for other, address, is_registered in rows
        if is_registered
    ]
    if twice or taken:
        raise complaint(twice + taken)
    ghosts = [row[0] for row in rows]
    await conn.execute("DELETE FROM host WHERE host_name = ANY(%s) AND NOT has_agent", (ghosts,))
    await conn.execute("UPDATE host SET address = NULL WHERE host_name = ANY(%s)", (ghosts,))
    await conn.execute(
        "UPDATE host h SET address = NULL FROM unnest(%s::text[], %s::inet[]) AS w (host_name, address)"
        " WHERE h.host_name = w.host_name AND h.address <> w.address AND h.address = ANY(%s::inet[])",
        ([d.name for d in wanted.values()], list(wanted), list(wanted)),
    )


async def _forget_states(conn: Connection) -> None:
    """Remove the states of hosts that have left a monitor's scope, and of monitors that have none any more."""
    await conn.execute(
        "DELETE FROM monitor_state s USING monitor m WHERE m.monitor_name = s.monitor_name"
        " AND (m.kind NOT IN ('ping', 'tcp') OR m.scope_name <> '*' AND NOT EXISTS"
        " (SELECT FROM scope_host h WHERE h.scope_name = m.scope_name AND h.host_name = s.host_name))"
    )
