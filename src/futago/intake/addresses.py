"""Sources of messages as text. Pure; what was met lately is remembered."""

from __future__ import annotations

import socket

_addresses: dict[bytes, str] = {}
_ADDRESSES_MAX = 20_000
_MAPPED = bytes(10) + b"\xff\xff"


def address_text(source: bytes) -> str:
    """Return an address as PostgreSQL's host() writes it."""
    known = _addresses.get(source)
    if known is None:
        if len(_addresses) >= _ADDRESSES_MAX:
            _addresses.clear()
        is_mapped = source.startswith(_MAPPED)
        known = (
            socket.inet_ntop(socket.AF_INET, source[12:]) if is_mapped else socket.inet_ntop(socket.AF_INET6, source)
        )
        _addresses[source] = known
    return known
