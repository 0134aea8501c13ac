"""The fence device as the third vote: who may shoot, who shoots first, and what a shot proves."""

from __future__ import annotations

from dataclasses import replace

from test_decide_scenarios import (
    CFG,
    FOLLOWING,
    FRESH,
    LONG,
    NOW,
    PAIRED,
    PAIRED_B,
    SERVING,
    SOLO,
    A,
    B,
    S,
    beat,
    expect,
    heard,
    view,
)

from futago.cluster.decide import decide
from futago.cluster.model import (
    AskPower,
    At,
    Decision,
    Durable,
    Enforce,
    Epoch,
    Facts,
    Fence,
    FenceOff,
    FenceOn,
    FenceOutcome,
    Gate,
    HoldAddress,
    KillPg,
    NoteMet,
    PairState,
    Peer,
    PersistIntent,
    PersistView,
    Pg,
    PgState,
    Promote,
    Register,
    SetGate,
    Wants,
)

FENCED = replace(CFG, authority="fence")
DEVICE = Fence(is_configured=True, has_power=True, power_at=FRESH, asked_at=FRESH)
SAYS = {"authority": "fence"}
PRIMARY = replace(
    SERVING,
    cfg=FENCED,
    register=Register(),
    fence=DEVICE,
    met_epoch=Epoch(5),
    peer=heard(beat(PAIRED, **SAYS)),
)
STANDBY = replace(
    FOLLOWING,
    cfg=FENCED,
    register=Register(),
    fence=DEVICE,
    met_epoch=Epoch(5),
    peer=heard(beat(PAIRED_B, pg=PgState.PRIMARY, is_streaming=False, gate_open=True, address_held=True, **SAYS)),
)
NOTED, NOTED_B = Durable(view=PAIRED, intent=Epoch(6)), Durable(view=PAIRED_B, intent=Epoch(6))


def ago(seconds: float) -> At:
    return At(NOW - int(seconds * S))


def do(facts: Facts, **changes: object) -> Decision:
    return decide(replace(facts, **changes), NOW)  # type: ignore[arg-type]


def lost(facts: Facts, seconds: float) -> Peer:
    """The other member, not heard for so long."""
    return heard(facts.peer.heartbeat, ago(seconds))


def shot(outcome: FenceOutcome, seconds: float, epoch: int = 6) -> Fence:
    return replace(DEVICE, outcome=outcome, epoch=Epoch(epoch), at=ago(seconds))


def test_healthy_pair_is_protected_by_the_fence_alone() -> None:
    d = do(PRIMARY)
    expect(d, "P7.serve")
    assert d.is_protected and d.notes == ()
    d = do(STANDBY)
    expect(d, "B7.follow")
    assert d.is_protected


def test_device_that_decides_is_tried_all_the_time_and_missed_when_it_is_silent() -> None:
    assert do(PRIMARY, fence=replace(DEVICE, asked_at=ago(31))).actions == (AskPower(),)
    d = do(PRIMARY, fence=replace(DEVICE, asked_at=ago(1), power_at=ago(100), has_power=None))
    assert d.rule == "P7.serve" and not d.is_protected and "fence test" in d.notes[0]


def test_members_note_that_they_agree_before_a_shot_may_decide() -> None:
    assert do(PRIMARY, met_epoch=Epoch(0)).actions == (NoteMet(Epoch(5)),)
    assert do(STANDBY, met_epoch=Epoch(4)).actions == (NoteMet(Epoch(5)),)
    for heartbeat in (beat(PAIRED), beat(PAIRED, intent=Epoch(6), **SAYS), beat(SOLO, **SAYS), beat(None, **SAYS)):
        d = do(PRIMARY, met_epoch=Epoch(0), peer=heard(heartbeat))
        assert not any(isinstance(a, NoteMet) for a in d.actions), heartbeat
    d = do(PRIMARY, met_epoch=Epoch(0), peer=heard(beat(PAIRED, is_able=False, is_fit=False, **SAYS)))
    assert not any(isinstance(a, NoteMet) for a in d.actions)


def test_primary_notes_shoots_waits_for_off_and_only_then_stops_waiting_for_the_peer() -> None:
    silent = lost(PRIMARY, 8)
    expect(do(PRIMARY, peer=silent), "F1.intent", PersistIntent(Epoch(6)))
    expect(do(PRIMARY, peer=silent, durable=NOTED), "F1.shoot", FenceOff(Epoch(6)))
    pending = shot(FenceOutcome.PENDING, 0)
    expect(do(PRIMARY, peer=silent, durable=NOTED, fence=pending), "F1.wait-shot")
    off = shot(FenceOutcome.OFF, 0.1)
    d = do(PRIMARY, peer=silent, durable=NOTED, fence=off)
    expect(d, "F1.proved", PersistView(view(6, A, A, floor=200), stopped=True))
    d = do(PRIMARY, peer=silent, durable=Durable(view=SOLO, stopped_epoch=Epoch(6)), fence=off)
    assert d.rule == "S7.unenforce" and d.actions[0] == Enforce(on=False)


