"""What a lab consists of, as data: three networks in one switch, two members with a BMC each, managed hosts, a device
that sends, a client.

Addresses are the same in every lab, since every lab has a switch of its own that leads nowhere else. MAC addresses are
fixed, so that a host that was
powered off and on is reachable at once (with a new MAC its peers keep the stale one for seconds).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

import msgspec


class Network(Enum):
    """One of the lab's networks; the value is its bridge in the switch."""

    SERVICE = "svc"
    HEARTBEAT = "hb"
    BMC = "bmc"


_INDEX = {Network.SERVICE: 1, Network.HEARTBEAT: 2, Network.BMC: 3}
_INTERFACE = {Network.SERVICE: "eth0", Network.HEARTBEAT: "eth1", Network.BMC: "eth2"}

FLOATING_IP = "10.91.1.100/24"
RELAY_ADDRESS = "10.91.1.60"  # from here the demo's relay connects to the floating IP
BMC_USER = "admin"


class Kind(Enum):
    """What a lab host plays."""

    MEMBER = "member"
    HOST = "host"
    DEVICE = "device"
    CLIENT = "client"


@dataclass(frozen=True, slots=True)
class Link:
    """One cable: from an interface of a host to a port of the switch."""

    network: Network
    port: str  # the switch's end
    interface: str  # the host's end
    address: str  # with prefix length
    mac: str


class Node(msgspec.Struct, frozen=True):
    """One lab host, as stored in the lab's state file."""

    name: str
    kind: Kind
    number: int  # last part of its addresses
    networks: tuple[Network, ...]
    root_mib: int = 2048
    volume_mib: int = 0  # the database's volume; 0: none
    is_volume_remote: bool = False  # it stands behind a network, as with iSCSI: the block device may hang or vanish

    @property
    def links(self) -> tuple[Link, ...]:
        return tuple(link(self.name, n, self.number) for n in self.networks)

    def address(self, network: Network = Network.SERVICE) -> str:
        """Return this host's address on `network`, without prefix length."""
        return f"10.91.{_INDEX[network]}.{self.number}"


def link(name: str, network: Network, number: int) -> Link:
    """Return the cable of host `name` into `network`."""
    k = _INDEX[network]
    return Link(
        network=network,
        port=f"{name}-{network.value}",
        interface=_INTERFACE[network],
        address=f"10.91.{k}.{number}/24",
        mac=f"02:f0:{k:02x}:00:{number >> 8:02x}:{number & 255:02x}",
    )


MEMBERS = ("m1", "m2")


def bmc_number(member: str) -> int:
    """Return the last part of the address of a member's BMC."""
    return 101 + MEMBERS.index(member)


def bmc_address(member: str) -> str:
    """Return the address of a member's BMC on the BMC network."""
    return f"10.91.3.{bmc_number(member)}"


def standard(
    *, hosts: int = 4, device: bool = True, client: bool = True, remote_volumes: bool = False
) -> tuple[Node, ...]:
    """Return the nodes of a lab with `hosts` managed hosts (1 to 9)."""
    every = (Network.SERVICE, Network.HEARTBEAT, Network.BMC)
    nodes = [
        Node(m, Kind.MEMBER, 11 + i, every, root_mib=6144, volume_mib=4096, is_volume_remote=remote_volumes)
        for i, m in enumerate(MEMBERS)
    ]
    nodes += [Node(f"host{i}", Kind.HOST, 20 + i, (Network.SERVICE,)) for i in range(1, hosts + 1)]
    if device:
        nodes.append(Node("dev1", Kind.DEVICE, 31, (Network.SERVICE,)))
    if client:
        nodes.append(Node("c1", Kind.CLIENT, 50, (Network.SERVICE, Network.BMC)))
    return tuple(nodes)
