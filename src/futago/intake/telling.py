"""What a record tells: the kind of monitor that looks at it, the line that patterns see, and what it names itself. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from futago.intake import syslog
from futago.intake.model import Protocol, Record
from futago.intake.traps import TrapReader

_NOTHING: Mapping[str, str] = {}
_NO_DETAIL: Mapping[str, object] = {}


class Told(NamedTuple):
    """One message.

    Attributes:
        kind: of the monitors: syslog, snmptrap.
        fields: names and values that templates may use beside the groups of their patterns.
        detail: what belongs into the events' detail.
    """

    kind: str
    text: str
    fields: Mapping[str, str] = _NOTHING
    detail: Mapping[str, object] = _NO_DETAIL


def tell(record: Record, traps: TrapReader) -> Told:
    """Return what a message that takes effect tells."""
    if record.protocol != Protocol.SNMP_UDP:
        return Told("syslog", syslog.text_of(record.data))
    found = traps.read(record)
    if found.named is None:
        return Told("snmptrap", found.text)
    named = found.named
    return Told(
        "snmptrap", found.text, {**named.fields, "trap": named.trap}, {"trap": named.trap, "names": named.fields}
    )
