"""Rows back to objects: what `apply` has written, as it can be applied again."""

from __future__ import annotations

from collections.abc import Collection

from psycopg import sql
from pydantic import ValidationError

from futago.inventory.apply import TABLES
from futago.inventory.definitions import Definable, validate
from futago.inventory.model import Kind
from futago.runtime.faults import Corrupt
from futago.store.commit import Connection


async def export(
    conn: Connection, *, kinds: Collection[Kind] = (), names: Collection[str] = ()
) -> list[tuple[Kind, Definable]]:
    """Return the declared objects in the order in which they can be applied, by name within a kind.

    Args:
        conn: a transaction.
        kinds: only these; empty: all.
        names: only objects of these names; empty: all.

    Raises:
        Corrupt: another version of the program wrote a shape that this one does not know.
    """
    found: list[tuple[Kind, Definable]] = []
    for kind in Kind:
        if kinds and kind not in kinds:
            continue
        for name, spec in await _specs(conn, kind):
            if names and name not in names:
                continue
            try:
                found.append((kind, validate(kind, spec)))
            except ValidationError as e:
                raise Corrupt(f"{kind} `{name}` cannot be read: {e}") from e
    return found


async def _specs(conn: Connection, kind: Kind) -> list[tuple[str, dict[str, object]]]:
    match kind:
        case Kind.HOST:
            query = "SELECT host_name, host(address) FROM host WHERE is_registered AND address IS NOT NULL ORDER BY 1"
            rows = await (await conn.execute(query)).fetchall()
            return [(str(name), {"name": name, "address": address}) for name, address in rows]
        case Kind.SCOPE:
            query = (
                "SELECT scope_name, coalesce(array_agg(host_name ORDER BY host_name)"
                " FILTER (WHERE host_name IS NOT NULL), '{}') FROM scope LEFT JOIN scope_host USING (scope_name)"
                " GROUP BY 1 ORDER BY 1"
            )
            rows = await (await conn.execute(query)).fetchall()
            return [(str(name), {"name": name, "hosts": hosts}) for name, hosts in rows]
        case _:
            table = TABLES[kind]
            chosen = sql.SQL("SELECT {key}, spec FROM {table} ORDER BY {key}").format(
                key=sql.Identifier(table.key), table=sql.Identifier(table.name)
            )
            rows = await (await conn.execute(chosen)).fetchall()
            return [(str(name), spec) for name, spec in rows]
