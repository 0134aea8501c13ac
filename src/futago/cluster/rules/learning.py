"""Rules for a member that does not know the newest view: without any (it is new, or lost its memory), or with an
older one than somebody else. The idea: stop first, then believe.
"""

from __future__ import annotations

from futago.cluster.model import PairState, PgState, RejoinStep
from futago.cluster.rules.deeds import adopt, decline, promise_blank, read_if_any, stop
from futago.cluster.rules.row import Row, always, nothing
from futago.cluster.situation import Situation, is_same


def _may_be_dropped(s: Situation) -> bool:
    """T3 for a member that lost its memory: its promise is as good as any where nobody else knows what it forgot.

    That is so if there is no third vote, and if what is on its data volume cannot be a primary's: it is empty, or a
    standby's that was never promoted. See docs/internals/cluster.md, "A member that lost its memory".
    """
    hb, w = s.hb, s.w
    if not s.talks or hb is None or hb.view is None or hb.wants is None or w.is_configured:
        return False
    is_asked = hb.wants.kind == "drop" and hb.wants.epoch == hb.view.epoch + 1
    is_counted_on = s.cfg.me in hb.view.insync and is_same(hb.view, s.newest)
    is_clear = hb.intent <= hb.view.epoch and hb.is_able
    has_nothing = s.pg.state is PgState.ABSENT or s.pg.has_standby_signal
    return is_asked and is_counted_on and is_clear and has_nothing


DESTRUCTIVE = ("rewind", "basebackup", "empty")  # the rungs that replace what lies in the data directory


MEMORY_ROWS = (
    Row(
        "M1.stop",
        lambda s: s.is_pg_risky or not s.is_quiet,
        "{me} knows no view, so nothing may be served here.",
        stop,
        PairState.STARTING,
    ),
    Row(
        "M2.join",
        lambda s: s.newest is not None and s.cfg.me not in s.newest.insync,
        "{peer} serves alone in a view that {me} learns now.",
        lambda s: adopt(s, stopped=False),
        PairState.STARTING,
    ),
    Row(
        "M5.grant",
        _may_be_dropped,
        "{me} has neither memory nor data of its own, {peer} has both and asks to go on without it: {me} promises that.",
        promise_blank,
        PairState.SWITCHING,
    ),
    Row(
        "M6.alone",
        lambda s: s.newest is not None and s.newest.insync == frozenset((s.cfg.me,)),
        "{me} lost its memory, and the newest view counts on its data alone: whether these are the newest, a person must say.",
        read_if_any,
        PairState.BLOCKED,
        "futago force-primary",
        waits_for="an operator",
    ),
    Row(
        "M3.amnesia",
        lambda s: s.newest is not None,
        "{me} lost its memory, and the newest view counts on its data; it waits until {peer} serves without it.",
        read_if_any,
        PairState.BLOCKED,
        "futago recover",
        waits_for="a newer view without this member",
    ),
    Row(
        "M4.wait",
        always,
        "{me} belongs to no view yet and waits to hear of one from {peer}.",
        read_if_any,
        PairState.BLOCKED,
        "futago status",
        waits_for="a view from the peer or from W",
    ),
)


def _is_own_solo_win(s: Situation) -> bool:
    return s.is_own_win and s.is_primary


def _is_better_there(s: Situation) -> bool:
    """We are named, have never served in that view, and our data are gone; the peer, which stepped back, says it has some."""
    is_gone_here = s.pg.state is PgState.ABSENT
    return s.peer_names_me and s.talks and is_gone_here and s.hb is not None and s.hb.pg is not PgState.ABSENT


def _is_being_overwritten(s: Situation) -> bool:
    """The newest view counts on our data, and a rung of the ladder is replacing them, by an order older than that view."""
    rejoin, pg = s.f.rejoin, s.pg
    is_counted_on = s.newest is not None and s.newest.primary == s.cfg.peer and s.cfg.me in s.newest.insync
    is_replacing = rejoin.step is RejoinStep.RUNNING and rejoin.rung in DESTRUCTIVE
    return is_counted_on and is_replacing and not (pg.state is PgState.STANDBY and pg.is_streaming)


LEARN_ROWS = (
    Row(
        "L2.unable",
        lambda s: not s.f.durable.is_able and (s.is_own_win or s.peer_names_me),
        "{me} may serve alone, and cannot make that durable: its system disk cannot be written.",
        nothing,
        PairState.BLOCKED,
        "futago recover",
        waits_for="the system disk",
        keeps_wants=True,
    ),
    Row(
        "T1.adopt",
        _is_own_solo_win,
        "The third vote decided that {me} goes on alone; {me} makes that durable before it stops waiting for {peer}.",
        lambda s: adopt(s, stopped=True),
        PairState.SWITCHING,
        keeps_wants=True,
    ),
    Row(
        "T2.adopt",
        lambda s: s.is_own_win,
        "The third vote decided that {me} takes over; {me} makes that durable before it acts.",
        lambda s: adopt(s, stopped=False),
        PairState.SWITCHING,
    ),
    Row(
        "T4.return",
        _is_better_there,
        "{peer} stepped back for {me}, whose data have been lost since: {me} writes durably that {peer} serves alone.",
        decline,
        PairState.SWITCHING,
    ),
    Row(
        "T3.adopt",
        lambda s: s.peer_names_me and s.is_primary,
        "{peer} promised durably that {me} may serve alone.",
        lambda s: adopt(s, stopped=True),
        PairState.SWITCHING,
        keeps_wants=True,
    ),
    Row(
        "T4.adopt",
        lambda s: s.peer_names_me,
        "{peer} handed over: it has stopped and written that {me} serves alone.",
        lambda s: adopt(s, stopped=True),
        PairState.SWITCHING,
    ),
    Row(
        "T6.stop",
        lambda s: s.is_pg_risky or not s.is_quiet,
        "A newer view is known, in which {me} does not serve as it does now: it stops first.",
        stop,
        PairState.SWITCHING,
    ),
    Row(
        "L3.unable",
        lambda s: not s.f.durable.is_able,
        "A newer view is known, and {me} cannot make it durable: its system disk cannot be written.",
        nothing,
        PairState.BLOCKED,
        "futago recover",
        waits_for="the system disk",
    ),
    Row(
        "T6.decline",
        _is_being_overwritten,
        "{peer} counts on {me}, whose data are just being replaced: {me} writes durably that {peer} serves alone.",
        decline,
        PairState.SWITCHING,
    ),
    Row(
        "T6.learn",
        lambda s: s.newest is not None and s.newest.primary == s.cfg.peer,
        "{peer} serves in a newer view, which {me} makes durable.",
        lambda s: adopt(s, stopped=False),
        PairState.SWITCHING,
    ),
    Row(
        "L1.foreign",
        always,
        "A newer view names {me} in an epoch that it never asked for: its disk seems to be an old copy.",
        read_if_any,
        PairState.BLOCKED,
        "futago recover",
        waits_for="an operator",
    ),
)
