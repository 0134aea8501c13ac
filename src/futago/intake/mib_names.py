"""Names of MIB modules for what notifications hold: notifications, objects, enumerations, display hints. Pure.

A compiled module is a list of nodes; `MibNames` holds those of all loaded modules and turns a notification into names.
Nothing is raised for a value that does not fit its module: then the plain value is shown.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

import msgspec

from futago.intake.ber import INTEGER, OID, STRING
from futago.intake.snmp import Varbind

SUFFIX_MAX = 128
_RESOLVED_MAX = 20_000
_HINT_PART = re.compile(r"(\*?)(\d+)([xdoat])([^\d*]?)([^\d*]?)")
_HINT_BYTES_MAX = 1024


class Node(msgspec.Struct, frozen=True, omit_defaults=True):
    """One name in the tree.

    Attributes:
        oid: dotted.
        values: names of an enumeration's values, or of bits' numbers.
        hint: DISPLAY-HINT of its syntax (RFC 2579, section 3.1).
        objects: of a notification, what it should carry.
    """

    oid: str
    name: str
    is_notification: bool = False
    values: dict[int, str] = {}
    are_bits: bool = False
    hint: str = ""
    objects: list[str] = []


class Module(msgspec.Struct, frozen=True):
    """One compiled MIB module. `imports`: names of the modules that it needs."""

    name: str
    imports: list[str]
    nodes: list[Node]


def _node(oid: str, name: str, *, is_notification: bool = False, hint: str = "") -> Node:
    return Node(oid, name, is_notification, hint=hint)


_TRAPS, _SYSTEM = "1.3.6.1.6.3.1.1.5", "1.3.6.1.2.1.1"
# Known as soon as any module is: what all agents send (RFC 3418, RFC 3584).
BASE = Module(
    "SNMPv2-MIB",
    [],
    [
        *(_node(f"{_TRAPS}.{n}", name, is_notification=True) for n, name in ((1, "coldStart"), (2, "warmStart"))),
        _node(f"{_TRAPS}.5", "authenticationFailure", is_notification=True),
        _node("1.3.6.1.6.3.1.1.4.3", "snmpTrapEnterprise"),
        _node(f"{_SYSTEM}.1", "sysDescr", hint="255a"),
        _node(f"{_SYSTEM}.2", "sysObjectID"),
        _node(f"{_SYSTEM}.3", "sysUpTime"),
        *(
            _node(f"{_SYSTEM}.{n}", f"sys{name}", hint="255a")
            for n, name in ((4, "Contact"), (5, "Name"), (6, "Location"))
        ),
    ],
)
COMMUNITY_BASE = Module("SNMP-COMMUNITY-MIB", [], [_node("1.3.6.1.6.3.18.1.3", "snmpTrapAddress")])


class Named(msgspec.Struct, frozen=True):
    """A notification with names. `fields`: object name (without the instance) -> value, the first of each."""

    trap: str
    text: str
    fields: dict[str, str]


class MibNames:
    """The names of all loaded modules. Of two modules that name the same, the one that was given last is taken.

    Args:
        modules: compiled ones; none: nothing is named.
    """

    def __init__(self, modules: Iterable[Module] = ()) -> None:
        given = list(modules)
        self._nodes: dict[str, tuple[str, Node]] = {}
        for module in [BASE, COMMUNITY_BASE, *given] if given else []:
            for node in module.nodes:
                self._nodes[node.oid] = (module.name, node)
        self._resolved: dict[str, tuple[str, Node, str] | None] = {}

    def __bool__(self) -> bool:
        return bool(self._nodes)

    def find(self, oid: str) -> tuple[str, Node, str] | None:
        """Return (module, node, rest) of the longest named beginning of an OID; rest begins with a dot, or is empty."""
        known = self._resolved.get(oid, ())
        if known != ():
            return known  # type: ignore[return-value]
        found = self._find(oid)
        if len(self._resolved) >= _RESOLVED_MAX:
            self._resolved.clear()
        self._resolved[oid] = found
        return found

    def _find(self, oid: str) -> tuple[str, Node, str] | None:
        end = len(oid)
        while end > 0:
            known = self._nodes.get(oid[:end])
            if known is not None:
                return known[0], known[1], oid[end:]
            end = oid.rfind(".", 0, end)
        return None

    def oid_name(self, oid: str) -> str:
        """Return `MODULE::name.rest`, or the OID as it is."""
        found = self.find(oid)
        return f"{found[0]}::{found[1].name}{found[2]}" if found is not None else oid

    def named(self, trap_oid: str, varbinds: Iterable[Varbind]) -> Named | None:
        """Return a notification with names; None if none of it is known."""
        found = self.find(trap_oid)
        trap = f"{found[0]}::{found[1].name}" if found is not None and found[1].is_notification and not found[2] else ""
        fields: dict[str, str] = {}
        parts = [f"trap={trap}"] if trap else []
        for varbind in varbinds:
            place = self.find(varbind.oid)
            if place is None or place[1].is_notification:
                continue
            _, node, rest = place
            shown = self.shown(node, varbind)
            parts.append(f"{node.name}{rest}={shown}")
            fields.setdefault(node.name, shown)
        return Named(trap, " ".join(parts), fields) if parts else None

    def shown(self, node: Node, varbind: Varbind) -> str:
        """Return a value as its object's syntax shows it."""
        tag, text, data = varbind.tag, varbind.text, varbind.data
        if tag == OID:
            return self.oid_name(text)
        if tag == INTEGER and node.values and not node.are_bits:
            name = node.values.get(int(text))
            return f"{name}({text})" if name is not None else text
        if tag == STRING and node.are_bits:
            return " ".join(_bits(node, data)) or text
        if tag == STRING and node.hint:
            shown = hinted(node.hint, data)
            return shown if shown is not None else text
        if tag == INTEGER and node.hint.startswith("d-") and node.hint[2:].isdigit():
            return _decimal(int(text), int(node.hint[2:]))
        return text


