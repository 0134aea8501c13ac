"""Syslog messages as people read them: RFC 5424, RFC 3164 and what lies between. Pure, tolerant: anything is a message.

Any bytes become text that a database and a terminal take: what is not UTF-8, and control characters other than tab and
line ends, are written as \\xNN.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

TEXT_CHARS_MAX = 65_536
_DEFAULT_PRIORITY = 13  # user.notice, as RFC 3164 says of a message without one
_PRIORITY = re.compile(r"<(\d{1,3})>")
_RFC5424 = re.compile(
    r"1 (?P<time>\S+) (?P<host>\S+) (?P<app>\S+) (?P<pid>\S+) \S+ "
    r'(?:-|(?:\[(?:[^\]"\\]|"(?:[^"\\]|\\.)*"|\\.)*\])+)(?: (?P<message>.*))?\Z',
    re.S,
)
_TIMES = r"[A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d|\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?(?:Z|[+-]\d\d:?\d\d)?"
_RFC3164 = re.compile(rf"(?P<time>{_TIMES}) (?:(?P<host>[\w.:-]+) )?(?P<rest>.*)\Z", re.S)
_TAG = re.compile(r"(?P<app>[^\s:\[\]]{1,64})(?:\[(?P<pid>[^\]\s]{0,32})\])?: ?(?P<message>.*)\Z", re.S)
# The beginning of a message that carries its own time (see merge.py): both RFCs, and what rsyslog forwards.
_DATED = re.compile(
    rb"<\d{1,3}>(?:1 )?(?:\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d|[A-Z][a-z]{2} [ \d]\d (?:\d{4} )?\d\d:\d\d:\d\d)"
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


def trimmed(data: bytes) -> bytes:
    """Return the content without the trailing LF, CR and NUL that only some framings carry."""
    return data.rstrip(b"\r\n\0")


def is_dated(data: bytes) -> bool:
    """Return whether the message carries its own time."""
    return _DATED.match(data) is not None


def safe_text(data: bytes) -> str:
    """Return text that a database takes, for any bytes."""
    text = data[:TEXT_CHARS_MAX].decode("utf-8", "backslashreplace")
    return text if text.isprintable() else _CONTROL.sub(_escaped, text)


def _escaped(found: re.Match[str]) -> str:
    return f"\\x{ord(found[0]):02x}"


def text_of(data: bytes) -> str:
    """Return the line that patterns are matched against: the message without its priority."""
    text = safe_text(trimmed(data))
    if text[:1] == "<":
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
        return SyslogMessage(facility, severity, nil["time"], nil["host"], nil["app"], nil["pid"], message, text)
    older = _RFC3164.match(text)
    time, host, rest = (older["time"], older["host"] or "", older["rest"]) if older else ("", "", text)
    if host.endswith(":"):  # no host: this is the tag
        host, rest = "", f"{host} {rest}"
    tag = _TAG.match(rest)
    app, pid, message = (tag["app"], tag["pid"] or "", tag["message"]) if tag else ("", "", rest)
    return SyslogMessage(facility, severity, time, host, app, pid, message, text)
