"""What a record tells: the kind of monitor that looks at it, the line that patterns see, and what it names itself. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from futago.intake import custom_traps, syslog
from futago.intake.model import Protocol, Record
from futago.intake.traps import TrapReader

_NOTHING: Mapping[str, str] = {}
_NO_DETAIL: Mapping[str, object] = {}


class Told(NamedTuple):
    """One message.

    Attributes:
        kind: of the monitors: syslog, snmptrap, customtrap.
        fields: names and values that templates may use beside the groups of their patterns.
        detail: what belongs into the events' detail.
    """

    kind: str
    text: str
    fields: Mapping[str, str] = _NOTHING
    detail: Mapping[str, object] = _NO_DETAIL


def tell(record: Record, traps: TrapReader) -> Told:
    """Return what a message that takes effect tells."""
    if record.protocol == Protocol.SNMP_UDP:
        return _notification(record, traps)
    if record.protocol == Protocol.CUSTOM_TRAP:
        return _custom(record)
    return Told("syslog", syslog.text_of(record.data))


def _notification(record: Record, traps: TrapReader) -> Told:
    found = traps.read(record)
    if found.named is None:
        return Told("snmptrap", found.text)
    named = found.named
    return Told(
        "snmptrap", found.text, {**named.fields, "trap": named.trap}, {"trap": named.trap, "names": named.fields}
    )


def _custom(record: Record) -> Told:
    trap = custom_traps.read(record.data)
    if trap is None:
        return Told("customtrap", syslog.text_of(record.data))
    detail: dict[str, object] = {"posted_by": trap.account}
    if trap.fields:
        detail["fields"] = trap.fields
    return Told("customtrap", trap.text, {**trap.fields, "message": trap.message}, detail)


def host_named(record: Record) -> str:
    """Return the host that a message names as its sender; empty if none."""
    if record.protocol == Protocol.CUSTOM_TRAP:
        trap = custom_traps.read(record.data)
        return trap.host if trap is not None else ""
    return "" if record.protocol == Protocol.SNMP_UDP else syslog.host_named(record.data)
