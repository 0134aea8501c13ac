"""Custom traps by HTTP, end to end: the real web application, two real receivers, the engine, the events."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

sys.path.insert(0, str(Path(__file__).parent.parent / "intake"))

from journals import add_monitor, all_rows, engine, eventually, execute
from receivers import ReceiverProcess, make_pair, make_pki

from futago.intake.consume import Places
from futago.intake.model import Protocol
from futago.store.commit import Store
from futago.web.api import traps

Pair = tuple[ReceiverProcess, ReceiverProcess]


@pytest.fixture
def receivers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Pair]:
    one, two = make_pair(tmp_path, make_pki(tmp_path / "pki", "m1", "m2"))
    monkeypatch.setattr(traps, "RECEIVER", one.root / "receiver.sock")
    try:
        for each in (one, two):
            each.start()
        for each in (one, two):
            each.wait(lambda status: status["complete"], limit_s=30)
        yield one, two
    finally:
        one.stop()
        two.stop()


Answer = tuple[int, dict[str, object]]


async def sent(
    api: httpx.AsyncClient, body: dict[str, object], headers: dict[str, str] | None = None
) -> httpx.Response:
    """Post a trap as clients do: what was certainly not taken, as this member did not serve just then, is sent again."""
    async with asyncio.timeout(30):
        while True:
            answer = await api.post("/api/v1/traps", json=body, headers=headers)
            if answer.status_code != 503 or "does not serve" not in answer.json()["error"]:
                return answer
            await asyncio.sleep(0.1)


async def post(api: httpx.AsyncClient, key: str, message: str = "backup failed", **more: object) -> Answer:
    answer = await sent(api, {"message": message, **more}, {"Idempotency-Key": key} if key else {})
    return answer.status_code, answer.json()


async def test_a_trap_is_acknowledged_from_both_disks_and_known_when_it_comes_again_anywhere(
    receivers: Pair, api: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = receivers
    assert await post(api, "k1") == (201, {"repeated": False})
    assert two.copy() == one.own()
    assert {r.protocol for r in one.own()} == {Protocol.CUSTOM_TRAP}
    assert await post(api, "k1") == (200, {"repeated": True})
    status, body = await post(api, "k1", "something else")
    assert (status, body["code"]) == (409, "trap.key-used")
    two.kill()
    waiting = asyncio.create_task(post(api, "k2"))
    again = asyncio.create_task(post(api, "k2"))
    await asyncio.sleep(0.5)
    assert not waiting.done(), "acknowledged although only one disk has it"
    await asyncio.to_thread(two.start)
    assert sorted([await waiting, await again], key=str) == [(200, {"repeated": True}), (201, {"repeated": False})]
    monkeypatch.setattr(traps, "RECEIVER", two.root / "receiver.sock")  # after a switch
    assert await post(api, "k2") == (200, {"repeated": True})
    one.kill()
    await asyncio.to_thread(one.start)
    await asyncio.to_thread(one.wait, lambda s: s["complete"])
    monkeypatch.setattr(traps, "RECEIVER", one.root / "receiver.sock")
    assert await post(api, "k1") == (200, {"repeated": True})
    assert len(one.own()) + len(two.own()) == 2


async def test_a_trap_becomes_one_event_of_the_host_it_names_with_its_fields(
    receivers: Pair, api: httpx.AsyncClient, database: str, store: Store, tmp_path: Path
) -> None:
    one, _ = receivers
    rule = {"match": "level=[0-9]+", "priority": "critical", "message": "{job}: {message} ({level})"}
    await add_monitor(database, "backups", "customtrap", rule)
    await add_monitor(database, "others", "syslog", {"match": ".", "priority": "info", "message": "no"})
    await execute(database, "INSERT INTO host (host_name, address, is_registered) VALUES ('db1', '10.0.0.9', true)")
    places = Places(one.root / "own", one.root / "peer", one.root / "receiver.sock", tmp_path / "intake.toml")
    async with engine(store, places):
        for key in ("", "", "k", "k"):
            status, _ = await post(api, key, host="db1", fields={"job": "夜間", "level": 3, "dry": False})
            assert status in (200, 201)
        await post(api, "", host="nowhere", fields={"job": "x", "level": 1})
        await eventually(database, "SELECT count(*) FROM event", 4)
    found = await all_rows(
        database,
        "SELECT monitor_name, host_name, message, detail->>'posted_by', count(*) FROM event GROUP BY 1, 2, 3, 4",
    )
    assert sorted(found, key=str) == [
        ("backups", "192.0.2.7", "x: backup failed (1)", "admin", 1),
        ("backups", "db1", "夜間: backup failed (3)", "admin", 3),
    ]


async def test_no_receiver_is_a_refusal_that_may_be_repeated(
    api: httpx.AsyncClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(traps, "RECEIVER", tmp_path / "nobody.sock")
    assert (await post(api, "k"))[0] == 503


@pytest.mark.parametrize(
    "body",
    [
        {"message": ""},
        {"message": "a\0b"},
        {"message": "a", "fields": {"1": "x"}},
        {"message": "a", "fields": {"x": {"deep": 1}}},
        {"message": "a", "fields": {f"f{n}": 1 for n in range(101)}},
        {"message": "a", "unknown": 1},
    ],
)
async def test_what_cannot_be_a_trap_is_refused(api: httpx.AsyncClient, body: dict[str, object]) -> None:
    assert (await sent(api, body)).status_code == 422
