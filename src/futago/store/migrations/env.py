"""Alembic's entry: one connection, one transaction, one advisory lock. Only store/migrate.py starts it."""

from __future__ import annotations

import psycopg
from alembic import context
from sqlalchemy import create_engine, text
from sqlalchemy.pool import NullPool

from futago.store.migrate import LOCK


def migrate() -> None:
    """Run the pending revisions in one transaction."""
    conninfo = context.config.attributes["conninfo"]
    engine = create_engine(
        "postgresql+psycopg://",
        creator=lambda: psycopg.connect(conninfo, application_name="futago-migrate"),
        poolclass=NullPool,
    )
    with engine.connect() as connection:
        context.configure(connection=connection, transactional_ddl=True)
        with context.begin_transaction():
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": LOCK})
            context.run_migrations()
        connection.commit()


migrate()
