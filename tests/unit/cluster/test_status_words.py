"""What people and programs are told: complete, in the agreed shape, and never more than the decision says."""

from __future__ import annotations

import json
from dataclasses import replace

import msgspec

from futago.cluster import status as room
from futago.cluster.decide import decide
from futago.cluster.facts import Board
from futago.cluster.fence import Power
from futago.cluster.fence.worker import Tested
from futago.cluster.model import (
    At,
    Config,
    Durable,
    Epoch,
    Facts,
    Fence,
    FenceOutcome,
    Gate,
    Heartbeat,
    Link,
    Lsn,
    MemberName,
    Peer,
    Pg,
    PgState,
    Register,
    View,
    Wants,
)
from futago.cluster.status import Surroundings, Switch, SwitchLog, role_line, status
from futago.cluster.word import word
from futago.runtime.clock import MS, S
from futago.runtime.role import RoleKind, parse_line
from futago.setup.settings import MemberSettings, PairSettings, Settings

A, B = MemberName("m1"), MemberName("m2")
NOW = 1000 * S
CFG = Config(me=A, peer=B, h=200 * MS, k=10, bias=300 * MS, t_stall=2 * S)
SETTINGS = Settings(
    me="m1",
    pair=PairSettings("lab", "id", "10.0.0.9/24"),
    members=[MemberSettings("m1", "10.0.0.1", "10.0.1.1", "e"), MemberSettings("m2", "10.0.0.2", "10.0.1.2", "e")],
)
MEMBER_KEYS = {
    "name", "role", "reachable", "pg", "timeline", "flush_lsn", "replay_lag_bytes", "gate", "address", "fit", "able", "boot",
    "version",
}  # fmt: skip
KEYS = {
    "pair", "state", "protected", "primary", "epoch", "reason", "rule", "command", "not_protected", "members", "links", "fences",
    "third_vote", "journals", "last_switch", "recovery", "maintenance", "utc",
}  # fmt: skip


def view(epoch: int, primary: MemberName = A, *, both: bool = True) -> View:
    return View(Epoch(epoch), primary, frozenset({A, B} if both else {primary}))


def peer_word(**changes: object) -> Heartbeat:
    mine = Facts(cfg=replace(CFG, me=B, peer=A), durable=Durable(view=view(2)), pg=Pg(state=PgState.STANDBY))
    return replace(word(mine), journals_complete=True, is_streaming=True, timeline=1, **changes)  # type: ignore[arg-type]


def facts(**changes: object) -> Facts:
    links = tuple(Link(n, At(NOW - 50 * MS), At(NOW - 60 * MS)) for n in ("service", "heartbeat"))
    base = Facts(
        cfg=CFG,
        durable=Durable(view=view(2), stopped_epoch=Epoch(2)),
        peer=Peer(heartbeat=peer_word(), heard_at=At(NOW - 50 * MS), links=links),
        register=Register(is_configured=True, view=view(2), read_at=At(NOW - S), contact_at=At(NOW - S), asked_at=At(NOW - S)),
        pg=Pg(state=PgState.PRIMARY, timeline=1, enforced=True, peer_is_streaming=True, start_lsn=Lsn(1), peer_flush=Lsn(2)),
        gate=Gate.OPEN,
        address_held=True,
        fence=Fence(is_configured=True),
        started_at=At(NOW - 100 * S),
    )  # fmt: skip
    return replace(base, **changes)  # type: ignore[arg-type]


def around(**changes: object) -> Surroundings:
    base = Surroundings(
        settings=SETTINGS,
        boot="boot",
        peer_program="0.1.0",
        tested={"m2": Tested("m2", "ipmi", Power.ON, NOW - 3 * S)},
        jurors=[("host1", True, "")],
        journals={"own": {"last": 1}, "peer_copy": {"last": 2}},
        recovery={"running": False, "member": "m1", "rung": "", "progress": "", "error": ""},
        last_switch=None,
        conflict="",
    )
    return replace(base, **changes)  # type: ignore[arg-type]


def told(f: Facts, a: Surroundings | None = None) -> room.Json:
    found = status(f, decide(f, NOW), a or around(), NOW)
    return json.loads(msgspec.json.encode(found))  # type: ignore[no-any-return]


