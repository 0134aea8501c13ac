"""What was left unhealed once: a member without memory, a member without power, members at work on, forced primaries."""

from __future__ import annotations

from dataclasses import replace

from test_decide_scenarios import (
    ALONE,
    CFG,
    EXCLUDED,
    FOLLOWING,
    FRESH,
    LONG,
    NOW,
    PAIRED,
    PAIRED_B,
    SERVING,
    SILENT,
    SOLO,
    SOLO_B,
    STANDBY,
    A,
    B,
    S,
    beat,
    do,
    expect,
    heard,
    view,
    w,
)

from futago.cluster.model import (
    AskPower,
    At,
    Decision,
    Durable,
    Epoch,
    Facts,
    Fence,
    FenceOff,
    FenceOn,
    FenceOutcome,
    Gate,
    Op,
    OpDone,
    OpKind,
    PairState,
    Peer,
    PersistView,
    Pg,
    PgState,
    Register,
    SetWants,
    StartPg,
    Wants,
)
from futago.cluster.word import is_fit, word

ASKED = Wants("drop", Epoch(6))


def ago(seconds: float) -> At:
    return At(NOW - int(seconds * S))


# --- a member that lost its memory, where there is no third vote ---


BLANK = beat(None, pg=PgState.ABSENT, is_fit=False, is_streaming=False, flush=0, replay=0)
EMPTY = replace(
    FOLLOWING,
    durable=Durable(),
    pg=Pg(state=PgState.ABSENT),
    register=Register(),
    peer=heard(beat(PAIRED_B, pg=PgState.PRIMARY, is_streaming=False, wants=ASKED)),
)


def test_primary_asks_a_member_without_memory_to_let_it_go_on_where_there_is_no_third_vote() -> None:
    blank = heard(BLANK, unfit_since=ago(3))
    expect(do(SERVING, peer=blank, register=Register()), "T3.ask", SetWants(ASKED))
    expect(do(SERVING, peer=blank), "T3.ask", SetWants(Wants("solo", Epoch(6))))
    unanswered = {"wants": Wants("solo", Epoch(6)), "wants_since": ago(3)}
    assert do(SERVING, peer=blank, **unanswered).rule == "T1.intent"


def test_member_without_memory_and_data_promises_and_is_taken_back_as_a_new_one() -> None:
    expect(do(EMPTY), "M5.grant", PersistView(view(6, B, B, floor=200)))
    standby_copy = Pg(state=PgState.STOPPED, has_standby_signal=True)
    assert do(EMPTY, pg=standby_copy).rule == "M5.grant"
    promised = heard(beat(SOLO, pg=PgState.ABSENT, is_fit=False, is_streaming=False))
    d = do(SERVING, peer=promised, register=Register(), wants=ASKED, wants_since=ago(0.1))
    expect(d, "T3.adopt", PersistView(SOLO, stopped=True))
    back = replace(EMPTY, durable=Durable(view=SOLO_B), peer=heard(beat(SOLO_B, pg=PgState.PRIMARY)))
    assert do(back).rule == "R8.rejoin"


def test_member_without_memory_promises_nothing_that_might_contradict_what_it_forgot() -> None:
    a_primarys_data = Pg(state=PgState.STOPPED)
    assert do(EMPTY, pg=a_primarys_data).rule == "M3.amnesia"
    assert do(EMPTY, register=Register(is_configured=True)).rule == "M3.amnesia"
    assert do(EMPTY, register=w(PAIRED_B)).rule == "M3.amnesia"
    plain = heard(beat(PAIRED_B, pg=PgState.PRIMARY, wants=Wants("solo", Epoch(6))))
    assert do(EMPTY, peer=plain).rule == "M3.amnesia"
    open_question = heard(beat(PAIRED_B, pg=PgState.PRIMARY, wants=ASKED, intent=Epoch(6)))
    assert do(EMPTY, peer=open_question).rule == "M3.amnesia"
    late = heard(beat(PAIRED_B, pg=PgState.PRIMARY, wants=Wants("drop", Epoch(9))))
    assert do(EMPTY, peer=late).rule == "M3.amnesia"
    silent = heard(EMPTY.peer.heartbeat, SILENT)
    assert do(EMPTY, peer=silent).rule == "M3.amnesia"


