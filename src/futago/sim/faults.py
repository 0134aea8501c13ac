"""The faults of a schedule: which kinds a seed may use at all (swarm), when, and for how long.

Every fault names itself in the story, does something to the world and takes it back later.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from futago.cluster.model import Op, OpKind, PgState
from futago.sim.engine import MS, S
from futago.sim.network import HEARTBEAT, NETWORKS, SERVICE

if TYPE_CHECKING:
    from futago.sim.member import SimMember
    from futago.sim.world import World

FAULTS_MIN, FAULTS_MAX = 3, 9


class Faults:
    """Draws and carries out the faults of one run."""

    def __init__(self, world: World, *, chaos_ns: int, is_quiet: bool = False) -> None:
        self.world = world
        self.engine = world.engine
        self.count = 0
        random = self.engine.random
        kinds = sorted(KINDS)
        self.enabled = [k for k in kinds if random.random() < 0.5] or [random.choice(kinds)]
        if is_quiet:
            return
        for _ in range(random.randint(FAULTS_MIN, FAULTS_MAX)):
            kind = random.choice(self.enabled)
            self.engine.at(self.engine.between(3 * S, chaos_ns - 5 * S), lambda kind=kind: self.strike(kind))  # type: ignore[misc]
        if random.random() < 0.5:  # faults love company: one more close to another
            first = self.engine.between(3 * S, chaos_ns - 8 * S)
            for _ in range(2):
                kind = random.choice(self.enabled)
                when = first + self.engine.between(0, 3 * S)
                self.engine.at(when, lambda kind=kind: self.strike(kind))  # type: ignore[misc]

    def strike(self, kind: str) -> None:
        """Let one fault happen, unless the chaos is over; another kind where this one finds nothing to break."""
        if self.world.is_healing:
            return
        before = self.count
        KINDS[kind](self)
        while self.count == before:
            KINDS[self.engine.random.choice(sorted(KINDS))](self)

    def say(self, what: str) -> None:
        """Count a fault and tell the story."""
        self.count += 1
        self.engine.tell("FAULT", what)

    def member(self) -> SimMember:
        """Pick a member; more often the one that serves."""
        a, b = self.world.members
        serving = a if a.db.is_primary else b
        return serving if self.engine.chance(0.6) else self.engine.random.choice((a, b))

    def later(self, low: int, high: int, act: Callable[[], None]) -> None:
        """Take something back after a while."""
        self.engine.after(self.engine.between(low, high), act)

    def cut(self, pairs: list[tuple[str, str, str]], low: int, high: int) -> None:
        """Cut one-way paths for a while."""
        network = self.world.network
        for path in pairs:
            network.cut(*path)

        def mend() -> None:
            for path in pairs:
                network.mend(*path)

        self.later(low, high, mend)


def _power_cut(f: Faults) -> None:
    m = f.member()
    if not m.is_powered:
        return
    f.say(f"power of {m.name} is cut")
    m.power_off()
    if f.engine.chance(0.7):
        f.later(2 * S, 20 * S, m.power_on)


def _power_cut_both(f: Faults) -> None:
    f.say("power of both members is cut")
    for m in f.world.members:
        f.engine.after(f.engine.between(0, 300 * MS), m.power_off)
        f.later(3 * S, 15 * S, m.power_on)


def _shutdown(f: Faults) -> None:
    m = f.member()
    if not m.is_running:
        return
    f.say(f"{m.name} is rebooted in order")
    m.shut_down()
    f.later(3 * S, 12 * S, m.power_on)


def _freeze(f: Faults) -> None:
    m = f.member()
    if not m.is_powered or m.frozen_at is not None:
        return
    f.say(f"{m.name} is frozen")
    m.freeze(f.engine.between(S // 2, 12 * S))


def _controller_kill(f: Faults) -> None:
    m = f.member()
    if not m.is_alive:
        return
    f.say(f"controller of {m.name} is killed")
    m.kill_controller(f.engine.between(50 * MS, 300 * MS) if f.engine.chance(0.7) else f.engine.between(S, 5 * S))


def _controller_kills(f: Faults) -> None:
    m = f.member()
    if not m.is_alive:
        return
    f.say(f"controller of {m.name} is killed again and again")
    for i in range(f.engine.random.randint(2, 5)):
        f.engine.after(
            i * f.engine.between(200 * MS, S), lambda: m.kill_controller(f.engine.between(50 * MS, 400 * MS))
        )


def _postgres_kill(f: Faults) -> None:
    m = f.member()
    if m.db.is_running:
        f.say(f"postgres of {m.name} is killed")
        m.db.stop(PgState.DIED)


def _postgres_hang(f: Faults) -> None:
    m = f.member()
    db = m.db
    if not db.is_running or db.state not in (PgState.PRIMARY, PgState.STANDBY):
        return
    f.say(f"postmaster of {m.name} is stopped; its sessions go on")
    instance, state = db.instance, db.state

    def noticed() -> None:
        if db.instance == instance and db.state is state:
            db.state = PgState.HUNG
            db.on_change()

    def again() -> None:
        if db.instance == instance and db.state is PgState.HUNG:
            db.state = state
            db.on_change()

    f.engine.after(S, noticed)
    f.later(2 * S, 15 * S, again)


def _data_disk_hangs(f: Faults) -> None:
    m = f.member()
    f.say(f"data volume of {m.name} hangs")
    duration = f.engine.between(S, 10 * S)
    m.db.disk_free_at = f.engine.now + duration
    m.disk_hung_at = f.engine.now

    def again() -> None:
        m.disk_hung_at = None
        m.poke()

    f.engine.after(duration, again)
    f.engine.after(S + MS, m.poke)


def _standby_disk_full(f: Faults) -> None:
    m = next((m for m in f.world.members if m.db.state is PgState.STANDBY), None)
    if m is None:
        return
    f.say(f"disk of the standby {m.name} is full")
    duration = f.engine.between(3 * S, 15 * S)
    m.db.disk_free_at = f.engine.now + duration
    if f.engine.chance(0.5):  # else it does not even notice
        m.disk_hung_at = f.engine.now
        f.engine.after(duration, lambda: setattr(m, "disk_hung_at", None))


def _system_disk_hangs(f: Faults) -> None:
    m = f.member()
    f.say(f"system disk of {m.name} hangs")
    m.disk_slow_until = f.engine.now + f.engine.between(S // 5, 6 * S)


def _checkpointer_stalls(f: Faults) -> None:
    m = f.member()
    f.say(f"checkpointer of {m.name} stalls")
    m.db.checkpointer_free_at = f.engine.now + f.engine.between(S // 2, 8 * S)


def _between(networks: tuple[str, ...], ways: tuple[tuple[str, str], ...]) -> list[tuple[str, str, str]]:
    return [(a, b, n) for a, b in ways for n in networks]


def _partition(f: Faults) -> None:
    f.say("members do not reach each other")
    f.cut(_between(NETWORKS, (("m1", "m2"), ("m2", "m1"))), S, 20 * S)


def _one_way(f: Faults) -> None:
    ways = ("m1", "m2") if f.engine.chance(0.5) else ("m2", "m1")
    f.say(f"{ways[1]} does not hear {ways[0]} any more")
    f.cut(_between(NETWORKS, (ways,)), S, 15 * S)


def _one_network(f: Faults) -> None:
    network = f.engine.random.choice(NETWORKS)
    f.say(f"{network} network between the members is down")
    f.cut(_between((network,), (("m1", "m2"), ("m2", "m1"))), S, 20 * S)


def _isolation(f: Faults) -> None:
    m = f.member()
    f.say(f"{m.name} is cut from everything")
    others = [m.other.name, *f.world.jurors, "clients"]
    ways = tuple(w for o in others for w in ((m.name, o), (o, m.name)))
    f.cut([*_between((SERVICE,), ways), *_between((HEARTBEAT,), ways[:2])], S, 20 * S)


def _swizzle(f: Faults) -> None:
    f.say("paths stop one by one and come back in another order")
    names = ["m1", "m2", *f.world.jurors]
    paths = [(a, b, n) for a in names for b in names if a != b and "m" in a + b for n in NETWORKS]
    f.engine.random.shuffle(paths)
    for path in paths[: f.engine.random.randint(4, 14)]:
        f.engine.after(f.engine.between(0, 6 * S), lambda path=path: f.cut([path], S, 12 * S))  # type: ignore[misc]


def _loss(f: Faults) -> None:
    f.say("packets are lost and late")
    network = f.world.network
    network.loss, network.slow_ns = f.engine.random.random() * 0.5, f.engine.between(0, 150 * MS)

    def over() -> None:
        network.loss, network.slow_ns = 0.0, 0

    f.later(2 * S, 15 * S, over)


def _member_from_jury(f: Faults) -> None:
    m = f.member()
    f.say(f"{m.name} does not reach the jury")
    ways = tuple(w for j in f.world.jurors for w in ((m.name, j), (j, m.name)))
    f.cut(_between((SERVICE,), ways), S, 20 * S)


def _juror_crashes(f: Faults) -> None:
    for name in f.engine.random.sample(sorted(f.world.jurors), f.engine.random.choice((1, 1, 2, 3))):
        juror = f.world.jurors[name]
        f.say(f"juror {name} crashes")
        juror.crash()
        f.later(S, 20 * S, lambda juror=juror: setattr(juror, "is_up", True))  # type: ignore[misc]


def _fence_fails(f: Faults) -> None:
    m = f.member()
    f.say(f"the fence device that {m.name} uses is dead")
    m.fence_of_peer_works = False
    f.later(5 * S, 40 * S, lambda: setattr(m, "fence_of_peer_works", True))


def _clients_cut(f: Faults) -> None:
    m = f.member()
    f.say(f"clients do not reach {m.name}")
    m.service_ok = False
    m.poke()

    def again() -> None:
        m.service_ok = True
        m.poke()

    f.later(2 * S, 15 * S, again)


def _switchover(f: Faults) -> None:
    m = f.member()
    if not m.is_running:
        return
    f.say(f"an operator asks {m.name} for a switchover")
    m.op = Op(OpKind.SWITCHOVER, m.local())
    m.poke()


KINDS: dict[str, Callable[[Faults], None]] = {
    "power-cut": _power_cut,
    "power-cut-both": _power_cut_both,
    "shutdown": _shutdown,
    "freeze": _freeze,
    "controller-kill": _controller_kill,
    "controller-kills": _controller_kills,
    "postgres-kill": _postgres_kill,
    "postgres-hang": _postgres_hang,
    "data-disk-hangs": _data_disk_hangs,
    "standby-disk-full": _standby_disk_full,
    "system-disk-hangs": _system_disk_hangs,
    "checkpointer-stalls": _checkpointer_stalls,
    "partition": _partition,
    "one-way": _one_way,
    "one-network": _one_network,
    "isolation": _isolation,
    "swizzle": _swizzle,
    "loss": _loss,
    "member-from-jury": _member_from_jury,
    "juror-crashes": _juror_crashes,
    "fence-fails": _fence_fails,
    "clients-cut": _clients_cut,
    "switchover": _switchover,
}
