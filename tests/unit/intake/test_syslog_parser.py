"""Syslog as people read it: RFCs, dialects, and anything at all."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from futago.intake.charset import text_of_bytes
from futago.intake.syslog import SyslogMessage, elements, host_named, is_dated, parse, structured_of, text_of


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
        (b"<189>123: *Nov 22 11:00:00.123: %SYS-5-CONFIG_I: done", "", "%SYS-5-CONFIG_I", "", "done"),
        (b"<13>Nov 22 2026 11:00:00 web1 app: year", "web1", "app", "", "year"),
        (b"<13>Sun Nov 22 11:00:00 2026 web1 app: weekday", "web1", "app", "", "weekday"),
        (b"<13>Nov 22 11:00:00.000 JST web1 app: zone", "web1", "app", "", "zone"),
        (b"<13>2026-11-22 11:00:00,123 web1 app: iso with a space", "web1", "app", "", "iso with a space"),
        (b"<13>2026/11/22 11:00:00 web1 app: slashes", "web1", "app", "", "slashes"),
        (b"<13>22 Nov 2026 11:00:00 +0900 web1 app: day first", "web1", "app", "", "day first"),
        (b"<13>Feb 30 25:61:61 web1 app: no such time", "web1", "app", "", "no such time"),
        (b"<189>45: rt-1: Nov 22 11:00:00.123 JST: %LINK-3-UPDOWN: origin", "rt-1", "%LINK-3-UPDOWN", "", "origin"),
        (b"<189>: Nov 22 11:00:00: %LINK-3-UPDOWN: colon", "", "%LINK-3-UPDOWN", "", "colon"),
        (b"<13> Nov 22 11:00:00 web1 app: blank", "web1", "app", "", "blank"),
        (b"<13>Nov 22 11:00:00 Message forwarded from aix1: su: bad", "aix1", "su", "", "bad"),
        (b"<134>1 1732273200.123456 mx84 events type=x", "mx84", "", "", "events type=x"),
        (b"<13>Nov 22 11:00:00 10.0.0.1 kernel: address", "10.0.0.1", "kernel", "", "address"),
        (b"<13>Nov 22 11:00:00 fe80::1 app: v6", "fe80::1", "app", "", "v6"),
        (b"<13>Nov 22 11:00:00 web1 last message repeated 3 times", "web1", "", "", "last message repeated 3 times"),
        (b"Nov 22 11:00:00 web1 app: no priority", "web1", "app", "", "no priority"),
        (b"<>Nov 22 11:00:00 web1 x: y", "", "", "", "<>Nov 22 11:00:00 web1 x: y"),
        (b"just text", "", "", "", "just text"),
        (b"<999>odd priority", "", "", "", "<999>odd priority"),
        (b"", "", "", "", ""),
    ],
)
def test_dialects(raw: bytes, host: str, app: str, pid: str, message: str) -> None:
    found = parse(raw)
    if raw.startswith(b"<>"):
        assert found.text == raw.decode()
    elif raw.startswith(b"<999>"):
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
        b"<189>45: rt-1: Nov 22 11:00:00.123 JST: %LINK-3-UPDOWN: x",
        b"<189>: *Nov 22 11:00:00: %LINK-3-UPDOWN: x",
        b"<13> Nov 22 11:00:00 web1 app: x",
        b'<189>date=2026-11-22 time=11:00:00 devname="fw1" type=event',
        b"<134>1 1732273200.123456 mx84 events type=x",
    ):
        assert is_dated(raw), raw
    for raw in (
        b"<13>1 - web1 a - - - x",
        b"<13>x",
        b"",
        b"Nov 22 11:00:00 x",
        b"<13>app: Nov 22 11:00:00",
        b"<13>1732273200 x",
    ):
        assert not is_dated(raw)


def test_patterns_see_the_line_without_its_priority() -> None:
    assert text_of(b"<13>Nov 22 11:00:00 web1 app: x\n\0") == "Nov 22 11:00:00 web1 app: x"
    assert text_of(b"no priority <13>") == "no priority <13>"
    assert text_of(b"<abc>x") == "<abc>x"
    assert text_of(b"a\0b\xff") == "a\\x00b\\xff"


def test_structured_data_is_read_with_its_escapes() -> None:
    raw = '<165>1 - web1 a - - [ex@1 a="b \\"]\\" c\\\\" d=""][empty][日本@2 k="値"] text'
    found = parse(raw.encode())
    assert elements(found.structured) == {"ex@1": {"a": 'b "]" c\\', "d": ""}, "empty": {}, "日本@2": {"k": "値"}}
    assert structured_of(text_of(raw.encode())) == elements(found.structured)
    assert structured_of("1 - - - - - - [no] data") == {}
    assert structured_of('Nov 22 11:00:00 [x y="z"]') == {}


@given(st.text(max_size=200))
def test_structured_data_takes_anything(text: str) -> None:
    assert isinstance(structured_of("1 - - - - - [" + text), dict)
    assert isinstance(elements(text), dict)


KANA = "アイウエオカキクケコサシスセソタチツテトあいうえおかきくけこがぎぐげごッー"
KANJI = "障害発生復旧系切替監視対象装置異常検知停止起動確認警報電源温度"


@given(
    st.lists(st.text("abc XYZ09-:[]%.", max_size=6), min_size=1, max_size=6),
    st.lists(st.text(KANA + KANJI, min_size=2, max_size=8), min_size=1, max_size=6),
    st.sampled_from(["utf-8", "cp932", "euc_jp", "iso2022_jp"]),
)
def test_japanese_of_any_encoding_is_read(plain: list[str], japanese: list[str], encoding: str) -> None:
    text = "サーバ" + "".join(a + b for a, b in zip(plain, japanese, strict=False)) + "異常"
    assert text_of_bytes(text.encode(encoding)) == text
    raw = b"<13>Nov 22 11:00:00 web1 app: " + text.encode(encoding)
    assert text_of(raw) == "Nov 22 11:00:00 web1 app: " + text
    assert parse(raw).message == text


@pytest.mark.parametrize(
    "raw", ["Zürich".encode("latin-1"), "Générale élève".encode("latin-1"), b"a\x93quoted\x94", b"\xff\xfe", b"\x80"]
)
def test_what_is_not_japanese_is_not_read_as_such(raw: bytes) -> None:
    assert text_of_bytes(raw) == raw.decode("utf-8", "backslashreplace")


def test_utf8_that_was_cut_off_or_damaged_stays_utf8() -> None:
    whole = "障害が発生しました".encode()
    for cut in range(1, 3):
        assert text_of_bytes(whole[:-cut]).startswith("障害が発生しまし\\xe3")
    assert text_of_bytes(whole + b"\xff") == "障害が発生しました\\xff"
    long = ("<13>" + "障" * 30_000).encode()
    assert text_of(long[:65_536]).startswith("障" * 21_000)


def test_the_host_that_a_message_names() -> None:
    assert host_named(b"<13>Nov 22 11:00:00 WEB1.example.org app: x") == "web1.example.org"
    assert host_named(b"<13>1 2026-11-22T11:00:00Z web2 app - - - x") == "web2"
    assert host_named(b"<13>no host here") == ""
