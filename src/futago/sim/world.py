"""One run: the pair, its jury, its clients, a seed's faults, then healing of a core and what must come of it.

After the chaos a core is picked that must work: both members and W, both members alone, or one member and W. Only the core is healed; everything
else stays broken for good: off, frozen, or alive and cut from everything or from everybody's ears. Within a bound the core must serve, or say why it
must not.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from futago.cluster.model import Config, Durable, Epoch, Lsn, MemberName, Op, OpKind, PairState, PgState, View
from futago.register.ballot import value_of
from futago.register.model import Ballot
from futago.sim.checks import Checker, Violation
from futago.sim.clients import Writer
from futago.sim.engine import MS, Engine, S
from futago.sim.executor import Executor
from futago.sim.faults import Faults
from futago.sim.jury import SimJuror, roster_of
from futago.sim.member import SimMember
from futago.sim.messages import BATCH_BASE, Messages
from futago.sim.network import HEARTBEAT, SERVICE, Network

CHAOS_S = (8, 8, 10, 12, 15, 20, 30)
LOOK_NS = 100 * MS
STUCK_NS = 12 * S  # longer than every timer of the rules that may matter then
FORGOT = ("M3.amnesia", "M6.alone")  # what a member without memory says while nobody serves
HEAL_NS = 130 * S  # a base backup, its retries and the waiting times of every rule fit into this
NAMES = (MemberName("m1"), MemberName("m2"))


class Core(Enum):
    """Who must work after the chaos."""

    ALL = "both members and the third vote"
    PAIR = "both members without the third vote"
    FIRST = "m1 and the third vote"
    SECOND = "m2 and the third vote"


@dataclass(frozen=True, slots=True)
class Settings:
    """What the pair is set to: the default profile."""

    h: int = S // 5
    k: int = 10
    bias: int = 3 * S // 10
    fence_after: str = "on"
    recovery: str = "auto"
    seats: int = 3  # of the jury; 0: there is none
    authority: str = "register"
    has_fence: bool = True
    has_peer: bool = True
    probes_address: bool = False  # a standby asks the network who has the floating address
    haste: int = 1  # orders take so many times longer than measured on a quiet machine


def _any_settings(engine: Engine) -> Settings:
    random = engine.random
    h, k, bias = random.choice(((S // 5, 10, 3 * S // 10), (S // 10, 5, S // 5), (3 * S // 10, 15, 4 * S // 10)))
    after = "on" if random.random() < 0.7 else "stay_off"
    recovery = "auto" if random.random() < 0.8 else "manual"
    authority = "register" if random.random() < 0.8 else "fence"
    return Settings(
        h=h,
        k=k,
        bias=bias,
        fence_after=after,
        recovery=recovery,
        seats=random.choice((3, 3, 5)),
        authority=authority,
        probes_address=random.random() < 0.5,
        haste=random.choice((1, 1, 1, 2, 4)),
    )


@dataclass(slots=True)
class Result:
    """What one run showed."""

    seed: int
    violation: str = ""
    core: str = ""
    faults: int = 0
    enabled: list[str] = field(default_factory=list)
    acks: int = 0
    epochs: int = 0
    simulated_s: float = 0.0
    rules: dict[str, int] = field(default_factory=dict)
    rungs: dict[str, int] = field(default_factory=dict)
    kinds: dict[str, int] = field(default_factory=dict)  # how often each kind of fault struck
    messages: int = 0
    story: list[tuple[int, str, str]] = field(default_factory=list)


class World:
    """Everything of one run."""

    def __init__(
        self, seed: int, *, chaos_ns: int | None = None, is_telling: bool = False, settings: Settings | None = None
    ) -> None:
        """Make the world of one seed; with `settings` it is a quiet one, to which nothing happens by itself."""
        self.engine = Engine(seed, is_telling=is_telling)
        self.seed = seed
        self.network = Network(self.engine)
        self.checker = Checker(self.engine, lambda: self.members)
        self.rules: dict[str, int] = {}
        self.rungs: dict[str, int] = {}
        self.is_healing = self.is_over = False
        self.is_synced = True  # both journals are complete on both members, as both say
        self.is_forced = False  # an operator forced a member to serve
        self.lost = ""  # the member that has lost a disk for good in this run
        self.puts = 0  # into the register, under way
        self.w_changes = 0  # how often the register may have changed
        self.is_checking = False  # short ways are compared with the long ones
        self._number = self._stuck_looks = 0
        x = settings or _any_settings(self.engine)
        self.settings = x
        self.chaos_ns = chaos_ns or self.engine.random.choice(CHAOS_S) * S
        self.has_jury = x.seats > 0 and x.authority == "register"
        self.roster = roster_of(x.seats or 3)
        self.jurors = {seat.name: SimJuror(self.engine, seat) for seat in self.roster.jurors}
        self.executor = Executor(self)
        self.members = self._make_members(x)
        self.messages = Messages(self)
        self.writers = [Writer(self, "c1", is_stray=False), Writer(self, "c2", is_stray=True)]
        self._start()
        self.faults = Faults(self, chaos_ns=self.chaos_ns, is_quiet=settings is not None)
        self.core = self.engine.random.choice(list(Core))
        self.engine.tell("WORLD", f"seed {seed}: {x}; faults that may happen: {', '.join(self.faults.enabled)}")

    def _make_members(self, x: Settings) -> tuple[SimMember, SimMember]:
        members = [
            SimMember(
                self,
                name,
                peer,
                Config(
                    name,
                    peer,
                    x.h,
                    x.k,
                    x.bias,
                    t_stall=2 * S,
                    authority=x.authority,
                    fence_after=x.fence_after,
                    recovery=x.recovery,
                    has_peer=x.has_peer,
                ),
            )
            for name, peer in (NAMES, NAMES[::-1])
        ]
        members[0].other, members[1].other = members[1], members[0]
        members[0].db.other, members[1].db.other = members[1].db, members[0].db
        for m in members:
            m.haste = x.haste
            m.has_fence = x.has_fence
        return members[0], members[1]

    def _start(self) -> None:
        """A healthy pair: m1 serves, m2 follows, the jury knows."""
        view = View(Epoch(1), NAMES[0], frozenset(NAMES if self.settings.has_peer else NAMES[:1]), floor=Lsn(1))
        first, second = self.members
        for juror in self.jurors.values():
            state = juror.state.__class__
            juror.state = state(
                pair_id=juror.state.pair_id,
                acceptor_id=juror.state.acceptor_id,
                roster=1,
                promised=Ballot(1, "m1", 1),
                accepted=Ballot(1, "m1", 1),
                value=value_of(view, roster=1),
            )
        for m in self.members:
            m.disk = Durable(view=view)
        self.checker.see_view(view)
        first.db.run_as(PgState.PRIMARY, waits=self.settings.has_peer)
        if self.settings.has_peer:
            second.db.run_as(PgState.STANDBY, waits=False)
            second.db.try_connect()
        else:
            second.is_powered = False
        first.gate_open = first.address = True
        for m in self.members:
            m.start_controller()

    def next_number(self) -> int:
        """A number for a client's row, never used before."""
        self._number += 1
        assert self._number < BATCH_BASE
        return self._number

    def on_shut_down(self, m: SimMember) -> None:
        """An orderly shutdown has ended: somebody starts the machine again."""
        if not self.is_healing:
            self.engine.after(self.engine.between(S, 10 * S), m.power_on)

    def maintain(self, m: SimMember, *, on: bool) -> None:
        """An operator's sign on one member; the other learns of it if it can, and the last word of a silent one counts no more."""
        for each in (m, m.other):
            if each is m or self.is_healing or self.network.is_joined(m.name, m.other.name):
                each.maintenance = on
                if not on:
                    each.v.forget_sign()
                each.poke()

    # --- the run ---

    def run(self) -> Result:
        """Chaos, healing, judgement."""
        result = Result(self.seed)
        try:
            self.engine.run_until(self.chaos_ns)
            self._heal()
            self.engine.after(LOOK_NS, self._look)
            self.engine.run_until(self.chaos_ns + HEAL_NS)
            self._judge()
        except Violation as broken:
            result.violation = str(broken)
        self.is_over = True
        result.core = self.core.value
        result.faults = self.faults.count
        result.kinds = self.faults.struck
        result.enabled = self.faults.enabled
        result.acks = self.checker.acks_total
        result.messages = sum(sum(c.values()) for c in self.messages.received.values())
        result.epochs = max((m.disk.view.epoch for m in self.members if m.disk.view is not None), default=0)
        result.simulated_s = self.engine.now / S
        result.rules, result.rungs = self.rules, self.rungs
        result.story = self.engine.story
        return result

    def _look(self) -> None:
        """Enough has been seen when all is well, or when a lone member has said for long why it must not serve."""
        self._stuck_looks = self._stuck_looks + 1 if self._is_rightly_blocked() else 0
        if self._is_well_now() or self._stuck_looks * LOOK_NS >= STUCK_NS:
            self.engine.is_stopped = True
        else:
            self.engine.after(LOOK_NS, self._look)

    def _is_rightly_blocked(self) -> bool:
        """The only member that works must not serve, and says why and what to do."""
        if self.core not in (Core.FIRST, Core.SECOND):
            return False
        m = self.members[0] if self.core is Core.FIRST else self.members[1]
        return self._says_why(m) and not self._may_serve(m)

    def _says_why(self, m: SimMember) -> bool:
        """It is blocked and names a command; or it asks a fence device that decides, again and again."""
        d = m.v.decision
        return d is not None and (d.rule.startswith("F") or (d.state is PairState.BLOCKED and bool(d.command)))

    def _heal(self) -> None:
        """Mend the core, and break the rest for good."""
        self.is_healing = True
        self.engine.tell("WORLD", f"the chaos ends; from now on only this works: {self.core.value}")
        self.network.mend_all()
        core = [m for m in self.members if not self._is_outside(m)]
        for m in self.members:
            m.disk_slow_until, m.disk_slow_ns, m.disk_hung_at = 0, 0, None
            m.db.disk_free_at = m.db.disk_slow_ns = m.db.checkpointer_free_at = m.db.sender_free_at = 0
            m.db.is_disk_broken = False
            m.service_ok = m.manager_ok = True
            m.fence_of_peer = "works" if len(core) == 2 else self.engine.random.choice(("fails", "hangs", "works"))
            m.op = Op()
            m.poke()
            if m in core:
                m.power_on()
                self.engine.after(20 * S, lambda m=m: self._operate(m))  # type: ignore[misc]
            else:
                self._break_for_good(m)
        self.maintain(self.members[0], on=False)
        for juror in self.jurors.values():
            if self.core is Core.PAIR:
                juror.crash()
            else:
                juror.restore()

    def _break_for_good(self, m: SimMember) -> None:
        """A member outside the core: off, frozen, cut off, or heard by nobody."""
        how = self.engine.random.choice(("off", "off", "frozen", "cut", "mute"))
        self.engine.tell("WORLD", f"{m.name} stays {how}")
        if how == "off":
            m.power_off()
            m.is_dead = True
        elif how == "frozen":
            m.freeze(None)
        else:
            m.power_on()
            for other in (m.other.name, *self.jurors, "clients"):
                for network in (SERVICE, HEARTBEAT):
                    self.network.cut(m.name, other, network)
                    if how == "cut":
                        self.network.cut(other, m.name, network)

    def _operate(self, m: SimMember) -> None:
        """An operator repairs what is left to an operator, and looks again after a while."""
        m.power_on()
        self.engine.after(20 * S, lambda: self._operate(m))
        if self.is_over or not m.is_running:
            return
        if self.members[0].maintenance or self.members[1].maintenance or m.v.hears_sign:
            self.maintain(m, on=False)
        if self._is_for_a_person():
            self._force()
        elif m.cfg.recovery == "manual":
            m.op = Op(OpKind.RECOVER, m.local())
            m.poke()

    def _is_for_a_person(self) -> bool:
        """A member lost its memory, and before the other one could go on without it that one failed, too."""
        rules = {m.name: m.v.decision.rule for m in self.members if m.is_running and m.v.decision is not None}
        is_late = self.engine.now > self.chaos_ns + 30 * S
        return is_late and rules.get(MemberName(self.lost)) in FORGOT and not self._is_serving()

    def _force(self) -> None:
        """What an operator does who knows where all data are: power the other one off, force this one, bring the other back."""
        acked = self.checker.acked | self.checker.shown
        holder = next((m for m in self.members if m.db.state is not PgState.ABSENT and acked <= set(m.db.wal)), None)
        if self.is_forced or holder is None or self._is_outside(holder):
            return
        self.is_forced = True
        self.engine.tell("WORLD", f"an operator powers {holder.other.name} off and forces {holder.name}")
        holder.other.power_off()
        holder.other.is_dead = True

        def force() -> None:
            holder.op = Op(OpKind.FORCE_PRIMARY, holder.local())
            holder.poke()

        def back() -> None:
            holder.other.is_dead = self._is_outside(holder.other)

        self.engine.after(8 * S, force)
        self.engine.after(12 * S, back)

    def _is_outside(self, m: SimMember) -> bool:
        return (self.core is Core.FIRST and m.name == NAMES[1]) or (self.core is Core.SECOND and m.name == NAMES[0])

    def _is_serving(self) -> bool:
        """The first writer, which uses the floating address, has been acknowledged since the healing."""
        return self.writers[0].acked_at > self.chaos_ns + 100 * MS

    def _is_well_now(self) -> bool:
        if self.core in (Core.ALL, Core.PAIR) and not self._is_paired():
            return False
        return self._is_serving() and self._are_messages_in()

    def _is_paired(self) -> bool:
        a, b = (m.v.decision for m in self.members)
        if a is None or b is None or not (a.state is b.state is PairState.PAIRED):
            return False
        is_known = self.core is Core.PAIR or (a.is_protected and b.is_protected)
        return is_known and self.members[0].disk.view == self.members[1].disk.view

    def _are_messages_in(self) -> bool:
        """What the serving member can know of has had its effect."""
        serving = [m for m in self.members if m.is_running and m.v.decision is not None and m.v.decision.is_serving]
        primary = serving[0] if serving else None
        return primary is not None and not self.messages.missing(primary, everything=self.core is Core.ALL)

    def _judge(self) -> None:
        """L1, L2: the core works, or says why it must not. S4: messages had their effect once."""
        for m in self.members:
            if len(set(m.db.wal)) != len(m.db.wal):
                self.checker.fail("S4", f"a commit is twice on {m.name}")
            wrong = self.messages.wrong(m)
            if wrong:
                self.checker.fail("S4", wrong)
            if m.v.decision is not None and m.v.decision.is_serving and m.is_running:
                lacks = self.messages.lost(m)
                if lacks:
                    self.checker.fail("S3", f"{m.name} serves and lacks messages {lacks[:5]}, which were acknowledged")
        if self._is_well_now():
            return
        blocked = [m for m in self.members if m.v.decision and m.v.decision.state is PairState.BLOCKED]
        if self.core in (Core.FIRST, Core.SECOND):
            m = self.members[0] if self.core is Core.FIRST else self.members[1]
            if not self._may_serve(m):
                if not self._says_why(m):
                    self.checker.fail("L1", f"{m.name} must not serve, and says neither why nor what to do")
                return
        elif self.core is Core.PAIR and blocked and all(m.v.decision and m.v.decision.command for m in blocked):
            return
        says = "; ".join(f"{m.name}: {m.v.decision.rule}" for m in self.members if m.v.decision)
        what = "serve" if not self._is_serving() else "be protected again"
        self.checker.fail("L2" if self._is_serving() else "L1", f"the core does not {what}: {says}")

    def _may_serve(self, m: SimMember) -> bool:
        """Must this lone member serve? The newest view that it can learn of counts on it, and its data may be chosen.

        A view that only the lost member had written is no promise: the pair was not protected yet.
        """
        own, db = m.disk.view, m.db
        if own is None or db.state is PgState.ABSENT:
            return False  # what it promised nobody knows; or there is nothing to serve from
        newest = max((own, *self._register_views()), key=lambda v: v.epoch)
        if m.name not in newest.insync:
            return False
        if newest.is_solo:
            return True
        if db.is_suspect and db.state is not PgState.PRIMARY:
            return False  # its data are not trusted, and the other one may have better ones; one that serves goes on
        return self.settings.authority == "register" or self._may_shoot(m)

    def _register_views(self) -> list[View]:
        """What the jurors hold, each."""
        if not self.has_jury:
            return []
        held = [j.state.value for j in self.jurors.values() if j.state.value is not None]
        return [View(Epoch(x.epoch), MemberName(x.primary), frozenset(map(MemberName, x.insync))) for x in held]

    def _may_shoot(self, m: SimMember) -> bool:
        """Where the fence decides: the device works, and in this boot both have agreed on the view."""
        return (
            m.has_fence and m.fence_of_peer == "works" and m.disk.view is not None and m.met_epoch == m.disk.view.epoch
        )


def run_seed(seed: int, *, chaos_ns: int | None = None, is_telling: bool = False) -> Result:
    """Run one schedule; the same seed gives the same run."""
    return World(seed, chaos_ns=chaos_ns, is_telling=is_telling).run()
