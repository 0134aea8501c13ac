"""F1, F2: the fence device as the third vote (authority "fence"), the same rows for the primary and for the standby.

Lives here: when a shot may decide, who shoots first, and what proves that the other member is off. Must not live
here: W; a pair has one authority, and these rows and those of vote.py never match under the same settings.

The idea: two people in a dark room, each with the switch of the other one's lamp. Whoever has switched the other's
lamp off knows that he is alone, for as long as he hears nothing; so he must not hesitate, and must not shoot at the
same time as the other. Somebody who has just come in (booted) knows nothing and touches no switch: his own lamp may
have been switched off before, and the other may have gone on alone since.

Order: own disk first (the intent), then the device, then own disk (the view); effects after that. The proof is void as
soon as the other member is heard again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from futago.cluster.model import AskPower, FenceOff, FenceOutcome, PairState, PersistIntent, PersistView
from futago.cluster.rules.deeds import own_view
from futago.cluster.rules.row import Actions, Row, always, nothing
from futago.cluster.situation import Situation

FENCE_AGAIN_NS = 5_000_000_000  # a device that failed is asked again after this; BMCs answer within 5 s or not at all
ASK_AGAIN_NS = 1_000_000_000  # while the answer decides: this often is the device asked for the power of the other


def is_met(s: Situation) -> bool:
    """In this boot both members had this view on disk, so neither can have gone on alone without stopping this boot."""
    return s.f.met_epoch == s.epoch > 0


def is_proved_off(s: Situation) -> bool:
    """The device says that the other member is off, and nothing has been heard of it since it was asked."""
    fence, heard_at = s.f.fence, s.f.peer.heard_at or 0
    is_shot = fence.outcome is FenceOutcome.OFF and fence.epoch == s.target and (fence.at or 0) > heard_at
    is_dark = fence.has_power is False and (fence.power_at or 0) > heard_at
    return fence.outcome is not FenceOutcome.PENDING and (is_shot or is_dark)


def lost_at(s: Situation) -> int:
    """Since when the other member counts as lost; now if it talks."""
    if not s.is_lost:
        return s.now
    echoes = [link.echo_at for link in s.f.peer.links if link.echo_at is not None]
    deaf_at = max(echoes, default=s.now) + s.cfg.t_det
    silent_at = s.watch_from + s.cfg.t_det
    return min(at for at in (deaf_at, silent_at, s.now) if at <= s.now)


def shoot_at(s: Situation) -> int:
    """From when on this member may shoot, so that two that live do not shoot each other.

    First a standby that sees that the primary does not serve (nobody answers for the floating IP); one delay later the
    primary; another delay later a standby that sees no such thing. A member that talks is not afraid of being shot: it
    said itself that it cannot decide, or asked to be relieved.
    """
    if not s.is_lost:
        return s.now
    since, d = lost_at(s), s.cfg.fence_delay
    if s.is_primary:
        return since + d
    return since if s.f.address_answers is False else since + 2 * d + s.cfg.bias


def ask_power(s: Situation, *, every: int) -> Actions:
    """Ask the device for the power of the other member, if it is time to."""
    fence = s.f.fence
    if not fence.is_configured or fence.is_asking or fence.outcome is FenceOutcome.PENDING:
        return ()
    is_due = fence.asked_at is None or s.now - fence.asked_at >= every
    return (AskPower(),) if is_due else ()


def _ask(s: Situation) -> Actions:
    return ask_power(s, every=ASK_AGAIN_NS)


def _has_failed(s: Situation) -> bool:
    fence = s.f.fence
    is_bad = fence.outcome in (FenceOutcome.FAILED, FenceOutcome.UNKNOWN) and fence.epoch == s.target
    return is_bad and fence.at is not None and s.now - fence.at < FENCE_AGAIN_NS


def fence_vote(
    name: str, when: Callable[[Situation], bool], *, because: str, keeps_wants: bool = False
) -> tuple[Row, ...]:
    """Return the rows by which the fence decides for one standing."""
    return tuple(
        Row(
            id=f"{name}.{part}",
            when=_both(when, also),
            why=because + why,
            do=do,
            state=state,
            command=command,
            waits_for=waits_for,
            keeps_wants=keeps_wants,
            asks_w=True,
        )
        for part, also, why, do, state, command, waits_for in _PARTS
    )


def _both(one: Callable[[Situation], bool], two: Callable[[Situation], bool]) -> Callable[[Situation], bool]:
    return lambda s: s.decides_by_fence and one(s) and two(s)


def deadlines(s: Situation) -> Iterator[int]:
    """When time alone may change what these rows say."""
    if not s.decides_by_fence or s.is_alone or not s.in_sync:
        return
    fence = s.f.fence
    yield shoot_at(s)
    for at, pause in ((fence.at, FENCE_AGAIN_NS), (fence.asked_at, ASK_AGAIN_NS)):
        if at is not None:
            yield at + pause


_Part = tuple[
    str, Callable[[Situation], bool], str, Callable[[Situation], Actions], PairState, str, str
]  # part, when, why, do, state, command, waits for
_PARTS: tuple[_Part, ...] = (
    (
        "no-data",
        lambda s: not s.is_data_good,
        ", and the data of {me} are missing, not trusted, unwritable or older than the view: it must not serve.",
        nothing,
        PairState.BLOCKED,
        "futago recover",
        "its data, or an operator",
    ),
    (
        "no-device",
        lambda s: not s.f.fence.is_configured,
        ", and there is no fence device by which it could be stopped.",
        nothing,
        PairState.BLOCKED,
        "futago fence test",
        "the peer, or a device",
    ),
    (
        "not-met",
        lambda s: not is_met(s),
        ". {me} has booted since it last heard that both agree, so {peer} may have served alone: bring {peer} back.",
        _ask,
        PairState.BLOCKED,
        "futago recover",
        "the peer, or an operator",
    ),
    (
        "unable",
        lambda s: not s.f.durable.is_able and not s.has_intent,
        "; the fence must decide, and {me} cannot write on its own system disk that it shoots.",
        nothing,
        PairState.BLOCKED,
        "futago recover",
        "the system disk, or the peer",
    ),
    (
        "intent",
        lambda s: not s.has_intent,
        "; {me} notes on its own disk that it will power {peer} off and serve alone.",
        lambda s: (PersistIntent(epoch=s.target),),
        PairState.SWITCHING,
        "",
        "",
    ),
    (
        "proved",
        is_proved_off,
        " and certainly off: {me} makes durable that it serves alone.",
        lambda s: (PersistView(view=own_view(s), stopped=True),),
        PairState.SWITCHING,
        "",
        "",
    ),
    (
        "wait-shot",
        lambda s: s.f.fence.outcome is FenceOutcome.PENDING,
        "; {me} powers it off through its fence device.",
        nothing,
        PairState.SWITCHING,
        "",
        "the answer of the fence device",
    ),
    (
        "failed",
        _has_failed,
        ", and its fence device does not confirm that it is off: nobody can tell that it does not serve.",
        _ask,
        PairState.BLOCKED,
        "futago force-primary",
        "the fence device, the peer, or an operator who has seen that it is off",
    ),
    (
        "delay",
        lambda s: s.now < shoot_at(s),
        "; {me} asks the fence device whether it is off, and does not shoot yet, in case {peer} does.",
        _ask,
        PairState.SWITCHING,
        "",
        "the answer of the fence device, or the end of the delay",
    ),
    (
        "shoot",
        always,
        "; {me} powers it off through its fence device before anything else.",
        lambda s: (FenceOff(epoch=s.target),),
        PairState.SWITCHING,
        "",
        "",
    ),
)
