"""The first administrator and root's token, over a real database."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest

from futago.access import store as rows
from futago.access.bootstrap import Secrets, bootstrap, read_secrets
from futago.access.model import Principal
from futago.access.passwords import verify_password
from futago.access.tokens import hash_secret
from futago.runtime.clock import now_utc
from futago.runtime.faults import OperatorFault, Refused
from futago.store.commit import Connection, Store
from postgres_cluster import Cluster


async def _token(store: Store, token: str) -> Principal | None:
    async def work(conn: Connection) -> Principal | None:
        return await rows.principal_of_token(conn, hash_secret(token), now_utc())

    return await store.read(work, name="test.token")


async def _hash(store: Store) -> str:
    async def work(conn: Connection) -> str:
        account = await rows.account(conn, "admin")
        assert account
        return account.password_hash

    return await store.read(work, name="test.account")


async def test_running_it_again_keeps_the_password_and_follows_the_token(store: Store) -> None:
    assert await bootstrap(store, Secrets("first-password", "token-1"))
    assert not await bootstrap(store, Secrets("other-password", "token-1"))
    assert verify_password(await _hash(store), "first-password")
    assert not await bootstrap(store, Secrets("other-password", "token-2"))
    assert await _token(store, "token-1") is None
    found = await _token(store, "token-2")
    assert found and found.account == "admin"


async def test_it_waits_for_the_schema_and_gives_up_with_a_fault(postgres: Cluster) -> None:
    postgres.sql("CREATE DATABASE bare OWNER futago", database="postgres")
    store = await Store.open(conninfo=postgres.conninfo_of("bare"), application_name="test")
    try:
        with pytest.raises(Refused):
            await bootstrap(store, Secrets("first-password", "t"), wait_s=0.3)
    finally:
        await store.close()
        postgres.drop_database("bare")


def test_missing_and_empty_files_are_named(tmp_path: Path) -> None:
    (tmp_path / "password").write_text("first-password\n")
    (tmp_path / "empty").write_text("\n")
    for name in ("absent", "empty"):
        with pytest.raises(OperatorFault, match=name):
            read_secrets(tmp_path / "password", tmp_path / name)


async def test_the_command_does_it_and_says_so(database: str, store: Store, tmp_path: Path) -> None:
    (tmp_path / "password").write_text("first-password\n")
    (tmp_path / "token").write_text("the-token\n")
    tmp_path.chmod(0o755)
    command = [sys.executable, "-m", "futago.access.bootstrap", "--conninfo", database]
    command += ["--admin-password-file", str(tmp_path / "password"), "--token-file", str(tmp_path / "token")]
    for expected in ("created", "already there"):
        done = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr
        assert expected in done.stdout
        assert "first-password" not in done.stdout + done.stderr
    assert await _token(store, "the-token")
