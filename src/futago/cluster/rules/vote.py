"""T1, T2, T7: the vote of W, the same rows for each. The idea: own disk first (the intent), then W, then own disk
(the view); effects after that.
"""

from __future__ import annotations

from collections.abc import Callable

from futago.cluster.model import (
    Cas,
    CasRegister,
    PairState,
    PersistIntent,
)
from futago.cluster.rules.deeds import own_view, read_if_any
from futago.cluster.rules.row import Actions, Row, always, nothing
from futago.cluster.situation import Situation


def _intend(s: Situation) -> Actions:
    return (PersistIntent(epoch=s.target),)


def _cas(s: Situation) -> Actions:
    """Ask W; after an unclear answer wait one heartbeat before asking again."""
    if s.w.cas is Cas.PENDING:
        return ()
    is_repeat = s.w.cas_epoch == s.target and s.w.cas_at is not None and s.now - s.w.cas_at < s.cfg.h
    return () if is_repeat else (CasRegister(view=own_view(s)),)


def vote(name: str, when: Callable[[Situation], bool], *, because: str, keeps_wants: bool = False) -> tuple[Row, ...]:
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
            ", and the data of {me} are missing, not trusted, unwritable or older than the view: it must not serve.",
            read_if_any,
            state=PairState.BLOCKED,
            command="futago recover",
            waits_for="its data, or an operator",
        ),
        row(
            "no-vote",
            lambda s: not s.w.is_configured,
            ", and there is no third vote that could decide who serves.",
            nothing,
            state=PairState.BLOCKED,
            command="futago jury set",
            waits_for="the peer, or a jury",
        ),
        row(
            "wait-vote",
            lambda s: not s.is_w_fresh,
            "; the third vote must decide, and it has not answered {me} lately.",
            read_if_any,
            state=PairState.BLOCKED,
            command="futago status",
            waits_for="an answer of W, or the peer",
        ),
        row(
            "unable",
            lambda s: not s.f.durable.is_able and not s.has_intent,
            "; the third vote must decide, and {me} cannot write on its own system disk that it asks.",
            read_if_any,
            state=PairState.BLOCKED,
            command="futago recover",
            waits_for="the system disk, or the peer",
        ),
        row(
            "intent",
            lambda s: not s.has_intent,
            "; {me} notes on its own disk that it will ask the third vote.",
            _intend,
        ),
        row("cas", always, "; {me} asks the third vote to let it serve alone.", _cas, waits_for="the answer of W"),
    )
