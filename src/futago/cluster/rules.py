"""The rule table: every situation of one member, what it does then, and why. Data, read from the top: the first row
that matches decides.

A section is chosen by what this member's own disk says it is (SECTIONS); inside it the rows are tried in order, and
the last one of each section matches always and only waits. Ids are stable, never reused, and appear in logs, status,
docs and tests. T1 to T9 are the transitions of docs/internals/cluster.md:

    T1 solo by W   T2 takeover by W   T3 solo by the peer's promise   T4 handing over   T5 adding the peer   T6
    learning T7 restart alone (by W)   T8 meeting after both booted   T9 forced by an operator

Rules of order that the rows keep: a durable write is alone in its decision, and effects come after its fact; waiting
for the peer ends only after the view that allows it is durable; a view that names both members is written only after
waiting was proved (T5.barrier).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from futago.cluster.model import (
    Action,
    Cas,
    CasRegister,
    Enforce,
    Epoch,
    Gate,
    HoldAddress,
    KillPg,
    OpDone,
    OpKind,
    PairState,
    PersistIntent,
    PersistView,
    PgState,
    Promote,
    ReadRegister,
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
from futago.cluster.situation import NOT_RUNNING, UNCERTAIN, Situation

FORCED_EPOCHS = 100  # T9 jumps over every epoch that the lost side may have reached unseen
REGULAR_NS = 1_000_000_000  # a member that can do nothing by W's answer does not hurry
Actions = tuple[Action, ...]


@dataclass(frozen=True, slots=True)
class Row:
    """One rule. `why` is a sentence for people; {me}, {peer} and {epoch} are filled in."""

    id: str
    when: Callable[[Situation], bool]
    why: str
    do: Callable[[Situation], Actions]
    state: PairState
    command: str = ""
    waits_for: str = ""  # what ends the situation when the row orders nothing (any more); empty: it always orders
    keeps_wants: bool = False  # what we ask of the peer stays as it is; everywhere else it is withdrawn
    asks_w: bool = False  # the row pursues the open question to W; everywhere else that question is settled and dropped


@dataclass(frozen=True, slots=True)
class Section:
    """The rows for one standing of this member."""

    name: str
    when: Callable[[Situation], bool]
    rows: tuple[Row, ...]


# --- what rows do ---


def _always(_s: Situation) -> bool:
    return True


def _nothing(_s: Situation) -> Actions:
    return ()


def _quiet(s: Situation) -> Actions:
    """Close the gate and give the address up, as far as that is not certain."""
    out: list[Action] = []
    if s.f.gate is not Gate.CLOSED:
        out.append(SetGate(open=False))
    if s.f.address_held is not False:
        out.append(HoldAddress(hold=False))
    return tuple(out)


def _stop(s: Situation) -> Actions:
    return (*_quiet(s), KillPg()) if s.is_pg_risky else _quiet(s)


def _own_view(s: Situation) -> View:
    """The view that lets us serve alone, in the epoch asked of W."""
    return View(epoch=s.target, primary=s.cfg.me, insync=frozenset((s.cfg.me,)), floor=s.floor)


def _intend(s: Situation) -> Actions:
    return (PersistIntent(epoch=s.target),)


def _cas(s: Situation) -> Actions:
    """Ask W; after an unclear answer wait one heartbeat before asking again."""
    if s.w.cas is Cas.PENDING:
        return ()
    is_repeat = s.w.cas_epoch == s.target and s.w.cas_at is not None and s.now - s.w.cas_at < s.cfg.h
    return () if is_repeat else (CasRegister(view=_own_view(s)),)


def _adopt(s: Situation, *, stopped: bool) -> Actions:
    assert s.newest is not None
    return (PersistView(view=s.newest, stopped=stopped),)


def _promise(s: Situation) -> Actions:
    """Write durably that the peer alone serves in the next epoch: from now on we count for nothing."""
    assert s.hb is not None
    peer = s.cfg.peer
    view = View(epoch=Epoch(s.epoch + 1), primary=peer, insync=frozenset((peer,)), floor=s.hb.flush)
    return (PersistView(view=view),)


def _announce(s: Situation) -> Actions:
    wants = Wants(kind="handover", epoch=Epoch(s.epoch + 2))
    return (*(() if s.f.wants == wants else (SetWants(wants=wants),)), *_quiet(s))


def _stop_for_handover(s: Situation) -> Actions:
    """Orderly where PostgreSQL still answers, so that the peer receives everything and no rewind is needed."""
    if s.pg.state is PgState.STOPPING:
        return ()
    is_orderly = s.pg.state is PgState.PRIMARY and s.pg.is_disk_ok
    return (StopPg(),) if is_orderly else (KillPg(),)


def _give(s: Situation) -> Actions:
    """Two epochs on, not one: the peer may yet write a promise that we asked for, and that one is in the next epoch."""
    assert s.hb is not None
    peer = s.cfg.peer
    view = View(epoch=Epoch(s.epoch + 2), primary=peer, insync=frozenset((peer,)), floor=s.hb.flush)
    return (PersistView(view=view),)


def _ask_solo(s: Situation) -> Actions:
    return () if s.asks_solo else (SetWants(wants=Wants(kind="solo", epoch=Epoch(s.epoch + 1))),)


def _publish(s: Situation) -> Actions:
    both = frozenset((s.cfg.me, s.cfg.peer))
    return (PersistView(view=View(epoch=Epoch(s.epoch + 1), primary=s.cfg.me, insync=both, floor=s.pg.flush)),)


def _enforce_shut(s: Situation) -> Actions:
    """A paired primary that does not wait must let nobody in; while that is only unknown, clients may stay."""
    shut: Actions = () if s.pg.enforced is None or s.f.gate is Gate.CLOSED else (SetGate(open=False),)
    return (*shut, Enforce(on=True))


def _start_solo(s: Situation) -> Actions:
    """A standby's data directory is started as standby and promoted: only so it gets a timeline of its own."""
    return (StartPg(as_standby=s.pg.has_standby_signal, enforced=False),)