def test_standby_with_all_data_takes_over_from_a_primary_that_came_back_empty() -> None:
    blank = heard(BLANK, unfit_since=ago(3))
    d = do(FOLLOWING, peer=blank, register=Register(), pg=replace(STANDBY, is_streaming=False))
    expect(d, "B8.ask", SetWants(ASKED))
    assert do(FOLLOWING, peer=blank).rule == "T2.intent"
    promised = heard(beat(SOLO, pg=PgState.ABSENT, is_fit=False, is_streaming=False))
    d = do(FOLLOWING, peer=promised, register=Register(), wants=ASKED)
    assert d.rule == "T4.adopt" and d.actions[0] == PersistView(SOLO, stopped=True)


def test_member_without_memory_is_not_fit() -> None:
    assert not is_fit(replace(FOLLOWING, durable=Durable()))
    assert is_fit(FOLLOWING) and word(FOLLOWING).authority == "register"


def test_blocked_primary_whose_peer_lost_its_memory_but_not_its_data_may_be_forced() -> None:
    blank = heard(replace(BLANK, pg=PgState.STOPPED), unfit_since=LONG)
    d = do(EXCLUDED, peer=blank, op=Op(OpKind.FORCE_PRIMARY, FRESH), register=Register())
    assert d.rule == "T9.force"


# --- a member that lost its power by itself ---


DARK = Fence(True, has_power=False, power_at=ago(1), asked_at=ago(1))
GONE = replace(ALONE, peer=heard(beat(PAIRED), ago(20)), fence=DARK)
ON = FenceOn(Epoch(6), is_unasked=True)


def powers_on(d: Decision) -> bool:
    return any(isinstance(a, FenceOn) for a in d.actions)


def test_standby_that_lost_its_power_by_itself_is_powered_on_unasked() -> None:
    asked = do(GONE, fence=Fence(True))
    assert AskPower() in asked.actions and not powers_on(asked)
    assert ON in do(GONE).actions


def test_primary_that_alone_has_all_data_and_lost_its_power_is_powered_on_unasked() -> None:
    d = do(EXCLUDED, peer=Peer(watching_since=LONG), fence=DARK)
    assert d.rule == "R2.alone" and ON in d.actions


def test_blocked_member_without_a_vote_powers_the_other_on() -> None:
    d = do(FOLLOWING, peer=heard(FOLLOWING.peer.heartbeat, ago(20)), register=Register(), fence=DARK)
    assert d.rule == "T2.no-vote" and FenceOn(Epoch(5), is_unasked=True) in d.actions


def test_silent_member_is_left_as_it_is_where_a_person_may_want_that() -> None:
    assert not powers_on(do(GONE, cfg=replace(CFG, recovery="manual")))
    assert not powers_on(do(GONE, cfg=replace(CFG, fence_after="stay_off")))
    assert not powers_on(do(GONE, maintenance=True))
    assert not powers_on(do(GONE, peer=replace(GONE.peer, said_bye=True)))
    assert not powers_on(do(GONE, fence=replace(DARK, has_power=True)))
    assert not powers_on(do(GONE, fence=replace(DARK, has_power=None)))
    assert not powers_on(do(GONE, fence=Fence(False)))


def test_answer_of_the_device_counts_only_if_asked_since_and_lately() -> None:
    assert not powers_on(do(GONE, fence=replace(DARK, power_at=ago(21))))
    assert not powers_on(do(GONE, fence=replace(DARK, power_at=ago(16))))


