"""The stream leaves a network that died, once, and only while the other one lives."""

from __future__ import annotations

from typing import Any

from futago.cluster import pgconf
from futago.cluster.facts import Board
from futago.cluster.model import At, Link, Peer
from futago.cluster.pgconf import Layout
from futago.cluster.walpath import WalPath
from futago.runtime.clock import MS, S, now_at
from futago.setup.settings import MemberSettings, PairSettings, Settings

MEMBERS = [MemberSettings("m1", "10.0.0.1", "10.0.1.1", "eth0"), MemberSettings("m2", "10.0.0.2", "10.0.1.2", "eth0")]
SETTINGS = Settings(me="m1", pair=PairSettings("p", "id", "10.0.0.9/24"), members=MEMBERS)


def path(ages: dict[str, int]) -> WalPath:
    board = Board(cfg=SETTINGS.config(), started_at=At(0))
    postgres: Any = type("Postgres", (), {"board": board, "log": None})

    def peer() -> Peer:
        return Peer(links=tuple(Link(n, At(now_at()), At(now_at() - age)) for n, age in ages.items()))

    return WalPath(postgres, peer=peer)


def test_dead_link_is_told_once_and_again_after_it_lived() -> None:
    ages = {"service": 100 * MS, "heartbeat": 100 * MS}
    watched = path(ages)
    assert watched.newly_dead() == []
    ages["heartbeat"] = S
    assert watched.newly_dead() == ["heartbeat"] and watched.newly_dead() == []
    ages["heartbeat"] = 0
    assert watched.newly_dead() == []
    ages["heartbeat"] = S
    assert watched.newly_dead() == ["heartbeat"]


def test_silence_on_both_links_is_not_a_matter_of_roads() -> None:
    assert path({"service": 5 * S, "heartbeat": 5 * S}).newly_dead() == []


def test_avoided_link_comes_last() -> None:
    layout = Layout()
    assert "host=10.0.1.2,10.0.0.2 " in pgconf.conninfo("m1", MEMBERS[1], layout)
    assert "host=10.0.0.2,10.0.1.2 " in pgconf.conninfo("m1", MEMBERS[1], layout, avoid="heartbeat")
    text = pgconf.settings_text(SETTINGS, layout, enforced=True, avoid="heartbeat")
    assert "host=10.0.0.2,10.0.1.2 " in text and "synchronous_standby_names = 'FIRST 1 (\"m2\")'" in text
