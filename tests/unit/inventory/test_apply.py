"""Definitions to rows in a real database: all or nothing, and nothing twice."""

from __future__ import annotations

import pytest

from futago.inventory.apply import Summary, apply
from futago.inventory.definitions import parse
from futago.runtime.faults import OperatorFault
from futago.store.commit import Connection, Store

TEXT = """
kind: Monitor
name: ping-web
check: ping
scope: web
interval: 1s
notify: [ops]
---
kind: Scope
name: web
hosts: [web1, web2]
---
{kind: Host, name: web1, address: 10.0.0.1}
---
{kind: Host, name: web2, address: 10.0.0.2}
---
{kind: Notification, name: ops, channel: mail, to: [o@lab.test], from: f@lab.test, smtp: {host: 10.0.0.9}}
"""


async def _apply(store: Store, text: str) -> Summary:
    definitions = parse(text, file="f.yaml")

    async def work(conn: Connection) -> Summary:
        return await apply(conn, definitions)

    return await store.commit(work, name="test.apply")


async def _rows(store: Store, query: str) -> list[tuple[object, ...]]:
    async def work(conn: Connection) -> list[tuple[object, ...]]:
        return await (await conn.execute(query.encode())).fetchall()

    return await store.read(work, name="test.rows")


async def test_objects_become_rows_in_whatever_order_they_stand(store: Store) -> None:
    summary = await _apply(store, TEXT)
    assert sorted(summary.created) == ["Host web1", "Host web2", "Monitor ping-web", "Notification ops", "Scope web"]
    assert await _rows(store, "SELECT kind, scope_name, spec->>'interval', is_enabled, version FROM monitor") == [
        ("ping", "web", "1s", True, 1)
    ]
    assert await _rows(store, "SELECT host_name FROM scope_host ORDER BY 1") == [("web1",), ("web2",)]
    assert await _rows(store, "SELECT spec->>'from' FROM notification") == [("f@lab.test",)]


async def test_applying_the_same_again_changes_nothing(store: Store) -> None:
    await _apply(store, TEXT)
    summary = await _apply(store, TEXT)
    assert (summary.created, summary.changed, len(summary.unchanged)) == ([], [], 5)
    versions = "SELECT version FROM host UNION ALL SELECT version FROM scope UNION ALL SELECT version FROM monitor"
    assert set(await _rows(store, versions)) == {(1,)}


async def test_only_what_changed_gets_a_new_version(store: Store) -> None:
    await _apply(store, TEXT)
    changed = TEXT.replace("1s", "2s").replace("[web1, web2]", "[web1]").replace("10.0.0.2", "10.0.0.7")
    summary = await _apply(store, changed)
    assert sorted(summary.changed) == ["Host web2", "Monitor ping-web", "Scope web"]
    assert await _rows(store, "SELECT host_name, version FROM host ORDER BY 1") == [("web1", 1), ("web2", 2)]


async def test_one_wrong_object_refuses_the_whole_text(store: Store) -> None:
    with pytest.raises(OperatorFault) as caught:
        await _apply(store, TEXT.replace("hosts: [web1, web2]", "hosts: [web1, web3]"))
    assert caught.value.what == "f.yaml:11: Scope `web`: there is no Host `web3`; did you mean `web2`?" or (
        caught.value.what == "f.yaml:11: Scope `web`: there is no Host `web3`; did you mean `web1`?"
    )
    assert await _rows(store, "SELECT count(*) FROM host") == [(0,)]


async def test_reference_to_what_an_earlier_text_defined_is_good(store: Store) -> None:
    await _apply(store, TEXT)
    summary = await _apply(store, "{kind: Monitor, name: t, check: tcp, port: 22, scope: web, notify: [ops]}")
    assert summary.created == ["Monitor t"]


async def test_two_hosts_may_swap_their_addresses(store: Store) -> None:
    await _apply(store, TEXT)
    swapped = TEXT.replace("10.0.0.1}", "X").replace("10.0.0.2}", "10.0.0.1}").replace("X", "10.0.0.2}")
    await _apply(store, swapped)
    assert await _rows(store, "SELECT host_name, host(address) FROM host ORDER BY 1") == [
        ("web1", "10.0.0.2"),
        ("web2", "10.0.0.1"),
    ]


async def test_address_of_another_registered_host_is_refused_with_its_line(store: Store) -> None:
    await _apply(store, TEXT)
    with pytest.raises(OperatorFault, match=r"f.yaml:3: Host `x`: address `10.0.0.1` belongs to Host `web1` already"):
        await _apply(store, "kind: Host\nname: x\naddress: 10.0.0.1\n")
    with pytest.raises(OperatorFault, match="is given twice"):
        await _apply(store, "{kind: Host, name: x, address: 10.0.0.8}\n---\n{kind: Host, name: y, address: 10.0.0.8}")


async def test_host_that_was_only_seen_gives_its_address_to_the_registered_one(store: Store) -> None:
    async def seen(conn: Connection) -> None:
        await conn.execute(
            "INSERT INTO host (host_name, address, is_registered) VALUES ('10.0.0.1', '10.0.0.1', false)"
        )

    await store.commit(seen, name="test.seen")
    await _apply(store, TEXT)
    assert await _rows(store, "SELECT host_name, is_registered FROM host ORDER BY 1") == [
        ("web1", True),
        ("web2", True),
    ]


async def test_enrolled_host_becomes_registered_and_keeps_its_agent(store: Store) -> None:
    async def enrolled(conn: Connection) -> None:
        await conn.execute("INSERT INTO host (host_name, is_registered, has_agent) VALUES ('web1', false, true)")

    await store.commit(enrolled, name="test.enrolled")
    summary = await _apply(store, TEXT)
    assert "Host web1" in summary.changed
    assert await _rows(store, "SELECT is_registered, has_agent, host(address) FROM host WHERE host_name = 'web1'") == [
        (True, True, "10.0.0.1")
    ]


async def test_state_of_a_host_that_left_the_scope_is_forgotten(store: Store) -> None:
    async def state(conn: Connection) -> None:
        await conn.execute(
            "INSERT INTO monitor_state SELECT 'ping-web', host_name, 'critical', now(), 0, now() FROM scope_host"
        )

    await _apply(store, TEXT)
    await store.commit(state, name="test.state")
    await _apply(store, TEXT.replace("[web1, web2]", "[web2]"))
    assert await _rows(store, "SELECT host_name FROM monitor_state") == [("web2",)]


async def test_five_thousand_hosts_are_applied_within_a_few_seconds(store: Store) -> None:
    hosts = [f"{{kind: Host, name: h{i}, address: 10.{i >> 8 & 255}.{i & 255}.1}}" for i in range(5000)]
    summary = await _apply(store, "\n---\n".join(hosts))
    assert len(summary.created) == 5000