def _bits(node: Node, data: bytes) -> list[str]:
    numbers = [8 * n + bit for n, byte in enumerate(data[:64]) for bit in range(8) if byte & (0x80 >> bit)]
    return [f"{node.values.get(number, 'bit')}({number})" for number in numbers]


def _decimal(number: int, places: int) -> str:
    if not 0 < places < 20:
        return str(number)
    digits = str(abs(number)).rjust(places + 1, "0")
    return f"{'-' if number < 0 else ''}{digits[:-places]}.{digits[-places:]}"


def hinted(hint: str, data: bytes) -> str | None:
    """Return octets as a DISPLAY-HINT says (RFC 2579, section 3.1); None if it says nothing about them, or is of a kind
    that plain text shows as well.
    """
    if hint.endswith(("a", "t")) and hint[:-1].isdigit():
        return None  # text, as it is shown without a hint
    parts = _HINT_PART.findall(hint)
    if not parts or len(data) > _HINT_BYTES_MAX or "".join("".join(part) for part in parts) != hint:
        return None
    made: list[str] = []
    at, turn = 0, 0
    while at < len(data):
        repeat, size, kind, separator, end = parts[min(turn, len(parts) - 1)]
        turn += 1
        count, width = 1, int(size)
        if repeat:
            count, at = data[at], at + 1
        if width == 0 and turn >= len(parts):
            return None  # it would never end
        for _ in range(count):
            piece = data[at : at + width]
            at += width
            if piece:
                made.append(_piece(kind, piece))
            if separator and at < len(data):
                made.append(separator)
        if repeat and end and at < len(data):
            made[-1:] = [end]
    return "".join(made)


def _piece(kind: str, data: bytes) -> str:
    if kind == "x":
        return data.hex()
    if kind in "at":
        text = data.decode("utf-8", "replace")
        return text if text.isprintable() else "0x" + data.hex()
    number = int.from_bytes(data, "big")
    return str(number) if kind == "d" else f"{number:o}"
