"""Syslog messages as people read them: RFC 5424, RFC 3164 and what lies between. Pure, tolerant: anything is a message.

Any bytes become text that a database and a terminal take (charset.py says how they are decoded); control characters
other than tab and line ends are written as \\xNN.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from futago.intake.charset import text_of_bytes

TEXT_CHARS_MAX = 65_536
STRUCTURED_CHARS_MAX = 8192
HEAD_BYTES_MAX = 512  # time, host and tag stand within it
_DEFAULT_PRIORITY = 13  # user.notice, as RFC 3164 says of a message without one
_PRIORITY = re.compile(r"<(\d{1,3})>")
_PRIORITY_BYTES = re.compile(rb"<(\d{1,3})>")
_RFC5424 = re.compile(
    r"1 (?P<time>\S+) (?P<host>\S+) (?P<app>\S+) (?P<pid>\S+) \S+ "
    r'(?P<structured>-|(?:\[(?:[^\]"\\]|"(?:[^"\\]|\\.)*"|\\.)*\])+)(?: (?P<message>.*))?\Z',
    re.S,
)
_CLOCK = r"\d\d:\d\d:\d\d(?:[.,]\d{1,9})?"
_ZONE = r"(?:Z| ?[+-]\d\d:?\d\d| (?:UTC|GMT|JST|[A-Z]{2,3}T))?"
# How devices write times: RFC 3164, with a year on either side, fractions and zones; ISO 8601; day before month.
_TIMES = (
    rf"(?:[A-Z][a-z]{{2}} )?[A-Z][a-z]{{2}} [ \d]?\d (?:\d{{4}} )?{_CLOCK}(?: \d{{4}}\b)?{_ZONE}"
    rf"|\d{{4}}[-/]\d\d[-/]\d\d[T ]{_CLOCK}{_ZONE}"
    rf"|\d{{1,2}} [A-Z][a-z]{{2}} (?:\d{{4}} )?{_CLOCK}{_ZONE}"
)
# Cisco's sequence number, the host after it, and the sign of a clock that is not set. Without a number some write a colon.
_COUNTED = r"[: ]{0,2}(?:\d{1,10}: (?:(?P<origin>[\w.-]{1,64}): )?)?[*.]?"
# Others than RFC 3164 and its like: the fields that Fortinet's devices begin with, and Meraki's seconds since 1970.
_KEYED = r"date=\d{4}-\d\d-\d\d,? time=\d\d:\d\d:\d\d"
_EPOCH = r"(?:1 )?1\d{9}\.\d{1,9}(?= )"
_FORWARDED = r"Message forwarded from (?P<first>[\w.:-]{1,255}): "  # AIX
_RFC3164 = re.compile(
    rf"{_COUNTED}(?P<time>{_TIMES}):? (?:{_FORWARDED}|(?P<host>[\w.:-]+) )?(?P<rest>.*)\Z"
    rf"|(?P<epoch>{_EPOCH}) (?P<named>[\w.:-]+) (?P<said>.*)\Z",
    re.S,
)
_TAG = re.compile(r"(?P<app>[^\s:\[\]]{1,64})(?:\[(?P<pid>[^\]\s]{0,32})\])?: ?(?P<message>.*)\Z", re.S)
# The beginning of a message that carries its own time (see merge.py): both RFCs, and what rsyslog forwards.
_DATED = re.compile(
    rf"<\d{{1,3}}>(?:(?:1 )?{_COUNTED.replace('?P<origin>', '?:')}(?:{_TIMES})|{_KEYED}|{_EPOCH})".encode()
)
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")
_BOM = "\ufeff"


@dataclass(frozen=True, slots=True)
class SyslogMessage:
    """One message. `text` is everything after the priority; empty strings where the sender said nothing."""

    facility: int
    severity: int
    time: str
    host: str
    app: str
    pid: str
    message: str
    text: str
    structured: str = ""  # of RFC 5424, as it came; see `elements`


def trimmed(data: bytes) -> bytes:
    """Return the content without the trailing LF, CR and NUL that only some framings carry."""
    return data.rstrip(b"\r\n\0")


def is_dated(data: bytes) -> bool:
    """Return whether the message carries its own time."""
    return _DATED.match(data) is not None


def severity_of(data: bytes) -> int | None:
    """Return the severity that a message gives itself: 0 emergency to 7 debug; None without a priority."""
    found = _PRIORITY_BYTES.match(data)
    return int(found[1]) & 7 if found else None


def safe_text(data: bytes) -> str:
    """Return text that a database takes, for any bytes."""
    if data.isascii() and len(data) <= TEXT_CHARS_MAX:  # nearly all
        text = data.decode("ascii")
        if "\x1b" not in text:
            return text if text.isprintable() else _CONTROL.sub(_escaped, text)
    text = text_of_bytes(data[:TEXT_CHARS_MAX])
    return text if text.isprintable() else _CONTROL.sub(_escaped, text)


def _escaped(found: re.Match[str]) -> str:
    return f"\\x{ord(found[0]):02x}"


def text_of(data: bytes) -> str:
    """Return the line that patterns are matched against: the message without its priority."""
    text = safe_text(data.rstrip(b"\r\n\0"))
    if text.startswith("<"):
        end = text.find(">", 1, 5)
        if end > 1 and text[1:end].isdecimal():
            return text[end + 1 :]
    return text


def parse(data: bytes) -> SyslogMessage:
    """Return the parts of a message; whatever it is, it has a text."""
    whole = safe_text(trimmed(data))
    found = _PRIORITY.match(whole)
    priority = int(found[1]) if found and int(found[1]) <= 191 else _DEFAULT_PRIORITY
    text = whole[found.end() :] if found else whole
    facility, severity = divmod(priority, 8)
    newer = _RFC5424.match(text)
    if newer:
        nil = {
            key: "" if value in ("-", None) else value for key, value in newer.groupdict().items() if key != "message"
        }
        message = (newer["message"] or "").removeprefix(_BOM)
        return SyslogMessage(
            facility, severity, nil["time"], nil["host"], nil["app"], nil["pid"], message, text, nil["structured"]
        )
    time, host, rest = _older(text)
    if host.endswith(":"):  # no host: this is the tag
        host, rest = "", f"{host} {rest}"
    tag = _TAG.match(rest)
    app, pid, message = (tag["app"], tag["pid"] or "", tag["message"]) if tag else ("", "", rest)
    return SyslogMessage(facility, severity, time, host, app, pid, message, text)


def _older(text: str) -> tuple[str, str, str]:
    """Return the time and the host of a message of RFC 3164 or its like, and what follows; without a time all of it."""
    found = _RFC3164.match(text)
    if found is None:
        return "", "", text
    if found["epoch"]:
        return found["epoch"].removeprefix("1 "), found["named"], found["said"]
    if found["origin"]:  # then no other host follows
        return found["time"], found["origin"], " ".join(part for part in (found["host"], found["rest"]) if part)
    return found["time"], found["first"] or found["host"] or "", found["rest"]


_ELEMENT = re.compile(r'\[([^\s=\]"]{1,32})((?: [^\s=\]"]{1,32}="(?:[^"\\]|\\.)*")*) ?\]', re.S)
_PARAMETER = re.compile(r'([^\s=\]"]{1,32})="((?:[^"\\]|\\.)*)"', re.S)
_ESCAPE = re.compile(r'\\(["\\\]])')


def elements(structured: str) -> dict[str, dict[str, str]]:
    """Return the structured data of RFC 5424: element -> parameter -> value. What is malformed is passed over."""
    return {
        name: {key: _ESCAPE.sub(r"\1", value) for key, value in _PARAMETER.findall(parameters)}
        for name, parameters in _ELEMENT.findall(structured)
    }


def structured_of(text: str) -> dict[str, dict[str, str]]:
    """Return the structured data of a line that patterns see, if it is of RFC 5424 and has any."""
    if not text.startswith("1 ") or "[" not in text:
        return {}
    newer = _RFC5424.match(text)
    return elements(newer["structured"][:STRUCTURED_CHARS_MAX]) if newer else {}


def host_named(data: bytes) -> str:
    """Return the host that a message names, in lower case; "" if it names none."""
    return parse(data[:HEAD_BYTES_MAX]).host.lower()
