"""One member of the exhaustive search: what it is, what it knows, and what an order does to it. Pure data and
functions.

PostgreSQL is a tuple of commits with "does it wait for the other" and "how far has the other confirmed"; the passing
of time is a mood.
"""

from __future__ import annotations

from typing import NamedTuple

from futago.cluster.model import (
    Action,
    At,
    Cas,
    Config,
    Durable,
    Enforce,
    Epoch,
    Facts,
    Gate,
    Heartbeat,
    KillPg,
    Lsn,
    MemberName,
    Op,
    OpKind,
    Peer,
    PersistIntent,
    PersistView,
    Pg,
    PgState,
    Promote,
    Register,
    StartPg,
    StopPg,
    View,
    Wants,
)

NAMES = (MemberName("m1"), MemberName("m2"))
BOTH = frozenset(NAMES)
S = 1_000_000_000
NOW = 1000 * S
FRESH, LONG = At(NOW - S // 10), At(NOW - 100 * S)
CONFIGS = tuple(Config(me=NAMES[i], peer=NAMES[1 - i], h=S // 5, k=10, bias=3 * S // 10, t_stall=2 * S) for i in (0, 1))
OFF, LYING, ON = 0, 1, 2  # does PostgreSQL wait for the peer: no; it says so but does not yet; yes
ABSENT, STOPPED, DIED, STANDBY, PRIMARY = "A", "D", "X", "S", "P"
PG_STATES = {
    ABSENT: PgState.ABSENT,
    STOPPED: PgState.STOPPED,
    DIED: PgState.DIED,
    STANDBY: PgState.STANDBY,
    PRIMARY: PgState.PRIMARY,
}


class Seen(NamedTuple):
    """What a heartbeat says of its sender."""

    view: View | None
    intent: int
    wants: Wants | None
    pg: str
    streams: bool


class Member(NamedTuple):
    """One member: what survives a crash (view, intent, wal, signal) and what does not."""

    up: bool
    view: View
    intent: int
    pg: str
    signal: bool
    wal: tuple[int, ...]
    waits: int
    confirmed: int
    barrier: int
    wants: Wants | None
    seen: Seen | None  # the last heartbeat that arrived, while it is lagging or silent; else it sees the other as it is
    known: View | None  # what it last read from the register
    cas: Cas
    cas_epoch: int
    writing: PersistView | PersistIntent | None
    mood: str = "well"  # what time has made true for it: see MOODS


# --- from member to facts
# --------------------------------------------------------------------------------------------


def _heartbeat(i: int, seen: Seen) -> Heartbeat:
    """The snapshot as the message that member `i` sent."""
    return Heartbeat(
        member=NAMES[i],
        boot="b",
        seq=1,
        view=seen.view,
        intent=Epoch(seen.intent),
        is_able=True,
        pg=PG_STATES[seen.pg],
        timeline=1,
        flush=Lsn(0),
        replay=Lsn(0),
        is_streaming=seen.streams,
        is_disk_ok=True,
        gate_open=seen.pg == PRIMARY,
        address_held=seen.pg == PRIMARY,
        wants=seen.wants,
        journals_complete=True,
        is_fit=seen.pg == STANDBY,
        service_ok=True,
    )


def _pg_facts(m: Member, *, peer_streams: bool, streams: bool, is_stalled: bool) -> Pg:
    is_primary = m.pg == PRIMARY
    return Pg(
        state=PG_STATES[m.pg],
        timeline=1,
        is_streaming=streams,
        peer_is_streaming=peer_streams,
        unconfirmed_since=LONG if is_primary and is_stalled else None,
        enforced=(m.waits != OFF) if is_primary else None,
        barrier_epoch=Epoch(m.barrier),
        has_standby_signal=m.signal,
    )


def facts_of(i: int, m: Member, seen: Seen | None, *, peer_streams: bool, streams: bool) -> Facts:
    """Return what member `i` knows, when `seen` is the last heartbeat that it heard."""
    is_silent, is_stalled = m.mood == "silent", m.mood == "stalled"
    is_quiet = m.pg != PRIMARY or (m.wants is not None and m.wants.kind == "handover")
    heard_at = None if seen is None else LONG if is_silent else FRESH
    read_at = FRESH if m.known is not None else None
    return Facts(
        cfg=CONFIGS[i],
        durable=Durable(
            view=m.view,
            intent=Epoch(m.intent),
            stopped_epoch=Epoch(1 << 20),
            is_writing=m.writing is not None,
        ),
        peer=Peer(
            heartbeat=None if seen is None else _heartbeat(1 - i, seen),
            heard_at=heard_at,
            watching_since=LONG if is_silent else At(NOW - S),
            unfit_since=LONG if is_stalled and seen is not None and seen.pg != STANDBY else None,
            wants_since=LONG if is_stalled and seen is not None and seen.wants is not None else None,
        ),
        register=Register(
            is_configured=True,
            view=m.known,
            read_at=read_at,
            contact_at=read_at,
            asked_at=LONG,
            cas=m.cas,
            cas_epoch=Epoch(m.cas_epoch),
            cas_at=None if m.cas in (Cas.NONE, Cas.PENDING) else LONG,
        ),
        pg=_pg_facts(m, peer_streams=peer_streams, streams=streams, is_stalled=is_stalled),
        gate=Gate.CLOSED if is_quiet else Gate.OPEN,
        address_held=not is_quiet,
        op=Op(OpKind.SWITCHOVER, FRESH) if m.mood == "switchover" else Op(),
        wants=m.wants,
        wants_since=LONG if is_stalled else FRESH,
        started_at=LONG,
    )


# well: it hears the other one. stalled: it hears, and waits for longer than is borne. switchover: it hears, and an
# operator asks for one. lagging: the last heartbeat is old, but not too old. silent: it has heard nothing for long.
HEARING = ("well", "stalled", "switchover")
MOODS = (*HEARING, "lagging", "silent")


OLDER = View(Epoch(0), NAMES[0], BOTH)  # stands for every view older than the member's own


def essential(m: Member) -> Member:
    """Forget what no rule can tell apart, so that states that behave alike are one state."""
    epoch = m.view.epoch
    seen, known, cas, cas_epoch, wants = m.seen, m.known, m.cas, m.cas_epoch, m.wants
    if seen is not None:
        seen = Seen(
            view=OLDER if seen.view is not None and seen.view.epoch < epoch else seen.view,
            intent=seen.intent if seen.intent > epoch else 0,
            wants=seen.wants if seen.wants is not None and seen.wants.epoch > epoch else None,
            pg=seen.pg,
            streams=seen.streams,
        )
    if known is not None and known.epoch < epoch:
        known = OLDER
    if cas is Cas.REFUSED:
        cas = Cas.DONE
    if cas is Cas.UNKNOWN or (cas is Cas.DONE and cas_epoch != epoch):
        cas, cas_epoch = Cas.NONE, 0
    barrier = m.barrier if m.barrier == epoch and m.pg == PRIMARY else 0
    return m._replace(seen=seen, known=known, cas=cas, cas_epoch=cas_epoch, wants=wants, barrier=barrier)


def postgres_after(m: Member, action: Action) -> Member | None:
    """Return the member after an order to its PostgreSQL; None where the order has no effect here."""
    after: Member | None = None
    match action:
        case Enforce(on=True) if m.pg == PRIMARY and m.waits == OFF:
            after = m._replace(waits=LYING, barrier=0)
        case Enforce(on=False) if m.pg == PRIMARY:
            after = m._replace(waits=OFF, confirmed=0, barrier=0)
        case StartPg(as_standby=True) if m.pg in (STOPPED, DIED):
            after = m._replace(pg=STANDBY, signal=True)
        case StartPg(as_standby=False, enforced=enforced) if m.pg in (STOPPED, DIED):
            after = m._replace(pg=PRIMARY, waits=ON if enforced else OFF, confirmed=0, barrier=0)
        case Promote() if m.pg == STANDBY:
            after = m._replace(pg=PRIMARY, signal=False, waits=OFF, confirmed=0, barrier=0)
        case KillPg() | StopPg() if m.pg not in (STOPPED, ABSENT):
            after = stopped(m, STOPPED)
    return after


def stopped(m: Member, state: str) -> Member:
    """Return the member with PostgreSQL not running."""
    return m._replace(pg=state, waits=OFF, confirmed=0, barrier=0)


def crashed(m: Member) -> Member:
    """Return the member after a power cut."""
    return stopped(m, ABSENT if m.pg == ABSENT else STOPPED)._replace(
        up=False, wants=None, seen=None, known=None, cas=Cas.NONE, cas_epoch=0, writing=None, mood="lagging"
    )


def written(m: Member) -> Member:
    """Return the member after the write under way has reached its disk."""
    match m.writing:
        case PersistView(view=view):
            intent = 0 if view.epoch >= m.intent else m.intent
            return m._replace(view=view, intent=intent, writing=None)
        case PersistIntent(epoch=epoch):
            return m._replace(intent=epoch, writing=None)
    return m
