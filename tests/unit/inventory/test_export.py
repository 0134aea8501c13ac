"""Objects as YAML and back: what is exported is the same object, and applying it changes nothing."""

from __future__ import annotations

import pytest

from futago.inventory.apply import Summary, apply
from futago.inventory.definitions import Definable, parse
from futago.inventory.export import export
from futago.inventory.model import Kind
from futago.inventory.text import as_yaml
from futago.store.commit import Connection, Store

TEXT = r"""
kind: Host
name: web1
address: 10.0.0.1
---
kind: Host
name: web2
address: fd00::2
---
kind: Scope
name: web
hosts: [web2, web1]
---
kind: Scope
name: empty
hosts: []
---
kind: Notification
name: ops
channel: mail
to: [o@lab.test]
from: f@lab.test
smtp: {host: 10.0.0.9, port: 26}
---
kind: Monitor
name: ping-web
check: ping
scope: web
interval: 90s
notify: [ops]
---
kind: Monitor
name: log
check: syslog
scope: "*"
patterns:
  - {match: 'error: (?P<what>.*)\\', priority: critical, message: "{what}: 'x' # no comment"}
---
kind: JobNet
name: nightly
notify: [ops]
jobs:
  - name: extract
    host: web1
    command: |
      set -e
      echo "a: b"  # 漢字

      exit 3
    env: {A: "yes", B: "1e3", C: " x "}
    exit_codes: {warning: 1-9}
    timeout: 1h30m
  - {name: load, host: web2, command: "true", after: [{job: extract, end: any}]}
---
kind: Calendar
name: bank
country: JP
closed: ["12-31"]
---
kind: Schedule
name: late
job_net: nightly
days: [last business]
at: ["25:30"]
timezone: Asia/Tokyo
calendar: bank
"""


@pytest.mark.parametrize("definition", parse(TEXT), ids=lambda d: d.name)
def test_object_as_text_is_the_same_object(definition: object) -> None:
    from futago.inventory.definitions import Definition

    assert isinstance(definition, Definition)
    (again,) = parse(as_yaml([(definition.kind, definition.object)]))
    assert (again.kind, again.object) == (definition.kind, definition.object)


def test_text_holds_what_differs_from_the_defaults_and_no_more() -> None:
    monitor = next(d for d in parse(TEXT) if d.name == "ping-web")
    assert as_yaml([(monitor.kind, monitor.object)]) == (
        "kind: Monitor\nname: ping-web\nscope: web\nnotify:\n  - ops\ninterval: 1m30s\ncheck: ping\n"
    )


def test_command_of_several_lines_stands_as_it_is() -> None:
    net = next(d for d in parse(TEXT) if d.name == "nightly")
    assert '    command: |\n      set -e\n      echo "a: b"  # 漢字\n\n      exit 3\n' in as_yaml(
        [(net.kind, net.object)]
    )


async def test_exported_definitions_change_nothing_when_they_are_applied(store: Store) -> None:
    async def load(text: str) -> Summary:
        return await store.commit(lambda c: apply(c, parse(text)), name="test.apply")

    await load(TEXT)

    async def read(conn: Connection) -> list[tuple[Kind, Definable]]:
        return await export(conn)

    found = await store.read(read, name="test.export")
    assert len(found) == len(parse(TEXT))
    summary = await load(as_yaml(found))
    assert summary.created == summary.changed == []

    async def some(conn: Connection) -> list[tuple[Kind, Definable]]:
        return await export(conn, kinds=[Kind.HOST, Kind.SCOPE], names=["web1", "web", "nightly"])

    assert [(k, o.name) for k, o in await store.read(some, name="test.export")] == [("Host", "web1"), ("Scope", "web")]
