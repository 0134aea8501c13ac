"""The first schema: one SQL file per column under store/sql/0001."""

from __future__ import annotations

from typing import Any, cast

import psycopg
from alembic import op

from futago.store.migrate import apply_files

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Create everything."""
    driver: Any = op.get_bind().connection.driver_connection
    apply_files(cast("psycopg.Connection[tuple[object, ...]]", driver), revision)


def downgrade() -> None:
    """Refuse: there is nothing before the first schema."""
    raise NotImplementedError("there is no schema before 0001")