def _hold(s: Situation) -> Actions:
    if s.is_serving and s.is_other_stopped:
        return () if s.f.address_held is True else (HoldAddress(hold=True),)
    return () if s.f.address_held is False else (HoldAddress(hold=False),)


def _force(s: Situation) -> Actions:
    epoch = Epoch((s.newest.epoch if s.newest is not None else 0) + FORCED_EPOCHS)
    view = View(epoch=epoch, primary=s.cfg.me, insync=frozenset((s.cfg.me,)), floor=s.pg.flush)
    return (PersistView(view=view, stopped=True),)


# --- T1, T2, T7: the vote of W, the same five rows for each ---


def _vote(name: str, when: Callable[[Situation], bool], *, because: str, keeps_wants: bool = False) -> tuple[Row, ...]:
    """Return the rows that ask W: own disk first (intent), then W, then own disk (the view); effects after that."""

    def row(
        part: str,
        also: Callable[[Situation], bool],
        why: str,
        do: Callable[[Situation], Actions],
        *,
        state: PairState = PairState.SWITCHING,
        command: str = "",
        waits_for: str = "",
    ) -> Row:
        return Row(
            id=f"{name}.{part}",
            when=lambda s: when(s) and also(s),
            why=because + why,
            do=do,
            state=state,
            command=command,
            waits_for=waits_for,
            keeps_wants=keeps_wants,
            asks_w=True,
        )

    return (
        row(
            "no-data",
            lambda s: not s.is_data_good,
            ", and the data of {me} are missing, unwritable or older than the view: it must not serve.",
            _read_if_any,
            state=PairState.BLOCKED,
            command="futago recover",
            waits_for="its data, or an operator",
        ),
        row(
            "no-vote",
            lambda s: not s.w.is_configured,
            ", and there is no third vote that could decide who serves.",
            _nothing,
            state=PairState.BLOCKED,
            command="futago jury set",
            waits_for="the peer, or a jury",
        ),
        row(
            "wait-vote",
            lambda s: not s.is_w_fresh,
            "; the third vote must decide, and it has not answered {me} lately.",
            _read_if_any,
            state=PairState.BLOCKED,
            command="futago status",
            waits_for="an answer of W, or the peer",
        ),
        row(
            "intent",
            lambda s: not s.has_intent,
            "; {me} notes on its own disk that it will ask the third vote.",
            _intend,
        ),
        row("cas", _always, "; {me} asks the third vote to let it serve alone.", _cas, waits_for="the answer of W"),
    )


