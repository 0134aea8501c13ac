"""YAML to objects: what is accepted, and that each complaint names its place."""

from __future__ import annotations

import time
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from futago.inventory.definitions import parse, validate
from futago.inventory.duration import format_duration, parse_duration
from futago.inventory.model import Kind, PingMonitor, Reference, SyslogMonitor
from futago.runtime.faults import OperatorFault

GOOD = """
kind: Host
name: web1
address: 10.91.1.21
---
kind: Scope
name: web
hosts: [web1]
---
kind: Notification
name: ops
channel: mail
to: [ops@lab.test]
from: futago@lab.test
smtp: {host: 10.91.1.50, port: 25}
---
kind: Monitor
name: ping-web
check: ping            # ping | tcp (port:) | syslog | snmptrap
scope: web
interval: 1s
timeout: 800ms
failures: 2
notify: [ops]
---
kind: Monitor
name: numbered
check: syslog
scope: "*"
patterns:
  - match: 'SEQ=(?P<seq>\\S+)'
    priority: info
    message: "{seq}"
---
# nothing but a comment
---
kind: Monitor
name: traps
check: snmptrap
scope: "*"
patterns:
  - match: '.'
    priority: warning
"""


def _refusal(text: str) -> str:
    with pytest.raises(OperatorFault) as caught:
        parse(text, file="f.yaml")
    assert caught.value.hint
    return caught.value.what


def test_every_kind_of_the_inventory_is_read() -> None:
    found = parse(GOOD)
    assert [(d.kind, d.name) for d in found] == [
        (Kind.HOST, "web1"),
        (Kind.SCOPE, "web"),
        (Kind.NOTIFICATION, "ops"),
        (Kind.MONITOR, "ping-web"),
        (Kind.MONITOR, "numbered"),
        (Kind.MONITOR, "traps"),
    ]
    ping = found[3].object
    assert isinstance(ping, PingMonitor)
    assert (ping.interval, ping.timeout, ping.failures) == (timedelta(seconds=1), timedelta(milliseconds=800), 2)
    assert list(ping.references()) == [
        Reference(Kind.SCOPE, "web", ("scope",)),
        Reference(Kind.NOTIFICATION, "ops", ("notify", 0)),
    ]
    numbered = found[4].object
    assert isinstance(numbered, SyslogMonitor) and list(numbered.references()) == []


def test_object_survives_its_own_json() -> None:
    for definition in parse(GOOD):
        spec = definition.object.model_dump(mode="json")
        again = validate(definition.kind, spec)
        assert again == definition.object
        assert again.model_dump(mode="json") == spec


def test_unknown_field_is_named_with_its_line_and_the_close_one() -> None:
    text = "kind: Monitor\nname: p\ncheck: ping\nscope: '*'\nintervall: 5s\n"
    assert _refusal(text) == "f.yaml:5: kind Monitor `p`: field `intervall` is not known; did you mean `interval`?"


def test_field_of_another_check_is_not_suggested_to_itself() -> None:
    said = _refusal("kind: Monitor\nname: p\ncheck: ping\nscope: '*'\nport: 5\n")
    assert said.startswith("f.yaml:5: kind Monitor `p`: field `port` is not known; ")
    assert "did you mean `port`" not in said


