"""Rules for a member that the newest view does not count on: serve nothing, and be brought back by the primary."""

from __future__ import annotations

from futago.cluster.model import (
    Epoch,
    OpKind,
    PairState,
    PgState,
    RejoinStep,
    StartRejoin,
)
from futago.cluster.rules.deeds import read_if_any, stop
from futago.cluster.rules.row import Row, always, nothing
from futago.cluster.situation import Situation


def _is_peer_serving(s: Situation) -> bool:
    hb = s.hb
    return s.talks and hb is not None and s.is_equal and hb.pg is PgState.PRIMARY


def _is_following(s: Situation) -> bool:
    """What is on the disk is trusted, and grows. Data that are not trusted are copied anew, however well they follow."""
    return s.pg.state is PgState.STANDBY and s.pg.is_streaming and not s.pg.is_suspect


def _is_peer_broken(s: Situation) -> bool:
    hb = s.hb
    return not _is_peer_serving(s) and hb is not None and not (hb.is_able and hb.is_disk_ok)


REJOIN_ROWS = (
    Row(
        "R1.stop",
        lambda s: s.is_pg_risky or not s.is_quiet,
        "{peer} serves in the newest view, so nothing may be served by {me}.",
        stop,
        PairState.SWITCHING,
    ),
    Row(
        "R2.alone",
        lambda s: not s.talks,
        "{peer} serves or has newer data, and it is silent. {me} must not serve; bring {peer} back.",
        read_if_any,
        PairState.BLOCKED,
        "futago recover",
        waits_for="the peer, or an operator",
    ),
    Row(
        "R3.running",
        lambda s: s.f.rejoin.step is RejoinStep.RUNNING,
        "{me} is being brought back from {peer}.",
        nothing,
        PairState.SOLO,
        waits_for="the end of this step",
    ),
    Row(
        "R10.no-disk",
        lambda s: _is_following(s) and not s.pg.is_disk_ok,
        "{me} follows {peer}, and is not made part of the pair while its data volume cannot be written.",
        nothing,
        PairState.SOLO,
        "futago recover",
        waits_for="its data volume",
    ),
    Row(
        "R4.follow",
        _is_following,
        "{me} follows {peer} and waits to be made part of the pair.",
        nothing,
        PairState.SOLO,
        waits_for="the primary to add this member",
    ),
    Row(
        "R9.peer-unable",
        _is_peer_broken,
        "Only {peer} may serve, and a disk of it cannot be written: repair it, or free space on it.",
        nothing,
        PairState.BLOCKED,
        "futago recover",
        waits_for="the disks of the peer",
    ),
    Row(
        "R5.wait-primary",
        lambda s: not _is_peer_serving(s),
        "{me} waits until {peer} serves, to be brought back from it.",
        nothing,
        PairState.SWITCHING,
        waits_for="the peer to serve",
    ),
    Row(
        "R6.manual",
        lambda s: s.cfg.recovery != "auto" and s.f.op.kind is not OpKind.RECOVER,
        "{me} is ready to be brought back, which the settings leave to an operator.",
        nothing,
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
        nothing,
        PairState.SOLO,
        "futago recover",
        waits_for="the end of the pause",
    ),
    Row(
        "R8.rejoin",
        always,
        "{peer} serves alone: {me} is brought back from it, step by step.",
        lambda s: (StartRejoin(source=s.cfg.peer, epoch=Epoch(s.epoch)),),
        PairState.SOLO,
    ),
)
