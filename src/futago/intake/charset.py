"""Text of bytes of which nobody says how they are encoded: UTF-8, and the Japanese encodings of older devices. Pure.

UTF-8 if it is, or nearly. Else EUC-JP, then Shift_JIS (with Microsoft's additions), then ISO-2022-JP, where the bytes
decode without an error and contain two characters of Japanese beside each other: single high bytes are more likely
Latin. Everything else stays readable: bytes that are not UTF-8 become \\xNN. Nothing is ever lost by a wrong guess: the
journal keeps the bytes. Text of nothing but half-width katakana in Shift_JIS may be taken for EUC-JP kanji.
"""

from __future__ import annotations

import re

_UTF8_JAPANESE = re.compile(rb"[\xe2-\xe9\xef][\x80-\xbf][\x80-\xbf]")
_HIGH = re.compile(rb"[\x80-\xff]")
_SHIFT_JIS = re.compile(rb"[\x81-\x9f]|[\xa1-\xdf]{3}")  # kana and common kanji: no letters of Latin
_NEARLY = 0.7  # so much of the high bytes in whole UTF-8 characters: it is UTF-8 with damage, or cut off
_DOUBLE = re.compile("[\u3001-\u30ff\u4e00-\u9fff\uff01-\uff9f]{2}")
_FOREIGN = re.compile(
    "[^\\x00-\\x7f\u2010-\u2642\u3000-\u30ff\u4e00-\u9fff\uff00-\uffef\xa7\xa8\xb0-\xb6\xd7\xf7\u0391-\u0451]"
)
_ESCAPE_JAPANESE = (b"\x1b$B", b"\x1b$@")


def text_of_bytes(data: bytes) -> str:
    """Return text for any bytes."""
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        return _japanese(data) or data.decode("utf-8", "backslashreplace")
    if "\x1b" in text and any(escape in data for escape in _ESCAPE_JAPANESE):
        return _tried(data, "iso2022_jp") or text
    return text


def _japanese(data: bytes) -> str | None:
    high = len(_HIGH.findall(data))
    if 3 * len(_UTF8_JAPANESE.findall(data)) >= _NEARLY * high:
        return None
    return _tried(data, "euc_jp") or (_tried(data, "cp932") if _SHIFT_JIS.search(data) else None)


def _tried(data: bytes, encoding: str) -> str | None:
    """Return the text if the bytes are of this encoding, and it is Japanese."""
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError:
        return None
    return text if _DOUBLE.search(text) and not _FOREIGN.search(text) else None
