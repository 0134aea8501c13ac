"""The lab's switch: a network namespace with one bridge a network, which leads nowhere else. Cables are veth pairs;
silent losses are nftables rules in it.

Rules sit in the switch because a drop in a host's own output would be noticed by the sender.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from futago.lab import machine
from futago.lab.topology import Link, Network
from futago.runtime.faults import Refused

SWITCH = "switch"
NAMESPACES = Path("/run/netns")  # in the daemon's own mount namespace: a folder of this lab alone


def namespace_of(host: str) -> str:
    """Return the name of a host's network namespace."""
    return f"host-{host}"


def batch(namespace: str, commands: Sequence[str], *, force: bool = False) -> None:
    """Run several `ip` commands in one process inside a namespace; with `force`, errors do not stop it."""
    options = ["-force"] if force else []
    try:
        machine.tool("ip", "-n", namespace, *options, "-batch", "-", stdin="\n".join(commands) + "\n")
    except Refused:
        if not force:
            raise


def make_switch() -> None:
    """Make the switch and its bridges."""
    machine.tool("ip", "netns", "add", SWITCH)
    lines = ["link set lo up"]
    for network in Network:
        lines += [
            f"link add {network.value} type bridge stp_state 0 forward_delay 0 mcast_snooping 0",
            f"link set {network.value} up",
        ]
    batch(SWITCH, lines)


def make_namespace(namespace: str) -> None:
    machine.tool("ip", "netns", "add", namespace)


def plug_in(namespace: str, links: Iterable[Link], *, down: frozenset[str] = frozenset()) -> None:
    """Make the cables of a namespace, with their addresses, as DHCP would give them.

    Args:
        namespace: the network namespace of the host.
        links: its cables.
        down: ports that stay unplugged.
    """
    links = tuple(links)
    batch(SWITCH, [f"link del {k.port}" for k in links], force=True)
    lines = []
    for k in links:
        lines.append(f"link add {k.port} type veth peer name {k.interface} address {k.mac} netns {namespace}")
        lines.append(f"link set {k.port} master {k.network.value} {'down' if k.port in down else 'up'}")
    batch(SWITCH, lines)
    inside = ["link set lo up"]
    for k in links:
        inside += [f"addr add {k.address} brd + dev {k.interface}", f"link set {k.interface} up"]
    batch(namespace, inside)


def set_ports(ports: Iterable[str], *, up: bool) -> None:
    """Plug cables in or out, all in one batch."""
    batch(SWITCH, [f"link set {p} {'up' if up else 'down'}" for p in ports])


def remove_namespace(namespace: str) -> None:
    """Remove a host's namespace: its kernel's sockets die without a word."""
    machine.tool("ip", "netns", "del", namespace)


@dataclass(frozen=True, slots=True)
class Drop:
    """Frames that the switch loses silently: from a port to a port (None: any), only those that `match` if it is given."""

    source: str | None
    target: str | None
    match: str = ""


_RULES = """table bridge lab
delete table bridge lab
table bridge lab {
  chain losses {
    type filter hook forward priority 0; policy accept;
    %s
  }
}
"""


def apply_drops(drops: Iterable[Drop]) -> None:
    """Make the switch lose exactly these frames; replaces all rules in one transaction."""
    rules = []
    for drop in drops:
        source = f'iifname "{drop.source}" ' if drop.source else ""
        target = f'oifname "{drop.target}" ' if drop.target else ""
        rules.append(f"{source}{target}{drop.match} counter drop")
    inside(SWITCH, "nft", "-f", "-", stdin=_RULES % "\n    ".join(rules))


def inside(namespace: str, *command: str, stdin: str | None = None) -> str:
    """Run a tool inside a namespace. Not `ip netns exec`: that copies the mount namespace and would hold disks."""
    return machine.tool("nsenter", f"--net={NAMESPACES / namespace}", *command, stdin=stdin)
