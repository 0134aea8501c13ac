"""Rules for the standby of a paired view: follow; take over by W's vote, or what the primary hands over."""

from __future__ import annotations

from futago.cluster.model import (
    KillPg,
    PairState,
    PgState,
    StartPg,
)
from futago.cluster.rules.deeds import ask_solo, is_running, promise, read_if_any, stop
from futago.cluster.rules.fencing import fence_vote
from futago.cluster.rules.row import Row, always, nothing
from futago.cluster.rules.vote import vote
from futago.cluster.situation import UNCERTAIN

STANDBY_ROWS = (
    Row(
        "B1.stop",
        lambda s: s.is_pg_risky or not s.is_quiet,
        "{peer} is the primary, so nothing may be served by {me}.",
        stop,
        PairState.STARTING,
    ),
    Row(
        "T3.grant",
        lambda s: s.may_grant_solo,
        "{peer} asks to serve alone because {me} holds it up: {me} promises durably.",
        promise,
        PairState.SWITCHING,
    ),
    *fence_vote(
        "F2",
        lambda s: s.wants_w_takeover,
        because="{peer} is silent, cannot write, or does not finish handing over",
    ),
    *vote(
        "T2",
        lambda s: s.wants_w_takeover and is_running(s),
        because="{peer} is silent, cannot write, or does not finish handing over",
    ),
    *vote(
        "T7s",
        lambda s: s.wants_w_takeover,
        because="{peer} is silent, cannot write, or does not finish handing over, and PostgreSQL is down here",
    ),
    Row(
        "B2.no-data",
        lambda s: s.pg.state is PgState.ABSENT,
        "The data of {me} are missing; it waits until {peer} serves without it, then they are copied.",
        nothing,
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
        nothing,
        PairState.STARTING,
        waits_for="PostgreSQL to have started or stopped",
    ),
    Row(
        "B8.ask",
        lambda s: s.is_peer_blank and not s.has_third_vote and s.are_intents_clear and s.is_data_good,
        "{peer} was the primary and lost its memory; {me} has all data and asks it for the promise to serve alone.",
        ask_solo,
        PairState.SWITCHING,
        waits_for="the promise of the peer",
        keeps_wants=True,
    ),
    Row(
        "B9.hold",
        lambda s: s.is_takeover_due,
        "{peer} does not serve as it should, and {me} does not take over unasked: maintenance is on.",
        read_if_any,
        PairState.BLOCKED,
        "futago maintenance off",
        waits_for="the peer, or an operator",
    ),
    Row(
        "B6.wait-stream",
        lambda s: not s.pg.is_streaming,
        "{me} is a standby in the pair and waits for the stream from {peer}.",
        nothing,
        PairState.STARTING,
        waits_for="the stream, or a newer view without this member",
    ),
    Row(
        "B7.follow",
        always,
        "{me} confirms every write of {peer} and can take over.",
        nothing,
        PairState.PAIRED,
        waits_for="any change",
    ),
)
