"""Runs that begin again: under a key, once."""

from __future__ import annotations

from typing import Any, cast

import psycopg
from alembic import op

from futago.store.migrate import apply_files

revision = "0013"
down_revision = "0012"


def upgrade() -> None:
    """Add it."""
    driver: Any = op.get_bind().connection.driver_connection
    apply_files(cast("psycopg.Connection[tuple[object, ...]]", driver), revision)


def downgrade() -> None:
    """Refuse: going back is a restore."""
    raise NotImplementedError("there is no way back from 0013")
