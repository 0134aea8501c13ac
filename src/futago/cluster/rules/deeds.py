"""What rows do: from a situation to the actions that are still due in it, each the same until its fact has changed.

Must not live here: when (the rows), how (executor.py).
"""

from __future__ import annotations

from futago.cluster.model import (
    Action,
    Enforce,
    Epoch,
    Gate,
    HoldAddress,
    KillPg,
    Lsn,
    PersistView,
    PgState,
    ReadRegister,
    SetGate,
    SetWants,
    StartPg,
    StopPg,
    View,
    Wants,
)
from futago.cluster.rules.row import Actions
from futago.cluster.situation import NOT_RUNNING, Situation

REGULAR_NS = 1_000_000_000  # a member that can do nothing by W's answer does not hurry


def quiet(s: Situation) -> Actions:
    """Close the gate and give the address up, as far as that is not certain."""
    out: list[Action] = []
    if s.f.gate is not Gate.CLOSED:
        out.append(SetGate(open=False))
    if s.f.address_held is not False:
        out.append(HoldAddress(hold=False))
    return tuple(out)


def stop(s: Situation) -> Actions:
    return (*quiet(s), KillPg()) if s.is_pg_risky else quiet(s)


def own_view(s: Situation) -> View:
    """The view that lets us serve alone, in the epoch asked of W."""
    return View(epoch=s.target, primary=s.cfg.me, insync=frozenset((s.cfg.me,)), floor=s.floor)


def adopt(s: Situation, *, stopped: bool) -> Actions:
    assert s.newest is not None
    return (PersistView(view=s.newest, stopped=stopped),)


def decline(s: Situation) -> Actions:
    """Write durably that the peer alone serves in the epoch after the newest, in which we do not count: a promise unasked.

    Only for a newest view in which we never served and that no rule but ours can go on from by one epoch: one that the peer
    made in stepping back, or one in which it counts on us (it may ask to go on alone in the same epoch, to the same effect).
    """
    assert s.newest is not None
    peer = s.cfg.peer
    view = View(epoch=Epoch(s.newest.epoch + 1), primary=peer, insync=frozenset((peer,)), floor=s.newest.floor)
    return quiet(s) or (PersistView(view=view),)


def promise(s: Situation) -> Actions:
    """Write durably that the peer alone serves in the next epoch: from now on we count for nothing."""
    assert s.hb is not None
    peer = s.cfg.peer
    view = View(epoch=Epoch(s.epoch + 1), primary=peer, insync=frozenset((peer,)), floor=s.hb.flush)
    return (PersistView(view=view),)


def announce(s: Situation) -> Actions:
    wants = Wants(kind="handover", epoch=Epoch(s.epoch + 2))
    return (*(() if s.f.wants == wants else (SetWants(wants=wants),)), *quiet(s))


def stop_for_handover(s: Situation) -> Actions:
    """Orderly where PostgreSQL still answers, so that the peer receives everything and no rewind is needed."""
    if s.pg.state is PgState.STOPPING:
        return ()
    is_orderly = s.pg.state is PgState.PRIMARY and s.pg.is_disk_ok
    return (StopPg(),) if is_orderly else (KillPg(),)


def give(s: Situation) -> Actions:
    """Two epochs on, not one: the peer may yet write a promise that we asked for, and that one is in the next epoch."""
    assert s.hb is not None
    peer = s.cfg.peer
    view = View(epoch=Epoch(s.epoch + 2), primary=peer, insync=frozenset((peer,)), floor=s.hb.flush)
    return (PersistView(view=view),)


def ask_solo(s: Situation) -> Actions:
    """A member without memory is asked in other words: it may only agree where no third vote knows what it forgot.

    It is not asked while a view of ours is being written, which may be a promise of the same epoch to that member.
    """
    may_know = not s.decides_by_fence or s.f.met_epoch == s.epoch  # else the peer may have gone on alone, by a shot
    is_drop = s.is_peer_blank and not s.w.is_configured and may_know
    if is_drop and s.f.durable.is_writing:
        return ()
    wants = Wants(kind="drop" if is_drop else "solo", epoch=Epoch(s.epoch + 1))
    return () if s.f.wants == wants else (SetWants(wants=wants),)


def promise_blank(s: Situation) -> Actions:
    """The promise of a member without memory, to the one that has all."""
    assert s.hb is not None and s.hb.view is not None
    peer = s.cfg.peer
    view = View(epoch=Epoch(s.hb.view.epoch + 1), primary=peer, insync=frozenset((peer,)), floor=s.hb.flush)
    return (PersistView(view=view),)


def publish(s: Situation) -> Actions:
    """The pair, durable. Nothing beyond what the peer has confirmed was acknowledged, and it may not have more yet."""
    known = 0 if s.dv is None else s.dv.floor
    floor = Lsn(max(known, min(s.pg.flush, s.pg.peer_flush)))
    both = frozenset((s.cfg.me, s.cfg.peer))
    return (PersistView(view=View(epoch=Epoch(s.epoch + 1), primary=s.cfg.me, insync=both, floor=floor)),)


def enforce_shut(s: Situation) -> Actions:
    """A paired primary that does not wait must let nobody in; while that is only unknown, clients may stay."""
    shut: Actions = () if s.pg.enforced is None or s.f.gate is Gate.CLOSED else (SetGate(open=False),)
    return (*shut, Enforce(on=True))


def start_solo(s: Situation) -> Actions:
    """A standby's data directory is started as standby and promoted: only so it gets a timeline of its own."""
    return (StartPg(as_standby=s.pg.has_standby_signal, enforced=False),)


def hold(s: Situation) -> Actions:
    if s.is_serving and s.is_other_stopped:
        return () if s.f.address_held is True else (HoldAddress(hold=True),)
    return () if s.f.address_held is False else (HoldAddress(hold=False),)


def read_if_any(s: Situation) -> Actions:
    """Ask W now instead of at the next regular time, but not more often than once a heartbeat."""
    asked_at = s.w.asked_at
    is_due = asked_at is None or s.now - asked_at >= (s.cfg.h if s.in_sync else REGULAR_NS)
    return (ReadRegister(),) if s.w.is_configured and not s.w.is_pending and is_due else ()


def quiet_and_kill(s: Situation) -> Actions:
    return (*quiet(s), KillPg()) if s.pg.state is PgState.HUNG else quiet(s)


def is_down_on_bad_disk(s: Situation) -> bool:
    """PostgreSQL is down or hangs, and starting it anew on this volume would change nothing."""
    return not s.pg.is_disk_ok and (s.pg.state in NOT_RUNNING or s.pg.state is PgState.HUNG)


def is_running(s: Situation) -> bool:
    return s.pg.state not in NOT_RUNNING
