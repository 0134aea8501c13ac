"""Fixtures for every suite: a real PostgreSQL, started once and only if a test asks for it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import hypothesis
import pytest

from futago.store import migrate
from futago.store.commit import Store
from postgres_cluster import Cluster

# How fast one example runs, or is made, says something about the machine only.
hypothesis.settings.register_profile(
    "any machine", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("any machine")


@pytest.fixture(scope="session")
def postgres() -> Iterator[Cluster]:
    """A running server with database `futago` and its schema. Shared: write only into a `database` of your own."""
    cluster = Cluster()
    try:
        cluster.create()
        migrate.upgrade(cluster.conninfo)
        cluster.keep_seed()
        yield cluster
    finally:
        cluster.destroy()


@pytest.fixture
def database(postgres: Cluster) -> Iterator[str]:
    """Conninfo of an empty database with the schema, for one test."""
    name = postgres.lend_database()
    yield postgres.conninfo_of(name)
    postgres.take_back(name)


@pytest.fixture
async def store(database: str) -> AsyncIterator[Store]:
    """A store over an empty database with the schema."""
    opened = await Store.open(conninfo=database, application_name="test")
    yield opened
    await opened.close()
