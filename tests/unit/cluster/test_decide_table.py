"""The whole table: every situation meets one row, no row is dead, no situation is a dead end, no order breaks a safety rule."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from dataclasses import fields, replace
from functools import cache

import pytest

from futago.cluster.decide import decide
from futago.cluster.model import (
    Action,
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
    FenceOutcome,
    Gate,
    Heartbeat,
    HoldAddress,
    Link,
    Lsn,
    MemberName,
    Op,
    OpKind,
    PairState,
    Peer,
    PersistIntent,
    PersistStopped,
    PersistView,
    Pg,
    PgState,
    Promote,
    Register,
    Rejoin,
    RejoinStep,
    SetGate,
    StartPg,
    StartRejoin,
    View,
    Wants,
)
from futago.cluster.rules import SECTIONS, Row
from futago.cluster.situation import Situation

S = 1_000_000_000
NOW = 1000 * S
A, B = MemberName("m1"), MemberName("m2")
FRESH, GREY, LONG = At(NOW - S // 10), At(NOW - 2 * S - S // 10), At(NOW - 60 * S)
LATE = At(NOW - 4 * S)  # lost by any measure, but not for long
CFG = Config(me=A, peer=B, h=S // 5, k=10, bias=3 * S // 10, t_stall=2 * S)
ROWS: dict[str, Row] = {row.id: row for section in SECTIONS for row in section.rows}


def view(epoch: int, primary: MemberName, *insync: MemberName) -> View:
    return View(Epoch(epoch), primary, frozenset(insync), Lsn(100))


OWN_VIEWS = (None, view(5, A, A, B), view(5, B, A, B), view(5, A, A), view(5, B, B))
OTHER_VIEWS = (*OWN_VIEWS, view(3, A, A, B), view(6, A, A), view(6, B, B), view(7, A, A), view(6, B, A, B))
PGS = (
    Pg(state=PgState.ABSENT),
    Pg(state=PgState.STOPPED, flush=Lsn(200)),
    Pg(state=PgState.STOPPED, flush=Lsn(50)),
    Pg(state=PgState.STOPPED, has_standby_signal=True),
    Pg(state=PgState.DIED),
    Pg(state=PgState.STARTING),
    Pg(state=PgState.STOPPING),
    Pg(state=PgState.HUNG),
    Pg(state=PgState.STANDBY, timeline=1, flush=Lsn(200), is_streaming=True),
    Pg(state=PgState.STANDBY, timeline=1, flush=Lsn(200)),
    *(
        Pg(
            state=PgState.PRIMARY,
            timeline=1,
            flush=Lsn(200),
            start_lsn=Lsn(150),
            peer_is_streaming=streams,
            peer_flush=Lsn(200 if streams else 0),
            unconfirmed_since=LONG if is_stalled else None,
            enforced=enforced,
            barrier_epoch=Epoch(barrier),
        )
        for enforced, streams, is_stalled, barrier in (
            (True, True, False, 0),
            (True, True, False, 5),
            (True, True, True, 0),
            (True, False, True, 0),
            (False, False, False, 0),
            (False, True, False, 0),
            (None, True, False, 0),
        )
    ),
)


@cache
def beat(v: View | None, kind: str, wants: Wants | None, intent: int) -> Heartbeat:
    """A heartbeat of a peer that is fit, serving, down, or unable."""
    assert kind in KINDS
    return Heartbeat(
        member=B,
        boot="b",
        seq=1,
        view=v,
        intent=Epoch(intent),
        is_able=kind != "unable",
        pg={"fit": PgState.STANDBY, "serving": PgState.PRIMARY}.get(kind, PgState.STOPPED),
        timeline=1,
        flush=Lsn(200),
        replay=Lsn(200),
        is_streaming=kind == "fit",
        is_disk_ok=True,
        gate_open=kind == "serving",
        address_held=kind == "serving",
        wants=wants,
        journals_complete=True,
        is_fit=kind == "fit",
        service_ok=True,
    )


KINDS = ("fit", "serving", "down", "unable")
WANTS = (None, Wants("solo", Epoch(6)), Wants("handover", Epoch(7)), Wants("drop", Epoch(6)))
HEARTBEATS = tuple(
    beat(v, kind, wants, intent)
    for v in OTHER_VIEWS
    for kind in KINDS
    for wants, intent in ((None, 0), (None, 6), (WANTS[1], 0), (WANTS[2], 0))
) + tuple(beat(v, "serving", WANTS[3], intent) for v in OTHER_VIEWS for intent in (0, 6))


@cache
def peer(hb: Heartbeat | None, at: At, since: At) -> Peer:
    if hb is None:
        return Peer(watching_since=at)
    links = (Link("service", at, at), Link("heartbeat", at, at))
    is_unfit = not hb.is_fit or not hb.is_able
    return Peer(hb, at, LONG, links, unfit_since=since if is_unfit else None, wants_since=since if hb.wants else None)


def register(v: View | None, at: At | None, cas: Cas, cas_epoch: int) -> Register:
    return Register(True, v, at, at, FRESH, cas=cas, cas_epoch=Epoch(cas_epoch), cas_at=LONG)


REGISTERS = (
    Register(),
    *(register(v, at, Cas.NONE, 0) for v in OTHER_VIEWS[1:] for at in (FRESH, LONG)),
    *(register(view(5, A, A, B), FRESH, cas, e) for cas in (Cas.PENDING, Cas.DONE, Cas.UNKNOWN) for e in (5, 6)),
    register(None, FRESH, Cas.NONE, 0),
)


def core_space() -> Iterator[Facts]:
    """Every combination of own view, intent, peer, register and database that tells rows apart, in their usual surroundings."""
    peers = [peer(None, LONG, LONG), peer(None, FRESH, LONG), peer(beat(OWN_VIEWS[1], "fit", None, 0), GREY, LONG)]
    peers += [peer(hb, FRESH, since) for hb in HEARTBEATS for since in (LONG, FRESH) if since is LONG or hb.wants]
    for own, pg, p in itertools.product(OWN_VIEWS, PGS, peers):
        if pg.state is PgState.PRIMARY and pg is not PGS[10] and (own is None or own.primary != A):
            continue  # whoever is no primary stops such a database, whatever else it does
        for w in (REGISTERS[0], REGISTERS[3], REGISTERS[13]):
            yield facts(own, pg, p, w)


def facts(own: View | None, pg: Pg, p: Peer, w: Register, **changes: object) -> Facts:
    is_serving = pg.state is PgState.PRIMARY and own is not None and own.primary == A
    base = Facts(
        cfg=CFG,
        durable=Durable(view=own),
        peer=p,
        register=w,
        pg=pg,
        gate=Gate.OPEN if is_serving else Gate.CLOSED,
        address_held=is_serving,
        fence=Fence(is_configured=True),
        started_at=LONG,
    )
    return replace(base, **changes)  # type: ignore[arg-type]


def any_facts(r: random.Random) -> Facts:
    """Any combination at all, likely or not."""
    hb = r.choice((None, r.choice(HEARTBEATS), r.choice(HEARTBEATS)))
    since = r.choice((FRESH, LONG))
    p = peer(hb, r.choice((FRESH, FRESH, GREY, LATE, LONG)), since)
    if r.random() < 0.1:
        p = replace(p, said_bye=True)
    if r.random() < 0.1 and p.links:
        p = replace(p, links=(Link("service", FRESH, LONG),))
    durable = Durable(
        r.choice(OWN_VIEWS), Epoch(r.choice((0, 0, 4, 6))), Epoch(r.choice((0, 5))), r.random() < 0.9, r.random() < 0.1
    )
    outcome = r.choice(list(FenceOutcome))
    return Facts(
        cfg=replace(
            CFG,
            recovery=r.choice(("auto", "manual")),
            has_peer=r.random() < 0.9,
            authority="register" if r.random() < 0.7 else "fence",
            fence_after=r.choice(("on", "stay_off")),
        ),
        durable=durable,
        peer=p,
        register=r.choice(REGISTERS),
        pg=replace(r.choice(PGS), is_disk_ok=r.random() < 0.9, is_suspect=r.random() < 0.1),
        gate=r.choice((Gate.OPEN, Gate.CLOSED, Gate.CLOSED, Gate.UNKNOWN)),
        address_held=r.choice((True, False, False, None)),
        fence=Fence(
            r.random() < 0.7,
            outcome,
            Epoch(r.choice((0, 5, 6))),
            r.choice((FRESH, LONG)),
            r.random() < 0.3,
            has_power=r.choice((None, True, False)),
            power_at=r.choice((None, FRESH, LONG)),
            asked_at=r.choice((None, FRESH, LONG)),
        ),
        op=Op(r.choice((*[OpKind.NONE] * 4, *OpKind)), since),
        rejoin=Rejoin(r.choice(list(RejoinStep)), r.choice(("follow", "basebackup")), r.choice((LONG, At(NOW + S)))),
        wants=r.choice(WANTS),
        wants_since=since,
        journals_complete=r.random() < 0.8,
        service_ok=r.random() < 0.9,
        manager_ok=r.random() < 0.9,
        maintenance=r.random() < 0.05,
        is_leaving=r.random() < 0.05,
        met_epoch=Epoch(r.choice((0, 5, 5))),
        power_ons=r.choice(((), (), (LONG,), (LONG, LONG, LONG))),
        address_answers=r.choice((None, True, False)),
        won_at=r.choice((None, FRESH, LONG)),
        started_at=r.choice((FRESH, LONG)),
        contact_before=r.choice((None, None, FRESH, LONG)),
        woke_at=r.choice((None, None, None, FRESH, LONG)),
    )


def near_facts(r: random.Random) -> Facts:
    """A situation that makes sense, with one to four things changed."""
    own = r.choice(OWN_VIEWS[1:])
    assert own is not None
    is_mine = own.primary == A
    hb = beat(own, "fit" if is_mine else "serving", None, 0)
    pg = r.choice(PGS[10:16]) if is_mine else r.choice(PGS[8:10])
    f = facts(own, pg, peer(hb, FRESH, LONG), register(own, FRESH, Cas.NONE, 0))
    if r.random() < 0.3:  # without a register; the fence may decide, or nobody
        f = replace(f, register=Register(), met_epoch=Epoch(5), cfg=replace(CFG, authority=r.choice(AUTHORITIES)))
        if r.random() < 0.3:
            f = replace(f, peer=peer(hb, r.choice((GREY, LATE, LONG)), LONG), durable=Durable(own, Epoch(6)))
    if r.random() < 0.1:  # the other member lost its memory
        blank = replace(hb, view=None, wants=None, pg=PgState.ABSENT, is_fit=False, is_streaming=False)
        f = replace(f, peer=peer(blank, FRESH, LONG))
    if r.random() < 0.1:  # we did
        f = replace(f, durable=Durable(), pg=r.choice(PGS), gate=Gate.CLOSED, address_held=False)
    if r.random() < 0.3:  # in the middle of handing over, or stopped: shut, and perhaps with the word given
        f = replace(f, gate=Gate.CLOSED, address_held=False, wants=r.choice(WANTS), pg=r.choice(PGS))
    return changed(f, r, at_most=4)


AUTHORITIES = ("register", "fence")
NAMES_OF_FACTS = [f.name for f in fields(Facts)]


def changed(f: Facts, r: random.Random, *, at_most: int) -> Facts:
    """The same situation with up to so many facts replaced by others."""
    other = any_facts(r)
    names = r.sample(NAMES_OF_FACTS, r.randint(0, at_most))
    f = replace(f, **{name: getattr(other, name) for name in names})
    hb, w = f.peer.heartbeat, f.register
    if hb is not None and r.random() < 0.3:
        f = replace(f, peer=replace(f.peer, heartbeat=replace(hb, wants=r.choice(WANTS), intent=Epoch(0))))
        f = replace(f, pg=replace(f.pg, is_suspect=r.random() < 0.2))
    if w.is_configured and r.random() < 0.2:
        at = r.choice((None, FRESH, LONG))
        f = replace(f, register=replace(w, read_at=at, contact_at=at))
    return f


def check(f: Facts, d: Decision) -> None:
    """What must hold of every decision."""
    assert NOW < d.wake_at <= NOW + S, f
    assert d.reason and d.rule in ROWS, f
    assert d.actions or ROWS[d.rule].waits_for or d.rule.endswith((".intent", ".adopt")) or f.durable.is_writing, d
    if d.state is PairState.BLOCKED and not d.actions:
        assert d.command, d
    kinds = [type(a) for a in d.actions]
    assert sum(k in (PersistView, PersistIntent, PersistStopped) for k in kinds) <= 1, d
    for k in (SetGate, HoldAddress, Enforce, CasRegister, StartPg):
        assert kinds.count(k) <= 1, d
    own = f.durable.view
    if d.may_act_outward:
        assert d.is_serving, d
    if d.is_serving:
        assert own is not None and own.primary == A and f.pg.state is PgState.PRIMARY and f.gate is Gate.OPEN, d
    for action in d.actions:
        check_action(f, d, action)


def check_action(f: Facts, d: Decision, action: Action) -> None:
    own, newest = f.durable.view, Situation(f, NOW).newest
    is_mine = own is not None and own.primary == A and newest is not None and newest.epoch == own.epoch
    is_my_solo = is_mine and own is not None and own.is_solo
    match action:
        case Enforce(on=False) | Promote():
            assert is_my_solo and not f.durable.is_writing, d
        case StartPg(as_standby=False, enforced=False):
            assert is_my_solo and not f.pg.has_standby_signal and not f.durable.is_writing, d
        case StartPg(as_standby=False):
            assert is_mine, d
        case SetGate(open=True):
            assert is_mine and (is_my_solo or f.pg.peer_flush >= f.pg.start_lsn > 0), d
        case HoldAddress(hold=True):
            assert is_mine and d.may_act_outward, d
        case StartRejoin():
            assert own is not None and A not in own.insync, d
        case CasRegister(view=v):
            assert own is not None and (v == own or v.epoch == f.durable.intent > own.epoch), d
        case PersistView(view=v):
            check_view(f, d, v)


def check_view(f: Facts, d: Decision, v: View) -> None:
    own = f.durable.view
    assert own is None or v.epoch > own.epoch, d
    if v.insync == {A}:
        allowed = ("T1.adopt", "T2.adopt", "T3.adopt", "T4.adopt", "T9.force", "F1.proved", "F2.proved")
        assert d.rule in allowed, d
        assert d.rule[0] != "F" or may_fence_decide(f), d
    if v.primary == A and B in v.insync:
        assert d.rule == "T5.publish" and f.pg.enforced is True and own is not None, d
        assert f.pg.barrier_epoch == own.epoch, d


def may_fence_decide(f: Facts) -> bool:
    """Nothing heard since the device said off, in a boot that is part of the view; and no register has a say."""
    own, heard_at = f.durable.view, f.peer.heard_at or 0
    is_shot = f.fence.outcome is FenceOutcome.OFF and (f.fence.at or 0) > heard_at
    is_dark = f.fence.has_power is False and (f.fence.power_at or 0) > heard_at
    is_part = own is not None and f.met_epoch == own.epoch and A in own.insync
    return (
        f.cfg.authority == "fence" and is_part and (is_shot or is_dark) and f.durable.intent > (own.epoch if own else 0)
    )


def matches(f: Facts) -> list[Row]:
    """The rows that match in the one section for these facts."""
    s = Situation(f, NOW)
    section = next(x for x in SECTIONS if x.when(s))
    return [row for row in section.rows if row.when(s)]


def seen_rules(space: Iterator[Facts]) -> set[str]:
    seen = set()
    for f in space:
        d = decide(f, NOW)
        check(f, d)
        seen.add(d.rule)
    return seen


def test_every_situation_of_the_core_space_is_decided_safely() -> None:
    seen = seen_rules(core_space())
    assert len(seen) > 50


@pytest.mark.parametrize("seed", range(4))
def test_any_facts_at_all_are_decided_safely(seed: int) -> None:
    r = random.Random(seed)
    seen_rules(any_facts(r) for _ in range(2500))
    seen_rules(near_facts(r) for _ in range(2500))


def test_no_row_is_dead() -> None:
    """Walk from situation to situation, from each row seen so far to its neighbours."""
    assert dead_rows(random.Random(99), steps=200_000) == []


WITNESSES_MAX = 12


def dead_rows(r: random.Random, *, steps: int) -> list[str]:
    """Return the rows that a walk of so many steps does not meet; it ends as soon as it has met all."""
    found: dict[str, list[Facts]] = {}
    ids: list[str] = []
    for _ in range(steps):
        known = near_facts(r)
        if ids and r.random() < 0.6:  # half of the time from a row that was met lately: its neighbours are the new ones
            known = r.choice(found[r.choice(ids[-10:] if r.random() < 0.5 else ids)])
        f = changed(known, r, at_most=3)
        row_id = matches(f)[0].id
        if row_id not in found:
            found[row_id] = []
            ids.append(row_id)
            if len(found) == len(ROWS):
                break
        witnesses = found[row_id]
        if len(witnesses) < WITNESSES_MAX:  # several, since one may lack what its neighbour needs
            witnesses.append(f)
        else:
            witnesses[r.randrange(WITNESSES_MAX)] = f
    return sorted(set(ROWS) - set(found))


def test_last_row_of_every_section_always_matches() -> None:
    r = random.Random(5)
    for _ in range(3000):
        f = any_facts(r)
        s = Situation(f, NOW)
        for section in SECTIONS:
            if section.when(s):
                assert section.rows[-1].when(s), (section.name, f)
                break


def test_rule_ids_are_unique_and_reasons_name_nothing_unknown() -> None:
    ids = [row.id for section in SECTIONS for row in section.rows]
    assert len(ids) == len(set(ids))
    for row in ROWS.values():
        text = row.why.format(me="m1", peer="m2", epoch=5)
        assert text.endswith(".") and "{" not in text, row.id
        assert row.state is not PairState.BLOCKED or row.command or row.id == "I1.close", row.id


def test_decision_depends_on_nothing_but_its_arguments() -> None:
    r = random.Random(3)
    sample = [any_facts(r) for _ in range(300)]
    once = [decide(f, NOW) for f in sample]
    again = [decide(f, NOW) for f in reversed(sample)]
    assert once == list(reversed(again))
