"""Directed scenarios: the situations that chance hardly ever meets, one by one, so that every rule of the table is seen at work.

Each begins with a quiet pair, does one or two definite things, and names the rules that must decide then. All invariants are checked as in any
schedule. Things that only a person can do (restore an old disk, open a gate by hand) are here and not among the random faults.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from futago.cluster.model import Durable, Epoch, Op, OpKind, PgState, View
from futago.sim.checks import Violation
from futago.sim.engine import MS, S
from futago.sim.member import SimMember
from futago.sim.world import NAMES, Result, Settings, World

FAULT_AT = 4 * S
SEED = 1


QUIET = Settings()


@dataclass(frozen=True, slots=True)
class Scenario:
    """One situation. `acts` are (seconds after the beginning, what is done)."""

    name: str
    rules: tuple[str, ...]
    acts: tuple[tuple[float, Callable[[World], None]], ...]
    settings: Settings = QUIET
    seconds: float = 20


def play(scenario: Scenario, *, is_telling: bool = False) -> Result:
    """Play one; the result is a violation also if a rule that it is for did not decide."""
    world = World(SEED, settings=scenario.settings, is_telling=is_telling)
    for at, act in scenario.acts:
        world.engine.at(FAULT_AT + int(at * S), lambda act=act: act(world))  # type: ignore[misc]
    result = Result(SEED, core="directed")
    try:
        world.engine.run_until(FAULT_AT + int(scenario.seconds * S))
    except Violation as broken:
        result.violation = f"{scenario.name}: {broken}"
    world.is_over = True
    missing = [r for r in scenario.rules if r not in world.rules]
    if missing and not result.violation:
        result.violation = f"{scenario.name}: {', '.join(missing)} did not decide"
    result.rules, result.story, result.simulated_s = world.rules, world.engine.story, world.engine.now / S
    return result


# --- what is done ---


def _a(w: World) -> SimMember:
    return w.members[0]


def _b(w: World) -> SimMember:
    return w.members[1]


def _off(i: int) -> Callable[[World], None]:
    def act(w: World) -> None:
        w.members[i].power_off()
        w.members[i].is_dead = True

    return act


def _ask(i: int, kind: OpKind) -> Callable[[World], None]:
    def act(w: World) -> None:
        m = w.members[i]
        m.op = Op(kind, m.local())
        m.poke()

    return act


def _data_gone(i: int) -> Callable[[World], None]:
    def act(w: World) -> None:
        db = w.members[i].db
        db.stop(PgState.ABSENT)
        db.wal, db.observed, db.forks, db.has_signal = [], 0, (), False

    return act


def _postgres_dies(i: int) -> Callable[[World], None]:
    return lambda w: w.members[i].db.stop(PgState.DIED)


def _as_soon_as(i: int, rule: str, act: Callable[[World], None]) -> Callable[[World], None]:
    """Wait until a member decides by this rule, then act."""

    def look(w: World) -> None:
        d = w.members[i].v.decision
        if d is not None and d.rule == rule:
            act(w)
        else:
            w.engine.after(10 * MS, lambda: look(w))

    return look


def _disk_errors(i: int) -> Callable[[World], None]:
    def act(w: World) -> None:
        m = w.members[i]
        m.db.is_disk_broken = True
        m.db.stop(PgState.DIED)

    return act


def _data_disk_hangs(i: int) -> Callable[[World], None]:
    def act(w: World) -> None:
        m = w.members[i]
        m.db.disk_free_at, m.disk_hung_at = w.engine.now + 30 * S, w.engine.now
        w.engine.after(S + MS, m.poke)

    return act


def _io_error(i: int) -> Callable[[World], None]:
    """One I/O error that nothing dies of."""

    def act(w: World) -> None:
        w.members[i].db.is_suspect = True
        w.members[i].poke()

    return act


def _disk_refuses(i: int) -> Callable[[World], None]:
    """The probe finds no room; what the database writes still fits."""

    def act(w: World) -> None:
        w.members[i].db.is_disk_broken = True
        w.members[i].poke()

    return act


def _postgres_hangs(i: int) -> Callable[[World], None]:
    def act(w: World) -> None:
        w.members[i].db.state = PgState.HUNG
        w.members[i].poke()

    return act


def _system_disk_hangs(i: int, seconds: int = 15) -> Callable[[World], None]:
    def act(w: World) -> None:
        w.members[i].disk_slow_until = w.engine.now + seconds * S

    return act


def _forget(i: int) -> Callable[[World], None]:
    """The system disk is replaced under a running database: view and intent are gone."""

    def act(w: World) -> None:
        m = w.members[i]
        m.disk = Durable()
        m.kill_controller(50 * MS)

    return act


def _forget_and_boot(i: int) -> Callable[[World], None]:
    def act(w: World) -> None:
        m = w.members[i]
        m.power_off()
        m.disk = Durable()
        w.engine.after(S, m.power_on)

    return act


def _old_disk(i: int) -> Callable[[World], None]:
    """The system disk is an old copy of itself."""

    def act(w: World) -> None:
        m = w.members[i]
        m.disk = Durable(view=View(Epoch(1), NAMES[0], frozenset(NAMES)))
        m.kill_controller(50 * MS)

    return act


def _gate_by_hand(i: int) -> Callable[[World], None]:
    def act(w: World) -> None:
        w.members[i].gate_open = True
        w.members[i].poke()

    return act


def _setting_by_hand(w: World) -> None:
    """Somebody takes the setting away that makes commits wait; the checkpointer has not made it true yet."""
    _a(w).db.setting = False
    _a(w).poke()


def _slow_system_disk(i: int) -> Callable[[World], None]:
    def act(w: World) -> None:
        w.members[i].disk_slow_ns = 450 * MS

    return act


def _freeze(i: int) -> Callable[[World], None]:
    return lambda w: w.members[i].freeze(None)


def _jury_off(w: World) -> None:
    for juror in w.jurors.values():
        juror.crash()
    w.w_changes += 1


def _no_device_works(w: World) -> None:
    for m in w.members:
        m.fence_of_peer = "fails"


def _reboot(i: int) -> Callable[[World], None]:
    def act(w: World) -> None:
        w.members[i].power_off()
        w.engine.after(S, w.members[i].power_on)

    return act


FENCE = Settings(authority="fence")
NO_DEVICE = Settings(authority="fence", has_fence=False)
NO_JURY = Settings(seats=0)

SCENARIOS: tuple[Scenario, ...] = (
    # --- an operator forces ---
    Scenario("force beside a living peer", ("T9.refuse-alive",), ((0, _ask(1, OpKind.FORCE_PRIMARY)),)),
    Scenario(
        "force without data",
        ("T9.refuse-empty",),
        ((0, _off(0)), (0, _data_gone(1)), (6, _ask(1, OpKind.FORCE_PRIMARY))),
    ),
    Scenario(
        "force where neither peer nor jury is left",
        ("T9.force", "S6.promote", "S10.peer-silent"),
        ((0, _jury_off), (0, _off(0)), (8, _ask(1, OpKind.FORCE_PRIMARY))),
    ),
    # --- memory lost, old copies ---
    Scenario("memory lost under a running primary", ("M1.stop", "M3.amnesia"), ((0, _forget(0)),)),
    Scenario("memory of the standby lost", ("M2.join", "R8.rejoin"), ((0, _forget_and_boot(1)),), seconds=30),
    Scenario(
        "memory and data of the primary lost, no third vote",
        ("B8.ask", "M5.grant"),
        ((0, _data_gone(0)), (0, _forget_and_boot(0))),
        NO_JURY,
        seconds=30,
    ),
    Scenario(
        "nobody tells a member without a view",
        ("M4.wait",),
        ((0, _off(0)), (0, _jury_off), (0, _forget_and_boot(1))),
        seconds=25,
    ),
    Scenario("old system disk of a winner", ("L1.foreign",), ((0, _off(1)), (6, _old_disk(0)))),
    Scenario(
        "memory of a lone winner lost, and forced",
        ("M6.alone", "T9.force"),
        ((0, _off(1)), (6, _forget_and_boot(0)), (18, _ask(0, OpKind.FORCE_PRIMARY))),
        seconds=30,
    ),
    # --- a disk that failed once ---
    Scenario("one I/O error on the standby", ("T3.grant", "R8.rejoin", "T5.publish"), ((0, _io_error(1)),), seconds=30),
    Scenario("one I/O error on the primary", ("T4.give", "R8.rejoin", "T5.publish"), ((0, _io_error(0)),), seconds=30),
    Scenario(
        "an I/O error on a lone primary that dies of it",
        ("S3.start",),
        ((0, _off(1)), (6, _io_error(0)), (6.5, _postgres_dies(0))),
    ),
    Scenario(
        "a member that follows runs out of room",
        ("R10.no-disk",),
        ((0, _reboot(1)), (0, _as_soon_as(1, "R4.follow", _disk_refuses(1)))),
        seconds=40,
    ),
    Scenario(
        "the primary's PostgreSQL dies while the standby freezes",
        ("T4.look",),
        ((0, _freeze(1)), (1, _postgres_dies(0))),
    ),
    # --- no third vote ---
    Scenario("no jury: the standby is lost", ("T1.no-vote",), ((0, _off(1)),), NO_JURY),
    Scenario("no jury: the primary is lost", ("T2.no-vote",), ((0, _off(0)),), NO_JURY),
    Scenario(
        "no jury: the standby is lost, then PostgreSQL",
        ("T7p.no-vote",),
        ((0, _off(1)), (0, _as_soon_as(0, "T1.no-vote", _postgres_dies(0)))),
        NO_JURY,
    ),
    Scenario(
        "no jury: the primary is lost, then PostgreSQL",
        ("T7s.no-vote",),
        ((0, _off(0)), (4, _postgres_dies(1))),
        NO_JURY,
    ),
    # --- the vote, and PostgreSQL dies in the middle of it ---
    Scenario(
        "no answer of the jury, then PostgreSQL dies (primary)",
        ("T1.wait-vote", "T7p.wait-vote"),
        ((0, _jury_off), (0, _off(1)), (0, _as_soon_as(0, "T1.wait-vote", _postgres_dies(0)))),
    ),
    Scenario(
        "no answer of the jury, then PostgreSQL dies (standby)",
        ("T2.wait-vote", "T7s.wait-vote"),
        ((0, _jury_off), (0, _off(0)), (6, _postgres_dies(1))),
    ),
    Scenario(
        "PostgreSQL dies while the primary notes that it will ask",
        ("T7p.intent", "T7p.cas"),
        ((0, _slow_system_disk(0)), (0, _off(1)), (0, _as_soon_as(0, "T1.intent", _postgres_dies(0)))),
    ),
    Scenario(
        "PostgreSQL dies while the standby notes that it will ask",
        ("T7s.intent", "T7s.cas"),
        ((0, _slow_system_disk(1)), (0, _off(0)), (0, _as_soon_as(1, "T2.intent", _postgres_dies(1)))),
    ),
    # --- data lost ---
    Scenario(
        "primary without data, standby gone",
        ("T7p.no-data",),
        ((0, _jury_off), (0, _off(1)), (0, _as_soon_as(0, "T1.wait-vote", _data_gone(0)))),
    ),
    Scenario("standby without data, primary gone", ("T7s.no-data",), ((0, _off(0)), (0, _data_gone(1)))),
    Scenario("primary without data, standby unfit", ("P1.no-data",), ((0, _disk_errors(1)), (0, _data_gone(0)))),
    Scenario(
        "handed over to a member whose data were lost in the same heartbeat",
        ("T4.give", "T4.return", "T5.publish"),
        ((0.02, _data_gone(1)), (0.03, _postgres_dies(0))),
        seconds=30,
    ),
    Scenario(
        "counted on again while its data are being replaced",
        ("T6.decline", "T5.publish"),
        (
            (0, _data_gone(1)),
            (0, _as_soon_as(0, "T5.barrier", _system_disk_hangs(0, 2))),
            (0, _as_soon_as(0, "T5.publish", _data_gone(1))),
        ),
        seconds=40,
    ),
    Scenario("lone primary without data", ("S1.no-data",), ((0, _off(1)), (6, _data_gone(0)))),
    Scenario(
        "the primary's data volume hangs, standby gone", ("T1.no-data",), ((0, _data_disk_hangs(0)), (0, _off(1)))
    ),
    Scenario("PostgreSQL hangs, standby unfit", ("P2.kill",), ((0, _disk_errors(1)), (0, _postgres_hangs(0)))),
    # --- hands on what is not theirs ---
    Scenario("the setting is taken away by hand", ("P4.enforce",), ((0, _setting_by_hand),)),
    Scenario("gate of a standby opened by hand", ("B1.stop",), ((0, _gate_by_hand(1)),)),
    Scenario(
        "gate of a member that comes back opened by hand", ("R1.stop",), ((0, _data_gone(1)), (4, _gate_by_hand(1)))
    ),
    Scenario("one member only", ("S9.no-peer",), (), Settings(has_peer=False)),
    # --- the system disk hangs when it is needed ---
    Scenario("system disk hangs, then the standby is lost", ("T1.unable",), ((0, _system_disk_hangs(0)), (0, _off(1)))),
    Scenario("system disk hangs, then the primary is lost", ("T2.unable",), ((0, _system_disk_hangs(1)), (0, _off(0)))),
    Scenario(
        "system disk hangs, the standby is lost, PostgreSQL dies",
        ("T7p.unable",),
        ((0, _system_disk_hangs(0)), (0, _off(1)), (0, _as_soon_as(0, "T1.unable", _postgres_dies(0)))),
    ),
    Scenario(
        "system disk hangs, the primary is lost, PostgreSQL dies",
        ("T7s.unable",),
        ((0, _system_disk_hangs(1)), (0, _off(0)), (4, _postgres_dies(1))),
    ),
    # --- the fence decides ---
    Scenario("fence: the standby is lost", ("F1.intent", "F1.delay", "F1.proved"), ((0, _off(1)),), FENCE),
    Scenario("fence: the primary is lost", ("F2.intent", "F2.proved"), ((0, _off(0)),), FENCE, seconds=30),
    Scenario("fence: the primary is frozen", ("F2.shoot", "F2.wait-shot"), ((0, _freeze(0)),), FENCE, seconds=40),
    Scenario("fence: the standby is frozen", ("F1.shoot", "F1.wait-shot"), ((0, _freeze(1)),), FENCE, seconds=30),
    Scenario("fence: no device for the standby", ("F1.no-device",), ((0, _off(1)),), NO_DEVICE),
    Scenario("fence: no device for the primary", ("F2.no-device",), ((0, _off(0)),), NO_DEVICE),
    Scenario(
        "fence: devices fail the primary", ("F1.failed",), ((0, _no_device_works), (0, _off(1))), FENCE, seconds=30
    ),
    Scenario(
        "fence: devices fail the standby", ("F2.failed",), ((0, _no_device_works), (0, _off(0))), FENCE, seconds=40
    ),
    Scenario(
        "fence: both lose power, one comes back", ("F2.not-met",), ((0, _off(0)), (0, _reboot(1))), FENCE, seconds=30
    ),
    Scenario(
        "fence: both lose power, the primary comes back",
        ("F1.not-met",),
        ((0, _off(1)), (0, _reboot(0))),
        FENCE,
        seconds=30,
    ),
    Scenario(
        "fence: system disk hangs, then the standby is lost",
        ("F1.unable",),
        ((0, _system_disk_hangs(0)), (0, _off(1))),
        FENCE,
    ),
    Scenario(
        "fence: system disk hangs, then the primary is lost",
        ("F2.unable",),
        ((0, _system_disk_hangs(1)), (0, _off(0))),
        FENCE,
    ),
    Scenario(
        "fence: primary without data, standby gone",
        ("F1.no-data",),
        ((0, _no_device_works), (0, _off(1)), (4, _data_gone(0))),
        FENCE,
    ),
    Scenario("fence: standby without data, primary gone", ("F2.no-data",), ((0, _off(0)), (0, _data_gone(1))), FENCE),
)