def _read_if_any(s: Situation) -> Actions:
    """Ask W now instead of at the next regular time, but not more often than once a heartbeat."""
    asked_at = s.w.asked_at
    is_due = asked_at is None or s.now - asked_at >= (s.cfg.h if s.in_sync else REGULAR_NS)
    return (ReadRegister(),) if s.w.is_configured and not s.w.is_pending and is_due else ()


# --- operator ---

CONFIG_ROWS = (
    Row(
        "X1.authority",
        _always,
        "The settings let the fence device decide, which this version does not do; the third vote must decide.",
        _stop,
        PairState.BLOCKED,
        "futago jury set",
        waits_for="a change of the settings",
    ),
)

FORCE_ROWS = (
    Row(
        "T9.refuse-alive",
        lambda s: s.talks,
        "{peer} is alive, so {me} must not be forced to serve; use switchover or recover.",
        lambda s: (OpDone(ok=False, text=f"{s.cfg.peer} is alive; use futago switchover or futago recover"),),
        PairState.BLOCKED,
        "futago switchover",
    ),
    Row(
        "T9.refuse-empty",
        lambda s: s.pg.state is PgState.ABSENT,
        "{me} has no data to serve from.",
        lambda s: (OpDone(ok=False, text="this member has no data"),),
        PairState.BLOCKED,
        "futago recover",
    ),
    Row(
        "T9.force",
        _always,
        "An operator stated that {peer} is off and that its newest data may be lost; {me} serves alone.",
        _force,
        PairState.SWITCHING,
    ),
)

# --- a member without a view ---

MEMORY_ROWS = (
    Row(
        "M1.stop",
        lambda s: s.is_pg_risky or not s.is_quiet,
        "{me} knows no view, so nothing may be served here.",
        _stop,
        PairState.STARTING,
    ),
    Row(
        "M2.join",
        lambda s: s.newest is not None and s.cfg.me not in s.newest.insync,
        "{peer} serves alone in a view that {me} learns now.",
        lambda s: _adopt(s, stopped=False),
        PairState.STARTING,
    ),
    Row(
        "M3.amnesia",
        lambda s: s.newest is not None,
        "{me} lost its memory, and the newest view counts on its data; it waits until {peer} serves without it.",
        _read_if_any,
        PairState.BLOCKED,
        "futago recover",
        waits_for="a newer view without this member",
    ),
    Row(
        "M4.wait",
        _always,
        "{me} belongs to no view yet and waits to hear of one from {peer}.",
        _read_if_any,
        PairState.BLOCKED,
        "futago status",
        waits_for="a view from the peer or from W",
    ),
)

# --- somebody knows a newer view ---


def _is_own_solo_win(s: Situation) -> bool:
    return s.is_own_win and s.is_primary


