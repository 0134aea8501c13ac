"""The kinds of faults: each names itself in the story, does something to the world and takes it back later.

When they strike and which of them a seed may use is in faults.py.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from futago.cluster.model import Durable, Op, OpKind, PgState
from futago.sim.engine import MS, S
from futago.sim.network import HEARTBEAT, NETWORKS, SERVICE, Path

if TYPE_CHECKING:
    from futago.sim.faults import Faults
    from futago.sim.member import SimMember

PAUSES_NS = (S // 2, S, 5 * S, 30 * S)


def _power_cut(f: Faults) -> None:
    m = f.member()
    if not m.is_powered:
        return
    f.say(f"power of {m.name} is cut")
    m.power_off()
    if f.engine.chance(0.7):
        f.later(2 * S, 20 * S, m.power_on)


def _power_cut_both(f: Faults) -> None:
    """Both at once; they come back in either order, together, or one of them alone."""
    f.say("power of both members is cut")
    first, second = f.engine.random.sample(f.world.members, 2)
    for m in (first, second):
        f.engine.after(f.engine.between(0, 300 * MS), m.power_off)
    f.later(2 * S, 8 * S, first.power_on)
    if f.engine.chance(0.7):
        f.later(2 * S, 20 * S, second.power_on)


def _shutdown(f: Faults) -> None:
    m = f.member()
    if not m.is_running:
        return
    f.say(f"{m.name} is rebooted in order")
    m.shut_down()


def _freeze(f: Faults) -> None:
    m = f.member()
    if not m.is_powered or m.frozen_at is not None:
        return
    f.say(f"{m.name} is frozen")
    m.freeze(int(f.engine.random.choice(PAUSES_NS) * (0.8 + 0.4 * f.engine.chance_of())))


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


def _postmaster_killed(f: Faults) -> None:
    """The postmaster alone: a busy session goes on for a while, and until it ends nothing can be started."""
    m = f.member()
    db = m.db
    if not db.is_running or db.state is not PgState.PRIMARY:
        return
    f.say(f"postmaster of {m.name} is killed; a session of it goes on")
    instance = db.instance
    db.state = PgState.HUNG
    db.on_change()
    f.engine.after(f.engine.between(0, 5 * S // 2), lambda: db.stop(PgState.DIED) if db.instance == instance else None)


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
    f.engine.after(f.engine.between(2 * S, 15 * S), again)


def _data_disk_hangs(f: Faults) -> None:
    """Hanging I/O: nothing is written, nothing answers, and no process on it can be killed."""
    m = f.member()
    f.say(f"data volume of {m.name} hangs")
    _hang(f, m, f.engine.between(S, 10 * S))


def _hang(f: Faults, m: SimMember, duration: int) -> None:
    m.db.disk_free_at = f.engine.now + duration
    m.disk_hung_at = f.engine.now

    def again() -> None:
        m.disk_hung_at = None
        m.poke()

    f.engine.after(duration, again)
    f.engine.after(S + MS, m.poke)


def _data_disk_fails(f: Faults) -> None:
    """I/O errors, or a primary's disk is full: the server panics at its next write and cannot start before that is over."""
    m = f.member()
    f.say(f"data volume of {m.name} answers with errors")
    m.db.is_disk_broken = True
    m.poke()
    db, instance = m.db, m.db.instance
    f.engine.after(
        f.engine.between(MS, S), lambda: db.stop(PgState.DIED) if db.is_running and db.instance == instance else None
    )

    def mended() -> None:
        db.is_disk_broken = False
        m.poke()

    f.later(2 * S, 15 * S, mended)


def _one_io_error(f: Faults) -> None:
    """One error that the database outlives, or that ends it: the disk answers again, and its data are not trusted."""
    m = f.member()
    f.say(f"one read or write on the data volume of {m.name} fails")
    m.db.is_suspect = True
    if f.engine.chance(0.3) and m.db.is_running:
        m.db.stop(PgState.DIED)
    m.poke()


def _standby_disk_full(f: Faults) -> None:
    m = next((m for m in f.world.members if m.db.state is PgState.STANDBY), None)
    if m is None:
        return
    f.say(f"disk of the standby {m.name} is full")
    duration = f.engine.between(3 * S, 15 * S)
    if f.engine.chance(0.5):
        _hang(f, m, duration)
    else:  # it does not even notice
        m.db.disk_free_at = f.engine.now + duration