def test_device_is_left_alone_until_what_must_be_decided_is_decided() -> None:
    young = heard(beat(PAIRED), ago(4))
    assert AskPower() not in do(GONE, peer=young, fence=Fence(True)).actions
    not_stopped = do(
        GONE, durable=Durable(view=SOLO), fence=replace(DARK, outcome=FenceOutcome.UNKNOWN, epoch=Epoch(6))
    )
    assert not powers_on(not_stopped)
    deciding = do(SERVING, peer=heard(beat(PAIRED), ago(20)), fence=DARK, register=w(PAIRED))
    assert deciding.rule.startswith("T1") and not powers_on(deciding)


def test_member_that_loses_its_power_again_and_again_is_left_off_and_that_is_said() -> None:
    assert not powers_on(do(GONE, power_ons=(ago(100),)))
    assert powers_on(do(GONE, power_ons=(ago(130),)))
    d = do(GONE, power_ons=(ago(3000), ago(2000), ago(200)))
    assert not powers_on(d) and any("3 times within an hour" in x for x in d.notes)
    assert powers_on(do(GONE, power_ons=(ago(3700), ago(2000), ago(200))))


# --- maintenance ---


def on_hold(facts: Facts, **changes: object) -> Decision:
    return do(facts, maintenance=True, **changes)


def test_nobody_takes_over_from_a_silent_primary_while_maintenance_is_on() -> None:
    silent = heard(FOLLOWING.peer.heartbeat, SILENT)
    d = on_hold(FOLLOWING, peer=silent)
    expect(d, "B9.hold")
    assert d.state is PairState.BLOCKED and d.command == "futago maintenance off"
    said = heard(replace(FOLLOWING.peer.heartbeat, maintenance=True), SILENT)  # type: ignore[type-var]
    assert do(FOLLOWING, peer=said).rule == "B9.hold"
    assert do(FOLLOWING, peer=silent).rule == "T2.intent"


def test_failed_postgres_is_restarted_in_place_while_maintenance_is_on() -> None:
    died = replace(SERVING.pg, state=PgState.DIED)
    expect(on_hold(SERVING, pg=died), "T8.start", StartPg(as_standby=False, enforced=True))
    assert on_hold(SERVING, manager_ok=False).rule == "P7.serve"
    assert do(SERVING, manager_ok=False).rule == "T4.announce"


def test_a_primary_whose_programs_fail_does_not_hand_over_to_a_member_whose_fail_too() -> None:
    assert SERVING.peer.heartbeat is not None
    worse = replace(SERVING.peer, heartbeat=replace(SERVING.peer.heartbeat, manager_ok=False))
    assert do(SERVING, manager_ok=False, peer=worse).rule == "P7.serve"
    assert not do(SERVING, manager_ok=False, peer=worse).is_protected


def test_primary_goes_on_alone_and_takes_the_peer_back_while_maintenance_is_on() -> None:
    assert on_hold(SERVING, peer=heard(beat(PAIRED), SILENT)).rule == "T1.intent"
    leaving = heard(beat(PAIRED, is_leaving=True, is_fit=False))
    assert on_hold(SERVING, peer=leaving).rule == "T3.ask"
    back = replace(
        ALONE, peer=heard(beat(SOLO)), pg=replace(ALONE.pg, peer_is_streaming=True, peer_flush=SERVING.pg.flush)
    )
    assert on_hold(back).rule == "T5.enforce"


def test_operators_own_orders_are_followed_while_maintenance_is_on() -> None:
    assert on_hold(SERVING, op=Op(OpKind.SWITCHOVER, FRESH)).rule == "T4.announce"
    assert on_hold(SERVING, is_leaving=True).rule == "T4.announce"
    d = on_hold(EXCLUDED, op=Op(OpKind.FORCE_PRIMARY, FRESH), peer=Peer(watching_since=LONG))
    assert d.rule == "T9.force"


