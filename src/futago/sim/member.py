"""One simulated member: a host with a disk, a clock and a database, and on it the controller around the production decide().

What a power cut leaves: the disk (view, intent, stopped epoch) and the database's log. What the death of the controller leaves: all that, the
running database, gate and address. Everything else is forgotten, as in the real programs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

from futago.cluster.decide import decide
from futago.cluster.model import (
    At,
    Config,
    Decision,
    Durable,
    Epoch,
    Facts,
    Fence,
    Gate,
    Heartbeat,
    Link,
    Lsn,
    MemberName,
    Op,
    Peer,
    Pg,
    PgState,
    Register,
    Rejoin,
    Wants,
)
from futago.cluster.situation import Situation
from futago.register.model import NO_BALLOT, Ballot
from futago.sim.checks import ROLE_STALE_NS, THAW_GRACE_NS
from futago.sim.database import Database
from futago.sim.engine import MS, S
from futago.sim.network import NETWORKS, SERVICE

if TYPE_CHECKING:
    from futago.sim.world import World

GUARD_NS = 1 * S  # the guard performs the last will when no controller has lived for this long
PROBE_NS = 1 * S  # a hanging database or disk is believed after this


@dataclass(frozen=True, slots=True)
class Datagram:
    """A heartbeat on the wire: what is said, when its sender sent it, and what it heard last on each network."""

    heartbeat: Heartbeat
    key: tuple[object, ...]
    sent_at: int
    echo: dict[str, int]
    is_bye: bool = False


class Volatile:
    """What a controller knows and does; gone when it dies."""

    def __init__(self, at: int) -> None:
        self.heartbeat: Heartbeat | None = None
        self.heartbeat_key: tuple[object, ...] = ()
        self.heard_at: int | None = None
        self.said_bye = False
        self.unfit_since: int | None = None
        self.wants_of_peer_since: int | None = None
        self.newest_sent = 0
        self.rx_at: dict[str, int] = {}
        self.echo_at: dict[str, int] = {}
        self.heard_sent: dict[str, int] = {}  # newest sending time of the peer, per network: to be echoed
        self.register = Register(is_configured=True)
        self.seen_ballot: Ballot = NO_BALLOT
        self.wants: Wants | None = None
        self.wants_since = 0
        self.fence = Fence(is_configured=True)
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


class SimMember:
    """A member of the pair."""

    def __init__(self, world: World, name: str, peer: str, config: Config) -> None:
        self.world = world
        self.engine = world.engine
        self.network = world.network
        self.name = MemberName(name)
        self.cfg = config
        self.other: SimMember = self
        self.db = Database(world.engine, world.network, name)
        self.db.on_change = self.poke
        self.db.on_role = world.checker.on_role
        self.db.is_frozen = lambda: self.frozen_at is not None
        self.disk = Durable()
        self.disk_slow_until = 0  # the system disk hangs until then
        self.gate_open = False
        self.address = False
        self.is_powered = True
        self.frozen_at: int | None = None
        self.thawed_at = 0
        self.boots = 0
        self.life = 0  # changes whenever the controller dies
        self.is_alive = False
        self.op = Op()
        self.op_answers: list[tuple[bool, str]] = []
        self.service_ok = True
        self.disk_hung_at: int | None = None
        self.fence_of_peer_works = True
        self._clock_offset = self.engine.between(0, 1000 * S)
        self._clock_rate = 1.0 + (self.engine.random.random() - 0.5) * 4e-4
        self._deferred: list[tuple[int, Callable[[], None]]] = []
        self._poked = False
        self._wake_token = 0
        self._sent_at = 0
        self._said_whole: tuple[object, ...] = ()
        self._durable_key: tuple[object, ...] = ()
        self._durable = Durable()
        self.journals_at = 0
        self.contact_note: int | None = None  # on tmpfs: survives the controller, not the host
        self.v = Volatile(0)
        self._said: Heartbeat
        self._heartbeat()

    # --- time and life ---

    def local(self) -> At:
        """This member's own monotonic clock."""
        return At(self._clock_offset + int(self.engine.now * self._clock_rate))

    def true_delay(self, local_at: int) -> int:
        """How long until the own clock shows `local_at`."""
        return max(1, int((local_at - self.local()) / self._clock_rate) + 1)

    @property
    def is_running(self) -> bool:
        """The controller can act now."""
        return self.is_alive and self.frozen_at is None

    def later(self, delay: int, act: Callable[[], None]) -> None:
        """Do `act` if this controller still lives then; when frozen, after the thaw."""
        life = self.life
        self.engine.after(delay, lambda: self._if_alive(life, act))

    def _if_alive(self, life: int, act: Callable[[], None]) -> None:
        if life != self.life:
            return
        if self.frozen_at is not None:
            self._deferred.append((life, act))
        else:
            act()

    def start_controller(self) -> None:
        """A controller starts and adopts what runs."""
        if not self.is_powered or self.is_alive:
            return
        self.is_alive = True
        self.life += 1
        self.v = Volatile(self.local())
        self.v.contact_before = self.contact_note
        if self.db.state is PgState.STARTING or self.db.state is PgState.STOPPING:
            self.db.stop(PgState.STOPPED)  # the starter died with the controller's order
        self.engine.tell(self.name, f"controller starts; its disk says {self._view_text()}")
        self._beat()
        self.poke()

    def kill_controller(self, downtime: int) -> None:
        """The controller dies; systemd starts another after `downtime`; the guard acts when that is long."""
        if not self.is_alive:
            return
        self.is_alive = False
        self.life += 1
        self.v = Volatile(self.local())
        life = self.life
        self._deferred.clear()
        self.world.checker.on_outward()
        self.engine.after(downtime, self.start_controller)

        def last_will() -> None:
            if self.life == life and self.is_powered and not self.is_alive:
                self.engine.tell(self.name, "guard: no controller for a second: last will")
                self.gate_open = self.address = False
                self.db.stop(PgState.STOPPED)

        self.engine.after(GUARD_NS, last_will)

    def power_off(self) -> None:
        """Everything volatile is gone at once."""
        if not self.is_powered:
            return
        self.is_powered = self.is_alive = False
        self.life += 1
        self.v = Volatile(self.local())
        self.frozen_at = None
        self._deferred.clear()
        self.gate_open = self.address = False
        self.contact_note = None
        absent = self.db.state is PgState.ABSENT
        self.db.stop(PgState.ABSENT if absent else PgState.STOPPED)
        self.engine.tell(self.name, "power is gone")

    def power_on(self) -> None:
        """Boot, which takes a while."""
        if self.is_powered:
            return
        self.is_powered = True
        self.boots += 1
        boot = self.boots
        self.engine.after(
            self.engine.between(2 * S, 6 * S), lambda: self.start_controller() if self.boots == boot else None
        )

    def shut_down(self) -> None:
        """An orderly shutdown: gate, address, database, goodbye, off."""
        if not self.is_running:
            return
        self.gate_open = self.address = False
        self.db.stop_orderly()
        self._send_heartbeats(is_bye=True)
        self.power_off()

    def freeze(self, duration: int) -> None:
        """Nothing on this host runs for a while, and nothing notices until after the thaw."""
        if not self.is_powered or self.frozen_at is not None:
            return
        self.frozen_at = self.engine.now
        self.engine.tell(self.name, f"freezes for {duration / 1e9:.1f} s")
        boots = self.boots
        self.engine.after(duration, lambda: self._thaw() if self.boots == boots and self.is_powered else None)

    def _thaw(self) -> None:
        if self.frozen_at is None:
            return
        gap = self.engine.now - self.frozen_at
        self.frozen_at = None
        self.thawed_at = self.engine.now
        self.engine.tell(self.name, "thaws")
        deferred, self._deferred = self._deferred, []

        def wake() -> None:
            if gap >= 2 * self.cfg.h:
                self.v.watching_since = self.local()
            if gap >= self.cfg.t_self:
                self.v.woke_at = self.local()
            for life, act in deferred:
                self._if_alive(life, act)
            self.poke()

        self.later(self.engine.between(1 * MS, 20 * MS), wake)

    # --- heartbeats ---

    def _beat(self) -> None:
        """Send a heartbeat on every network, and again after h."""
        if not self.is_powered:
            return
        self.db.tick()
        if self.network.is_joined(self.name, self.other.name) and self.other.is_powered:
            self.journals_at = self.engine.now
        self._send_heartbeats()
        self.later(self.cfg.h, self._beat)

    def _send_heartbeats(self, *, is_bye: bool = False) -> None:
        net, other = self.network, self.other
        open_nets = [n for n in NETWORKS if net.is_open(self.name, other.name, n) and not net.is_lost()]
        if not open_nets:
            return
        key = self._heartbeat()
        self._sent_at = max(self.local(), self._sent_at + 1)  # it is the heartbeat's number as well
        gram = Datagram(self._said, key, self._sent_at, dict(self.v.heard_sent), is_bye)
        if net.slow_ns:  # then they do not arrive together
            for network in open_nets:
                self.engine.after(net.delay(), partial(other.hear, gram, [network]))
        else:
            self.engine.after(net.delay(), partial(other.hear, gram, open_nets))

    def _heartbeat(self) -> tuple[object, ...]:
        """Make `_said` what is to be said now, anew only where it changed; return what matters in it."""
        pg, disk = self._pg(), self.disk
        is_able = self._is_able()
        is_fit = pg.state is PgState.STANDBY and pg.is_disk_ok and is_able
        view, wants = disk.view, self.v.wants
        journals = self._journals_complete()
        news = (view, disk.intent, is_able, pg.state, pg.timeline, pg.is_streaming, pg.is_disk_ok, wants, is_fit)
        key = (*news, self.service_ok, journals)
        whole = (key, pg.flush, self.gate_open, self.address, self.boots)
        if whole == self._said_whole:
            return key
        self._said_whole = whole
        self._said = Heartbeat(
            member=self.name,
            boot=str(self.boots),
            seq=0,
            view=view,
            intent=disk.intent,
            is_able=is_able,
            pg=pg.state,
            timeline=pg.timeline,
            flush=pg.flush,
            replay=pg.flush,
            is_streaming=pg.is_streaming,
            is_disk_ok=pg.is_disk_ok,
            gate_open=self.gate_open,
            address_held=self.address,
            wants=wants,
            journals_complete=journals,
            is_fit=is_fit,
            service_ok=self.service_ok,
        )
        return key

    def hear(self, gram: Datagram, networks: list[str]) -> None:
        """Take a heartbeat; when frozen, it lies in the socket until the thaw."""
        if not self.is_alive:
            return
        if self.frozen_at is not None:
            self._deferred.append((self.life, lambda: self.hear(gram, networks)))
            return
        v, now = self.v, self.local()
        for network in networks:
            v.rx_at[network] = now
            v.heard_sent[network] = max(gram.sent_at, v.heard_sent.get(network, 0))
            echo = gram.echo.get(network)
            if echo is not None:
                v.echo_at[network] = max(echo, v.echo_at.get(network, 0))
        hb = gram.heartbeat
        if gram.sent_at <= v.newest_sent:
            return  # a later one was quicker
        v.newest_sent = gram.sent_at
        was_silent = v.heard_at is None or now - v.heard_at > 2 * self.cfg.h
        v.heard_at = now
        v.said_bye = gram.is_bye
        if v.wants_of_peer_since is None or v.heartbeat is None or hb.wants != v.heartbeat.wants:
            v.wants_of_peer_since = now if hb.wants is not None else None
        v.unfit_since = None if hb.is_fit and hb.is_able else v.unfit_since or now
        is_news = gram.key != v.heartbeat_key or gram.is_bye or was_silent
        v.heartbeat, v.heartbeat_key = hb, gram.key
        if is_news:
            self.poke()

    # --- facts ---

    def _is_able(self) -> bool:
        began = self.v.write_began_at
        return began is None or self.engine.now - began < S // 2

    def _is_disk_ok(self) -> bool:
        hung_at = self.disk_hung_at
        return hung_at is None or self.engine.now - hung_at < PROBE_NS

    def _journals_complete(self) -> bool:
        return self.engine.now - self.journals_at < 7 * S // 10

    def _pg(self) -> Pg:
        db = self.db
        is_primary = db.state is PgState.PRIMARY
        unconfirmed = db.unconfirmed_at if is_primary and (db.setting or db.is_streaming) else None
        if unconfirmed is not None:
            unconfirmed = max(0, self.local() - int((self.engine.now - unconfirmed) * self._clock_rate))
        enforced = None if self.v.is_unenforcing else db.setting
        return Pg(
            state=db.state,
            timeline=db.timeline,
            flush=Lsn(db.flush if db.state is not PgState.ABSENT else 0),
            replay=Lsn(db.flush),
            start_lsn=Lsn(db.start_flush) if is_primary else Lsn(0),
            is_streaming=db.state is PgState.STANDBY and db.is_streaming,
            peer_is_streaming=is_primary and db.is_streaming,
            peer_flush=Lsn(db.peer_flush),
            unconfirmed_since=None if unconfirmed is None else At(unconfirmed),
            enforced=enforced if is_primary else None,
            barrier_epoch=Epoch(db.barrier_epoch) if is_primary else Epoch(0),
            is_disk_ok=self._is_disk_ok(),
            has_standby_signal=db.has_signal,
        )

    def _durable_fact(self) -> Durable:
        key = (self.disk, self._is_able(), self.v.is_writing)
        if key != self._durable_key:
            self._durable_key = key
            self._durable = replace(self.disk, is_able=key[1], is_writing=key[2])
        return self._durable

    def facts(self) -> Facts:
        """Everything this member knows now."""
        v = self.v
        return Facts(
            cfg=self.cfg,
            durable=self._durable_fact(),
            peer=Peer(
                heartbeat=v.heartbeat,
                heard_at=None if v.heard_at is None else At(v.heard_at),
                watching_since=At(v.watching_since),
                links=tuple(Link(n, _at(v.rx_at.get(n)), _at(v.echo_at.get(n))) for n in NETWORKS),
                said_bye=v.said_bye,
                unfit_since=_at(v.unfit_since),
                wants_since=_at(v.wants_of_peer_since),
            ),
            register=v.register,
            pg=self._pg(),
            gate=Gate.OPEN if self.gate_open else Gate.CLOSED,
            address_held=self.address,
            fence=v.fence,
            op=self.op,
            rejoin=v.rejoin,
            wants=v.wants,
            wants_since=At(v.wants_since),
            journals_complete=self._journals_complete(),
            service_ok=self.service_ok,
            won_at=_at(v.won_at),
            started_at=At(v.started_at),
            contact_before=_at(v.contact_before),
            woke_at=_at(v.woke_at),
        )

    # --- deciding ---

    def poke(self) -> None:
        """Decide soon: something changed."""
        if self._poked or not self.is_alive:
            return
        self._poked = True
        self.engine.after(self.engine.between(MS // 10, 2 * MS), self._think_poked)

    def _think_poked(self) -> None:
        self._poked = False
        self.think()

    def think(self) -> None:
        """Decide, act, and look again when decide says so."""
        if not self.is_running:
            return
        now = self.local()
        v = self.v
        facts = self.facts()
        contact = Situation(facts, now).contact_at
        self.contact_note = max(contact, v.contact_before or v.started_at, self.contact_note or 0)
        d = decide(facts, now)
        before = v.decision
        v.decision, v.decided_at = d, self.engine.now
        self.world.rules[d.rule] = self.world.rules.get(d.rule, 0) + 1
        if before is None or before.rule != d.rule:
            self.engine.tell(self.name, f"{d.rule}: {d.reason}")
        if d.may_act_outward and (before is None or not before.may_act_outward):
            self.world.checker.on_outward()
        assert d.wake_at > now
        for action in d.actions:
            self.world.executor.perform(self, action)
        self._wake_token += 1
        token = self._wake_token
        self.later(self.true_delay(d.wake_at), lambda: self.think() if token == self._wake_token else None)

    # --- what an outsider sees ---

    @property
    def is_outward(self) -> bool:
        """Its programs give orders and send notifications."""
        d = self.v.decision
        if not self.is_running or d is None or not d.may_act_outward:
            return False
        return self.engine.now - self.v.decided_at < ROLE_STALE_NS

    @property
    def answers_address(self) -> bool:
        """It answers for the floating address, and has had time to take it down since a freeze."""
        if not (self.is_powered and self.address and self.frozen_at is None):
            return False
        return self.engine.now - self.thawed_at > THAW_GRACE_NS

    def is_reached_by_clients(self) -> bool:
        """Clients' packets arrive and are answered."""
        return (
            self.is_powered
            and self.frozen_at is None
            and self.service_ok
            and self.network.is_open_both("clients", self.name, SERVICE)
        )

    def _view_text(self) -> str:
        view = self.disk.view
        return "no view" if view is None else f"epoch {view.epoch}, {view.primary}, {sorted(view.insync)}"


def _at(value: int | None) -> At | None:
    return None if value is None else At(value)