LEARN_ROWS = (
    Row(
        "T1.adopt",
        _is_own_solo_win,
        "The third vote decided that {me} goes on alone; {me} makes that durable before it stops waiting for {peer}.",
        lambda s: _adopt(s, stopped=True),
        PairState.SWITCHING,
        keeps_wants=True,
    ),
    Row(
        "T2.adopt",
        lambda s: s.is_own_win,
        "The third vote decided that {me} takes over; {me} makes that durable before it acts.",
        lambda s: _adopt(s, stopped=False),
        PairState.SWITCHING,
    ),
    Row(
        "T3.adopt",
        lambda s: s.peer_names_me and s.is_primary,
        "{peer} promised durably that {me} may serve alone.",
        lambda s: _adopt(s, stopped=True),
        PairState.SWITCHING,
        keeps_wants=True,
    ),
    Row(
        "T4.adopt",
        lambda s: s.peer_names_me,
        "{peer} handed over: it has stopped and written that {me} serves alone.",
        lambda s: _adopt(s, stopped=True),
        PairState.SWITCHING,
    ),
    Row(
        "T6.stop",
        lambda s: s.is_pg_risky or not s.is_quiet,
        "A newer view is known, in which {me} does not serve as it does now: it stops first.",
        _stop,
        PairState.SWITCHING,
    ),
    Row(
        "T6.learn",
        lambda s: s.newest is not None and s.newest.primary == s.cfg.peer,
        "{peer} serves in a newer view, which {me} makes durable.",
        lambda s: _adopt(s, stopped=False),
        PairState.SWITCHING,
    ),
    Row(
        "L1.foreign",
        _always,
        "A newer view names {me} in an epoch that it never asked for: its disk seems to be an old copy.",
        _read_if_any,
        PairState.BLOCKED,
        "futago recover",
        waits_for="an operator",
    ),
)

# --- primary of a paired view ---


def _is_running(s: Situation) -> bool:
    return s.pg.state not in NOT_RUNNING


PAIRED_ROWS = (
    Row(
        "I1.close",
        lambda s: s.is_isolated and not s.is_quiet,
        "{me} reaches neither {peer} nor the third vote: it closes the gate and gives up the address.",
        _quiet,
        PairState.BLOCKED,
        keeps_wants=True,
    ),
    Row(
        "I2.wait",
        lambda s: s.is_isolated,
        "{me} reaches neither {peer} nor the third vote and waits for either; {peer} may be serving.",
        _read_if_any,
        PairState.BLOCKED,
        "futago status",
        keeps_wants=True,
        waits_for="the peer or W",
    ),
    *_vote(
        "T1",
        lambda s: s.wants_w_solo and _is_running(s),
        because="{peer} is silent or cannot write",
        keeps_wants=True,
    ),
    *_vote(
        "T7p",
        lambda s: s.wants_w_solo,
        because="{peer} is silent or cannot write and PostgreSQL is down here",
        keeps_wants=True,
    ),
    Row(
        "T4.announce",
        lambda s: s.should_hand_over and not (s.announces_handover and s.is_quiet),
        "{me} should not serve and {peer} can: it announces that, closes the gate and gives up the address.",
        _announce,
        PairState.SWITCHING,
        keeps_wants=True,
    ),
    Row(
        "T4.stop",
        lambda s: s.should_hand_over and s.pg.state not in (PgState.STOPPED, PgState.DIED, PgState.ABSENT),
        "{me} stops PostgreSQL before {peer} takes over.",
        _stop_for_handover,
        PairState.SWITCHING,
        keeps_wants=True,
        waits_for="PostgreSQL to have stopped",
    ),
    Row(
        "T4.give",
        lambda s: s.should_hand_over,
        "Everything is stopped here: {me} writes durably that {peer} serves alone.",
        _give,
        PairState.SWITCHING,
        keeps_wants=True,
    ),
    Row(
        "T3.ask",
        lambda s: s.is_peer_in_trouble and s.are_intents_clear,
        "{peer} talks but does not confirm: {me} asks it for the promise to serve alone.",
        _ask_solo,
        PairState.SWITCHING,
        keeps_wants=True,
        waits_for="the promise of the peer, or t_stall",
    ),
    Row(
        "P1.no-data",
        lambda s: s.pg.state is PgState.ABSENT or (s.pg.state in NOT_RUNNING and s.is_below_floor),
        "The data of {me} are missing or older than the view, and {peer} cannot take over.",
        _nothing,
        PairState.BLOCKED,
        "futago recover",
        waits_for="the peer to be fit, or an operator",
    ),
    Row(
        "P2.kill",
        lambda s: s.pg.state is PgState.HUNG or (s.pg.state is PgState.STANDBY),
        "PostgreSQL of {me} does not answer or runs as a standby, and {peer} cannot take over: it is restarted.",
        lambda s: (*_quiet(s), KillPg()),
        PairState.STARTING,
    ),
    Row(
        "T8.start",
        lambda s: s.pg.state in NOT_RUNNING and s.talks and s.is_equal,
        "Both members agree that {me} is the primary: it starts, and commits wait for {peer}.",
        lambda _s: (StartPg(as_standby=False, enforced=True),),
        PairState.STARTING,
    ),
    Row(
        "T8.wait-peer",
        lambda s: s.pg.state in NOT_RUNNING,
        "{me} is down and waits until {peer} is heard and agrees, or is silent for long enough.",
        _read_if_any,
        PairState.STARTING,
        waits_for="the peer to agree, or its silence",
    ),
    Row(
        "P3.wait",
        lambda s: s.pg.state in UNCERTAIN,
        "PostgreSQL of {me} is starting or stopping.",
        _nothing,
        PairState.STARTING,
        waits_for="PostgreSQL to have started or stopped",
    ),
    Row(
        "P4.enforce",
        lambda s: s.pg.enforced is not True,
        "The view is paired, so commits must wait for {peer}.",
        _enforce_shut,
        PairState.STARTING,
    ),
    Row(
        "P5.open",
        lambda s: s.f.gate is not Gate.OPEN and s.may_open,
        "{peer} has everything that {me} started with: clients are let in.",
        lambda _s: (SetGate(open=True),),
        PairState.STARTING,
    ),
    Row(
        "P6.wait-flush",
        lambda s: s.f.gate is not Gate.OPEN,
        "{me} runs and waits until {peer} has everything that it started with.",
        _nothing,
        PairState.STARTING,
        waits_for="the confirmation of the peer, or t_stall",
    ),
    Row(
        "P7.serve",
        _always,
        "{me} serves, and {peer} confirms every write.",
        _hold,
        PairState.PAIRED,
        waits_for="any change",
    ),
)

