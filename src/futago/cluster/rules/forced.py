"""Rules for what people ordered: settings that cannot be followed, and T9, a member that is forced to serve."""

from __future__ import annotations

from futago.cluster.model import (
    Epoch,
    OpDone,
    PairState,
    PersistView,
    PgState,
    View,
)
from futago.cluster.rules.row import Actions, Row, always
from futago.cluster.situation import Situation, is_same

FORCED_EPOCHS = 100  # T9 jumps over every epoch that the lost side may have reached unseen


def _is_peer_out(s: Situation) -> bool:
    """We lost our memory, and the peer itself knows that it must not serve: its view counts on us alone."""
    view = None if s.hb is None else s.hb.view
    return s.dv is None and view is not None and view.insync == frozenset((s.cfg.me,)) and is_same(view, s.newest)


def _force(s: Situation) -> Actions:
    epoch = Epoch((s.newest.epoch if s.newest is not None else 0) + FORCED_EPOCHS)
    view = View(epoch=epoch, primary=s.cfg.me, insync=frozenset((s.cfg.me,)), floor=s.pg.flush)
    return (PersistView(view=view, stopped=True),)


FORCE_ROWS = (
    Row(
        "T9.refuse-alive",
        lambda s: s.talks and s.hb is not None and s.hb.view is not None and not _is_peer_out(s),
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
        always,
        "An operator stated that {peer} is off and that its newest data may be lost; {me} serves alone.",
        _force,
        PairState.SWITCHING,
    ),
)
