"""Whether the service network is cut: who is heard, and over what."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from futago.cluster.facts import Board
from futago.cluster.model import At, Config, Link, MemberName, Peer
from futago.cluster.observers import Network
from futago.runtime.clock import S, now_at

AGO = 100 * S  # longer than anybody has patience for


@dataclass
class Address:
    """What the floating address says of its interface."""

    has_carrier: bool = True

    def trouble(self) -> str:
        return ""


@dataclass
class Jury:
    """Jurors, the last of whom answered so long ago."""

    ago: int

    def heard_at(self) -> int:
        return now_at() - self.ago


def judged(
    *, service: int | None, heartbeat: int | None, jury: int | None, carrier: bool = True, age: int = AGO
) -> bool:
    """Return whether the network counts as cut; how long ago each was heard, None: never, or there is no jury."""
    links = tuple(
        Link(name, echo_at=None if ago is None else At(now_at() - ago))
        for name, ago in (("service", service), ("heartbeat", heartbeat))
    )
    address: Any = Address(carrier)
    found: Any = None if jury is None else Jury(jury)
    config = Config(me=MemberName("m1"), peer=MemberName("m2"), h=3 * S, k=10, bias=S, t_stall=2 * S)
    board = Board(cfg=config, started_at=At(now_at()))
    network = Network(board, address=address, peer=lambda: Peer(links=links), jury=lambda: found)
    network._began_at -= age
    network.judge()
    return network.is_cut


@pytest.mark.parametrize(
    ("heard", "is_cut"),
    [
        ({"service": 0, "heartbeat": 0, "jury": 0}, False),
        ({"service": AGO, "heartbeat": 0, "jury": AGO}, True),
        ({"service": AGO, "heartbeat": AGO, "jury": AGO}, True),
        ({"service": AGO, "heartbeat": AGO, "jury": 0}, False),  # the peer is gone, not the network
        ({"service": AGO, "heartbeat": 0, "jury": 0}, False),
        ({"service": 0, "heartbeat": 0, "jury": AGO}, False),
        ({"service": AGO, "heartbeat": 0, "jury": None}, True),
        ({"service": AGO, "heartbeat": AGO, "jury": None}, False),  # nobody is left who could tell
        ({"service": None, "heartbeat": None, "jury": None}, False),  # a first member alone
    ],
)
def test_the_service_network_is_cut_when_nobody_is_heard_over_it_who_could_be(
    heard: dict[str, int | None], is_cut: bool
) -> None:
    assert judged(**heard) is is_cut


def test_without_a_carrier_it_is_cut_at_once() -> None:
    assert judged(service=0, heartbeat=0, jury=0, carrier=False)


def test_jurors_have_time_to_be_heard_after_a_start() -> None:
    assert not judged(service=None, heartbeat=None, jury=AGO, age=0)
