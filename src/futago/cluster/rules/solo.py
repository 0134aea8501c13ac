"""Rules for the primary of its own solo view: serve, and bring the peer back in (T5)."""

from __future__ import annotations

from futago.cluster.model import (
    Enforce,
    Epoch,
    Gate,
    KillPg,
    PairState,
    PgState,
    Promote,
    SetGate,
    VerifyBarrier,
)
from futago.cluster.rules.deeds import hold, publish, quiet, read_if_any, start_solo
from futago.cluster.rules.row import Row, always, nothing
from futago.cluster.situation import NOT_RUNNING, UNCERTAIN

SOLO_ROWS = (
    Row(
        "S1.no-data",
        lambda s: s.pg.state is PgState.ABSENT or (s.pg.state in NOT_RUNNING and s.is_below_floor),
        "Only {me} has all data, and they are missing or older than the view.",
        nothing,
        PairState.BLOCKED,
        "futago recover",
        waits_for="an operator",
    ),
    Row(
        "S2.look",
        lambda s: s.pg.state in NOT_RUNNING and not s.has_looked,
        "{me} served alone before it stopped; it first looks whether anybody knows better.",
        read_if_any,
        PairState.STARTING,
        waits_for="an answer of W, or t_det",
    ),
    Row(
        "S3.start",
        lambda s: s.pg.state in NOT_RUNNING,
        "Only {me} has all data: it starts PostgreSQL.",
        start_solo,
        PairState.STARTING,
    ),
    Row(
        "S4.kill",
        lambda s: s.pg.state is PgState.HUNG,
        "PostgreSQL of {me} does not answer, and nobody else has all data: it is restarted.",
        lambda s: (*quiet(s), KillPg()),
        PairState.STARTING,
    ),
    Row(
        "S5.wait",
        lambda s: s.pg.state in UNCERTAIN,
        "PostgreSQL of {me} is starting or stopping.",
        nothing,
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
        lambda s: (Enforce(on=True), *hold(s)),
        PairState.SOLO,
    ),
    Row(
        "T5.barrier",
        lambda s: s.wants_peer and s.pg.barrier_epoch != s.epoch,
        "{me} proves that commits really wait for {peer} before it counts on that.",
        lambda s: (VerifyBarrier(epoch=Epoch(s.epoch)), *hold(s)),
        PairState.SOLO,
    ),
    Row(
        "T5.wait-journals",
        lambda s: s.wants_peer and not s.are_journals_complete,
        "{peer} has the whole database; {me} waits until both journals of messages are on both members.",
        hold,
        PairState.SOLO,
        waits_for="the journals",
    ),
    Row(
        "T5.publish",
        lambda s: s.wants_peer,
        "{peer} has everything and commits wait for it: the pair is made durable.",
        publish,
        PairState.SOLO,
    ),
    Row(
        "S9.no-peer",
        lambda s: not s.cfg.has_peer,
        "{me} serves; a second member has not joined yet.",
        hold,
        PairState.NO_PEER,
        "futago join",
        waits_for="a second member",
    ),
    Row(
        "S10.peer-silent",
        lambda s: not s.talks,
        "{me} serves alone; {peer} is silent. Nothing protects against the loss of {me}.",
        hold,
        PairState.SOLO,
        "futago recover",
        waits_for="the peer",
    ),
    Row(
        "S11.serve",
        always,
        "{me} serves alone; {peer} talks and is on its way back.",
        hold,
        PairState.SOLO,
        "futago recover",
        waits_for="the peer to follow closely",
    ),
)