# --- primary of a solo view ---

SOLO_ROWS = (
    Row(
        "S1.no-data",
        lambda s: s.pg.state is PgState.ABSENT or (s.pg.state in NOT_RUNNING and s.is_below_floor),
        "Only {me} has all data, and they are missing or older than the view.",
        _nothing,
        PairState.BLOCKED,
        "futago recover",
        waits_for="an operator",
    ),
    Row(
        "S2.look",
        lambda s: s.pg.state in NOT_RUNNING and not s.has_looked,
        "{me} served alone before it stopped; it first looks whether anybody knows better.",
        _read_if_any,
        PairState.STARTING,
        waits_for="an answer of W, or t_det",
    ),
    Row(
        "S3.start",
        lambda s: s.pg.state in NOT_RUNNING,
        "Only {me} has all data: it starts PostgreSQL.",
        _start_solo,
        PairState.STARTING,
    ),
    Row(
        "S4.kill",
        lambda s: s.pg.state is PgState.HUNG,
        "PostgreSQL of {me} does not answer, and nobody else has all data: it is restarted.",
        lambda s: (*_quiet(s), KillPg()),
        PairState.STARTING,
    ),
    Row(
        "S5.wait",
        lambda s: s.pg.state in UNCERTAIN,
        "PostgreSQL of {me} is starting or stopping.",
        _nothing,
        PairState.STARTING,
        waits_for="PostgreSQL to have started or stopped",
    ),
    Row(
        "S6.promote",
        lambda s: s.pg.state is PgState.STANDBY,
        "{me} has the vote and all acknowledged data: it is promoted.",
        lambda s: (*(() if s.f.gate is Gate.CLOSED else (SetGate(open=False),)), Promote()),
        PairState.SWITCHING,
    ),
    Row(
        "S7.unenforce",
        lambda s: s.pg.enforced is not False and not s.wants_peer,
        "{me} serves alone by a durable view: commits need not wait for {peer}.",
        lambda _s: (Enforce(on=False),),
        PairState.SWITCHING,
    ),
    Row(
        "S8.open",
        lambda s: s.f.gate is not Gate.OPEN,
        "{me} serves alone by a durable view: clients are let in.",
        lambda _s: (SetGate(open=True),),
        PairState.SWITCHING,
    ),
    Row(
        "T5.enforce",
        lambda s: s.wants_peer and s.pg.enforced is not True,
        "{peer} follows closely: from now on commits wait for it.",
        lambda s: (Enforce(on=True), *_hold(s)),
        PairState.SOLO,
    ),
    Row(
        "T5.barrier",
        lambda s: s.wants_peer and s.pg.barrier_epoch != s.epoch,
        "{me} proves that commits really wait for {peer} before it counts on that.",
        lambda s: (VerifyBarrier(epoch=Epoch(s.epoch)), *_hold(s)),
        PairState.SOLO,
    ),
    Row(
        "T5.wait-journals",
        lambda s: s.wants_peer and not s.are_journals_complete,
        "{peer} has the whole database; {me} waits until both journals of messages are on both members.",
        _hold,
        PairState.SOLO,
        waits_for="the journals",
    ),
    Row(
        "T5.publish",
        lambda s: s.wants_peer,
        "{peer} has everything and commits wait for it: the pair is made durable.",
        _publish,
        PairState.SOLO,
    ),
    Row(
        "S9.no-peer",
        lambda s: not s.cfg.has_peer,
        "{me} serves; a second member has not joined yet.",
        _hold,
        PairState.NO_PEER,
        "futago join",
        waits_for="a second member",
    ),
    Row(
        "S10.peer-silent",
        lambda s: not s.talks,
        "{me} serves alone; {peer} is silent. Nothing protects against the loss of {me}.",
        _hold,
        PairState.SOLO,
        "futago recover",
        waits_for="the peer",
    ),
    Row(
        "S11.serve",
        _always,
        "{me} serves alone; {peer} talks and is on its way back.",
        _hold,
        PairState.SOLO,
        "futago recover",
        waits_for="the peer to follow closely",
    ),
)

