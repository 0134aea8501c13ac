"""What makes two received copies the same message: a hash of source and content. Pure.

The key is (kind of protocol, source address, content). Syslog over UDP and TCP is one kind: the content decides. What
holds a key of its own, as custom traps do, is known by its content alone.
"""

from __future__ import annotations

import sys
from array import array
from collections.abc import Callable, Sequence
from hashlib import blake2b

from futago.intake import syslog
from futago.intake.merge import Copies
from futago.intake.model import Flag, Protocol, Record, waited_ns


def copies_of(records: Sequence[Record], *, shift_ns: int, trap_content: Callable[[bytes], bytes]) -> Copies:
    """Return messages as the merge takes them.

    Args:
        shift_ns: brings their times onto the common axis.
        trap_content: gives what two copies of a notification have in common.
    """
    content_hash, dated = _hash_of, syslog.is_dated
    digests: list[bytes] = []
    are_dated: list[bool] = []
    for record in records:
        data = record.data
        if record.protocol == Protocol.SNMP_UDP:
            hashed = content_hash(_SNMP)
            hashed.update(record.source + trap_content(data))
            are_dated.append(False)
        elif record.protocol in _BY_CONTENT:
            hashed = content_hash(_OTHER)
            hashed.update(data)
            are_dated.append(True)
        else:
            hashed = content_hash(_SYSLOG)
            hashed.update(record.source + data.rstrip(b"\r\n\0"))
            are_dated.append(dated(data))
        digests.append(hashed.digest())
    hashes = array("Q", b"".join(digests))
    if sys.byteorder == "big":
        hashes.byteswap()
    waited = [waited_ns(r.flags) for r in records] if any(r.flags > Flag.CUT for r in records) else []
    return Copies(hashes.tolist(), [record.time_ns - shift_ns for record in records], are_dated, waited)


# A copy of a hash that was begun costs half of a new one.
_SNMP, _SYSLOG, _OTHER = (blake2b(digest_size=8, person=person) for person in (b"snmp", b"syslog", b"other"))
_BY_CONTENT = frozenset({int(Protocol.CUSTOM_TRAP), int(Protocol.NOTICE)})  # with a key, or a member's name, inside
_hash_of = type(_SNMP).copy
