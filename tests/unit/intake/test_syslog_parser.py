"""Syslog as people read it: RFCs, dialects, and anything at all."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from futago.intake.syslog import SyslogMessage, is_dated, parse, text_of


def test_rfc5424_with_structured_data() -> None:
    raw = b'<165>1 2026-11-22T11:00:00.003Z web1 evntslog 17 ID47 [ex@1 a="b \\"]\\" c"][x y="z"] \xef\xbb\xbfAn event'
    found = parse(raw)
    assert (found.facility, found.severity) == (20, 5)
    assert (found.time, found.host, found.app, found.pid) == ("2026-11-22T11:00:00.003Z", "web1", "evntslog", "17")
    assert found.message == "An event"


def test_rfc5424_without_anything() -> None:
    found = parse(b"<13>1 - - - - - -")
    assert (found.time, found.host, found.app, found.pid, found.message) == ("", "", "", "", "")


@pytest.mark.parametrize(
    ("raw", "host", "app", "pid", "message"),
    [
        (b"<34>Oct 11 22:14:15 mymachine su: 'su root' failed", "mymachine", "su", "", "'su root' failed"),
        (b"<13>Nov  2 01:02:03 web1 app[77]: hello: world", "web1", "app", "77", "hello: world"),
        (b"<13>2026-11-22T11:00:00.123456+09:00 web1 root: iso", "web1", "root", "", "iso"),
        (b"<13>Nov  2 01:02:03 app: no host", "", "app", "", "no host"),
        (b"just text", "", "", "", "just text"),
        (b"<999>odd priority", "", "", "", "<999>odd priority"),
        (b"", "", "", "", ""),
    ],
)
def test_dialects(raw: bytes, host: str, app: str, pid: str, message: str) -> None:
    found = parse(raw)
    if raw.startswith(b"<999>"):
        assert found.severity == 5
        assert found.message.endswith("odd priority")
    else:
        assert (found.host, found.app, found.pid, found.message) == (host, app, pid, message)


@given(st.binary(max_size=400))
def test_any_bytes_become_text_that_a_database_takes(data: bytes) -> None:
    for prefix in (b"", b"<13>1 ", b"<13>Nov 22 11:00:00 ", b"<13>1 - - - - - ["):
        found = parse(prefix + data)
        assert isinstance(found, SyslogMessage)
        for text in (found.message, found.text, found.host, found.app, found.pid, text_of(prefix + data)):
            assert "\0" not in text
            text.encode("utf-8")


@given(st.integers(1, 60_000))
def test_unclosed_structured_data_takes_no_time(count: int) -> None:
    assert parse(b"<13>1 - - - - - " + b'["' + b"\\" * count).app != "x"


def test_what_carries_its_own_time_is_dated() -> None:
    for raw in (
        b"<13>Nov 22 11:00:00 web1 app: x",
        b"<13>Nov  2 2026 11:00:00: %ASA-1",
        b"<13>1 2026-11-22T11:00:00Z web1 a - - - x",
        b"<13>2026-11-22T11:00:00+09:00 web1 a: x",
    ):
        assert is_dated(raw)
    for raw in (b"<13>1 - web1 a - - - x", b"<13>x", b"", b"Nov 22 11:00:00 x", b"<13>app: Nov 22 11:00:00"):
        assert not is_dated(raw)


def test_patterns_see_the_line_without_its_priority() -> None:
    assert text_of(b"<13>Nov 22 11:00:00 web1 app: x\n\0") == "Nov 22 11:00:00 web1 app: x"
    assert text_of(b"no priority <13>") == "no priority <13>"
    assert text_of(b"<abc>x") == "<abc>x"
    assert text_of(b"a\0b\xff") == "a\\x00b\\xff"