# --- standby of a paired view ---

STANDBY_ROWS = (
    Row(
        "B1.stop",
        lambda s: s.is_pg_risky or not s.is_quiet,
        "{peer} is the primary, so nothing may be served by {me}.",
        _stop,
        PairState.STARTING,
    ),
    Row(
        "T3.grant",
        lambda s: s.may_grant_solo,
        "{peer} asks to serve alone because {me} holds it up: {me} promises durably.",
        _promise,
        PairState.SWITCHING,
    ),
    *_vote(
        "T2",
        lambda s: s.wants_w_takeover and _is_running(s),
        because="{peer} is silent, cannot write, or does not finish handing over",
    ),
    *_vote(
        "T7s",
        lambda s: s.wants_w_takeover,
        because="{peer} is silent, cannot write, or does not finish handing over, and PostgreSQL is down here",
    ),
    Row(
        "B2.no-data",
        lambda s: s.pg.state is PgState.ABSENT,
        "The data of {me} are missing; it waits until {peer} serves without it, then they are copied.",
        _nothing,
        PairState.BLOCKED,
        "futago recover",
        waits_for="a newer view without this member",
    ),
    Row(
        "B3.start",
        lambda s: s.pg.state in (PgState.STOPPED, PgState.DIED),
        "{me} starts PostgreSQL as standby of {peer}.",
        lambda _s: (StartPg(as_standby=True, enforced=False),),
        PairState.STARTING,
    ),
    Row(
        "B4.kill",
        lambda s: s.pg.state is PgState.HUNG,
        "PostgreSQL of {me} does not answer: it is restarted.",
        lambda _s: (KillPg(),),
        PairState.STARTING,
    ),
    Row(
        "B5.wait",
        lambda s: s.pg.state in UNCERTAIN,
        "PostgreSQL of {me} is starting or stopping.",
        _nothing,
        PairState.STARTING,
        waits_for="PostgreSQL to have started or stopped",
    ),
    Row(
        "B6.wait-stream",
        lambda s: not s.pg.is_streaming,
        "{me} is a standby in the pair and waits for the stream from {peer}.",
        _nothing,
        PairState.STARTING,
        waits_for="the stream, or a newer view without this member",
    ),
    Row(
        "B7.follow",
        _always,
        "{me} confirms every write of {peer} and can take over.",
        _nothing,
        PairState.PAIRED,
        waits_for="any change",
    ),
)

