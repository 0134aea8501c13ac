"""The rules told as sentences: one situation each, what is done and what is not."""

from __future__ import annotations

from dataclasses import replace

from futago.cluster.decide import decide
from futago.cluster.model import (
    At,
    Cas,
    CasRegister,
    Config,
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
    Heartbeat,
    HoldAddress,
    KillPg,
    Link,
    Lsn,
    MemberName,
    Op,
    OpDone,
    OpKind,
    PairState,
    Peer,
    PersistIntent,
    PersistStopped,
    PersistView,
    Pg,
    PgState,
    Promote,
    ReadRegister,
    Register,
    Rejoin,
    RejoinStep,
    SetGate,
    SetWants,
    StartPg,
    StartRejoin,
    StopPg,
    VerifyBarrier,
    View,
    Wants,
)

S = 1_000_000_000
NOW = 1000 * S
A, B = MemberName("m1"), MemberName("m2")
CFG = Config(me=A, peer=B, h=S // 5, k=10, bias=3 * S // 10, t_stall=2 * S)
FRESH, LONG = At(NOW - S // 10), At(NOW - 60 * S)


def view(epoch: int, primary: MemberName, *insync: MemberName, floor: int = 100) -> View:
    return View(Epoch(epoch), primary, frozenset(insync), Lsn(floor))


PAIRED = view(5, A, A, B)
PAIRED_B = view(5, B, A, B)
SOLO = view(6, A, A)
SOLO_B = view(6, B, B)


def beat(v: View | None, **changes: object) -> Heartbeat:
    base = Heartbeat(
        member=B,
        boot="b",
        seq=1,
        view=v,
        intent=Epoch(0),
        is_able=True,
        pg=PgState.STANDBY,
        timeline=1,
        flush=Lsn(200),
        replay=Lsn(200),
        is_streaming=True,
        is_disk_ok=True,
        gate_open=False,
        address_held=False,
        wants=None,
        journals_complete=True,
        is_fit=True,
        service_ok=True,
    )
    return replace(base, **changes)  # type: ignore[arg-type]


def heard(hb: Heartbeat | None, at: At = FRESH, **changes: object) -> Peer:
    links = (Link("service", at, at), Link("heartbeat", at, at))
    return replace(Peer(heartbeat=hb, heard_at=at, watching_since=LONG, links=links), **changes)  # type: ignore[arg-type]


def w(v: View | None, at: At = FRESH, **changes: object) -> Register:
    base = Register(is_configured=True, view=v, read_at=at, contact_at=at, asked_at=at)
    return replace(base, **changes)  # type: ignore[arg-type]


PRIMARY = Pg(
    state=PgState.PRIMARY,
    timeline=1,
    flush=Lsn(200),
    start_lsn=Lsn(50),
    peer_is_streaming=True,
    peer_flush=Lsn(200),
    enforced=True,
)
STANDBY = Pg(state=PgState.STANDBY, timeline=1, flush=Lsn(200), replay=Lsn(200), is_streaming=True)

SERVING = Facts(
    cfg=CFG,
    durable=Durable(view=PAIRED, stopped_epoch=Epoch(4)),
    peer=heard(beat(PAIRED)),
    register=w(PAIRED),
    pg=PRIMARY,
    gate=Gate.OPEN,
    address_held=True,
    fence=Fence(is_configured=True),
    started_at=LONG,
)
FOLLOWING = replace(
    SERVING,
    durable=Durable(view=PAIRED_B),
    peer=heard(beat(PAIRED_B, pg=PgState.PRIMARY, is_streaming=False, gate_open=True, address_held=True)),
    register=w(PAIRED_B),
    pg=STANDBY,
    gate=Gate.CLOSED,
    address_held=False,
)
ALONE = replace(
    SERVING,
    durable=Durable(view=SOLO, stopped_epoch=Epoch(6)),
    peer=heard(beat(PAIRED), LONG),
    register=w(SOLO),
    pg=replace(PRIMARY, enforced=False, peer_is_streaming=False, peer_flush=Lsn(0)),
)
EXCLUDED = replace(
    FOLLOWING,
    durable=Durable(view=SOLO_B),
    register=w(SOLO_B),
    peer=heard(beat(SOLO_B, pg=PgState.PRIMARY, is_streaming=False)),
    pg=replace(STANDBY, is_streaming=False),
)
SILENT = At(NOW - 5 * S)


def do(facts: Facts, **changes: object) -> Decision:
    return decide(replace(facts, **changes), NOW)  # type: ignore[arg-type]


def expect(d: Decision, rule: str, *actions: object) -> None:
    assert (d.rule, d.actions) == (rule, actions)


# --- paired ----------------------------------------------------------------------------------------------------------


def test_healthy_primary_serves_and_does_nothing() -> None:
    d = do(SERVING)
    expect(d, "P7.serve")
    assert d.is_serving and d.may_act_outward and d.is_protected and d.state is PairState.PAIRED and d.notes == ()


def test_healthy_standby_follows_and_does_nothing() -> None:
    d = do(FOLLOWING)
    expect(d, "B7.follow")
    assert not d.is_serving and d.is_protected


def test_primary_notes_its_intent_before_it_asks_the_third_vote() -> None:
    silent = heard(beat(PAIRED), SILENT)
    expect(do(SERVING, peer=silent), "T1.intent", PersistIntent(Epoch(6)))
    noted = Durable(view=PAIRED, intent=Epoch(6))
    expect(do(SERVING, peer=silent, durable=noted), "T1.cas", CasRegister(view(6, A, A, floor=200)))


def test_primary_does_not_stop_waiting_for_the_peer_before_its_win_is_durable() -> None:
    silent, noted = heard(beat(PAIRED), SILENT), Durable(view=PAIRED, intent=Epoch(6))
    won = w(SOLO, cas=Cas.DONE, cas_epoch=Epoch(6), cas_at=FRESH)
    expect(do(SERVING, peer=silent, durable=noted, register=won), "T1.adopt", PersistView(SOLO, stopped=True))
    d = do(SERVING, peer=silent, durable=Durable(view=SOLO, stopped_epoch=Epoch(6)), register=won)
    expect(d, "S7.unenforce", Enforce(on=False))


def test_primary_without_a_third_vote_goes_on_waiting_for_a_silent_peer() -> None:
    d = do(SERVING, peer=heard(beat(PAIRED), SILENT), register=Register())
    assert d.rule == "I1.close"  # neither peer nor W
    d = do(SERVING, peer=heard(beat(PAIRED), At(NOW - 2 * S)), register=Register())
    assert d.rule == "T1.no-vote" and d.command == "futago jury set" and d.actions == ()


def test_peer_that_does_not_hear_us_counts_as_lost_for_the_primary() -> None:
    deaf = heard(beat(PAIRED), links=(Link("service", FRESH, SILENT), Link("heartbeat", FRESH, SILENT)))
    assert do(SERVING, peer=deaf).rule == "T1.intent"


def test_standby_does_not_call_a_primary_silent_that_it_hears_on_one_link() -> None:
    one = replace(FOLLOWING.peer, links=(Link("service", SILENT, SILENT), Link("heartbeat", FRESH, FRESH)))
    assert do(FOLLOWING, peer=one).rule == "B7.follow"


def test_standby_gives_the_primary_a_head_start_at_the_third_vote() -> None:
    hb = FOLLOWING.peer.heartbeat
    assert do(FOLLOWING, peer=heard(hb, At(NOW - 2 * S - S // 10))).rule == "B7.follow"
    assert do(FOLLOWING, peer=heard(hb, At(NOW - 2 * S - 4 * S // 10))).rule == "T2.intent"


def test_standby_takes_over_from_a_primary_that_hears_nobody_though_it_is_heard() -> None:
    """Every frame to the primary is lost, on all networks: it closes its gate and cannot ask W either."""
    hb = replace(FOLLOWING.peer.heartbeat, gate_open=False)
    for unheard, rule in ((2 * S + 6 * S // 10, "B6.wait-stream"), (2 * S + 8 * S // 10, "T2.intent")):
        links = (Link("service", FRESH, At(NOW - unheard)), Link("heartbeat", FRESH, At(NOW - unheard)))
        d = do(FOLLOWING, peer=heard(hb, links=links), pg=replace(STANDBY, is_streaming=False))
        assert d.rule == rule
    assert decide(
        replace(FOLLOWING, peer=heard(hb, links=(Link("service", FRESH, At(NOW - 2 * S)),))), NOW
    ).wake_at <= (NOW + FOLLOWING.cfg.bias + 2 * FOLLOWING.cfg.h)


def test_standby_does_not_wait_out_a_handover_of_a_primary_whose_database_does_not_die() -> None:
    hb = replace(FOLLOWING.peer.heartbeat, wants=Wants("handover", Epoch(7)), gate_open=False, address_held=False)
    waited = At(NOW - 6 * S // 10)
    assert do(FOLLOWING, peer=heard(hb, wants_since=waited)).rule != "T2.intent"
    assert do(FOLLOWING, peer=heard(replace(hb, pg=PgState.HUNG), wants_since=waited)).rule == "T2.intent"
    assert do(FOLLOWING, peer=heard(replace(hb, pg=PgState.HUNG), wants_since=FRESH)).rule != "T2.intent"
    since = At(NOW - FOLLOWING.cfg.h)
    looked = decide(replace(FOLLOWING, peer=heard(replace(hb, pg=PgState.HUNG), wants_since=since)), NOW)
    assert looked.rule != "T2.intent"
    assert (
        looked.wake_at <= since + 2 * FOLLOWING.cfg.h
    )  # two heartbeats, since the first word of its killing may be lost


def test_winner_shoots_at_once_at_a_loser_that_talks_and_cannot_stop_its_database() -> None:
    hb = replace(FOLLOWING.peer.heartbeat, gate_open=False, address_held=False)
    won = replace(FOLLOWING, durable=Durable(view=SOLO), register=w(SOLO), won_at=FRESH)
    assert FenceOff(Epoch(6)) not in do(won, peer=heard(hb)).actions  # it may stop by itself
    assert FenceOff(Epoch(6)) in do(won, peer=heard(replace(hb, pg=PgState.HUNG))).actions


def test_standby_does_not_wait_for_a_primary_that_said_goodbye() -> None:
    assert do(FOLLOWING, peer=replace(FOLLOWING.peer, said_bye=True)).rule == "T2.intent"


def test_standby_does_not_promote_before_its_win_is_durable_and_promotes_then() -> None:
    silent, noted = heard(FOLLOWING.peer.heartbeat, SILENT), Durable(view=PAIRED_B, intent=Epoch(6))
    won = w(SOLO, cas=Cas.DONE, cas_epoch=Epoch(6), cas_at=FRESH)
    expect(do(FOLLOWING, peer=silent, durable=noted, register=won), "T2.adopt", PersistView(SOLO, stopped=False))
    d = do(FOLLOWING, peer=silent, durable=Durable(view=SOLO), register=won, won_at=FRESH)
    expect(d, "S6.promote", Promote(), FenceOff(Epoch(6)))


def test_win_without_a_matching_intent_is_not_adopted() -> None:
    d = do(FOLLOWING, peer=heard(FOLLOWING.peer.heartbeat, SILENT), register=w(SOLO))
    assert d.rule == "L1.foreign" and d.state is PairState.BLOCKED
    assert not any(isinstance(a, PersistView | Promote) for a in d.actions)


def test_standby_whose_data_end_before_the_floor_does_not_take_over() -> None:
    d = do(FOLLOWING, peer=heard(FOLLOWING.peer.heartbeat, SILENT), pg=replace(STANDBY, flush=Lsn(99)))
    assert d.rule == "T2.no-data"


def test_controller_that_just_started_watches_before_it_calls_the_peer_silent() -> None:
    young = Peer(watching_since=At(NOW - S))
    assert do(FOLLOWING, peer=young).rule == "B7.follow"
    assert do(SERVING, peer=young, started_at=At(NOW - S)).is_serving


def test_standby_that_stood_still_itself_does_not_call_the_primary_silent() -> None:
    thawed = heard(FOLLOWING.peer.heartbeat, LONG)
    assert do(FOLLOWING, peer=thawed, woke_at=FRESH).rule == "B7.follow"


def test_primary_that_stood_still_closes_first_and_reopens_when_the_peer_echoes() -> None:
    buffered = heard(beat(PAIRED), FRESH, links=(Link("service", FRESH, LONG),))
    d = do(SERVING, woke_at=At(NOW - S // 5), peer=buffered, register=w(PAIRED, LONG))
    expect(d, "I1.close", SetGate(open=False), HoldAddress(hold=False), ReadRegister())
    assert not d.is_serving
    d = do(SERVING, woke_at=At(NOW - S // 5), gate=Gate.CLOSED, address_held=False)
    expect(d, "P5.open", SetGate(open=True))


def test_isolated_primary_closes_gate_and_address_and_waits() -> None:
    alone = replace(SERVING, peer=heard(beat(PAIRED), SILENT), register=w(PAIRED, SILENT))
    assert do(alone).actions[:2] == (SetGate(open=False), HoldAddress(hold=False))
    assert do(alone, gate=Gate.CLOSED, address_held=False).rule == "I2.wait"


def test_controller_that_restarts_again_and_again_does_not_renew_its_time_to_serve_alone() -> None:
    young = Peer(watching_since=At(NOW - S // 10))
    facts = replace(SERVING, peer=young, register=Register(is_configured=True), started_at=At(NOW - S // 10))
    assert do(facts, contact_before=At(NOW - S)).is_serving
    assert do(facts, contact_before=At(NOW - 3 * S)).rule == "I1.close"
    assert do(facts, contact_before=At(0)).rule == "I1.close"


def test_isolated_solo_primary_keeps_serving() -> None:
    d = do(ALONE, peer=heard(beat(PAIRED), LONG), register=w(SOLO, LONG))
    assert d.is_serving and not any(isinstance(a, SetGate | HoldAddress) for a in d.actions)


# --- promise and handing over ----------------------------------------------------------------------------------------


def test_primary_asks_a_peer_that_does_not_confirm_and_withdraws_when_it_does_again() -> None:
    stalled = replace(PRIMARY, unconfirmed_since=At(NOW - 3 * S))
    expect(do(SERVING, pg=stalled), "T3.ask", SetWants(Wants("solo", Epoch(6))))
    d = do(SERVING, wants=Wants("solo", Epoch(6)), wants_since=FRESH)
    expect(d, "P7.serve", SetWants(None))


def test_unanswered_request_goes_to_the_third_vote() -> None:
    stalled = replace(PRIMARY, unconfirmed_since=At(NOW - 6 * S))
    d = do(SERVING, pg=stalled, wants=Wants("solo", Epoch(6)), wants_since=At(NOW - 3 * S))
    expect(d, "T1.intent", PersistIntent(Epoch(6)))


def test_standby_promises_durably() -> None:
    hb = beat(PAIRED_B, pg=PgState.PRIMARY, wants=Wants("solo", Epoch(6)), flush=Lsn(300))
    expect(do(FOLLOWING, peer=heard(hb)), "T3.grant", PersistView(view(6, B, B, floor=300)))


def test_standby_that_asked_the_third_vote_does_not_promise() -> None:
    hb = beat(PAIRED_B, pg=PgState.PRIMARY, wants=Wants("solo", Epoch(6)))
    d = do(FOLLOWING, peer=heard(hb), durable=Durable(view=PAIRED_B, intent=Epoch(6)))
    assert d.rule == "B7.follow"
    assert d.actions == (CasRegister(PAIRED_B),)  # the open question is settled first


def test_promise_of_the_peer_lets_the_primary_go_on_alone() -> None:
    d = do(SERVING, peer=heard(beat(SOLO)), pg=replace(PRIMARY, unconfirmed_since=At(NOW - 3 * S)))
    expect(d, "T3.adopt", PersistView(SOLO, stopped=True))


def test_promise_counts_also_where_the_third_vote_says_the_same() -> None:
    d = do(SERVING, peer=heard(beat(SOLO)), register=w(SOLO))
    expect(d, "T3.adopt", PersistView(SOLO, stopped=True))


def test_view_that_the_peer_remembers_and_we_do_not_is_not_adopted() -> None:
    later = view(9, A, A)
    assert do(SERVING, peer=heard(beat(later))).rule == "T6.stop"
    stopped = replace(SERVING, gate=Gate.CLOSED, address_held=False, pg=Pg(state=PgState.STOPPED))
    assert do(stopped, peer=heard(beat(later))).rule == "L1.foreign"


def test_settled_intent_is_dropped_only_after_a_later_put_has_ended() -> None:
    noted = Durable(view=PAIRED, intent=Epoch(6))
    expect(do(SERVING, durable=noted), "P7.serve", CasRegister(PAIRED))
    asked = w(PAIRED, cas=Cas.UNKNOWN, cas_epoch=Epoch(6), cas_at=FRESH)
    expect(do(SERVING, durable=noted, register=asked), "P7.serve", CasRegister(PAIRED))
    pending = w(PAIRED, cas=Cas.PENDING, cas_epoch=Epoch(5))
    expect(do(SERVING, durable=noted, register=pending), "P7.serve")
    settled = w(PAIRED, cas=Cas.DONE, cas_epoch=Epoch(5), cas_at=FRESH)
    expect(do(SERVING, durable=noted, register=settled), "P7.serve", PersistIntent(Epoch(0)))


def test_postgres_death_is_handed_over_step_by_step() -> None:
    died = replace(PRIMARY, state=PgState.DIED, enforced=None)
    wants = Wants("handover", Epoch(7))
    d = do(SERVING, pg=died)
    expect(d, "T4.announce", SetWants(wants), SetGate(open=False), HoldAddress(hold=False))
    assert not d.is_serving
    shut = replace(SERVING, gate=Gate.CLOSED, address_held=False, wants=wants, wants_since=FRESH)
    expect(do(shut, pg=died), "T4.give", PersistView(view(7, B, B, floor=200)))
    expect(do(shut, pg=replace(died, state=PgState.HUNG)), "T4.stop", KillPg())


def test_switchover_stops_in_order_so_that_everything_arrives() -> None:
    wants = Wants("handover", Epoch(7))
    shut = replace(SERVING, gate=Gate.CLOSED, address_held=False, wants=wants, op=Op(OpKind.SWITCHOVER, FRESH))
    expect(do(shut), "T4.stop", StopPg())
    expect(do(shut, pg=replace(PRIMARY, state=PgState.STOPPING, peer_is_streaming=False)), "T4.stop")
    d = do(shut, pg=Pg(state=PgState.STOPPED), peer=heard(beat(PAIRED, is_streaming=False)))
    expect(d, "T4.give", PersistView(view(7, B, B, floor=200)))
    after = replace(shut, durable=Durable(view=view(7, B, B)), pg=Pg(state=PgState.STOPPED), register=w(PAIRED))
    assert not any(isinstance(a, OpDone) for a in do(after).actions)
    d = do(after, peer=heard(beat(view(7, B, B), pg=PgState.PRIMARY)))
    assert OpDone(ok=True, text="m2 serves") in d.actions


def test_switchover_to_an_unfit_peer_is_refused_after_a_while() -> None:
    unfit = heard(beat(PAIRED, is_fit=False))
    assert do(SERVING, peer=unfit, op=Op(OpKind.SWITCHOVER, FRESH)).rule == "P7.serve"
    d = do(SERVING, peer=unfit, op=Op(OpKind.SWITCHOVER, LONG))
    assert d.actions == (OpDone(ok=False, text="m2 is not fit to serve"),)


def test_peer_takes_over_by_the_third_vote_when_a_handover_stays_unfinished() -> None:
    hb = beat(PAIRED_B, pg=PgState.STOPPING, wants=Wants("handover", Epoch(7)))
    assert do(FOLLOWING, peer=heard(hb, wants_since=At(NOW - S))).rule == "B7.follow"
    assert do(FOLLOWING, peer=heard(hb, wants_since=At(NOW - 3 * S))).rule == "T2.intent"


def test_handed_over_member_adopts_also_where_a_promise_crossed_it() -> None:
    handed = heard(beat(view(7, A, A), pg=PgState.STOPPED))
    expect(do(FOLLOWING, peer=handed), "T4.adopt", PersistView(view(7, A, A), stopped=True))
    crossed = replace(FOLLOWING, durable=Durable(view=SOLO_B))
    expect(do(crossed, peer=handed), "T4.adopt", PersistView(view(7, A, A), stopped=True))


def test_member_whose_data_were_lost_before_it_was_handed_over_to_returns_the_service() -> None:
    gone, handed = Pg(state=PgState.ABSENT), heard(beat(view(7, A, A), pg=PgState.STOPPED))
    back = PersistView(view(8, B, B))
    expect(do(FOLLOWING, peer=handed, pg=gone), "T4.return", back)
    crossed = replace(FOLLOWING, durable=Durable(view=SOLO_B))
    expect(do(crossed, peer=handed, pg=gone), "T4.return", back)
    promised = heard(beat(SOLO, pg=PgState.STANDBY))
    d = do(SERVING, peer=promised, pg=gone, gate=Gate.CLOSED, address_held=False)
    expect(d, "T4.return", PersistView(view(7, B, B)))
    d = do(SERVING, peer=promised, pg=gone)
    assert d.rule == "T4.return" and not any(isinstance(a, PersistView) for a in d.actions), "it is shut first"


def test_service_is_not_returned_to_a_member_that_has_no_data_either_or_is_not_heard() -> None:
    gone, handed = Pg(state=PgState.ABSENT), beat(view(7, A, A), pg=PgState.ABSENT)
    assert do(FOLLOWING, peer=heard(handed), pg=gone).rule == "T4.adopt"
    silent = heard(replace(handed, pg=PgState.STOPPED), SILENT)
    assert do(FOLLOWING, peer=silent, pg=gone).rule == "T4.adopt"


def test_service_that_was_returned_is_taken_up_again() -> None:
    gave = replace(SERVING, durable=Durable(view=view(7, B, B)), pg=Pg(state=PgState.STOPPED), gate=Gate.CLOSED)
    returned = heard(beat(view(8, A, A), pg=PgState.ABSENT, is_fit=False, is_streaming=False))
    expect(do(gave, peer=returned, address_held=False), "T4.adopt", PersistView(view(8, A, A), stopped=True))


def test_member_whose_data_are_being_replaced_declines_to_be_counted_on() -> None:
    serving = heard(beat(view(7, B, A, B), pg=PgState.PRIMARY))
    back = replace(FOLLOWING, durable=Durable(view=SOLO_B), peer=serving, pg=Pg(state=PgState.ABSENT))
    for rung in ("rewind", "basebackup", "empty"):
        d = do(back, rejoin=Rejoin(RejoinStep.RUNNING, rung))
        expect(d, "T6.decline", PersistView(view(8, B, B)))
    for rejoin in (Rejoin(RejoinStep.RUNNING, "follow"), Rejoin(RejoinStep.RUNNING), Rejoin(RejoinStep.DONE, "rewind")):
        assert do(back, rejoin=rejoin).rule == "T6.learn"
    assert do(back, rejoin=Rejoin(RejoinStep.RUNNING, "basebackup"), pg=STANDBY).rule == "T6.learn", "it has arrived"
    left_out = heard(beat(view(7, B, B), pg=PgState.PRIMARY))
    assert do(back, peer=left_out, rejoin=Rejoin(RejoinStep.RUNNING, "basebackup")).rule == "T6.learn"


def test_postgres_death_with_an_unfit_peer_is_restarted_in_place_and_enforced() -> None:
    d = do(SERVING, pg=replace(PRIMARY, state=PgState.DIED), peer=heard(beat(PAIRED, is_fit=False)))
    expect(d, "T8.start", StartPg(as_standby=False, enforced=True))


# --- boot ------------------------------------------------------------------------------------------------------------


BOOTED = replace(SERVING, pg=Pg(state=PgState.STOPPED), gate=Gate.CLOSED, address_held=False, started_at=At(NOW - S))


def test_member_that_booted_alone_waits_and_then_asks_the_third_vote() -> None:
    young = Peer(watching_since=At(NOW - S))
    assert do(BOOTED, peer=young).rule == "T8.wait-peer"
    assert do(BOOTED, peer=Peer(watching_since=At(NOW - 3 * S)), started_at=At(NOW - 3 * S)).rule == "T7p.intent"


def test_standby_that_booted_alone_may_take_over_by_the_third_vote_only() -> None:
    booted = replace(FOLLOWING, pg=Pg(state=PgState.STOPPED, has_standby_signal=True), peer=Peer(watching_since=LONG))
    assert do(booted).rule == "T7s.intent"
    assert do(booted, register=Register()).rule == "T7s.no-vote"


def test_both_booted_old_primary_starts_enforced_and_opens_when_the_standby_has_everything() -> None:
    expect(do(BOOTED), "T8.start", StartPg(as_standby=False, enforced=True))
    started = replace(PRIMARY, start_lsn=Lsn(210), flush=Lsn(210))
    assert do(BOOTED, pg=started).rule == "P6.wait-flush"
    assert do(BOOTED, pg=replace(started, peer_flush=Lsn(210))).rule == "P5.open"


def test_member_excluded_by_the_newest_view_does_not_serve_when_it_boots_alone() -> None:
    d = do(EXCLUDED, peer=Peer(watching_since=LONG), pg=Pg(state=PgState.STOPPED))
    assert d.rule == "R2.alone" and d.state is PairState.BLOCKED and d.command


def test_solo_member_looks_around_before_it_starts_again() -> None:
    booted = replace(ALONE, pg=Pg(state=PgState.STOPPED), gate=Gate.CLOSED, address_held=False, started_at=FRESH)
    d = do(booted, peer=Peer(watching_since=FRESH), register=Register(is_configured=True))
    expect(d, "S2.look", ReadRegister())
    expect(do(booted, started_at=At(NOW - S)), "S3.start", StartPg(as_standby=False, enforced=False))


def test_standbys_data_directory_is_promoted_and_never_started_as_primary() -> None:
    booted = replace(ALONE, pg=Pg(state=PgState.STOPPED, has_standby_signal=True), gate=Gate.CLOSED)
    expect(do(booted, address_held=False), "S3.start", StartPg(as_standby=True, enforced=False))


# --- learning --------------------------------------------------------------------------------------------------------


def test_overtaken_primary_stops_everything_before_it_writes_the_newer_view() -> None:
    d = do(SERVING, register=w(SOLO_B))
    expect(d, "T6.stop", SetGate(open=False), HoldAddress(hold=False), KillPg())
    assert not d.is_serving
    stopped = replace(SERVING, register=w(SOLO_B), gate=Gate.CLOSED, address_held=False)
    assert do(stopped).rule == "T6.stop"
    expect(do(stopped, pg=Pg(state=PgState.DIED)), "T6.learn", PersistView(SOLO_B))


def test_standby_only_writes_a_newer_view_that_counts_on_it() -> None:
    newer = view(7, B, A, B)
    d = do(EXCLUDED, peer=heard(beat(newer, pg=PgState.PRIMARY)), pg=STANDBY)
    expect(d, "T6.learn", PersistView(newer))


def test_member_that_lost_its_memory_is_not_counted_on_again_before_it_was_excluded() -> None:
    d = do(FOLLOWING, durable=Durable())
    assert d.rule == "M3.amnesia"
    d = do(FOLLOWING, durable=Durable(), register=w(SOLO_B), peer=heard(beat(SOLO_B, pg=PgState.PRIMARY)))
    expect(d, "M2.join", PersistView(SOLO_B))


# --- solo ------------------------------------------------------------------------------------------------------------

TOOK_OVER = replace(
    ALONE, durable=Durable(view=SOLO), won_at=FRESH, address_held=False, fence=Fence(is_configured=True)
)


def test_winner_opens_at_once_but_acts_outward_only_when_the_loser_is_stopped() -> None:
    opened = do(TOOK_OVER, gate=Gate.CLOSED)
    assert opened.actions == (SetGate(open=True), FenceOff(Epoch(6)))
    d = do(TOOK_OVER, fence=Fence(True, FenceOutcome.PENDING, Epoch(6)))
    assert d.is_serving and not d.may_act_outward and d.actions == ()
    off = Fence(True, FenceOutcome.OFF, Epoch(6), FRESH)
    d = do(TOOK_OVER, fence=off)
    assert d.may_act_outward and d.actions == (HoldAddress(hold=True), PersistStopped(Epoch(6)))
    d = do(TOOK_OVER, fence=off, durable=Durable(view=SOLO, stopped_epoch=Epoch(6)), address_held=True)
    assert d.actions == (FenceOn(Epoch(6)),)


def test_fence_that_answers_unknown_is_no_proof_but_t_self_is() -> None:
    unknown = Fence(True, FenceOutcome.UNKNOWN, Epoch(6), FRESH)
    assert not do(TOOK_OVER, fence=unknown).may_act_outward
    assert do(TOOK_OVER, fence=unknown, won_at=At(NOW - 3 * S)).may_act_outward
    assert not do(TOOK_OVER, fence=unknown, won_at=None, started_at=At(NOW - S)).may_act_outward


def test_winner_that_just_restarted_listens_before_it_shoots() -> None:
    restarted = replace(TOOK_OVER, won_at=None, started_at=At(NOW - S), peer=Peer(watching_since=At(NOW - S)))
    assert do(restarted).actions == ()
    assert FenceOff(Epoch(6)) in do(restarted, peer=Peer(watching_since=At(NOW - 3 * S))).actions


def test_loser_that_learned_the_view_is_not_shot() -> None:
    d = do(TOOK_OVER, peer=heard(beat(SOLO, pg=PgState.STOPPED)))
    assert d.may_act_outward and not any(isinstance(a, FenceOff) for a in d.actions)
    assert PersistStopped(Epoch(6)) in d.actions


def test_fenced_member_is_left_off_where_the_settings_say_so() -> None:
    cfg, off = replace(CFG, fence_after="stay_off"), Fence(True, FenceOutcome.OFF, Epoch(6), FRESH)
    d = do(ALONE, cfg=cfg, fence=off)
    assert not any(isinstance(a, FenceOn) for a in d.actions)
    d = do(ALONE, cfg=cfg, fence=off, op=Op(OpKind.RECOVER, FRESH))
    assert FenceOn(Epoch(6)) in d.actions


BACK = replace(
    ALONE,
    peer=heard(beat(SOLO)),
    pg=replace(ALONE.pg, peer_is_streaming=True, peer_flush=Lsn(200)),
)


def test_peer_is_added_in_order_enforce_barrier_own_disk_register() -> None:
    expect(do(BACK), "T5.enforce", Enforce(on=True))
    waiting = replace(BACK.pg, enforced=True)
    expect(do(BACK, pg=waiting), "T5.barrier", VerifyBarrier(Epoch(6)))
    proved = replace(waiting, barrier_epoch=Epoch(6))
    expect(do(BACK, pg=proved, journals_settled=False), "T5.wait-journals")
    expect(do(BACK, pg=proved), "T5.publish", PersistView(view(7, A, A, B, floor=200)))
    paired = replace(BACK, durable=Durable(view=view(7, A, A, B), stopped_epoch=Epoch(6)), pg=proved)
    d = do(paired, peer=heard(beat(view(7, A, A, B))))
    expect(d, "P7.serve", CasRegister(view(7, A, A, B)))
    assert not d.is_protected and any("third vote" in n for n in d.notes)


def test_floor_of_the_pair_is_what_the_peer_has_confirmed() -> None:
    """A commit under way is not acknowledged; were it in the floor, the peer could not take over if this member died now."""
    proved = replace(BACK.pg, enforced=True, barrier_epoch=Epoch(6), flush=Lsn(230))
    expect(do(BACK, pg=proved), "T5.publish", PersistView(view(7, A, A, B, floor=200)))


def test_peer_that_stalls_before_it_is_added_is_not_waited_for() -> None:
    stalled = replace(BACK.pg, enforced=True, unconfirmed_since=At(NOW - 3 * S))
    expect(do(BACK, pg=stalled), "S7.unenforce", Enforce(on=False))


def test_nothing_is_begun_on_the_strength_of_a_disk_that_is_being_written() -> None:
    stalled = replace(BACK.pg, enforced=True, unconfirmed_since=At(NOW - 3 * S))
    writing = Durable(view=SOLO, stopped_epoch=Epoch(6), is_writing=True)
    expect(do(BACK, pg=stalled, durable=writing), "S7.unenforce")
    expect(do(BACK, pg=Pg(state=PgState.DIED), durable=writing), "S3.start")
    silent, noted = heard(FOLLOWING.peer.heartbeat, SILENT), Durable(view=PAIRED_B, intent=Epoch(6), is_writing=True)
    expect(do(FOLLOWING, peer=silent, durable=noted), "T2.cas")


def test_peer_on_another_timeline_or_with_old_memory_is_not_added() -> None:
    assert do(BACK, peer=heard(beat(SOLO, timeline=2))).rule == "S11.serve"
    assert do(BACK, peer=heard(beat(PAIRED))).rule == "S11.serve"
    assert do(BACK, peer=heard(beat(SOLO, journals_complete=False))).rule == "S11.serve"
    assert do(BACK, peer=heard(beat(SOLO, is_fit=False))).rule == "S11.serve"


def test_peer_that_receives_and_confirms_nothing_is_not_added() -> None:
    silent_disk = replace(BACK.pg, unconfirmed_since=At(NOW - 3 * S))
    assert do(BACK, pg=silent_disk).rule == "S11.serve"


# --- rejoining -------------------------------------------------------------------------------------------------------


def test_excluded_member_is_brought_back_from_a_verified_primary_only() -> None:
    expect(do(EXCLUDED), "R8.rejoin", StartRejoin(B, Epoch(6)))
    d = do(EXCLUDED, peer=heard(beat(SOLO_B, pg=PgState.STANDBY)))
    assert d.rule == "R5.wait-primary" and d.actions == ()


def test_failed_recovery_is_repeated_after_its_pause_or_when_asked() -> None:
    failed = Rejoin(RejoinStep.FAILED, "rewind", retry_at=At(NOW + S))
    assert do(EXCLUDED, rejoin=failed).rule == "R7.pause"
    assert do(EXCLUDED, rejoin=failed, op=Op(OpKind.RECOVER, FRESH)).rule == "R8.rejoin"


def test_excluded_member_whose_peer_is_silent_powers_it_on_when_asked() -> None:
    silent = replace(EXCLUDED, peer=Peer(watching_since=LONG))
    assert not any(isinstance(a, FenceOn) for a in do(silent).actions)
    d = do(silent, op=Op(OpKind.RECOVER, FRESH))
    assert d.rule == "R2.alone" and d.actions == (FenceOn(Epoch(6)),)
    d = do(silent, op=Op(OpKind.RECOVER, LONG), fence=Fence(True, is_powered_on_again=True))
    assert [type(a) for a in d.actions] == [OpDone]


def test_recovery_left_to_the_operator_waits_for_the_command() -> None:
    manual = replace(CFG, recovery="manual")
    d = do(EXCLUDED, cfg=manual)
    assert d.rule == "R6.manual" and d.command == "futago recover"
    assert do(EXCLUDED, cfg=manual, op=Op(OpKind.RECOVER, FRESH)).rule == "R8.rejoin"


def test_forced_primary_is_refused_while_the_other_lives_and_jumps_epochs_otherwise() -> None:
    op = Op(OpKind.FORCE_PRIMARY, FRESH)
    assert do(EXCLUDED, op=op).rule == "T9.refuse-alive"
    d = do(EXCLUDED, op=op, peer=Peer(watching_since=LONG))
    expect(d, "T9.force", PersistView(view(106, A, A, floor=200), stopped=True))
