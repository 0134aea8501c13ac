"""The schema's version against a real server."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from alembic.config import Config
from alembic.script import ScriptDirectory

from futago.runtime.faults import Refused
from futago.store import migrate
from futago.store.commit import Store
from postgres_cluster import Cluster


def test_head_is_the_newest_revision_in_the_folder() -> None:
    config = Config()
    config.set_main_option("script_location", str(migrate.MIGRATIONS))
    assert ScriptDirectory.from_config(config).get_current_head() == migrate.HEAD


async def test_two_migrations_at_once_give_one_current_schema(postgres: Cluster) -> None:
    postgres.sql("CREATE DATABASE blank OWNER futago TEMPLATE template0", database="postgres")
    postgres.sql("ALTER SCHEMA public OWNER TO futago", database="blank")
    conninfo = postgres.conninfo_of("blank")
    store = await Store.open(conninfo=conninfo, application_name="test")
    try:
        assert not await migrate.is_current(store)
        async with asyncio.TaskGroup() as group:
            group.create_task(migrate.run(conninfo))
            group.create_task(migrate.run(conninfo))
        assert await migrate.is_current(store)
    finally:
        await store.close()
        postgres.drop_database("blank")


async def test_migration_without_a_database_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Refused):
        await migrate.run(f"host={tmp_path} dbname=futago")
