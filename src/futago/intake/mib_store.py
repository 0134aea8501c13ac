"""The rows of loaded MIB modules."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import msgspec

from futago.intake.mib_names import MibNames, Module
from futago.intake.mib_program import Made
from futago.runtime.faults import OperatorFault
from futago.store.commit import Connection, Store

MODULES_MAX = 2000
LOCAL_S = 3.0


@dataclass(frozen=True, slots=True)
class Loaded:
    """One loaded module, without its names."""

    name: str
    file: str
    imports: list[str]
    names: int
    notifications: int
    loaded_by: str
    loaded_utc: datetime


async def version(conn: Connection) -> tuple[int, int]:
    """Return something that differs after any change of the loaded modules."""
    row = await (await conn.execute("SELECT count(*), coalesce(max(version), 0) FROM mib")).fetchone()
    assert row is not None
    return row[0], row[1]


async def load_names(conn: Connection) -> MibNames:
    """Return the names of all loaded modules; of two that name the same, the one that was loaded last counts."""
    found = await conn.execute("SELECT compiled FROM mib ORDER BY version")
    return MibNames([msgspec.convert(row[0], Module, str_keys=True) for row in await found.fetchall()])


async def sources(conn: Connection) -> dict[str, str]:
    """Return the texts of the files that modules were loaded from, by module."""
    return dict(await (await conn.execute("SELECT mib_name, source FROM mib")).fetchall())


async def save(conn: Connection, made: Sequence[Made], texts: dict[str, str], *, who: str) -> None:
    """Write modules; those that were there are replaced."""
    for one in made:
        await conn.execute(
            "INSERT INTO mib (mib_name, file_name, source, imports, compiled, loaded_by)"
            " VALUES (%s, %s, %s, %s, %s::jsonb, %s) ON CONFLICT (mib_name) DO UPDATE SET"
            " (file_name, source, imports, compiled, loaded_by, loaded_utc, version) = (excluded.file_name,"
            " excluded.source, excluded.imports, excluded.compiled, excluded.loaded_by, now(), nextval('mib_version'))",
            (
                *(one.module.name, one.file, texts[one.file], one.module.imports),
                *(msgspec.json.encode(one.module).decode(), who),
            ),
        )
    row = await (await conn.execute("SELECT count(*) FROM mib")).fetchone()
    if row is not None and row[0] > MODULES_MAX:
        raise OperatorFault(
            f"There may be {MODULES_MAX} MIB modules.", hint="Remove some: futago mib remove.", code="mib.too-many"
        )


async def every(conn: Connection) -> list[Loaded]:
    """Return what is loaded, by name."""
    found = await conn.execute(
        "SELECT mib_name, file_name, imports, jsonb_array_length(compiled->'nodes'),"
        " (SELECT count(*) FROM jsonb_array_elements(compiled->'nodes') n WHERE (n->>'is_notification')::boolean),"
        " loaded_by, loaded_utc FROM mib ORDER BY mib_name"
    )
    return [Loaded(*row) for row in await found.fetchall()]


async def module(conn: Connection, name: str) -> Module | None:
    """Return one compiled module."""
    row = await (await conn.execute("SELECT compiled FROM mib WHERE mib_name = %s", (name,))).fetchone()
    return msgspec.convert(row[0], Module, str_keys=True) if row is not None else None


async def remove(conn: Connection, name: str) -> bool:
    """Delete a module; return whether it was there.

    Raises:
        OperatorFault: others import it.
    """
    found = await conn.execute("SELECT mib_name FROM mib WHERE %s = ANY(imports) AND mib_name <> %s", (name, name))
    users = [row[0] for row in await found.fetchall()]
    if users:
        raise OperatorFault(
            f"{name} is imported by {', '.join(sorted(users)[:10])}.", hint="Remove these first.", code="mib.needed"
        )
    return (await conn.execute("DELETE FROM mib WHERE mib_name = %s", (name,))).rowcount > 0


async def names_here(conninfo: str) -> MibNames:
    """Return the names of all loaded modules from this machine's database, also where that is a standby.

    Raises:
        WorldFault: it is not running, or does not let us in.
    """
    store = await Store.open(conninfo=conninfo, size_max=1, application_name="futago-names")
    try:
        return await store.read(load_names, name="mib.names", deadline_s=LOCAL_S)
    finally:
        await store.close()