def test_status_has_every_part_of_its_shape() -> None:
    found = told(facts())
    assert set(found) == KEYS and all(set(m) == MEMBER_KEYS for m in found["members"])
    assert (found["state"], found["protected"], found["primary"]) == ("paired", True, "m1")
    assert [m["role"] for m in found["members"]] == ["primary", "standby"]
    assert all(link["up"] for link in found["links"]) and found["fences"][0]["tested_ago_s"] == 3.0
    assert found["third_vote"]["knows_view"] and found["not_protected"] == []


def test_what_troubles_the_receiver_is_shown_beside_its_journals() -> None:
    said = {"damaged": 2, "full": True, "unbound": ["tcp 0.0.0.0 514"], "options_fault": "line 3", "fault": ""}
    found = status(facts(), decide(facts(), NOW), around(journals=said), NOW)["journals"]
    assert found["troubles"] == [
        "2 damaged places on this disk",
        "the disk is full",
        "not served: tcp 0.0.0.0 514",
        "intake.toml: line 3",
    ]
    assert status(facts(), decide(facts(), NOW), around(), NOW)["journals"]["troubles"] == []


def test_stale_self_test_of_a_fence_device_is_no_protection() -> None:
    stale = around(tested={"m2": Tested("m2", "ipmi", Power.ON, NOW - 200 * S)})
    found = told(facts(), stale)
    assert not found["protected"] and "fence device of m2" in found["not_protected"][0]


def test_other_machine_with_the_floating_ip_is_no_protection() -> None:
    found = told(facts(), around(conflict="02:00:00:00:00:09"))
    assert not found["protected"] and "10.0.0.9" in found["not_protected"][0]


def test_silent_peer_is_shown_without_anything_that_it_said_long_ago() -> None:
    silent = facts(peer=Peer(heartbeat=peer_word(), heard_at=At(NOW - 60 * S), links=(Link("service", At(1), At(1)),)))
    row = told(silent)["members"][1]
    assert not row["reachable"] and (row["role"], row["pg"], row["fit"]) == ("unknown", "unknown", False)


def test_role_line_is_what_programs_read_and_serves_only_while_the_decision_does() -> None:
    f = facts()
    role = parse_line(msgspec.json.encode(role_line(f, decide(f, NOW))))
    assert role.role is RoleKind.PRIMARY and role.is_active and role.outward and role.view is not None
    handing_over = facts(wants=Wants("handover", Epoch(4)))
    assert not parse_line(msgspec.json.encode(role_line(handing_over, decide(handing_over, NOW)))).is_active
    no_view = facts(durable=Durable(), pg=Pg(), gate=Gate.CLOSED)
    assert parse_line(msgspec.json.encode(role_line(no_view, decide(no_view, NOW)))).role is RoleKind.NONE


def test_receiver_is_told_to_wait_for_the_peer_before_the_peer_is_counted_on() -> None:
    alone = facts(
        durable=Durable(view=View(Epoch(3), A, frozenset((A,)))), pg=Pg(state=PgState.PRIMARY, enforced=False)
    )
    waiting = replace(alone, pg=replace(alone.pg, enforced=True))
    told = [
        parse_line(msgspec.json.encode(role_line(f, decide(f, NOW), turn))) for f, turn in ((alone, 7), (waiting, 8))
    ]
    assert [(r.solo, r.turn) for r in told] == [(True, 7), (False, 8)]


def test_receiver_answers_alone_no_more_while_a_view_may_land_that_counts_on_the_peer() -> None:
    solo = View(Epoch(3), A, frozenset((A,)))
    died = Pg(state=PgState.DIED)
    for durable, is_solo in ((Durable(view=solo), True), (Durable(view=solo, is_writing=True), False)):
        f = facts(durable=durable, pg=died)
        assert parse_line(msgspec.json.encode(role_line(f, decide(f, NOW)))).solo is is_solo


def test_what_was_settled_in_an_earlier_turn_is_not_settled_now() -> None:
    board = Board(cfg=facts().cfg, started_at=At(5))
    for enforced in (False, True):
        board.put_pg(enforced=enforced)
    turn = board.turn
    board.put(journals_settled=True)
    board.put_pg(flush=Lsn(300))
    assert board.facts().journals_settled and board.turn == turn
    for enforced in (False, True):
        board.put_pg(enforced=enforced)
        assert not board.facts().journals_settled and board.turn > turn


