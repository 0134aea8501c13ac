"""A disk that failed once, a peer whose word is old, a floor that may not sink, and a lone winner without memory."""

from __future__ import annotations

from dataclasses import replace

import pytest
from test_decide_scenarios import (
    ALONE,
    EXCLUDED,
    FOLLOWING,
    FRESH,
    NOW,
    PAIRED,
    PRIMARY,
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
    At,
    Durable,
    Epoch,
    Gate,
    Lsn,
    OpKind,
    PairState,
    PersistView,
    Pg,
    PgState,
    StartPg,
    StartRejoin,
)
from futago.cluster.model.world import Op, Wants
from futago.cluster.word import word

SUSPECT = replace(STANDBY, is_suspect=True)
DEAD = Pg(state=PgState.DIED, timeline=1, flush=Lsn(200))


def ago(seconds: float) -> At:
    return At(NOW - int(seconds * S))


# --- one I/O error that nothing dies of ---


def test_primary_without_data_hands_over_to_data_that_are_not_trusted_and_to_no_worse() -> None:
    none_here = {"pg": Pg(state=PgState.ABSENT), "gate": Gate.CLOSED, "address_held": False}
    weak = beat(PAIRED, is_fit=False, is_suspect=True)
    d = do(SERVING, peer=heard(weak), wants=Wants("handover", Epoch(7)), **none_here)
    assert d.rule == "T4.give"
    assert do(SERVING, peer=heard(replace(weak, is_disk_ok=False)), **none_here).rule == "P1.no-data"
    assert do(SERVING, peer=heard(replace(weak, is_suspect=False)), **none_here).rule == "P1.no-data"
    assert do(SERVING, peer=heard(weak), pg=DEAD, gate=Gate.CLOSED).rule != "T4.announce", "there are data here"


def test_standby_whose_disk_failed_once_asks_to_be_let_go_and_is_let_go() -> None:
    said = word(replace(FOLLOWING, pg=SUSPECT))
    assert said.is_disk_ok and said.is_suspect and not said.is_fit
    weak = heard(beat(PAIRED, is_fit=False, is_suspect=True), unfit_since=ago(3))
    d = do(SERVING, peer=weak)
    assert d.rule == "T3.ask" and any("data disk of m2 failed once" in x for x in d.notes)


def test_excluded_member_whose_disk_failed_once_is_brought_back_although_it_follows() -> None:
    following = replace(EXCLUDED, pg=STANDBY)
    assert do(following).rule == "R4.follow"
    expect(do(following, pg=SUSPECT), "R8.rejoin", StartRejoin(source=B, epoch=Epoch(6)))
    manual = replace(following.cfg, recovery="manual")
    assert do(following, pg=SUSPECT, cfg=manual).rule == "R6.manual"
    assert do(following, pg=SUSPECT, cfg=manual, op=Op(OpKind.RECOVER, FRESH)).rule == "R8.rejoin"


def test_member_that_follows_and_has_no_room_says_so_and_keeps_its_data() -> None:
    d = do(EXCLUDED, pg=replace(STANDBY, is_disk_ok=False))
    assert d.rule == "R10.no-disk" and d.actions == () and d.command == "futago recover"


def test_member_whose_disk_failed_once_is_not_taken_into_the_pair() -> None:
    back = heard(beat(SOLO, is_suspect=True))
    d = do(ALONE, peer=back, pg=replace(ALONE.pg, peer_is_streaming=True, peer_flush=Lsn(200)))
    assert d.rule == "S11.serve" and not d.is_protected


def test_primary_whose_disk_failed_once_hands_over_and_is_not_chosen_again() -> None:
    d = do(SERVING, pg=replace(PRIMARY, is_suspect=True))
    assert d.rule == "T4.announce" and any("data disk of m1 failed once" in x for x in d.notes)
    dead = replace(DEAD, is_suspect=False)
    assert do(SERVING, pg=dead, gate=Gate.CLOSED, peer=heard(beat(PAIRED, is_suspect=True))).rule == "T8.start"


def test_lone_primary_whose_disk_failed_once_starts_again_as_long_as_it_can_be_written() -> None:
    down = replace(ALONE, pg=replace(DEAD, is_suspect=True), gate=Gate.CLOSED, address_held=False)
    d = do(down)
    assert d.rule == "S3.start" and StartPg(as_standby=False, enforced=False) in d.actions
    assert any("nobody else has all data" in x for x in d.notes)
    assert do(down, pg=replace(DEAD, is_suspect=True, is_disk_ok=False)).rule == "S13.bad-disk"


def test_lone_primary_whose_disk_failed_once_takes_the_peer_in() -> None:
    pg = replace(PRIMARY, enforced=False, is_suspect=True)
    assert do(ALONE, peer=heard(beat(SOLO)), pg=pg).rule == "T5.enforce"


