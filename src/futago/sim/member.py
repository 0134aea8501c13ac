"""One simulated member: a host with a disk, a clock and a database, and on it the controller around the production decide().

What a power cut leaves: the disk (view, intent, stopped epoch) and the database's log. What the death of the controller leaves: all that, the
running database, gate and address. Everything else is forgotten, as in the real programs. What it knows is in senses.py.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from futago.cluster.decide import READ_EVERY_NS, decide
from futago.cluster.model import At, Config, Durable, Epoch, Heartbeat, MemberName, Op, PgState, ReadRegister
from futago.cluster.situation import Situation
from futago.cluster.word import is_safe_alone, word
from futago.sim.checks import ROLE_STALE_NS, THAW_GRACE_NS
from futago.sim.database import Database
from futago.sim.engine import MS, S
from futago.sim.network import NETWORKS, SERVICE
from futago.sim.senses import Datagram, Senses, Volatile

if TYPE_CHECKING:
    from futago.sim.world import World

HAND_OVER_NS = 6 * S  # how long an orderly shutdown waits for the other member
GUARD_NS = 1 * S  # the guard performs the last will when no controller has lived for this long
SETTLED = ("P7.serve", "B7.follow")
READ = ReadRegister()
WHOLE_EVERY = 5  # every so many heartbeats are composed anew even if nothing seems to have changed


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
        self.disk_slow_ns = 0  # each durable write takes so much longer
        self.gate_open = False
        self.address = False
        self.is_powered = True
        self.is_dead = False  # it will never come back
        self.is_frozen_for_good = False
        self.frozen_at: int | None = None
        self.thawed_at = 0
        self.boots = 0
        self.life = 0  # changes whenever the controller dies
        self.is_alive = False
        self.op = Op()
        self.op_answers: list[tuple[bool, str]] = []
        self.service_ok = True
        self.manager_ok = True
        self.maintenance = False
        self.is_leaving = False
        self.is_told_alone = False  # its receiver's newest role line: what is safe here is safe
        self.is_settled = True  # what its receiver said of that last; see Facts.journals_settled
        self.met_epoch = Epoch(0)  # on tmpfs
        self.disk_hung_at: int | None = None
        self.fence_of_peer = "works"  # works, fails, hangs, lies, dies-with-host
        self.has_fence = True  # its settings name a device of the other
        self.write_under_way: Callable[[], None] | None = None  # lands even if the controller dies now
        self.lied_at: int | None = None  # when the device of the other last said "off" without doing it
        self.haste = 1  # what the controller orders takes so many times longer
        self._clock_base = (0, self.engine.between(0, 1000 * S))  # true time, own clock
        self._clock_rate = 1.0 + (self.engine.chance_of() - 0.5) * 4e-4
        self.deferred: list[tuple[int, Callable[[], None]]] = []
        self._is_poked = self._is_settled = False
        self._wake_token = 0
        self._sent_at = 0
        self._beats = 0
        self.has_news = True  # something in the heartbeat may have changed since it was last composed
        self.contact_note: int | None = None  # on tmpfs: survives the controller, not the host
        self.v = Volatile(0)
        self.senses = Senses(self)
        self.said: Heartbeat = self.senses.compose()

    @property
    def fence_of_peer_works(self) -> bool:
        """The device does what it is told, and says so."""
        return self.fence_of_peer == "works"

    @fence_of_peer_works.setter
    def fence_of_peer_works(self, works: bool) -> None:
        self.fence_of_peer = "works" if works else "fails"

    # --- time and life ---

    def local(self) -> At:
        """This member's own monotonic clock."""
        since, shown = self._clock_base
        return At(shown + int((self.engine.now - since) * self._clock_rate))

    def drift(self, rate: float) -> None:
        """From now on the own clock goes at this rate."""
        self._clock_base = (self.engine.now, self.local())
        self._clock_rate = rate
        self.poke()

    def local_span(self, span: int) -> int:
        """How long a true duration is on the own clock."""
        return int(span * self._clock_rate)

    def true_delay(self, local_at: int) -> int:
        """How long until the own clock shows `local_at`."""
        return max(1, int((local_at - self.local()) / self._clock_rate) + 1)

    @property
    def is_running(self) -> bool:
        """The controller can act now."""
        return self.is_alive and self.frozen_at is None

    def later(self, delay: int, act: Callable[[], None]) -> None:
        """Do `act` if this controller still lives then; when frozen, after the thaw."""
        self.engine.after(delay, partial(self._if_alive, self.life, act))

    def slowly(self, low: int, high: int, act: Callable[[], None]) -> None:
        """As `later`, after the time that an order takes here."""
        self.later(self.engine.between(low, high) * self.haste, act)

    def _if_alive(self, life: int, act: Callable[[], None]) -> None:
        if life != self.life:
            return
        if self.frozen_at is not None:
            self.deferred.append((life, act))
        else:
            act()

    def start_controller(self) -> None:
        """A controller starts and adopts what runs."""
        if not self.is_powered or self.is_alive:
            return
        self.is_alive = self.has_news = True
        self.is_told_alone = False
        self.life += 1
        self.v = Volatile(self.local())
        self.v.contact_before = self.contact_note
        if self.db.state is PgState.STARTING or self.db.state is PgState.STOPPING:
            self.db.stop(PgState.STOPPED)  # the starter died with the controller's order
        self.engine.tell(self.name, f"controller starts; its disk says {self._view_text()}")
        self._beat(self.life)
        self.poke()

    def kill_controller(self, downtime: int) -> None:
        """The controller dies; systemd starts another after `downtime`; the guard acts when that is long."""
        if not self.is_alive:
            return
        self._forget()
        life = self.life
        self.world.checker.on_outward()
        self.engine.after(downtime, self.start_controller)

        def last_will() -> None:
            if self.life == life and self.is_powered and not self.is_alive:
                self.engine.tell(self.name, "guard: no controller for a second: last will")
                self.gate_open = self.address = False
                self.db.stop(PgState.ABSENT if self.db.state is PgState.ABSENT else PgState.STOPPED)

        self.engine.after(GUARD_NS, last_will)

    def _forget(self) -> None:
        if self.is_alive:
            contact = Situation(self.senses.facts(), self.local()).contact_at
            self.contact_note = max(contact, self.v.contact_before or self.v.started_at, self.contact_note or 0)
            if self.write_under_way is not None:  # nobody was told, but it is on the disk, before a successor can look
                self.write_under_way()
                self.write_under_way = None
        self.is_alive = False
        self.life += 1
        self.v = Volatile(self.local())
        self.deferred.clear()

    def power_off(self) -> None:
        """Everything volatile is gone at once."""
        if not self.is_powered:
            return
        self.is_powered = False
        self._forget()
        self.frozen_at = None
        self.is_frozen_for_good = False
        self.gate_open = self.address = False
        self.contact_note = None
        self.met_epoch = Epoch(0)
        self.is_leaving = False
        absent = self.db.state is PgState.ABSENT
        self.db.stop(PgState.ABSENT if absent else PgState.STOPPED)
        self.engine.tell(self.name, "power is gone")

    def power_on(self) -> None:
        """Boot, which takes a while."""
        if self.is_powered or self.is_dead:
            return
        self.is_powered = True
        self.boots += 1
        boot = self.boots
        self.engine.tell(self.name, "power is back: it boots")
        self.engine.after(
            self.engine.between(2 * S, 6 * S), lambda: self.start_controller() if self.boots == boot else None
        )

    def shut_down(self) -> None:
        """An orderly shutdown: hand over or be let go, or after a while neither; address, database, goodbye, off."""
        if not self.is_running or self.is_leaving:
            return
        self.is_leaving = True
        self.poke()
        self.say_now()
        self._leave(self.life, self.engine.now + HAND_OVER_NS)

    def _leave(self, life: int, until: int) -> None:
        if life != self.life or not self.is_powered:
            self.is_leaving = False  # killed meanwhile
            return
        view = self.disk.view
        is_needed = view is not None and not view.is_solo and self.name in view.insync
        if (is_needed and self.engine.now < until) or self.frozen_at is not None:
            self.engine.after(20 * MS, partial(self._leave, life, until))
            return
        self.gate_open = self.address = False
        self.db.stop_orderly()
        self.say_now(is_bye=True)
        self.power_off()
        self.world.on_shut_down(self)

    def freeze(self, duration: int | None) -> None:
        """Nothing on this host runs for a while (None: for good), and nothing notices until after the thaw."""
        self.is_frozen_for_good = duration is None
        if not self.is_powered or self.frozen_at is not None:
            return
        self.frozen_at = self.engine.now
        self.engine.tell(self.name, f"freezes for {'good' if duration is None else f'{duration / 1e9:.1f} s'}")
        boots = self.boots
        if duration is not None:
            self.engine.after(duration, lambda: self._thaw() if self.boots == boots and self.is_powered else None)

    def _thaw(self) -> None:
        if self.frozen_at is None or self.is_frozen_for_good:
            return
        gap = self.engine.now - self.frozen_at
        self.frozen_at = None
        self.thawed_at = self.engine.now
        self.engine.tell(self.name, "thaws")
        deferred, self.deferred = self.deferred, []

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

    def _beat(self, life: int) -> None:
        """Send a heartbeat on every network, and again after h."""
        if life != self.life:
            return
        beat = partial(self._beat, life)
        if self.frozen_at is not None:
            self.deferred.append((life, beat))
            return
        self.engine.after(self.cfg.h, beat)
        calm, db = self.network.is_calm, self.db
        if db.stream is None or not calm or db.other.stream is not db.stream:
            db.tick()
        self._beats += 1
        if self.has_news or not calm or not self._is_known_to_other() or self._beats % WHOLE_EVERY == 0:
            self.say_now()
        else:
            self._say_the_same()

    def _is_known_to_other(self) -> bool:
        o = self.other
        return o.is_alive and o.frozen_at is None and o.v.said is self.said

    def _say_the_same(self) -> None:
        """The short way where nothing is wrong and nothing new: only the times of hearing and the log's end move on."""
        self._sent_at = sent_at = max(self.local(), self._sent_at + 1)
        v, mine = self.other.v, self.v
        now = self.other.local()
        v.newest_sent = sent_at
        v.heard_at = now
        v.rx_at[0] = v.rx_at[1] = now
        v.heard_sent[0] = v.heard_sent[1] = sent_at
        v.heard_flush = self.db.flush
        for i, echo in enumerate(mine.heard_sent):
            v.echo_at[i] = max(v.echo_at[i], echo)

    def say_now(self, *, is_bye: bool = False) -> None:
        """Compose a heartbeat and send it on every network."""
        net, other = self.network, self.other
        if not other.is_alive:
            return  # nobody is there to hear it
        self.said = self.senses.compose()
        self.has_news = False
        self._sent_at = max(self.local(), self._sent_at + 1)  # it is the heartbeat's number as well
        gram = Datagram(self.said, self.life, self._sent_at, (self.v.heard_sent[0], self.v.heard_sent[1]), is_bye)
        if net.is_calm:
            self.engine.after(net.delay(), partial(other.hear, gram, (0, 1)))
            return
        for i, network in enumerate(NETWORKS):
            if net.is_open(self.name, other.name, network):
                for delay in net.datagrams(self.name, other.name):
                    self.engine.after(delay, partial(other.hear, gram, (i,)))

    def hear(self, gram: Datagram, networks: tuple[int, ...]) -> None:
        """Take a heartbeat; when frozen, it lies in the socket until the thaw."""
        if not self.is_alive:
            return
        if self.frozen_at is not None:
            self.deferred.append((self.life, partial(self.hear, gram, networks)))
        elif self.v.take(gram, networks, now=self.local(), h=self.cfg.h):
            self.poke()

    # --- deciding ---

    def poke(self) -> None:
        """Decide soon: something changed."""
        self.has_news = True
        self._is_settled = False
        if self._is_poked or not self.is_alive:
            return
        self._is_poked = True
        self.engine.after(self.engine.between(MS // 10, 2 * MS), self._think_poked)

    def _think_poked(self) -> None:
        self._is_poked = False
        self.think()

    def think(self) -> None:
        """Decide, act, and look again when decide says so."""
        if not self.is_running:
            return
        now = self.local()
        v = self.v
        facts = self.senses.facts()
        d = decide(facts, now)
        view = facts.durable.view
        self.is_told_alone = view is not None and view.primary == self.name and is_safe_alone(facts)
        self.is_settled = self.is_settled and not self.is_told_alone
        before = v.decision
        v.decision, v.decided_at = d, self.engine.now
        rules = self.world.rules
        rules[d.rule] = rules.get(d.rule, 0) + 1
        if before is None or before.rule != d.rule:
            self.engine.tell(self.name, f"{d.rule}: {d.reason}")
        if d.may_act_outward and (before is None or not before.may_act_outward):
            self.world.checker.on_outward()
        assert d.wake_at > now
        for action in d.actions:
            self.world.executor.perform(self, action)
        self._is_settled = d.rule in SETTLED and d.is_protected and all(a == READ for a in d.actions)
        self._wake_token += 1
        self.later(self.true_delay(d.wake_at), partial(self._wake, self._wake_token))

    def _wake(self, token: int) -> None:
        if token != self._wake_token:
            return
        if self._is_settled and self.network.is_calm and self._is_undisturbed():
            self._doze()
        else:
            self.think()

    def _is_undisturbed(self) -> bool:
        """Nothing has changed since the last decision but that the other and W were heard again, as ever."""
        v, now, world, unconfirmed = self.v, self.local(), self.world, self.db.unconfirmed_at
        return (
            v.heard_at is not None
            and now - min(v.heard_at, *v.echo_at) < 2 * self.cfg.h
            and (unconfirmed is None or self.engine.now - unconfirmed < S // 2)
            and v.w_seen == world.w_changes
            and world.puts == 0
            and not v.is_reading
            and all(j.is_quick for j in world.jurors.values())
        )

    def _doze(self) -> None:
        """The short way through a pair that is well: W is read again with the same answer, and nothing follows.

        With `is_checking` it is asserted that the production decision is the same as before.
        """
        v, now = self.v, self.local()
        if self.world.is_checking:
            d = decide(self.senses.facts(), now)
            assert v.decision is not None and d.rule == v.decision.rule, f"{d.rule} while dozing"
            assert all(a == READ for a in d.actions), f"{d.actions} while dozing"
            assert word(self.senses.facts()) == self.senses.compose(), "the heartbeat is not what production says"
        if v.w_asked_at is None or now - v.w_asked_at >= READ_EVERY_NS:
            v.w_asked_at = v.w_read_at = v.w_contact_at = now
        v.decided_at = self.engine.now
        self._wake_token += 1
        due = self.true_delay(v.w_asked_at + READ_EVERY_NS)
        self.later(due, partial(self._wake, self._wake_token))

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