def test_failover_is_told_step_by_step_from_the_last_sign_of_life() -> None:
    kept: list[int] = []
    log = SwitchLog(keep=lambda s: kept.append(len(s.steps)))
    cfg = replace(CFG, me=B, peer=A)
    heard = At(NOW)
    silent = Peer(heard_at=heard, links=(Link("service", heard, heard),))
    standby = Facts(cfg=cfg, durable=Durable(view=view(2)), peer=silent, pg=Pg(state=PgState.STANDBY), gate=Gate.CLOSED)
    steps = [
        (100, standby),
        (2300, replace(standby, register=Register(is_configured=True, read_at=At(NOW + 2 * S), contact_at=At(NOW + 2 * S)))),
    ]  # fmt: skip
    won = replace(standby, durable=Durable(view=view(3, B, both=False)), won_at=At(NOW + 2320 * MS))
    steps.append((2330, won))
    off = replace(won, fence=Fence(True, FenceOutcome.OFF, Epoch(3), At(NOW + 2500 * MS)))
    steps.append((2500, off))
    primary = replace(off, pg=Pg(state=PgState.PRIMARY, enforced=False))
    steps.append((2600, primary))
    serving = replace(primary, gate=Gate.OPEN, address_held=True)
    steps.append((2700, serving))
    for ms, f in steps:
        now = NOW + ms * MS
        log.note(f, decide(f, now), now)
    assert log.last is not None and (log.last.kind, log.last.from_member, log.last.to) == ("failover", "m1", "m2")
    told_steps = {s.name: s.ms for s in log.last.steps}
    assert told_steps == {
        "detected": 2300, "won": 2330, "fenced": 2500, "promoted": 2600, "gate": 2700, "address": 2700, "outward": 2700,
    }  # fmt: skip
    assert kept[-1] == 7


def test_giver_of_the_role_tells_a_switchover_too_although_its_offer_is_over_when_it_sees_the_view() -> None:
    def told(*, seconds_later: int) -> str:
        log = SwitchLog(keep=lambda _s: None)
        offering = facts(wants=Wants("handover", Epoch(4)), wants_since=At(NOW))
        over, later = facts(), NOW + seconds_later * S
        given = facts(durable=Durable(view=view(3, B, both=False), stopped_epoch=Epoch(2)), gate=Gate.CLOSED)
        for f, now in ((offering, NOW), (over, later - 1), (given, later)):
            log.note(f, decide(f, now), now)
        assert log.last is not None and (log.last.from_member, log.last.to, log.last.steps) == ("m1", "m2", [])
        return log.last.kind

    assert told(seconds_later=1) == "switchover"
    assert told(seconds_later=30) == "failover"  # that offer came to nothing


def test_adding_the_peer_leaves_the_story_of_the_last_switch_to_be_read() -> None:
    log = SwitchLog(keep=lambda s: None, last=Switch("failover", 3, "m2", "m1"))
    solo = facts(durable=Durable(view=view(3, both=False)))
    log.note(solo, decide(solo, NOW), NOW)
    paired = facts(durable=Durable(view=view(4)))
    log.note(paired, decide(paired, NOW), NOW)
    assert log.last is not None and log.last.kind == "failover"


def test_switch_survives_being_written_down() -> None:
    switch = Switch("failover", 3, "m2", "m1", "2026-01-01T00:00:00+00:00", [room.Step("won", 2.5)])
    text = msgspec.json.encode(switch)
    assert b'"from":"m2"' in text and msgspec.json.decode(text, type=Switch) == switch


def test_takeover_by_the_fence_is_told_as_a_failover() -> None:
    log = SwitchLog(keep=lambda _s: None)
    standby = facts(pg=Pg(state=PgState.STANDBY, is_streaming=True), gate=Gate.CLOSED, address_held=False)
    standby = replace(standby, cfg=replace(standby.cfg, me=B, peer=A, authority="fence"), met_epoch=Epoch(2))
    standby = replace(standby, register=Register(), fence=Fence(is_configured=True))
    log.note(standby, decide(standby, NOW), NOW)
    silent = NOW + 60_000 * MS
    assert decide(standby, silent).rule.startswith("F2.")
    log.note(standby, decide(standby, silent), silent)
    won = replace(standby, durable=Durable(view=view(3, B, both=False), stopped_epoch=Epoch(3)))
    log.note(won, decide(won, silent + 1), silent + 1)
    assert log.last is not None and (log.last.kind, log.last.to) == ("failover", "m2")
