"""What makes two received copies the same message: a hash of source and content. Pure.

The key is (kind of protocol, source address, content). Syslog over UDP and TCP is one kind: the content decides.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from hashlib import blake2b

from futago.intake import syslog
from futago.intake.merge import Copies
from futago.intake.model import Protocol, Record


def copies_of(records: Sequence[Record], *, shift_ns: int, trap_content: Callable[[bytes], bytes]) -> Copies:
    """Return messages as the merge takes them.

    Args:
        shift_ns: brings their times onto the common axis.
        trap_content: gives what two copies of a notification have in common.
    """
    hashes: list[int] = []
    dated: list[bool] = []
    for record in records:
        data = record.data
        if record.protocol == Protocol.SNMP_UDP:
            content, person = trap_content(data), b"snmp"
            dated.append(False)
        else:
            content, person = data.rstrip(b"\r\n\0"), b"syslog"
            dated.append(syslog.is_dated(data))
        digest = blake2b(record.source + content, digest_size=8, person=person).digest()
        hashes.append(int.from_bytes(digest, "little"))
    return Copies(hashes, [record.time_ns - shift_ns for record in records], dated)
