"""What a simulated controller knows: what it has heard, and from it and its host the facts and the heartbeat.

No rule is here. Everything in `Volatile` is gone when the controller dies.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from operator import attrgetter
from typing import TYPE_CHECKING

from futago.cluster.model import (
    At,
    Cas,
    Decision,
    Durable,
    Epoch,
    Facts,
    Fence,
    Gate,
    Heartbeat,
    Link,
    Lsn,
    Peer,
    Pg,
    PgState,
    Register,
    Rejoin,
    View,
    Wants,
)
from futago.register.model import NO_BALLOT, Ballot
from futago.sim.engine import S
from futago.sim.network import NETWORKS, SERVICE

if TYPE_CHECKING:
    from futago.sim.member import SimMember

PROBE_NS = 1 * S  # a hanging database or disk is believed after this
ABLE_NS = S // 2  # a durable write that takes longer says that the system disk hangs
NEVER = -1
NO_FENCE = Fence()
RUNNING = (PgState.PRIMARY, PgState.STANDBY)
SAID = tuple(f.name for f in fields(Heartbeat))
MOVING = ("flush", "replay")  # the end of the log, which every commit moves
all_said = attrgetter(*SAID)
rest_said = attrgetter(*(name for name in SAID if name not in MOVING))


@dataclass(frozen=True, slots=True)
class Datagram:
    """A heartbeat on the wire: what is said, in which life, when, and what its sender heard last on each network."""

    heartbeat: Heartbeat
    life: int
    sent_at: int
    echo: tuple[int, int]
    is_bye: bool = False


class Volatile:
    """What a controller knows and does; gone when it dies. Times of the two networks are in the order of NETWORKS."""

    def __init__(self, at: int) -> None:
        self.heartbeat: Heartbeat | None = None
        self.said: Heartbeat | None = None  # the same, as it came
        self.heartbeat_of = NEVER  # in which life of the other
        self.heard_at: int | None = None
        self.heard_flush: int | None = None  # the end of the other's log by its newest heartbeat
        self.said_bye = False
        self.unfit_since: int | None = None
        self.wants_of_peer_since: int | None = None
        self.newest_sent = 0
        self.rx_at = [NEVER, NEVER]
        self.echo_at = [NEVER, NEVER]
        self.heard_sent = [NEVER, NEVER]  # newest sending time of the peer, per network: to be echoed
        self.w_view: View | None = None
        self.w_read_at: At | None = None
        self.w_contact_at: At | None = None
        self.w_asked_at: At | None = None
        self.is_reading = False
        self.w_seen = NEVER  # how many changes of W had been tried when it was last read
        self.cas = Cas.NONE
        self.cas_epoch = Epoch(0)
        self.cas_at: At | None = None
        self.seen_ballot: Ballot = NO_BALLOT
        self.wants: Wants | None = None
        self.wants_since = 0
        self.fence = Fence(is_configured=True)
        self.power_ons: tuple[At, ...] = ()
        self.rejoin = Rejoin()
        self.won_at: int | None = None
        self.started_at = at
        self.watching_since = at
        self.contact_before: int | None = None
        self.woke_at: int | None = None
        self.busy: set[str] = set()
        self.is_writing = False
        self.write_began_at: int | None = None
        self.is_unenforcing = False
        self.decision: Decision | None = None
        self.decided_at = 0

    @property
    def hears_sign(self) -> bool:
        """The other member's last word was that maintenance is on."""
        return self.heartbeat is not None and self.heartbeat.maintenance

    def forget_sign(self) -> None:
        """An operator knows better than the other member's last word about maintenance."""
        if self.heartbeat is not None and self.hears_sign:
            self.heartbeat = replace(self.heartbeat, maintenance=False)

    def take(self, gram: Datagram, networks: tuple[int, ...], *, now: int, h: int) -> bool:
        """Take note of a heartbeat; tell whether it says anything new."""
        for i in networks:
            self.rx_at[i] = now
            self.heard_sent[i] = max(gram.sent_at, self.heard_sent[i])
            self.echo_at[i] = max(gram.echo[i], self.echo_at[i])
        if gram.sent_at <= self.newest_sent:
            return False  # a later one was quicker
        hb, known = gram.heartbeat, self.said
        was_silent = self.heard_at is None or now - self.heard_at > 2 * h
        self.newest_sent = gram.sent_at
        self.heard_at = now
        self.heard_flush = hb.flush
        is_news = gram.is_bye or was_silent or known is None or gram.life != self.heartbeat_of or _differ(known, hb)
        self.said_bye = gram.is_bye
        self.heartbeat_of = gram.life
        if self.wants_of_peer_since is None or known is None or hb.wants != known.wants:
            self.wants_of_peer_since = now if hb.wants is not None else None
        self.unfit_since = None if hb.is_fit and hb.is_able else self.unfit_since or now
        self.heartbeat = self.said = hb
        return is_news