# --- not in the newest view ---


def _is_peer_serving(s: Situation) -> bool:
    hb = s.hb
    return s.talks and hb is not None and s.is_equal and hb.pg is PgState.PRIMARY


REJOIN_ROWS = (
    Row(
        "R1.stop",
        lambda s: s.is_pg_risky or not s.is_quiet,
        "{peer} serves in the newest view, so nothing may be served by {me}.",
        _stop,
        PairState.SWITCHING,
    ),
    Row(
        "R2.alone",
        lambda s: not s.talks,
        "{peer} serves or has newer data, and it is silent. {me} must not serve; bring {peer} back.",
        _read_if_any,
        PairState.BLOCKED,
        "futago recover",
        waits_for="the peer, or an operator",
    ),
    Row(
        "R3.running",
        lambda s: s.f.rejoin.step is RejoinStep.RUNNING,
        "{me} is being brought back from {peer}.",
        _nothing,
        PairState.SOLO,
        waits_for="the end of this step",
    ),
    Row(
        "R4.follow",
        lambda s: s.pg.state is PgState.STANDBY and s.pg.is_streaming,
        "{me} follows {peer} and waits to be made part of the pair.",
        _nothing,
        PairState.SOLO,
        waits_for="the primary to add this member",
    ),
    Row(
        "R5.wait-primary",
        lambda s: not _is_peer_serving(s),
        "{me} waits until {peer} serves, to be brought back from it.",
        _nothing,
        PairState.SWITCHING,
        waits_for="the peer to serve",
    ),
    Row(
        "R6.manual",
        lambda s: s.cfg.recovery != "auto" and s.f.op.kind is not OpKind.RECOVER,
        "{me} is ready to be brought back, which the settings leave to an operator.",
        _nothing,
        PairState.SOLO,
        "futago recover",
        waits_for="an operator",
    ),
    Row(
        "R7.pause",
        lambda s: (
            s.f.rejoin.step is RejoinStep.FAILED and s.now < s.f.rejoin.retry_at and s.f.op.kind is not OpKind.RECOVER
        ),
        "Bringing {me} back failed; it is tried again after a pause.",
        _nothing,
        PairState.SOLO,
        "futago recover",
        waits_for="the end of the pause",
    ),
    Row(
        "R8.rejoin",
        _always,
        "{peer} serves alone: {me} is brought back from it, step by step.",
        lambda s: (StartRejoin(source=s.cfg.peer, epoch=Epoch(s.epoch)),),
        PairState.SOLO,
    ),
)

SECTIONS: tuple[Section, ...] = (
    Section("settings", lambda s: s.cfg.authority != "register", CONFIG_ROWS),
    Section(
        "operator forces",
        lambda s: s.f.op.kind is OpKind.FORCE_PRIMARY and not (s.is_primary and s.is_alone),
        FORCE_ROWS,
    ),
    Section("no view", lambda s: s.dv is None, MEMORY_ROWS),
    Section("newer view known", lambda s: s.knows_newer, LEARN_ROWS),
    Section("primary, paired", lambda s: s.is_primary and not s.is_alone, PAIRED_ROWS),
    Section("primary, solo", lambda s: s.is_primary, SOLO_ROWS),
    Section("standby, paired", lambda s: s.in_sync, STANDBY_ROWS),
    Section("not in the view", _always, REJOIN_ROWS),
)
