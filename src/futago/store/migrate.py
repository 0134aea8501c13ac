"""The schema's version: what the running code expects, and how a database gets there.

`is_current` is one query over an open store: all that a takeover needs. `run` does the work in a process of its own
(Alembic is heavy, synchronous and wants to own its connection), under an advisory lock, so that two managers cannot
migrate at once. SQL lives in files, one folder per revision, one file per column.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import psycopg

from futago.runtime.faults import Refused, Unknown
from futago.store.commit import CONNINFO, Connection, Store

HEAD = "0013"  # the newest revision under migrations/versions
SQL = Path(__file__).parent / "sql"
MIGRATIONS = Path(__file__).parent / "migrations"
LOCK = 0x66757461676F  # "futago": the advisory lock of a migration
RUN_S = 120.0


async def is_current(store: Store) -> bool:
    """Return whether the database has the schema that this code expects.

    Raises:
        Refused: the database could not be asked.
    """

    async def ask(conn: Connection) -> bool:
        found = await (await conn.execute("SELECT to_regclass('public.alembic_version') IS NOT NULL")).fetchone()
        if not (found and found[0]):
            return False
        row = await (await conn.execute("SELECT version_num FROM alembic_version")).fetchone()
        return row is not None and row[0] == HEAD

    return await store.read(ask, name="store.version")


async def run(conninfo: str = CONNINFO, *, deadline_s: float = RUN_S) -> None:
    """Bring the database to HEAD.

    Raises:
        Refused: the migration failed and was rolled back.
        Unknown: no outcome in time; ask `is_current` again.
    """
    child = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "futago.store.migrate",
        conninfo,
        stdin=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(deadline_s):
            _, said = await child.communicate()
    except TimeoutError as e:
        raise Unknown(f"the schema migration gave no outcome within {deadline_s:g} s") from e
    finally:
        if child.returncode is None:
            child.kill()  # the server rolls back, or finishes the commit that is under way
    if child.returncode:
        raise Refused(f"the schema migration failed: {said.decode(errors='replace').strip().splitlines()[-1:]}")


def upgrade(conninfo: str) -> None:
    """Bring the database to HEAD, here and now (blocking)."""
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    config.attributes["conninfo"] = conninfo
    command.upgrade(config, "head")


def apply_files(conn: psycopg.Connection[tuple[object, ...]], revision: str) -> None:
    """Execute the SQL files of a revision, in the order of their names, in the open transaction of `conn`."""
    for file in sorted((SQL / revision).glob("*.sql")):
        conn.execute(file.read_bytes())


if __name__ == "__main__":
    upgrade(sys.argv[1])
