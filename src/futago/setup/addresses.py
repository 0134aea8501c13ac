"""The settings of how the floating IP moves, `[pair.address]`; without that table it moves on one subnet by itself.

Light, as settings.py is. Lives here: the nouns and what each kind needs. Must not live here: how anything is moved
(cluster/address, one file per kind). A new kind is a row in SHAPES here, a file there, and a row in
cluster/address/kinds.py.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

DEADLINE_S = (1.0, 60.0)


class AddressSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How the floating IP moves.

    Args:
        kind: a key of SHAPES.
        region: of the cloud, such as eu-central-1.
        route_tables: their ids, for `aws-route`; in each, the floating IP leads to the serving member.
        allocation: the id of the elastic IP, for `aws-eip`.
        endpoint: URL of the cloud's API where it is not the public one (a VPC endpoint, an emulator).
        credentials_file: AWS_ACCESS_KEY_ID=..., AWS_SECRET_ACCESS_KEY=..., one a line, readable by root only; without
            it the instance's role is used.
        program: absolute path of the user's program, for `command`.
        deadline_s: seconds that one move may take.
    """

    kind: str = "netlink"
    region: str = ""
    route_tables: list[str] = []
    allocation: str = ""
    endpoint: str = ""
    credentials_file: str = ""
    program: str = ""
    deadline_s: float = 10.0


@dataclass(frozen=True, slots=True)
class Shape:
    """What a kind needs, and may be given."""

    needs: frozenset[str] = frozenset()
    may: frozenset[str] = frozenset()
    needs_floating: bool = True
    needs_eni: bool = False
    is_on_interface: bool = True  # the serving member adds the floating IP to its own interface
    is_announced: bool = False  # and tells its neighbours


_CLOUD = frozenset({"endpoint", "credentials_file"})
SHAPES = {
    "netlink": Shape(is_announced=True),
    "aws-route": Shape(needs=frozenset({"region", "route_tables"}), may=_CLOUD, needs_eni=True),
    "aws-secondary": Shape(needs=frozenset({"region"}), may=_CLOUD, needs_eni=True),
    "aws-eip": Shape(
        needs=frozenset({"region", "allocation"}),
        may=_CLOUD,
        needs_eni=True,
        needs_floating=False,
        is_on_interface=False,
    ),
    "command": Shape(needs=frozenset({"program"}), needs_floating=False, is_on_interface=False),
}
_FIELDS = ("region", "route_tables", "allocation", "endpoint", "credentials_file", "program")


def problem(address: AddressSettings, *, has_floating: bool, enis: Sequence[str]) -> str:
    """Return what is wrong, as half a sentence that begins with the field; empty if it can be used.

    Args:
        address: the table.
        has_floating: is there a floating IP?
        enis: the network interface ids of the members, as far as they have joined.
    """
    shape = SHAPES.get(address.kind)
    if shape is None:
        return f"kind is `{address.kind}`; there is: {', '.join(SHAPES)}"
    if wrong := _problem_of_fields(address, shape):
        return wrong
    if shape.needs_floating and not has_floating:
        return f"kind is {address.kind}, which needs pair.floating_ip"
    if shape.needs_eni and not all(re.fullmatch(r"eni-[0-9a-f]{8,32}", e) for e in enis):
        return f"kind is {address.kind}, which needs `eni` of every member, such as eni-0a1b2c3d4e5f67890"
    return ""


def _problem_of_fields(address: AddressSettings, shape: Shape) -> str:
    for field in _FIELDS:
        value = getattr(address, field)
        if field in shape.needs and not value:
            return f"{field} is missing, which {address.kind} needs"
        if value and field not in shape.needs | shape.may:
            return f"{field} has no meaning for {address.kind}"
    if address.program and not address.program.startswith("/"):
        return f"program is `{address.program}`; it must be an absolute path"
    low, high = DEADLINE_S
    if not low <= address.deadline_s <= high:
        return f"deadline_s is {address.deadline_s:g}; it must be {low:g} to {high:g}"
    return ""