def test_standby_does_not_promote_before_off_is_confirmed_and_durable() -> None:
    silent = lost(STANDBY, 20)
    expect(do(STANDBY, peer=silent), "F2.intent", PersistIntent(Epoch(6)))
    expect(do(STANDBY, peer=silent, durable=NOTED_B), "F2.shoot", FenceOff(Epoch(6)))
    for outcome in (FenceOutcome.FAILED, FenceOutcome.UNKNOWN):
        d = do(STANDBY, peer=silent, durable=NOTED_B, fence=shot(outcome, 1))
        assert d.rule == "F2.failed" and d.command == "futago force-primary"
        assert not any(isinstance(a, PersistView | Promote) for a in d.actions)
    off = shot(FenceOutcome.OFF, 0.1)
    d = do(STANDBY, peer=silent, durable=NOTED_B, fence=off)
    expect(d, "F2.proved", PersistView(view(6, A, A, floor=200), stopped=True))
    d = do(STANDBY, peer=silent, durable=Durable(view=SOLO, stopped_epoch=Epoch(6)), fence=off)
    assert d.rule == "S6.promote" and Promote() in d.actions and FenceOff(Epoch(6)) not in d.actions


def test_failed_device_is_tried_again_after_a_pause() -> None:
    silent = lost(STANDBY, 30)
    expect(
        do(STANDBY, peer=silent, durable=NOTED_B, fence=shot(FenceOutcome.FAILED, 6)), "F2.shoot", FenceOff(Epoch(6))
    )


def test_member_that_booted_neither_shoots_nor_promotes_before_it_has_heard_the_other() -> None:
    """It may have been powered off, and the other one may have acknowledged alone since."""
    for facts, name in ((PRIMARY, "F1"), (STANDBY, "F2")):
        stopped = Pg(state=PgState.STOPPED, has_standby_signal=name == "F2")
        d = do(
            facts, met_epoch=Epoch(0), peer=Peer(watching_since=LONG), pg=stopped, gate=Gate.CLOSED, address_held=False
        )
        assert d.rule == f"{name}.not-met" and d.state is PairState.BLOCKED and d.command == "futago recover"
        assert not any(isinstance(a, FenceOff | PersistIntent | PersistView) for a in d.actions)
        off = shot(FenceOutcome.OFF, 0.1)
        assert do(facts, met_epoch=Epoch(4), peer=lost(facts, 20), fence=off).rule == f"{name}.not-met"


def test_primary_leaves_the_first_shot_to_a_standby_that_sees_it_dead() -> None:
    d = do(PRIMARY, peer=lost(PRIMARY, 3), durable=NOTED)
    assert d.rule == "F1.delay" and d.actions == () and d.wake_at <= NOW + S
    assert do(PRIMARY, peer=lost(PRIMARY, 6.9), durable=NOTED).rule == "F1.delay"
    assert do(PRIMARY, peer=lost(PRIMARY, 7.1), durable=NOTED).rule == "F1.shoot"


def test_standby_shoots_at_once_when_nobody_answers_for_the_floating_ip_and_last_otherwise() -> None:
    silent = lost(STANDBY, 2.5)
    assert do(STANDBY, peer=silent, durable=NOTED_B, address_answers=False).rule == "F2.shoot"
    for answers in (True, None):
        assert do(STANDBY, peer=silent, durable=NOTED_B, address_answers=answers).rule == "F2.delay"
        assert do(STANDBY, peer=lost(STANDBY, 12.2), durable=NOTED_B, address_answers=answers).rule == "F2.delay"
        assert do(STANDBY, peer=lost(STANDBY, 12.5), durable=NOTED_B, address_answers=answers).rule == "F2.shoot"


def test_member_that_its_device_calls_off_needs_no_shot_and_no_delay() -> None:
    dark = replace(DEVICE, has_power=False, power_at=ago(0.1))
    for facts, noted, name in ((PRIMARY, NOTED, "F1"), (STANDBY, NOTED_B, "F2")):
        d = do(facts, peer=lost(facts, 2.5), durable=noted, fence=dark)
        expect(d, f"{name}.proved", PersistView(view(6, A, A, floor=200), stopped=True))


def test_device_is_asked_while_a_shot_is_delayed() -> None:
    old = replace(DEVICE, asked_at=ago(2), power_at=ago(2))
    assert do(PRIMARY, peer=lost(PRIMARY, 3), durable=NOTED, fence=old).actions == (AskPower(),)


def test_off_that_was_said_before_the_other_was_last_heard_proves_nothing() -> None:
    """It was powered on again since, and may have come back into the pair."""
    silent = lost(STANDBY, 20)
    assert do(STANDBY, peer=silent, durable=NOTED_B, fence=shot(FenceOutcome.OFF, 21)).rule == "F2.shoot"
    stale = replace(DEVICE, has_power=False, power_at=ago(21))
    assert do(STANDBY, peer=silent, durable=NOTED_B, fence=stale).rule == "F2.shoot"
    assert do(STANDBY, peer=silent, durable=NOTED_B, fence=shot(FenceOutcome.OFF, 1, epoch=5)).rule == "F2.shoot"


