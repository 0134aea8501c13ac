"""decide(facts, now) -> Decision: pure, total, level-triggered. The one place where it is decided what this member
does.

The first matching row of rules/ decides. Beside it go the duties: things that are due in many situations and
disturb none (reading W, telling W of a view, powering off a loser, answering an operator). At most one durable write
is in a decision; a duty's write waits for the row's.

What the executor must keep: an action is a task with a key, and a repeated action in flight is ignored; its outcome
becomes a fact, then decide is called at once; facts are at least as new as the last finished action.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from futago.cluster.model import (
    Action,
    Cas,
    CasRegister,
    Decision,
    Enforce,
    Facts,
    FenceOff,
    FenceOn,
    FenceOutcome,
    Gate,
    HoldAddress,
    KillPg,
    NoteMet,
    OpDone,
    OpKind,
    PairState,
    PersistIntent,
    PersistStopped,
    PersistView,
    PgState,
    ReadRegister,
    SetGate,
    SetWants,
    StopPg,
    VerifyBarrier,
)
from futago.cluster.rules import SECTIONS, Actions, Row
from futago.cluster.rules.fencing import FENCE_AGAIN_NS, ask_power, is_met
from futago.cluster.rules.fencing import deadlines as fence_deadlines
from futago.cluster.situation import LAG_BYTES_MAX, Situation

READ_EVERY_NS = 1_000_000_000  # W is read this often while the peer is heard; every heartbeat when it is not
PUT_AGAIN_NS = 1_000_000_000  # pause after a put that did not end well, where nobody waits for it
UNASKED_AFTER_NS = 5_000_000_000  # what has to be decided comes first, and has the device for itself
ASK_LOST_NS = 5_000_000_000  # how often the device of a silent member is asked for its power
ASK_REGULAR_NS = 30_000_000_000  # ... and that of any member, where the fence decides
DEVICE_LATE_NS = 90_000_000_000  # three answers missed
POWER_FRESH_NS = 15_000_000_000  # an answer is not acted on after this
POWER_ONS_MAX = 3  # unasked, within ...
POWER_ONS_WITHIN_NS = 3600_000_000_000
POWER_ON_AGAIN_NS = 120_000_000_000  # a machine boots in less than this, or does not
WAKE_AFTER_NS = 1_000_000_000  # look again at the latest
OPERATOR_WAIT_NS = 30_000_000_000  # an operator's request that cannot be begun is refused after this
LEARN_GRACE_HEARTBEATS = 5  # a talking loser is given this long to learn the view by itself before it is shot
PERSISTS = (PersistView, PersistIntent, PersistStopped)
TIGHTENING = (KillPg, StopPg, ReadRegister, SetWants, FenceOff, VerifyBarrier, OpDone)


def decide(facts: Facts, now: int) -> Decision:
    """Decide what this member does at `now`.

    Args:
        facts: everything it knows.
        now: nanoseconds of its own monotonic clock, not before any instant in `facts`.

    Returns:
        The actions, when to look again (always later than `now`), the rule and its reason.
    """
    s = Situation(facts, now)
    row = matching_row(s)
    actions = list(row.do(s))
    for duty in DUTIES:
        for action in duty(s, row):
            if isinstance(action, PERSISTS) and any(isinstance(a, PERSISTS) for a in actions):
                continue
            if action not in actions:
                actions.append(action)
    if facts.durable.is_writing:
        actions = [a for a in actions if _is_tightening(a)]
    notes = tuple(_notes(s))
    is_serving = s.is_serving
    return Decision(
        actions=tuple(actions),
        wake_at=_wake_at(s),  # type: ignore[arg-type]
        rule=row.id,
        reason=row.why.format(me=s.cfg.me, peer=s.cfg.peer, epoch=s.epoch),
        command=row.command,
        is_serving=is_serving,
        may_act_outward=is_serving and s.is_other_stopped,
        notes=notes,
        state=row.state if s.cfg.has_peer or row.state is PairState.BLOCKED else PairState.NO_PEER,
        is_protected=row.state is PairState.PAIRED and not notes,
    )


def matching_row(s: Situation) -> Row:
    """Return the first row that matches; the table is total, so there always is one."""
    for section in SECTIONS:
        if section.when(s):
            for row in section.rows:
                if row.when(s):
                    return row
    raise AssertionError("the rule table is not total")


def _is_tightening(action: Action) -> bool:
    """Tell whether an action is right whatever our disk will say once the write under way has ended.

    Nothing else is begun meanwhile: it would rest on a view or an intent that may be replaced already.
    """
    match action:
        case SetGate(open=is_open):
            return not is_open
        case HoldAddress(hold=is_held):
            return not is_held
        case Enforce(on=is_on):
            return is_on
        case _:
            return isinstance(action, TIGHTENING)


# --- duties ---


def _withdraw_wants(s: Situation, row: Row) -> Actions:
    return () if s.f.wants is None or row.keeps_wants else (SetWants(wants=None),)


def _read_register(s: Situation, _row: Row) -> Actions:
    w = s.w
    if not w.is_configured or w.is_pending:
        return ()
    is_due = w.asked_at is None or s.now - w.asked_at >= _read_period(s)
    return (ReadRegister(),) if is_due else ()


def _read_period(s: Situation) -> int:
    """A member whose vote may be needed reads W at every heartbeat while the peer is silent.

    Where silence is judged sooner than the regular reads come, from the second heartbeat missed on.
    """
    if not s.in_sync or s.is_alone:
        return READ_EVERY_NS
    is_missing = _is_quick(s) and s.now - s.watch_from >= 2 * s.cfg.h
    return s.cfg.h if s.is_lost or is_missing else READ_EVERY_NS


def _is_quick(s: Situation) -> bool:
    return s.cfg.t_det < READ_EVERY_NS


def _drop_intent(s: Situation, row: Row) -> Actions:
    """An open question that is pursued no more: make sure that the old one cannot be answered, then forget it."""
    intent = s.f.durable.intent
    if intent == 0 or row.asks_w or s.knows_newer or s.dv is None:
        return ()
    if intent <= s.epoch or s.is_intent_void:
        return (PersistIntent(epoch=intent.__class__(0)),)
    return () if s.decides_by_fence else _put_own_view(s)


def _note_met(s: Situation, _row: Row) -> Actions:
    """Where the fence decides: both have this view, this boot is part of it, and nobody has a shot in mind."""
    hb = s.hb
    if not s.decides_by_fence or s.dv is None or s.is_alone or s.f.met_epoch == s.epoch or hb is None:
        return ()
    is_agreed = s.talks and s.is_equal and s.are_intents_clear and hb.is_able and hb.authority == s.cfg.authority
    return (NoteMet(epoch=s.dv.epoch),) if is_agreed and s.f.durable.is_able else ()


def _tell_register(s: Situation, row: Row) -> Actions:
    """The primary tells W of a view that was made without it."""
    if not s.is_primary or s.knows_newer or row.asks_w or s.w.read_at is None:
        return ()
    return _put_own_view(s) if s.w.view is None or s.w.view.epoch < s.epoch else ()


def _put_own_view(s: Situation) -> Actions:
    w = s.w
    is_paused = w.cas_epoch == s.epoch and w.cas_at is not None and s.now - w.cas_at < PUT_AGAIN_NS
    if not w.is_configured or w.cas is Cas.PENDING or is_paused or s.dv is None:
        return ()
    return (CasRegister(view=s.dv),)


def _is_lone_winner(s: Situation) -> bool:
    return s.cfg.has_peer and s.is_primary and s.is_alone and not s.knows_newer


def _note_stopped(s: Situation, _row: Row) -> Actions:
    if not _is_lone_winner(s) or s.f.durable.stopped_epoch >= s.epoch:
        return ()
    return (PersistStopped(epoch=s.dv.epoch),) if s.dv is not None and (s.has_learned or s.is_fence_off) else ()


def _fence(s: Situation, _row: Row) -> Actions:
    """Power the loser off, unless it is known to have stopped."""
    fence = s.f.fence
    if not _is_lone_winner(s) or not fence.is_configured or s.dv is None:
        return ()
    if s.f.durable.stopped_epoch >= s.epoch or s.has_learned:
        return ()
    is_in_grace = s.talks and not s.is_peer_hung and s.now < _learned_by(s)  # one that hangs cannot stop itself
    if is_in_grace or not (s.talks or s.is_lost):  # a controller that just started listens first
        return ()
    if fence.epoch == s.epoch and fence.outcome is not FenceOutcome.NONE:
        is_pause_over = fence.at is not None and s.now - fence.at >= FENCE_AGAIN_NS
        if fence.outcome in (FenceOutcome.PENDING, FenceOutcome.OFF) or not is_pause_over:
            return ()
    return (FenceOff(epoch=s.dv.epoch),)


def _learned_by(s: Situation) -> int:
    """When a talking loser should have learned the view; after our own restart it must first have been heard."""
    since = s.f.started_at + s.cfg.t_det if s.f.won_at is None else s.f.won_at
    return since + LEARN_GRACE_HEARTBEATS * s.cfg.h


def _power_on_unasked(s: Situation, row: Row) -> Actions:
    """A member that lost its power by itself is powered on, where the settings let members come back by themselves.

    Only if its device says that it is off, asked after it was last heard; not if it said goodbye; not while anything may
    still be decided by its being off; and not again and again.
    """
    fence, cfg = s.f.fence, s.cfg
    is_wanted = cfg.recovery == "auto" and cfg.fence_after == "on" and fence.is_configured and s.is_lost
    is_away = s.now - s.watch_from >= cfg.t_det + UNASKED_AFTER_NS
    is_kept_off = s.f.peer.said_bye or s.is_on_hold or s.f.is_leaving or s.f.op.kind is not OpKind.NONE
    if not is_wanted or not is_away or is_kept_off or s.dv is None:
        return ()
    if fence.outcome is FenceOutcome.PENDING or not _may_return(s, row) or not _is_spared(s):
        return ()
    is_off = fence.has_power is False and (fence.power_at or 0) > (s.f.peer.heard_at or 0)
    if not is_off or s.now - (fence.power_at or 0) > POWER_FRESH_NS:
        return ask_power(s, every=ASK_LOST_NS)
    return (FenceOn(epoch=s.dv.epoch, is_unasked=True),)


def _may_return(s: Situation, row: Row) -> bool:
    """Nothing is under way that rests on the other member being off."""
    if not s.in_sync or row.state is PairState.BLOCKED:
        return True
    is_serving = s.pg.state is PgState.PRIMARY and s.f.gate is Gate.OPEN
    is_shot_here = s.is_fence_off and not s.f.fence.is_powered_on_again  # that is for _power_on
    return _is_lone_winner(s) and is_serving and s.f.durable.stopped_epoch >= s.epoch and not is_shot_here


def _is_spared(s: Situation) -> bool:
    """It has not been powered on too often, or only just now."""
    lately = [at for at in s.f.power_ons if s.now - at < POWER_ONS_WITHIN_NS]
    return len(lately) < POWER_ONS_MAX and (not lately or s.now - lately[-1] >= POWER_ON_AGAIN_NS)


def _watch_device(s: Situation, _row: Row) -> Actions:
    """A device that decides is tried all the time."""
    return ask_power(s, every=ASK_REGULAR_NS) if s.decides_by_fence and s.cfg.has_peer else ()


def _power_on(s: Situation, _row: Row) -> Actions:
    """Bring a fenced member back, once this one serves; also when an operator asks for recovery of a silent one."""
    fence = s.f.fence
    if not fence.is_configured or s.dv is None or fence.outcome is FenceOutcome.PENDING:
        return ()
    if fence.is_powered_on_again:
        return ()
    is_asked = s.f.op.kind is OpKind.RECOVER and s.is_lost
    if not s.in_sync:  # only the other one has all data: nothing here can go wrong by its return
        return (FenceOn(epoch=s.dv.epoch),) if is_asked else ()
    is_serving = s.pg.state is PgState.PRIMARY and s.f.gate is Gate.OPEN
    if not _is_lone_winner(s) or not is_serving or s.f.durable.stopped_epoch < s.epoch:
        return ()
    is_due = s.is_fence_off and s.cfg.fence_after == "on"
    return (FenceOn(epoch=s.dv.epoch),) if is_asked or is_due else ()


# --- operator ---


def _answer_operator(s: Situation, row: Row) -> Actions:
    match s.f.op.kind:
        case OpKind.NONE:
            return ()
        case OpKind.RECOVER:
            return _answer_recover(s, row)
        case OpKind.SWITCHOVER:
            return _answer_switchover(s)
        case OpKind.FORCE_PRIMARY:
            done = s.is_primary and s.is_alone
            return (OpDone(ok=True, text="this member serves alone"),) if done else ()


def _answer_recover(s: Situation, row: Row) -> Actions:
    if s.dv is not None and not s.is_alone and s.is_equal and row.state is PairState.PAIRED:
        return (OpDone(ok=True, text="the pair is paired"),)
    is_late = s.now - s.f.op.since >= OPERATOR_WAIT_NS
    if not s.cfg.has_peer:
        return (OpDone(ok=False, text="no second member has joined yet; use futago join on it"),)
    if is_late and row.state is PairState.BLOCKED:
        return (OpDone(ok=False, text=row.why.format(me=s.cfg.me, peer=s.cfg.peer, epoch=s.epoch)),)
    if is_late and not s.talks and not s.f.fence.is_powered_on_again:
        return (OpDone(ok=False, text=f"{s.cfg.peer} is silent; power it on and repair its network first"),)
    return ()


def _answer_switchover(s: Situation) -> Actions:
    peer = s.cfg.peer
    if s.dv is not None and s.is_alone and s.dv.primary == peer and not s.knows_newer:
        return (OpDone(ok=True, text=f"{peer} serves"),) if s.has_learned else _late(s, f"{peer} has not answered yet")
    if not s.is_primary:
        return (OpDone(ok=False, text=f"{s.cfg.me} is not the primary"),)
    if s.is_alone:
        return (OpDone(ok=False, text=f"{peer} is not part of the pair now; use futago recover first"),)
    return () if s.should_hand_over else _late(s, f"{peer} is not fit to serve")


def _late(s: Situation, text: str) -> Actions:
    return (OpDone(ok=False, text=text),) if s.now - s.f.op.since >= OPERATOR_WAIT_NS else ()


DUTIES: tuple[Callable[[Situation, Row], tuple[Action, ...]], ...] = (
    _withdraw_wants,
    _read_register,
    _drop_intent,
    _tell_register,
    _note_stopped,
    _fence,
    _power_on,
    _power_on_unasked,
    _note_met,
    _watch_device,
    _answer_operator,
)


# --- what else is not protected ---


def _notes(s: Situation) -> Iterator[str]:
    """Everything that keeps the pair from being protected, each with what resolves it."""
    f, cfg, w = s.f, s.cfg, s.w
    if not cfg.has_peer:
        yield "There is no second member: run futago join on it."
        return
    if s.decides_by_fence:
        yield from _fence_notes(s)
    elif not w.is_configured:
        yield "There is no third vote, so nobody can take over from a silent member: run futago jury set."
    elif w.contact_at is None or s.now - w.contact_at >= 5 * READ_EVERY_NS:
        yield "The third vote does not answer: bring a majority of its jurors back (futago status names them)."
    elif w.view is None or w.view.epoch < s.epoch:
        yield "The third vote does not know the present view yet: it is told as soon as it answers."
    if not s.talks:
        yield f"{cfg.peer} is silent: bring it back (futago recover)."
    elif s.dv is not None and not s.is_equal:
        yield f"{cfg.peer} has not written the present view yet."
    if s.is_alone:
        yield f"Only {s.dv.primary if s.dv else cfg.me} holds all data: futago recover brings the other member back."
    if not f.fence.is_configured:
        yield f"No fence device for {cfg.peer}: it cannot be stopped by force. Name one in the settings."
    if not s.are_journals_complete and s.talks:
        yield "The journals of messages are not complete on both members yet."
    if s.is_primary and s.talks and not s.is_alone and s.hb is not None and s.pg.flush - s.hb.replay > LAG_BYTES_MAX:
        yield f"{cfg.peer} replays more than {LAG_BYTES_MAX >> 20} MiB behind: a takeover would take longer."
    yield from _own_notes(s)


def _fence_notes(s: Situation) -> Iterator[str]:
    f, peer = s.f, s.cfg.peer
    if f.fence.is_configured and (f.fence.power_at is None or s.now - f.fence.power_at > DEVICE_LATE_NS):
        yield f"The fence device of {peer} has not answered lately, and it is the third vote: run futago fence test."
    if s.in_sync and not s.is_alone and not is_met(s):
        yield f"{s.cfg.me} has not heard {peer} agree on the view since it booted: until then it cannot take over."
    if s.hb is not None and s.hb.authority != s.cfg.authority:
        yield f"{peer} has other settings: pair.authority must be the same on both members."


def _peer_notes(s: Situation) -> Iterator[str]:
    hb, peer = s.hb, s.cfg.peer
    if not s.talks or hb is None:
        return
    if not hb.is_able:
        yield f"The system disk of {peer} cannot be written: repair it, then futago recover."
    if not hb.is_disk_ok:
        yield f"The data volume of {peer} cannot be written: free space or repair it, then futago recover."
    if hb.is_suspect:
        yield f"The data disk of {peer} failed once: its data must be copied anew (futago recover)."


def _own_notes(s: Situation) -> Iterator[str]:
    f = s.f
    if not f.durable.is_able:
        yield f"The system disk of {s.cfg.me} cannot be written: repair it, then futago recover."
    if not s.pg.is_disk_ok:
        yield f"The data volume of {s.cfg.me} cannot be written: free space or repair it, then futago recover."
    if s.pg.is_suspect and s.is_primary and s.is_alone:
        yield (
            f"The data disk of {s.cfg.me} failed once, and nobody else has all data: {s.cfg.me} serves as long as it "
            f"can be written. Bring {s.cfg.peer or 'a second member'} back at once."
        )
    elif s.pg.is_suspect:
        yield f"The data disk of {s.cfg.me} failed once: its data must be copied anew (futago recover)."
    if not f.service_ok:
        yield f"The service network of {s.cfg.me} does not work."
    if s.is_primary and not f.manager_ok:
        yield f"The manager of {s.cfg.me} does not answer."
    if s.is_on_hold:
        yield "Maintenance is on, so nothing is switched unasked: run futago maintenance off when the work is done."
    if f.is_leaving or (s.talks and s.hb is not None and s.hb.is_leaving):
        yield "A member is being shut down."
    lately = [at for at in f.power_ons if s.now - at < POWER_ONS_WITHIN_NS]
    if s.is_lost and len(lately) >= POWER_ONS_MAX:
        yield f"{s.cfg.peer} was powered on {len(lately)} times within an hour and is left off now: see to it."
    yield from _peer_notes(s)


# --- when to look again ---


def _wake_at(s: Situation) -> int:
    """The earliest instant at which time alone may change the decision."""
    f, cfg, now = s.f, s.cfg, s.now
    best = now + WAKE_AFTER_NS
    for at in _deadlines(s):
        if now < at < best:
            best = at
    if s.w.is_configured and not s.w.is_pending:
        at = (s.w.asked_at or now) + _read_period(s)
        if now < at < best:
            best = at
    if f.op.kind is not OpKind.NONE and now < f.op.since + OPERATOR_WAIT_NS < best:
        best = f.op.since + OPERATOR_WAIT_NS
    if f.rejoin.retry_at > now:
        best = min(best, f.rejoin.retry_at)
    return max(best, now + 1) if cfg.h else best


def _deadlines(s: Situation) -> Iterator[int]:
    f, cfg = s.f, s.cfg
    if _is_quick(s):
        yield s.watch_from + 2 * cfg.h
    yield s.watch_from + cfg.t_det
    yield s.watch_from + cfg.t_det + cfg.bias
    yield max(s.contact_at, s.contact_base) + cfg.t_self
    yield f.started_at + cfg.t_det
    yield from fence_deadlines(s)
    for link in f.peer.links:
        if link.echo_at is not None:
            yield link.echo_at + cfg.t_det
            yield link.echo_at + cfg.t_det + cfg.bias + 2 * cfg.h
    if s.should_hand_over and not s.is_peer_fresh:  # a word that says nothing new wakes nobody
        yield s.now + max(1, cfg.h // 4)
    if s.is_peer_hung and f.peer.wants_since is not None:
        yield f.peer.wants_since + s.patience_hung
    for since in (s.pg.unconfirmed_since, f.peer.unfit_since, f.peer.wants_since, f.wants_since):
        if since is not None:
            yield since + cfg.t_stall
    if s.w.cas_at is not None:
        yield s.w.cas_at + cfg.h
        yield s.w.cas_at + PUT_AGAIN_NS
    if s.is_primary and s.is_alone:
        yield s.outward_at
        yield _learned_by(s)
        if f.fence.at is not None:
            yield f.fence.at + FENCE_AGAIN_NS
