"""Rows as a working day leaves them, so that a page has something to show."""

from __future__ import annotations

from futago.inventory.apply import apply
from futago.inventory.definitions import parse
from futago.jobs.sessions import open_session
from futago.store.commit import Connection, Store

TEXT = """\
kind: Host
name: web1
address: 10.91.1.21
---
kind: Host
name: web2
address: 10.91.1.22
---
kind: Host
name: db1
address: 10.91.1.23
---
kind: Host
name: batch1
address: 10.91.1.24
---
kind: Scope
name: all
hosts: [web1, web2, db1, batch1]
---
kind: Monitor
name: ping-all
check: ping
scope: all
interval: 1s
---
kind: JobNet
name: nightly
jobs:
  - {name: extract, host: batch1, command: "true"}
  - {name: transform-1, host: web1, command: "true", after: [extract]}
  - {name: transform-2, host: web2, command: "true", after: [extract]}
  - {name: load, host: db1, command: "true", after: [transform-1, transform-2]}
  - {name: report, host: batch1, command: "true", after: [load]}
---
kind: JobNet
name: backup
jobs:
  - {name: dump, host: db1, command: "true"}
  - {name: copy, host: batch1, command: "true", after: [dump]}
"""

_EVENTS = """
INSERT INTO event (occurred_utc, recorded_utc, priority, source, monitor_name, host_name, message, epoch) VALUES
 (now() - interval '31 min', now(), 'info', 'pair', NULL, NULL, 'm1 took over from m2 (epoch 7)', 7),
 (now() - interval '30 min', now(), 'info', 'message', 'numbered', 'web1', 'SEQ=004711', 7),
 (now() - interval '21 min', now(), 'warning', 'message', 'traps', 'sw-core', 'linkDown ifIndex=14 Gi1/0/14 uplink-b', 7),
 (now() - interval '20 min', now(), 'critical', 'monitor', 'ping-all', 'web2', 'ping-all: web2 does not answer (2 in a row)', 7),
 (now() - interval '19 min', now(), 'info', 'message', 'numbered', 'web1', 'SEQ=004712', 7),
 (now() - interval '12 min', now(), 'info', 'job', NULL, 'batch1', 'nightly: extract ended normally', 7),
 (now() - interval '9 min', now(), 'unknown', 'job', NULL, 'db1', 'backup: dump — the host died while it ran', 7),
 (now() - interval '4 min', now(), 'info', 'api', NULL, NULL, '外部システムからの通知: 日次締め処理が完了しました', 7),
 (now() - interval '40 s', now(), 'warning', 'message', 'sshd', 'web1', 'Failed password for invalid user admin from 203.0.113.9 port 51514 ssh2', 7)
"""


async def fill(store: Store) -> None:
    """Write hosts, monitors, states, events and runs of job nets."""

    async def work(conn: Connection) -> None:
        await apply(conn, parse(TEXT))
        await conn.execute("UPDATE host SET has_agent = true, agent_seen_utc = now()")
        await conn.execute(
            "INSERT INTO host (host_name, address, is_registered) VALUES ('sw-core', '10.91.1.2', false)"
        )
        await conn.execute(
            "INSERT INTO monitor_state (monitor_name, host_name, status, since_utc, next_due_utc)"
            " SELECT 'ping-all', host_name, CASE host_name WHEN 'web2' THEN 'critical' ELSE 'ok' END,"
            " now() - interval '20 min', now() FROM scope_host WHERE scope_name = 'all'"
        )
        await conn.execute(_EVENTS.encode())
        for net, states in (
            ("backup", {"dump": "unknown", "copy": "not-run"}),
            ("nightly", {j: "normal" for j in ("extract", "transform-1", "transform-2", "load", "report")}),
            ("nightly", {"extract": "normal", "transform-1": "normal", "transform-2": "running"}),
        ):
            await _run(conn, net, states)

    await store.commit(work, name="content.fill")


async def _run(conn: Connection, net: str, states: dict[str, str]) -> None:
    opened = await open_session(conn, net, trigger="schedule nightly-at-one")
    for name, state in states.items():
        await conn.execute(
            "UPDATE job_run SET state = %s, started_utc = now() - interval '11 min',"
            " ended_utc = CASE WHEN %s = 'running' THEN NULL ELSE now() - interval '10 min' END,"
            " exit_code = CASE WHEN %s = 'normal' THEN 0 END, output = CASE WHEN %s = 'normal' THEN '1204 rows' END"
            " WHERE session_id = %s AND job_name = %s",
            (state, state, state, state, opened.session_id, name),
        )
    is_open = "running" in states.values()
    worst = "running" if is_open else "unknown" if "unknown" in states.values() else "normal"
    await conn.execute(
        "UPDATE job_session SET state = %s, started_utc = now() - interval '11 min',"
        " ended_utc = CASE WHEN %s THEN NULL ELSE now() - interval '6 min' END WHERE session_id = %s",
        (worst, is_open, opened.session_id),
    )