def test_data_that_are_not_trusted_decide_only_where_they_are_served_already() -> None:
    """The other member may have better ones; whoever serves goes on."""
    silent = heard(beat(PAIRED), ago(2.1))
    assert do(SERVING, peer=silent, pg=replace(PRIMARY, is_suspect=True)).rule == "T1.intent"
    assert do(SERVING, peer=silent, pg=replace(DEAD, is_suspect=True), gate=Gate.CLOSED).rule == "T7p.no-data"
    gone = replace(FOLLOWING.peer, heard_at=SILENT, links=())
    assert do(FOLLOWING, peer=gone, pg=SUSPECT).rule == "T2.no-data"
    unable = heard(beat(PAIRED, is_able=False, is_fit=False), unfit_since=ago(3))
    assert do(SERVING, peer=unable, pg=replace(PRIMARY, is_suspect=True)).rule == "T1.no-data"


def test_peer_is_not_let_go_by_a_member_whose_data_are_trusted_less() -> None:
    weak = heard(beat(PAIRED, is_fit=False), unfit_since=ago(3))
    d = do(SERVING, peer=weak, pg=replace(PRIMARY, is_suspect=True))
    assert d.rule == "P7.serve" and not d.is_protected
    worse = (
        beat(PAIRED, is_fit=False, is_suspect=True),
        beat(PAIRED, is_fit=False, pg=PgState.ABSENT),
        beat(None, is_fit=False),
    )
    for hb in worse:
        assert do(SERVING, peer=heard(hb, unfit_since=ago(3)), pg=replace(PRIMARY, is_suspect=True)).rule == "T3.ask"


# --- handing over to somebody who was heard just now ---


def test_nothing_is_handed_over_on_the_strength_of_an_old_word() -> None:
    stale = heard(beat(PAIRED), ago(0.5))
    quiet = replace(SERVING, gate=Gate.CLOSED, address_held=False, pg=DEAD)
    d = do(quiet, peer=stale)
    assert d.rule == "T4.look" and d.actions == () and d.wake_at <= NOW + S // 20
    announced = do(quiet, peer=heard(beat(PAIRED)))
    assert announced.rule == "T4.announce"
    (said,) = [x.wants for x in announced.actions]  # type: ignore[union-attr]
    assert do(quiet, peer=heard(beat(PAIRED)), wants=said).rule == "T4.give"
    kept = do(quiet, peer=stale, wants=said)
    assert kept.rule == "T4.look" and kept.actions == ()  # announced it stays, or the peer would take it for withdrawn
    assert do(quiet, peer=heard(beat(PAIRED), ago(2.1)), wants=said).rule.startswith("T7p")


def test_nothing_is_handed_over_to_a_peer_that_lacks_what_the_view_was_made_at() -> None:
    poor = heard(beat(PAIRED, flush=Lsn(99)))
    assert do(SERVING, pg=DEAD, gate=Gate.CLOSED, peer=poor).rule == "T8.start"


# --- the floor ---


@pytest.mark.parametrize(("confirmed", "floor"), [(150, 150), (60, 100)])
def test_floor_of_the_pair_is_never_below_that_of_the_view_before(confirmed: int, floor: int) -> None:
    pg = replace(PRIMARY, barrier_epoch=Epoch(6), flush=Lsn(200), peer_flush=Lsn(confirmed))
    d = do(ALONE, peer=heard(beat(SOLO)), pg=pg)
    assert d.rule == "T5.publish" and d.actions[0] == PersistView(view(7, A, A, B, floor=floor))


# --- a lone winner that lost its memory ---


def test_lone_winner_without_memory_is_told_to_be_forced_and_may_be() -> None:
    blank = replace(SERVING, durable=Durable(), gate=Gate.CLOSED, address_held=False, pg=DEAD, register=w(SOLO))
    for peer in (heard(None, SILENT), heard(beat(SOLO, pg=PgState.STOPPED, is_fit=False))):
        d = do(blank, peer=peer)
        assert d.rule == "M6.alone" and d.state is PairState.BLOCKED and d.command == "futago force-primary"
        forced = do(blank, peer=peer, op=Op(OpKind.FORCE_PRIMARY, FRESH))
        assert forced.rule == "T9.force" and forced.actions[0] == PersistView(view(106, A, A, floor=200), stopped=True)


@pytest.mark.parametrize("other", [SOLO_B, PAIRED])
def test_member_without_memory_is_not_forced_beside_one_that_may_serve(other: object) -> None:
    blank = replace(SERVING, durable=Durable(), gate=Gate.CLOSED, address_held=False, pg=DEAD, register=w(None))
    d = do(blank, peer=heard(beat(other)), op=Op(OpKind.FORCE_PRIMARY, FRESH))  # type: ignore[arg-type]
    assert d.rule == "T9.refuse-alive"
