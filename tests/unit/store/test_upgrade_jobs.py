"""A database of the version before nets inside nets: its running session goes on under the new schema."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime

import psycopg
from alembic import command
from alembic.config import Config

from futago.jobs import store as rows
from futago.jobs.board import Board
from futago.jobs.definitions import read_net
from futago.jobs.model import JobState
from futago.link.orders import Outcome, RunEnded
from futago.store import migrate
from futago.store.commit import Store
from postgres_cluster import Cluster

NOW = datetime(2026, 1, 2, 3, tzinfo=UTC)
OLD_JOB = {
    "host": "h1", "command": "true", "timeout": None, "user": None, "env": {}, "exit_codes": {"normal": "0", "warning": None},
}  # fmt: skip
OLD_SPEC = {
    "name": "n",
    "notify": [],
    "jobs": [
        {"name": "a", "after": [], **OLD_JOB},
        {"name": "b", "after": [{"job": "a", "end": ["normal", "warning"]}], **OLD_JOB},
    ],
}


def to_revision(conninfo: str, revision: str) -> None:
    config = Config()
    config.set_main_option("script_location", str(migrate.MIGRATIONS))
    config.attributes["conninfo"] = conninfo
    command.upgrade(config, revision)


async def test_session_that_runs_during_an_upgrade_goes_on_with_its_old_definition(postgres: Cluster) -> None:
    postgres.sql("CREATE DATABASE older OWNER futago TEMPLATE template0", database="postgres")
    postgres.sql("ALTER SCHEMA public OWNER TO futago", database="older")
    conninfo = postgres.conninfo_of("older")
    try:
        to_revision(conninfo, "0004")
        with psycopg.connect(conninfo) as conn:
            conn.execute("INSERT INTO job_definition VALUES ('d', %s)", (json.dumps(OLD_SPEC),))
            conn.execute(
                "INSERT INTO job_session (net_name, digest, state, trigger, business_date, started_utc)"
                " VALUES ('n', 'd', 'running', 'manual', '2026-01-01', now()), ('n', 'd', 'running', 'manual', NULL, now())"
            )
            conn.execute(
                "INSERT INTO job_run (session_id, job_name, host_name, state)"
                " SELECT session_id, j, 'h1', CASE j WHEN 'a' THEN 'running' ELSE 'waiting' END"
                " FROM job_session, unnest(ARRAY['a', 'b']) AS j"
            )
            conn.execute(
                "INSERT INTO job_operation (session_id, job_name, operation, asked_by) VALUES (1, 'b', 'hold', 'x')"
            )
        today = datetime.now(UTC).date()
        await migrate.run(conninfo)
        store = await Store.open(conninfo=conninfo, application_name="test")
        try:
            assert await migrate.is_current(store)
            sessions, runs = await store.read(rows.read_open, name="test.open")
            [operation] = await store.read(rows.read_operations, name="test.operations")
            board = Board()
            for session in sessions:
                board.add(session, read_net(OLD_SPEC), [r for r in runs if r.session_id == session.session_id])
            board.catch_up(NOW)
            assert not board.has_news
            assert board.operate(operation, NOW)
            for run in runs:
                if run.job_name == "a":
                    assert board.end(RunEnded(run.run_id, Outcome.EXITED, 0), NOW)
            moves = board.take().moves
            await store.commit(lambda c: rows.write_moves(c, moves, epoch=3), name="test.moves")
            _, after = await store.read(rows.read_open, name="test.open")
        finally:
            await store.close()
    finally:
        postgres.drop_database("older")
    assert sessions[0].day == date(2026, 1, 1) and sessions[1].day in {today, datetime.now(UTC).date()}
    states = {(r.session_id, str(r.job_name)): r.standing.state for r in after}
    assert states == {
        (1, "a"): JobState.NORMAL,
        (1, "b"): JobState.WAITING,  # held
        (2, "a"): JobState.NORMAL,
        (2, "b"): JobState.ORDERED,
    }