def test_maintenance_is_no_protection_and_is_said() -> None:
    d = on_hold(SERVING)
    assert d.rule == "P7.serve" and not d.is_protected and any("Maintenance is on" in x for x in d.notes)


def test_handover_that_was_begun_is_finished_although_maintenance_begins() -> None:
    wants = Wants("handover", Epoch(7))
    shut = replace(SERVING, gate=Gate.CLOSED, address_held=False, wants=wants, pg=Pg(state=PgState.STOPPED))
    assert on_hold(shut, peer=heard(beat(PAIRED, is_streaming=False))).rule == "T4.give"


# --- T9 ---


FORCE = Op(OpKind.FORCE_PRIMARY, FRESH)


def test_force_jumps_over_every_epoch_and_overwrites_the_third_vote() -> None:
    blocked = replace(FOLLOWING, peer=Peer(watching_since=LONG), register=w(PAIRED_B), op=FORCE)
    d = do(blocked)
    assert d.rule == "T9.force" and d.actions[0] == PersistView(view(105, A, A, floor=200), stopped=True)
    won = do(blocked, durable=Durable(view=view(105, A, A), stopped_epoch=Epoch(105)), pg=SERVING.pg)
    assert any(type(a).__name__ == "CasRegister" and a.view.epoch == 105 for a in won.actions)
    assert OpDone(ok=True, text="this member serves alone") in won.actions
    assert not any(isinstance(a, FenceOff) for a in won.actions)  # an operator stated that it is off


def test_force_is_refused_to_a_member_whose_peer_lives_or_that_has_no_data() -> None:
    assert [type(a) for a in do(FOLLOWING, op=FORCE).actions] == [OpDone]
    d = do(FOLLOWING, op=FORCE, peer=Peer(watching_since=LONG), pg=Pg(state=PgState.ABSENT))
    assert d.rule == "T9.refuse-empty" and d.actions[0] == OpDone(ok=False, text="this member has no data")


# --- disks of both sides ---


def test_primary_with_a_bad_disk_does_not_ask_to_serve_alone() -> None:
    """Its promise would exclude the only member whose data are good."""
    weak = heard(beat(PAIRED, is_fit=False), unfit_since=ago(3))
    d = do(SERVING, peer=weak, pg=replace(SERVING.pg, is_disk_ok=False))
    assert d.rule == "P8.no-disk" and d.state is PairState.BLOCKED
    assert do(SERVING, peer=weak, pg=Pg(state=PgState.ABSENT)).rule == "P1.no-data"


def test_peer_that_cannot_vote_but_confirms_is_left_in_peace_without_a_third_vote() -> None:
    unable = heard(beat(PAIRED, is_able=False, is_fit=False), unfit_since=ago(3))
    d = do(SERVING, peer=unable, register=Register())
    assert d.rule == "P7.serve" and d.is_serving and not d.is_protected
    assert any("system disk of m2" in x for x in d.notes)
    assert do(SERVING, peer=unable).rule == "T1.intent"
    stalled = replace(SERVING.pg, unconfirmed_since=ago(3))
    assert do(SERVING, peer=unable, register=Register(), pg=stalled).rule == "T1.no-vote"


def test_member_that_cannot_write_its_question_says_so() -> None:
    d = do(SERVING, peer=heard(beat(PAIRED), ago(2.1)), durable=Durable(view=PAIRED, is_able=False))
    assert d.rule == "T1.unable" and d.state is PairState.BLOCKED and d.is_serving


def test_member_without_memory_is_asked_nothing_while_a_promise_to_it_may_be_landing() -> None:
    blank, writing = heard(BLANK, unfit_since=ago(3)), Durable(view=PAIRED_B, is_writing=True)
    d = do(FOLLOWING, peer=blank, register=Register(), pg=replace(STANDBY, is_streaming=False), durable=writing)
    assert d.rule == "B8.ask" and not any(isinstance(a, SetWants) for a in d.actions)
