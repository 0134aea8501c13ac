"""The lint that keeps transactions in the store's one small room."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import futago

SOURCE = Path(futago.__file__).parent
# cluster speaks with the database as its superuser, about the server, not about rows; lab and sim are not the product;
# the agent has no database
ELSEWHERE = {"store", "cluster", "lab", "sim", "agent"}
FORBIDDEN_CALLS = {"transaction", "rollback", "set_autocommit", "cancel_safe", "wait_for_commit"}
FORBIDDEN_TEXTS = ("synchronous_commit", "pg_cancel_backend", "pg_terminate_backend")
STATEMENTS = ("commit", "rollback", "begin", "start transaction", "prepare transaction")


def complaints(text: str, name: str) -> Iterator[str]:
    """Yield what a file does that only the store may do."""
    for node in ast.walk(ast.parse(text)):
        where = f"{name}:{getattr(node, 'lineno', 0)}"
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            said = " ".join(node.value.lower().split()).rstrip(";")
            if said in STATEMENTS or any(text in said for text in FORBIDDEN_TEXTS):
                yield f"{where}: says {said[:40]!r} to the database"
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
            continue
        receiver = ast.unparse(node.func.value)
        if node.func.attr in FORBIDDEN_CALLS:
            yield f"{where}: calls {receiver}.{node.func.attr}()"
        if node.func.attr == "commit" and not receiver.lower().endswith("store"):
            yield f"{where}: commits by itself ({receiver}.commit())"
        if node.func.attr == "connect" and "psycopg" in receiver:
            yield f"{where}: connects by itself"


def test_no_room_outside_the_store_commits_or_connects() -> None:
    found: list[str] = []
    for path in sorted(SOURCE.rglob("*.py")):
        room = path.relative_to(SOURCE)
        if room.parts[0] not in ELSEWHERE:
            found += complaints(path.read_text(), str(room))
    assert found == []


@pytest.mark.parametrize(
    "text",
    [
        "await conn.commit()",
        "async with conn.transaction(): pass",
        "await conn.execute('COMMIT')",
        "await conn.execute('SET synchronous_commit = off')",
        "await psycopg.AsyncConnection.connect('')",
        "await conn.cancel_safe()",
    ],
)
def test_lint_finds_what_it_is_for(text: str) -> None:
    wrapped = f"async def f():\n    {text}\n"
    assert list(complaints(wrapped, "x.py"))


def test_lint_lets_the_commit_room_be_used() -> None:
    assert not list(complaints("async def f():\n    await self._store.commit(work, name='x')\n", "x.py"))
