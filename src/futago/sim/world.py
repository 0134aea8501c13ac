"""One run: the pair, its jury, its clients, a seed's faults, then healing of a core and what must come of it.

After the chaos a core is picked that must work: both members and W, both members alone, or one member and W. Only the core is healed; everything
else stays broken for good. Within a bound the core must serve, or say why it must not.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from futago.cluster.model import Config, Durable, Epoch, Lsn, MemberName, Op, OpKind, PairState, PgState, View
from futago.register.ballot import value_of
from futago.register.model import Ballot
from futago.sim.checks import Checker, Violation
from futago.sim.clients import MESSAGE_BASE, Messages, Writer
from futago.sim.engine import MS, Engine, S
from futago.sim.executor import Executor
from futago.sim.faults import Faults
from futago.sim.jury import ROSTER, SimJuror
from futago.sim.member import SimMember
from futago.sim.network import Network

CHAOS_NS = 60 * S
HEAL_NS = 90 * S  # a base backup, its retries and the waiting times of every rule fit into this
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


def _any_settings(engine: Engine) -> Settings:
    random = engine.random
    h, k, bias = random.choice(((S // 5, 10, 3 * S // 10), (S // 10, 5, S // 5), (3 * S // 10, 15, 4 * S // 10)))
    after = "on" if random.random() < 0.7 else "stay_off"
    return Settings(h, k, bias, after, "auto" if random.random() < 0.8 else "manual")


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
    story: list[tuple[int, str, str]] = field(default_factory=list)


class World:
    """Everything of one run."""

    def __init__(
        self, seed: int, *, chaos_ns: int = CHAOS_NS, is_telling: bool = False, settings: Settings | None = None
    ) -> None:
        """Make the world of one seed; with `settings` it is a quiet one, to which nothing happens by itself."""
        self.engine = Engine(seed, is_telling=is_telling)
        self.network = Network(self.engine)
        self.checker = Checker(self.engine, lambda: self.members)
        self.rules: dict[str, int] = {}
        self.is_healing = self.is_over = False
        self.rewind_did_nothing: dict[str, bool] = {}
        self.chaos_ns = chaos_ns
        self._number = 0
        self.jurors = {seat.name: SimJuror(self.engine, seat) for seat in ROSTER.jurors}
        self.executor = Executor(self)
        self.members = self._make_members(settings or _any_settings(self.engine))
        self.messages = [Messages(self, m, i) for i, m in enumerate(self.members)]
        self.writers = [Writer(self, "c1", is_stray=False), Writer(self, "c2", is_stray=True)]
        self._start()
        self.faults = Faults(self, chaos_ns=chaos_ns, is_quiet=settings is not None)
        self.core = self.engine.random.choice(list(Core))

    def _make_members(self, x: Settings) -> tuple[SimMember, SimMember]:
        members = [
            SimMember(
                self,
                name,
                peer,
                Config(name, peer, x.h, x.k, x.bias, t_stall=2 * S, fence_after=x.fence_after, recovery=x.recovery),
            )
            for name, peer in (NAMES, NAMES[::-1])
        ]
        members[0].other, members[1].other = members[1], members[0]
        members[0].db.other, members[1].db.other = members[1].db, members[0].db
        return members[0], members[1]

    def _start(self) -> None:
        """A healthy pair: m1 serves, m2 follows, the jury knows."""
        view = View(Epoch(1), NAMES[0], frozenset(NAMES), floor=Lsn(1))
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
        first.db.run_as(PgState.PRIMARY, waits=True)
        second.db.run_as(PgState.STANDBY, waits=False)
        second.db.try_connect()
        first.gate_open = first.address = True
        for m in self.members:
            m.start_controller()

    def next_number(self) -> int:
        """A number for a client's row, never used before."""
        self._number += 1
        assert self._number < MESSAGE_BASE
        return self._number

    # --- the run ---

    def run(self) -> Result:
        """Chaos, healing, judgement."""
        result = Result(self.engine.random.getrandbits(1))
        try:
            self.engine.run_until(self.chaos_ns)
            self._heal()
            self.engine.run_until(self.chaos_ns + HEAL_NS, stop=self._is_well_now)
            self._judge()
        except Violation as broken:
            result.violation = str(broken)
        self.is_over = True
        result.core = self.core.value
        result.faults = self.faults.count
        result.enabled = self.faults.enabled
        result.acks = self.checker.acks_total
        result.epochs = max(m.disk.view.epoch for m in self.members if m.disk.view is not None)
        result.simulated_s = self.engine.now / S
        result.rules = self.rules
        result.story = self.engine.story
        return result

    def _heal(self) -> None:
        """Mend the core, and break the rest for good."""
        self.is_healing = True
        self.engine.tell("WORLD", f"the chaos ends; from now on only this works: {self.core.value}")
        self.network.mend_all()
        core = [m for m in self.members if not self._is_outside(m)]
        for m in self.members:
            m.disk_slow_until, m.db.disk_free_at, m.disk_hung_at = 0, 0, None
            m.db.checkpointer_free_at = 0
            m.service_ok = True
            m.fence_of_peer_works = len(core) == 2
            m.op = Op()
            if m in core:
                m.power_on()
                self.engine.after(20 * S, lambda m=m: self._operate(m))  # type: ignore[misc]
            else:
                m.power_off()
        for juror in self.jurors.values():
            if self.core is Core.PAIR:
                juror.crash()
            else:
                juror.is_up = True
        self._healed_acks = [w.acked_at for w in self.writers]

    def _operate(self, m: SimMember) -> None:
        """An operator repairs what is left to an operator, and looks again after a while."""
        m.power_on()
        self.engine.after(20 * S, lambda: self._operate(m))
        if not self.is_over and m.is_running and m.cfg.recovery == "manual":
            m.op = Op(OpKind.RECOVER, m.local())
            m.poke()

    def _is_outside(self, m: SimMember) -> bool:
        return (self.core is Core.FIRST and m.name == NAMES[1]) or (self.core is Core.SECOND and m.name == NAMES[0])

    def _is_serving(self) -> bool:
        """The first writer, which uses the floating address, has been acknowledged since the healing."""
        return self.writers[0].acked_at > self.chaos_ns + 100 * MS

    def _is_well_now(self) -> bool:
        if self.core in (Core.ALL, Core.PAIR) and not self._is_paired():
            return False
        return self._is_serving() and (self.core is not Core.ALL or self._are_messages_in())

    def _is_paired(self) -> bool:
        a, b = (m.v.decision for m in self.members)
        if a is None or b is None or not (a.state is b.state is PairState.PAIRED):
            return False
        is_known = self.core is Core.PAIR or (a.is_protected and b.is_protected)
        return is_known and self.members[0].disk.view == self.members[1].disk.view

    def _are_messages_in(self) -> bool:
        primary = next((m for m in self.members if m.db.is_primary), None)
        have = set() if primary is None else set(primary.db.wal)
        return all(n in have for journal in self.messages for n in range(journal.base, journal.base + journal.own - 2))

    def _judge(self) -> None:
        """L1, L2: the core works, or says why it must not."""
        for m in self.members:
            if len(set(m.db.wal)) != len(m.db.wal):
                self.checker.fail("S4", f"a message was counted twice on {m.name}")
        if self._is_well_now():
            return
        blocked = [m for m in self.members if m.v.decision and m.v.decision.state is PairState.BLOCKED]
        if self.core in (Core.FIRST, Core.SECOND):
            m = self.members[0] if self.core is Core.FIRST else self.members[1]
            if not self._may_serve(m):
                d = m.v.decision
                if d is None or d.state is not PairState.BLOCKED or not d.command:
                    self.checker.fail("L1", f"{m.name} must not serve, and says neither why nor what to do")
                return
        elif self.core is Core.PAIR and blocked and all(m.v.decision and m.v.decision.command for m in blocked):
            return
        says = "; ".join(f"{m.name}: {m.v.decision.rule}" for m in self.members if m.v.decision)
        what = "serve" if not self._is_serving() else "be protected again"
        self.checker.fail("L2" if self._is_serving() else "L1", f"the core does not {what}: {says}")

    def _may_serve(self, m: SimMember) -> bool:
        """The newest view that this member can learn of counts on it, and it has data.

        A view that only the lost member had written is no promise: the pair was not protected yet.
        """
        views = [m.disk.view] if m.disk.view is not None else []
        for juror in self.jurors.values():
            value = juror.state.value
            if value is not None:
                views.append(
                    View(Epoch(value.epoch), MemberName(value.primary), frozenset(map(MemberName, value.insync)))
                )
        newest = max(views, key=lambda v: v.epoch)
        return m.name in newest.insync and m.db.state is not PgState.ABSENT


def run_seed(seed: int, *, chaos_ns: int = CHAOS_NS, is_telling: bool = False) -> Result:
    """Run one schedule; the same seed gives the same run."""
    result = World(seed, chaos_ns=chaos_ns, is_telling=is_telling).run()
    result.seed = seed
    return result