def test_unknown_field_deep_inside_is_named_with_its_path() -> None:
    text = "kind: Monitor\nname: s\ncheck: syslog\nscope: '*'\npatterns:\n  - match: x\n    priority: info\n"
    text += "    mesage: y\n"
    assert (
        _refusal(text) == "f.yaml:8: kind Monitor `s`: field `patterns[0].mesage` is not known; did you mean `message`?"
    )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("kind: Host\naddress: 10.0.0.1\n", "f.yaml:1: kind Host: field `name` is missing"),
        ("name: x\n", "f.yaml:1: field `kind` is missing; kinds are Host"),
        ("\n\nkind: Hots\nname: x\n", "f.yaml:3: kind `Hots` is not known; did you mean `Host`?"),
        ("- a\n- b\n", "f.yaml:1: a document is a set of fields"),
        (
            "kind: Host\nname: x\naddress: 10.0.0.300\n",
            "f.yaml:3: kind Host `x`: field `address`: value is not a valid",
        ),
        ("kind: Host\nname: 12\naddress: 10.0.0.3\n", "f.yaml:2: kind Host: field `name`: "),
        ("kind: Monitor\nname: p\nscope: w\n", "f.yaml:1: kind Monitor `p`: field `check` is missing"),
        (
            "kind: Monitor\nname: p\nscope: w\ncheck: pong\n",
            "f.yaml:4: kind Monitor `p`: field `check` is `pong`; it must",
        ),
        ("kind: Monitor\nname: p\nscope: w\ncheck: tcp\n", "f.yaml:1: kind Monitor `p`: field `port` is missing"),
        (
            "kind: Monitor\nname: p\nscope: w\ncheck: ping\ninterval: 5\n",
            "f.yaml:5: kind Monitor `p`: field `interval`: `5` is",
        ),
        (
            "kind: Monitor\nname: p\nscope: w\ncheck: ping\ninterval: 0s\n",
            "f.yaml:5: kind Monitor `p`: field `interval`: `0s`",
        ),
        (
            "kind: Monitor\nname: p\nscope: w\ncheck: ping\ntimeout: 2m\n",
            "f.yaml:1: kind Monitor `p`: `timeout` is longer",
        ),
        ("kind: Host\nname: a\nname: b\n", "f.yaml:3: field `name` stands here twice (first in line 2)"),
        ("kind: Host\nname: 'a\n", "f.yaml:2: not valid YAML: "),
        ("a: &x 1\nb: *x\n", "f.yaml:1: anchors and aliases"),
        (
            "kind: !!python/object/apply:os.system [id]\n",
            "f.yaml:1: the tag `tag:yaml.org,2002:python/object/apply:os.system`",
        ),
        ("kind: Host\nname: \x07\n", "f.yaml:1: not valid YAML: "),
    ],
)
def test_wrong_input_is_refused_with_its_place(text: str, said: str) -> None:
    assert said in _refusal(text)


@pytest.mark.parametrize(
    ("pattern", "said"),
    [
        ("match: '('\n    priority: info", "is not a regular expression"),
        ("match: x\n    priority: info\n    message: '{seq}'", "names {seq}, which is not a named group"),
        ("match: '(?P<a>x)'\n    priority: info\n    message: '{a.__class__}'", "names {a.__class__}"),
        ("match: '(?P<a>x)'\n    priority: info\n    message: '{a:>99999999}'", "only plain {name}"),
        ("match: x\n    priority: info\n    message: '{'", "literal braces"),
        ("match: x\n    priority: high", "field `patterns[0].priority`"),
    ],
)
def test_unsound_pattern_is_refused(pattern: str, said: str) -> None:
    text = f"kind: Monitor\nname: s\ncheck: syslog\nscope: '*'\npatterns:\n  - {pattern}\n"
    assert said in _refusal(text)


def test_all_complaints_of_a_text_are_shown_at_once() -> None:
    said = _refusal("kind: Host\nname: a\n---\nkind: Scope\nname: s\nhost: []\n").splitlines()
    assert len(said) == 3
    assert said[0].startswith("f.yaml:1:") and said[1].startswith("f.yaml:4:") and said[2].startswith("f.yaml:6:")


def test_same_object_twice_is_refused_with_both_lines() -> None:
    text = "kind: Host\nname: a\naddress: 10.0.0.1\n---\nkind: Host\nname: a\naddress: 10.0.0.2\n"
    assert "f.yaml:6: Host `a` is defined twice (first in f.yaml:2)" in _refusal(text)


@pytest.mark.parametrize(
    "text",
    [
        "[" * 100_000,
        "a: " * 10_000,
        "{" * 50_000,
        "a: [" + "1," * 500_000 + "]",
        "x" * (5 << 20),
        "\n".join(f"- {i}" for i in range(500_000)),
        "? [a]\n: b\n",
        "a: " + "9" * 1_000_000,
    ],
    ids=["deep-flow", "nested-keys", "deep-map", "many", "long", "many-lines", "complex-key", "long-number"],
)
def test_hostile_text_is_refused_quickly(text: str) -> None:
    began = time.process_time()
    _refusal(text)
    assert time.process_time() - began < 4


@given(st.text(max_size=200))
def test_any_text_is_read_or_refused_and_nothing_else(text: str) -> None:
    try:
        parse(text)
    except OperatorFault as e:
        assert e.what.startswith("<text>:")


@given(st.integers(min_value=1, max_value=10**11))
def test_duration_survives_its_own_text(ms: int) -> None:
    length = timedelta(milliseconds=ms)
    assert parse_duration(format_duration(length)) == length


@pytest.mark.parametrize("text", ["", "5", 5, True, None, "s", "-1s", "1 week", "1e3s", "0s", "9999999999s", "99999d"])
def test_what_is_not_a_duration_is_refused(text: object) -> None:
    with pytest.raises(ValueError):
        parse_duration(text)
