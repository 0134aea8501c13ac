"""What is old enough goes, a few rows at a time: runs of sessions that ended long ago, then the sessions, then the
definitions that nothing keeps any more.
"""

from __future__ import annotations

from datetime import datetime

from futago.jobs.store import Connection

PIECE = 500  # rows of one transaction: the standby must not wait long


async def prune(conn: Connection, *, before: datetime) -> bool:
    """Remove one piece of what ended before an instant; return whether there was anything."""
    for statement in (_RUNS, _SESSIONS, _DEFINITIONS):
        cursor = await conn.execute(statement, {"before": before, "piece": PIECE})
        if cursor.rowcount:
            return True
    return False


_RUNS = b"""
DELETE FROM job_run WHERE run_id IN (SELECT run_id FROM job_run JOIN
    (SELECT session_id FROM job_session WHERE ended_utc < %(before)s ORDER BY ended_utc LIMIT 50) s USING (session_id)
    LIMIT %(piece)s)
"""

_SESSIONS = b"""
DELETE FROM job_session WHERE session_id IN (SELECT session_id FROM job_session WHERE ended_utc < %(before)s
    AND NOT EXISTS (SELECT FROM job_run r WHERE r.session_id = job_session.session_id) ORDER BY ended_utc
    LIMIT 50)
"""

_DEFINITIONS = b"""
DELETE FROM job_definition WHERE digest IN (SELECT digest FROM job_definition d
    WHERE NOT EXISTS (SELECT FROM job_session s WHERE s.digest = d.digest) LIMIT 20 FOR UPDATE SKIP LOCKED)
"""
