"""A temporary real PostgreSQL 15 for tests: its own data directory, a unix socket only, ended with the test session."""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg

BIN = Path("/usr/lib/postgresql/15/bin")
TEMPLATE = "futago"
_SETTINGS = {
    "listen_addresses": "",
    "fsync": "off",
    "max_connections": "60",
    "shared_buffers": "32MB",
    "autovacuum": "off",
    "log_line_prefix": "%m [%p] %a ",
    "log_min_messages": "debug1",
    "wal_level": "replica",
    "max_wal_senders": "4",
}


def _as_postgres(*command: str | Path) -> list[str]:
    """Return the command as user postgres: the server refuses to be root."""
    if os.geteuid() != 0:
        return [str(c) for c in command]
    return ["setpriv", "--reuid=postgres", "--regid=postgres", "--init-groups", *(str(c) for c in command)]


class Cluster:
    """One running server. `conninfo` leads to database `futago` with the schema, as role `futago`."""

    def __init__(self) -> None:
        self.home = Path(tempfile.mkdtemp(prefix="futago-pg."))
        self.data = self.home / "data"
        self.log = self.home / "log"
        self._process: subprocess.Popen[bytes] | None = None
        self._serial = itertools.count(1)
        self._clean: list[str] = []
        if os.geteuid() == 0:
            shutil.chown(self.home, "postgres", "postgres")

    @property
    def conninfo(self) -> str:
        return self.conninfo_of(TEMPLATE)

    def conninfo_of(self, database: str, *, user: str = "futago") -> str:
        """Return how to reach a database as a role. With patience: a machine that halts for a moment has no fault."""
        return f"host={self.home} dbname={database} user={user} connect_timeout=30"

    @property
    def pid(self) -> int:
        assert self._process
        return self._process.pid

    def create(self) -> None:
        """Make the data directory, start the server, make role and database."""
        init = _as_postgres(
            BIN / "initdb", "-D", self.data, "-U", "postgres", "-A", "trust", "-N", "--locale=C", "-E", "UTF8"
        )
        subprocess.run(init, check=True, stdout=subprocess.DEVNULL, cwd=self.home, timeout=120)
        self.start()
        self.sql("CREATE ROLE futago LOGIN", database="postgres")
        self.sql(f"CREATE DATABASE {TEMPLATE} OWNER futago", database="postgres")
        self.sql("ALTER SCHEMA public OWNER TO futago", database=TEMPLATE)

    def start(self) -> None:
        """Start the server and wait until it answers."""
        settings = [part for key, value in _SETTINGS.items() for part in ("-c", f"{key}={value}")]
        command = _as_postgres(BIN / "postgres", "-D", self.data, "-k", self.home, *settings)
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self.home)
        deadline = time.monotonic() + 60
        while True:
            try:
                return self.sql("SELECT 1", database="postgres")
            except psycopg.OperationalError:
                if time.monotonic() > deadline or self._process.poll() is not None:
                    raise AssertionError(self.log.read_text()) from None
                time.sleep(0.02)

    def stop(self) -> None:
        """End the server at once, as SIGQUIT does: no checkpoint."""
        if self._process and self._process.poll() is None:
            self._process.send_signal(3)
            self._process.wait(timeout=60)

    def destroy(self) -> None:
        """Stop and remove everything."""
        self.stop()
        shutil.rmtree(self.home, ignore_errors=True)

    def sql(self, statement: str, *, database: str = TEMPLATE) -> None:
        """Execute one statement as superuser, outside a transaction."""
        self.rows(statement, database=database)

    def rows(self, statement: str, *, database: str = TEMPLATE) -> list[tuple[object, ...]]:
        """Execute one statement as superuser, outside a transaction; return its rows."""
        with psycopg.connect(self.conninfo_of(database, user="postgres"), autocommit=True) as conn:
            cursor = conn.execute(statement.encode())
            return cursor.fetchall() if cursor.description else []

    def keep_seed(self) -> None:
        """Remember the rows that the schema itself brings; to be called once, when the schema is there."""
        self.sql("CREATE SCHEMA seed")
        for table in self._tables(TEMPLATE):
            self.sql(f"CREATE TABLE seed.{table} AS TABLE public.{table}")

    def lend_database(self) -> str:
        """Return the name of a database with the schema and its own rows only: a used one made clean, or a new one."""
        if self._clean:
            return self._clean.pop()
        name = f"test_{next(self._serial)}"
        self.sql(f"CREATE DATABASE {name} TEMPLATE {TEMPLATE} OWNER futago", database="postgres")
        return name

    def take_back(self, name: str) -> None:
        """Make a lent database clean, or remove it where a test has changed its tables."""
        self.sql(
            f"SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = '{name}'",
            database="postgres",
        )
        tables = self._tables(TEMPLATE)
        if self._tables(name) != tables:
            return self.drop_database(name)
        clean = [f"DELETE FROM public.{t}" for t in tables]
        clean += [f"INSERT INTO public.{t} OVERRIDING SYSTEM VALUE SELECT * FROM seed.{t}" for t in tables]
        clean += ["SELECT setval(format('%I.%I', schemaname, sequencename), start_value, false) FROM pg_sequences"]
        self.sql("SET session_replication_role = replica; " + "; ".join(clean), database=name)
        self._clean.append(name)

    def _tables(self, database: str) -> list[str]:
        found = self.rows("SELECT tablename FROM pg_tables WHERE schemaname = 'public' ORDER BY 1", database=database)
        return [str(name) for (name,) in found]

    def drop_database(self, name: str) -> None:
        """Remove a database; its connections are ended."""
        self.sql(f"DROP DATABASE {name} WITH (FORCE)", database="postgres")

    @contextmanager
    def absent_standby(self) -> Iterator[None]:
        """Make every commit wait for a standby that is not there, for the length of the block."""
        self.sql("ALTER SYSTEM SET synchronous_standby_names = 'absent'", database="postgres")
        self.sql("SELECT pg_reload_conf()", database="postgres")
        try:
            self._await_enforcement()
            yield
        finally:
            self.sql("ALTER SYSTEM RESET synchronous_standby_names", database="postgres")
            self.sql("SELECT pg_reload_conf()", database="postgres")
            self._await_release()

    def waiting(self) -> list[tuple[int, str]]:
        """Return pid and application of each backend whose commit waits for the standby."""
        found = self.rows(
            "SELECT pid, application_name FROM pg_stat_activity WHERE wait_event = 'SyncRep'", database="postgres"
        )
        return [(int(str(pid)), str(name)) for pid, name in found]

    def _await_enforcement(self) -> None:
        """Prove it: the checkpointer applies the setting some time after the reload. A probe commit must hang."""
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            conn = psycopg.connect(
                self.conninfo_of("postgres", user="postgres"), autocommit=True, application_name="probe"
            )
            conn.pgconn.send_query(b"CREATE TABLE probe (); DROP TABLE probe")
            time.sleep(0.05)
            is_waiting = any(pid == conn.info.backend_pid for pid, _ in self.waiting())
            conn.pgconn.finish()
            if is_waiting:
                return
        raise AssertionError("commits do not wait for the absent standby")

    def _await_release(self) -> None:
        deadline = time.monotonic() + 60
        while self.waiting():
            assert time.monotonic() < deadline, "commits still wait"
            time.sleep(0.02)