def test_two_members_that_see_each_other_silent_never_shoot_within_one_delay() -> None:
    """Whatever they believe of the floating IP, the later shot begins a whole delay after the earlier."""
    for answers in (True, False, None):
        first: dict[str, float] = {}
        for step in range(0, 200):
            seconds = 2 + step / 10
            for facts, noted, name in ((PRIMARY, NOTED, "A"), (STANDBY, NOTED_B, "B")):
                d = do(facts, peer=lost(facts, seconds), durable=noted, address_answers=answers)
                if d.rule.endswith(".shoot"):
                    first.setdefault(name, seconds)
        assert abs(first["A"] - first["B"]) >= 4.5, (answers, first)


def test_member_with_a_shot_under_way_or_in_mind_promises_nothing_and_hands_nothing_over() -> None:
    asking = beat(PAIRED_B, pg=PgState.PRIMARY, wants=Wants("solo", Epoch(6)), **SAYS)
    assert do(STANDBY, peer=heard(asking)).rule == "T3.grant"
    assert do(STANDBY, peer=heard(asking), fence=shot(FenceOutcome.PENDING, 0)).rule == "B7.follow"
    assert do(STANDBY, peer=heard(asking), durable=NOTED_B).actions == (PersistIntent(Epoch(0)),)
    died = replace(PRIMARY.pg, state=PgState.DIED)
    assert do(PRIMARY, pg=died).rule == "T4.announce"
    assert not do(PRIMARY, pg=died, fence=shot(FenceOutcome.PENDING, 0)).rule.startswith("T4")


def test_intent_is_dropped_when_the_other_is_heard_again_and_no_shot_is_under_way() -> None:
    expect(do(PRIMARY, durable=NOTED), "P7.serve", PersistIntent(Epoch(0)))
    expect(do(PRIMARY, durable=NOTED, fence=shot(FenceOutcome.PENDING, 0)), "P7.serve")


def test_primary_keeps_gate_and_address_while_the_fence_decides() -> None:
    """Nobody can serve in its place before it is powered off, so there is nothing to be careful about."""
    d = do(PRIMARY, peer=lost(PRIMARY, 4), durable=NOTED, fence=shot(FenceOutcome.UNKNOWN, 1))
    assert d.rule == "F1.failed" and d.is_serving
    assert not any(isinstance(a, SetGate | HoldAddress | KillPg) for a in d.actions)


def test_primary_that_stood_still_closes_until_it_has_looked() -> None:
    buffered = heard(PRIMARY.peer.heartbeat, LONG)
    d = do(PRIMARY, woke_at=FRESH, peer=buffered)
    assert d.rule == "I1.close" and d.actions[:2] == (SetGate(open=False), HoldAddress(hold=False))


def test_unfinished_handover_is_ended_by_a_shot_without_delay() -> None:
    hb = beat(PAIRED_B, pg=PgState.HUNG, wants=Wants("handover", Epoch(7)), **SAYS)
    stuck = heard(hb, wants_since=ago(3))
    assert do(STANDBY, peer=stuck, durable=NOTED_B).rule == "F2.shoot"


def test_solo_view_needs_no_shot_after_a_reboot() -> None:
    alone = replace(PRIMARY, durable=Durable(view=SOLO, stopped_epoch=Epoch(6)), peer=Peer(watching_since=LONG))
    booted = replace(alone, pg=Pg(state=PgState.STOPPED), gate=Gate.CLOSED, address_held=False, met_epoch=Epoch(0))
    assert do(booted).rule == "S3.start"


def test_shot_member_is_powered_on_again_once_the_winner_serves() -> None:
    off = shot(FenceOutcome.OFF, 1)
    alone = replace(PRIMARY, durable=Durable(view=SOLO, stopped_epoch=Epoch(6)), peer=lost(PRIMARY, 20), fence=off)
    pg = replace(PRIMARY.pg, enforced=False, peer_is_streaming=False)
    assert FenceOn(Epoch(6)) in do(alone, pg=pg).actions


def test_settings_that_differ_between_the_members_are_said() -> None:
    d = do(PRIMARY, peer=heard(beat(PAIRED)))
    assert not d.is_protected and any("pair.authority" in x for x in d.notes)


def test_register_is_never_asked_where_the_fence_decides_nor_the_fence_where_the_register_does() -> None:
    for facts in (PRIMARY, STANDBY):
        silent = lost(facts, 30)
        assert do(facts, peer=silent, register=SERVING.register).rule.startswith("F")
        rule = do(facts, peer=silent, register=SERVING.register, cfg=CFG).rule
        assert not rule.startswith("F"), rule
    assert FENCED.peer == B