def _differ(a: Heartbeat, b: Heartbeat) -> bool:
    """Tell whether two heartbeats say different things, apart from how far the log is."""
    return a is not b and rest_said(a) != rest_said(b)


def _moved(hb: Heartbeat, end: Lsn) -> Heartbeat:
    """Return the heartbeat with another end of the log, as `replace` would, in a tenth of its time."""
    said = dict(zip(SAID, all_said(hb), strict=True))
    said["flush"] = said["replay"] = end
    return Heartbeat(**said)


class Senses:
    """Makes the facts and the heartbeat of one member."""

    def __init__(self, member: SimMember) -> None:
        self._m = member
        self._disk_key: tuple[object, ...] = ()
        self._disk = Durable()
        self._pg_key: tuple[object, ...] = ()
        self._pg = Pg()
        self._said_key: tuple[object, ...] = ()
        self._said: Heartbeat | None = None

    def is_able(self) -> bool:
        """The system disk takes durable writes in time."""
        began = self._m.v.write_began_at
        return began is None or self._m.engine.now - began < ABLE_NS

    def is_disk_ok(self) -> bool:
        """The data volume's write probe succeeds."""
        hung_at = self._m.disk_hung_at
        if self._m.db.is_disk_broken:
            return False
        return hung_at is None or self._m.engine.now - hung_at < PROBE_NS

    def _pg_fact(self) -> Pg:
        m = self._m
        db = m.db
        state = db.state
        is_primary = state is PgState.PRIMARY
        unconfirmed = db.unconfirmed_at if is_primary and (db.setting or db.is_streaming) else None
        enforced = None if m.v.is_unenforcing or not is_primary else db.setting
        stream, flush = db.stream, db.flush
        peer_flush = db.peer_flush
        is_ok = self.is_disk_ok()
        key = (state, flush, stream, peer_flush, unconfirmed, enforced, db.barrier_epoch, is_ok, db.has_signal)
        whole = (key, db.instance, db.start_position, db.timeline, db.is_suspect)
        if whole == self._pg_key:
            return self._pg
        self._pg_key = whole
        if unconfirmed is not None:
            unconfirmed = max(0, m.local() - m.local_span(m.engine.now - unconfirmed))
        self._pg = Pg(
            state=state,
            timeline=db.timeline,
            flush=Lsn(flush if state is not PgState.ABSENT else 0),
            replay=Lsn(flush),
            start_lsn=Lsn(db.start_flush) if is_primary else Lsn(0),
            is_streaming=state is PgState.STANDBY and stream is not None,
            peer_is_streaming=is_primary and stream is not None,
            peer_flush=Lsn(peer_flush),
            unconfirmed_since=None if unconfirmed is None else At(unconfirmed),
            enforced=enforced,
            barrier_epoch=Epoch(db.barrier_epoch) if is_primary else Epoch(0),
            is_disk_ok=is_ok,
            is_suspect=db.is_suspect,
            has_standby_signal=db.has_signal,
        )
        return self._pg

    def _durable_fact(self) -> Durable:
        disk, is_able, is_writing = self._m.disk, self.is_able(), self._m.v.is_writing
        if is_able and not is_writing:
            return disk
        key = (disk, is_able, is_writing)
        if key != self._disk_key:
            self._disk_key = key
            self._disk = replace(disk, is_able=is_able, is_writing=is_writing)
        return self._disk

    def compose(self) -> Heartbeat:
        """Return what is to be said now, as cluster/word.py does; the same object while nothing has changed."""
        m = self._m
        pg, disk, v = self._pg_fact(), m.disk, m.v
        is_able = self.is_able()
        journals = m.world.is_synced
        signs = (m.service_ok, journals, m.gate_open, m.address, m.maintenance, m.is_leaving)
        key = (pg, disk, is_able, v.wants, signs)
        if self._said is not None and key == self._said_key:
            return self._said
        self._said_key = key
        self._said = Heartbeat(
            member=m.name,
            boot="",
            seq=0,
            view=disk.view,
            intent=disk.intent,
            is_able=is_able,
            pg=pg.state,
            timeline=pg.timeline,
            flush=pg.flush,
            replay=pg.flush,
            is_streaming=pg.is_streaming,
            is_disk_ok=pg.is_disk_ok,
            gate_open=m.gate_open,
            address_held=m.address,
            wants=v.wants,
            journals_complete=journals,
            is_fit=pg.state in RUNNING and pg.is_disk_well and is_able and disk.view is not None and not m.is_leaving,
            service_ok=m.service_ok,
            maintenance=m.maintenance,
            is_leaving=m.is_leaving,
            authority=m.cfg.authority,
            is_suspect=pg.is_suspect,
        )
        return self._said

    def _address_answers(self) -> bool | None:
        """Does anybody answer for the floating address, while it is not ours? Silence counts while a neighbour answers."""
        m = self._m
        if m.address or not m.world.settings.probes_address:
            return None
        o, is_open = m.other, m.network.is_open_both
        if o.is_powered and o.frozen_at is None and o.address and is_open(m.name, o.name, SERVICE):
            return True
        return False if is_open(m.name, "clients", SERVICE) else None

    def facts(self) -> Facts:
        """Return everything that this member knows now."""
        m = self._m
        v = m.v
        hb = v.heartbeat
        if hb is not None and v.heard_flush is not None and hb.flush != v.heard_flush:
            hb = v.heartbeat = _moved(hb, Lsn(v.heard_flush))
        return Facts(
            cfg=m.cfg,
            durable=self._durable_fact(),
            peer=Peer(
                heartbeat=hb,
                heard_at=_at(v.heard_at),
                watching_since=At(v.watching_since),
                links=(
                    Link(NETWORKS[0], _seen(v.rx_at[0]), _seen(v.echo_at[0])),
                    Link(NETWORKS[1], _seen(v.rx_at[1]), _seen(v.echo_at[1])),
                ),
                said_bye=v.said_bye,
                unfit_since=_at(v.unfit_since),
                wants_since=_at(v.wants_of_peer_since),
            ),
            register=Register(
                is_configured=m.world.has_jury,
                view=v.w_view,
                read_at=v.w_read_at,
                contact_at=v.w_contact_at,
                asked_at=v.w_asked_at,
                is_pending=v.is_reading,
                cas=v.cas,
                cas_epoch=v.cas_epoch,
                cas_at=v.cas_at,
            ),
            pg=self._pg_fact(),
            gate=Gate.OPEN if m.gate_open else Gate.CLOSED,
            address_held=m.address,
            fence=v.fence if m.has_fence else NO_FENCE,
            op=m.op,
            rejoin=v.rejoin,
            wants=v.wants,
            wants_since=At(v.wants_since),
            journals_complete=m.world.is_synced,
            journals_settled=m.is_settled,
            service_ok=m.service_ok,
            manager_ok=m.manager_ok,
            maintenance=m.maintenance,
            is_leaving=m.is_leaving,
            met_epoch=m.met_epoch,
            power_ons=v.power_ons,
            address_answers=self._address_answers(),
            won_at=_at(v.won_at),
            started_at=At(v.started_at),
            contact_before=_at(v.contact_before),
            woke_at=_at(v.woke_at),
        )


def _at(value: int | None) -> At | None:
    return None if value is None else At(value)


def _seen(value: int) -> At | None:
    return At(value) if value >= 0 else None
