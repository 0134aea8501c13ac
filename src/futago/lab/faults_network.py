"""What can happen to the cables, interfaces and addresses of a lab host, and how each ends. Steps of the table in faults.py."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from futago.lab.network import Drop
from futago.lab.topology import FLOATING_IP, Network
from futago.runtime.faults import OperatorFault, Refused

if TYPE_CHECKING:
    from futago.lab.daemon import Daemon

NETWORKS = tuple(n.value for n in Network)

Stages = dict[str, float]
Act = Callable[["Daemon", str, list[str]], Stages]
Losses = Callable[["Daemon", str, list[str]], Iterable[Drop]]


def ports(d: Daemon, host: str, network: str) -> list[str]:
    """Return the switch's ports of a host in one network. Raises OperatorFault if it has none."""
    found = [k.port for k in d.host(host).links if k.network.value == network]
    if not found:
        raise OperatorFault(
            f"{host} has no cable in `{network}`.", hint=f"The networks are {', '.join(NETWORKS)}.", code="lab.network"
        )
    return found


def losing(name: str, losses: Losses) -> tuple[Act, Act]:
    """Return how the switch begins to lose some frames of a host, and how it ends that.

    Args:
        name: of the fault.
        losses: which frames, from the daemon, the host and the words.
    """

    def begin(d: Daemon, host: str, words: list[str]) -> Stages:
        d.host(host)
        d.drop((name, host, *words), list(losses(d, host, words)))
        return {}

    def end(d: Daemon, host: str, words: list[str]) -> Stages:
        d.drop((name, host, *words), [])
        return {}

    return begin, end


def _of(host: str) -> str:
    return f"{host}-*"  # every port of a host


def everything(_: Daemon, host: str, words: list[str]) -> list[Drop]:
    return [Drop(_of(host), None), Drop(None, _of(host))]


def what_it_sends(d: Daemon, host: str, words: list[str]) -> list[Drop]:
    """Everywhere, or in the network that `words` name."""
    return [Drop(p, None) for p in (ports(d, host, words[0]) if words else [_of(host)])]


def what_it_is_sent(d: Daemon, host: str, words: list[str]) -> list[Drop]:
    """Everywhere, or in the network that `words` name."""
    return [Drop(None, p) for p in (ports(d, host, words[0]) if words else [_of(host)])]


def one_network(d: Daemon, host: str, words: list[str]) -> list[Drop]:
    return what_it_sends(d, host, words) + what_it_is_sent(d, host, words)


def to_another(d: Daemon, host: str, words: list[str]) -> list[Drop]:
    to, where = words
    return [Drop(source, target) for source in ports(d, host, where) for target in ports(d, to, where)]


def replication(_: Daemon, host: str, words: list[str]) -> list[Drop]:
    ways: list[tuple[str | None, str | None]] = [(_of(host), None), (None, _of(host))]
    return [Drop(source, target, f"tcp {end} 5432") for source, target in ways for end in ("dport", "sport")]


def bmc(d: Daemon, host: str, words: list[str]) -> list[Drop]:
    return [Drop(d.bmc(host).port, None), Drop(None, d.bmc(host).port)]


def link_down(d: Daemon, host: str, words: list[str]) -> Stages:
    d.host(host).set_cables(ports(d, host, words[0]), up=False)
    return {}


def link_up(d: Daemon, host: str, words: list[str]) -> Stages:
    d.host(host).set_cables(ports(d, host, words[0]), up=True)
    return {}


def _interface(d: Daemon, host: str, network: str, *, up: bool) -> Stages:
    ports(d, host, network)
    for link in d.host(host).links:
        if link.network.value == network:
            d.host(host).set_interface(link.interface, up=up)
    return {}


def nic_down(d: Daemon, host: str, words: list[str]) -> Stages:
    return _interface(d, host, words[0], up=False)


def nic_up(d: Daemon, host: str, words: list[str]) -> Stages:
    try:
        return _interface(d, host, words[0], up=True)
    except Refused:  # it is off: its interface comes up with it
        return {}


def address_gone(d: Daemon, host: str, _: list[str]) -> Stages:
    d.inside(host, "ip", "addr", "del", f"{FLOATING_IP.partition('/')[0]}/32", "dev", "eth0")
    return {}