def _slow_disks(f: Faults) -> None:
    m = f.member()
    f.say(f"disks of {m.name} are slow")
    m.disk_slow_ns, m.db.disk_slow_ns = f.engine.between(50 * MS, 600 * MS), f.engine.between(20 * MS, S)

    def over() -> None:
        m.disk_slow_ns = m.db.disk_slow_ns = 0

    f.later(3 * S, 20 * S, over)


def _standby_is_busy(f: Faults) -> None:
    m = next((m for m in f.world.members if m.db.state is PgState.STANDBY), None)
    if m is None:
        return
    f.say(f"receiver of the standby {m.name} takes nothing")
    m.db.sender_free_at = f.engine.now + f.engine.between(S // 2, 6 * S)


def _data_lost(f: Faults) -> None:
    """A new disk: the database of one member is gone, while the other has everything. Once in a run."""
    if f.world.lost or not f.is_whole():
        return
    m = f.member()
    f.world.lost = m.name
    f.say(f"the data volume of {m.name} is replaced by an empty one")
    m.db.stop(PgState.ABSENT)
    m.db.wal, m.db.observed, m.db.forks, m.db.is_half_made = [], 0, (), False
    m.db.has_signal = False


def _memory_lost(f: Faults) -> None:
    """A new system disk: views and intents of one member are gone with its power, while the pair is whole. Once in a run."""
    if f.world.lost or not f.is_whole():
        return
    m = f.member()
    f.world.lost = m.name
    f.say(f"{m.name} loses power and its system disk")
    m.power_off()
    m.disk = Durable()
    f.later(2 * S, 10 * S, m.power_on)


def _system_disk_hangs(f: Faults) -> None:
    m = f.member()
    f.say(f"system disk of {m.name} hangs")
    m.disk_slow_until = f.engine.now + f.engine.between(S // 5, 6 * S)


def _checkpointer_stalls(f: Faults) -> None:
    m = f.member()
    f.say(f"checkpointer of {m.name} stalls")
    m.db.checkpointer_free_at = f.engine.now + f.engine.between(S // 2, 8 * S)


def _between(networks: tuple[str, ...], ways: tuple[tuple[str, str], ...]) -> list[Path]:
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


def _split(f: Faults) -> None:
    """The world falls into two halves: a member in each, and every juror in one of them or in both."""
    f.say("the members are parted, and the jury between them")
    ways = [("m1", "m2"), ("m2", "m1")]
    for juror in f.world.jurors:
        side = f.engine.random.choice(("m1", "m1", "m2", "m2", ""))
        if side:
            other = "m2" if side == "m1" else "m1"
            ways += [(juror, other), (other, juror)]
    f.cut(_between(NETWORKS, tuple(ways)), 2 * S, 15 * S)


def _swizzle(f: Faults) -> None:
    f.say("paths stop one by one and come back in another order")
    names = ["m1", "m2", *f.world.jurors]
    paths = [(a, b, n) for a in names for b in names if a != b and "m" in a + b for n in NETWORKS]
    f.engine.random.shuffle(paths)
    for path in paths[: f.engine.random.randint(4, 14)]:
        f.later(0, 6 * S, partial(f.cut, [path], S, 12 * S))


def _disorder(f: Faults) -> None:
    f.say("packets are lost, late, out of order, repeated")
    chance = f.engine.chance_of
    f.world.network.spoil(loss=chance() * 0.5, twice=chance() * 0.3, slow_ns=f.engine.between(0, 300 * MS))
    f.later(2 * S, 15 * S, f.world.network.spoil)


def _one_way_loss(f: Faults) -> None:
    a, b = f.engine.random.choice((("m1", "m2"), ("m2", "m1")))
    f.say(f"packets from {a} to {b} are lost now and then")
    network = f.world.network
    network.spoil_way(a, b, 0.2 + 0.7 * f.engine.chance_of())
    f.later(2 * S, 15 * S, lambda: network.spoil_way(a, b, 0.0))


def _clock(f: Faults) -> None:
    """The monotonic clock goes wrong by up to one in a hundred: twenty times what time daemons may slew."""
    m = f.member()
    rate = 1.0 + (f.engine.chance_of() - 0.5) * 0.02
    f.say(f"clock of {m.name} goes at {rate:.4f}")
    m.drift(rate)


def _member_from_jury(f: Faults) -> None:
    m = f.member()
    f.say(f"{m.name} does not reach the jury")
    ways = tuple(w for j in f.world.jurors for w in ((m.name, j), (j, m.name)))
    f.cut(_between((SERVICE,), ways), S, 20 * S)


def _juror_crashes(f: Faults) -> None:
    names = sorted(f.world.jurors)
    for name in f.engine.random.sample(names, f.engine.random.choice((1, 1, 2, len(names)))):
        juror = f.world.jurors[name]
        f.say(f"juror {name} crashes")
        juror.crash()
        f.later(S, 20 * S, juror.restore)


def _juror_disk(f: Faults) -> None:
    juror = f.world.jurors[f.engine.random.choice(sorted(f.world.jurors))]
    if f.engine.chance(0.5):
        f.say(f"disk of juror {juror.name} is full")
        juror.is_able = False
    else:
        f.say(f"disk of juror {juror.name} is slow")
        juror.slow_ns = f.engine.between(100 * MS, 2 * S)
    f.later(S, 20 * S, juror.restore)


def _juror_lost(f: Faults) -> None:
    """One juror comes back without its file; a majority keeps theirs."""
    if any(j.is_lost for j in f.world.jurors.values()):
        return
    juror = f.world.jurors[f.engine.random.choice(sorted(f.world.jurors))]
    f.say(f"juror {juror.name} loses its disk")
    juror.lose_disk()
    f.world.w_changes += 1


def _fence_wrong(f: Faults) -> None:
    m = f.member()
    kinds = ("fails", "hangs", "dies-with-host", "lies")
    m.fence_of_peer = f.engine.random.choice(kinds if m.cfg.authority == "register" else kinds[:3])
    f.say(f"the fence device that {m.name} uses: {m.fence_of_peer}")
    f.later(5 * S, 40 * S, lambda: setattr(m, "fence_of_peer", "works"))


def _double_shot(f: Faults) -> None:
    """Somebody powers both members off and on by hand, or an old order of a device comes late."""
    m = f.member()
    if m.is_powered:
        f.say(f"a late order of a power device hits {m.name}")
        m.power_off()
        f.later(S, 4 * S, m.power_on)


def _clients_cut(f: Faults) -> None:
    m = f.member()
    f.say(f"clients do not reach {m.name}")
    m.service_ok = False
    m.poke()

    def again() -> None:
        m.service_ok = True
        m.poke()

    f.later(2 * S, 15 * S, again)


def _manager(f: Faults) -> None:
    m = f.member()
    f.say(f"the manager of {m.name} does not answer")
    m.manager_ok = False
    m.poke()

    def again() -> None:
        m.manager_ok = True
        m.poke()

    f.later(2 * S, 8 * S, again)


def _operator(f: Faults, kind: OpKind) -> None:
    m = f.member()
    if not m.is_running or m.op.kind is not OpKind.NONE:
        return
    f.say(f"an operator asks {m.name}: {kind.value}")
    m.op = Op(kind, m.local())
    m.poke()


def _maintenance(f: Faults) -> None:
    m = f.member()
    if not m.is_running:
        return
    f.say(f"{m.name} is put into maintenance")
    f.world.maintain(m, on=True)

    def over() -> None:
        f.world.maintain(m if m.is_running else m.other, on=False)

    f.later(2 * S, 15 * S, over)


KINDS: dict[str, Callable[[Faults], None]] = {
    "power-cut": _power_cut,
    "power-cut-both": _power_cut_both,
    "late-shot": _double_shot,
    "shutdown": _shutdown,
    "freeze": _freeze,
    "clock": _clock,
    "controller-kill": _controller_kill,
    "controller-kills": _controller_kills,
    "postgres-kill": _postgres_kill,
    "postmaster-kill": _postmaster_killed,
    "postgres-hang": _postgres_hang,
    "data-disk-hangs": _data_disk_hangs,
    "data-disk-fails": _data_disk_fails,
    "one-io-error": _one_io_error,
    "data-lost": _data_lost,
    "memory-lost": _memory_lost,
    "standby-disk-full": _standby_disk_full,
    "standby-busy": _standby_is_busy,
    "slow-disks": _slow_disks,
    "system-disk-hangs": _system_disk_hangs,
    "checkpointer-stalls": _checkpointer_stalls,
    "partition": _partition,
    "one-way": _one_way,
    "one-way-loss": _one_way_loss,
    "one-network": _one_network,
    "isolation": _isolation,
    "split": _split,
    "swizzle": _swizzle,
    "disorder": _disorder,
    "member-from-jury": _member_from_jury,
    "juror-crashes": _juror_crashes,
    "juror-disk": _juror_disk,
    "juror-lost": _juror_lost,
    "fence-wrong": _fence_wrong,
    "clients-cut": _clients_cut,
    "manager": _manager,
    "maintenance": _maintenance,
    "switchover": lambda f: _operator(f, OpKind.SWITCHOVER),
    "recover": lambda f: _operator(f, OpKind.RECOVER),
}
