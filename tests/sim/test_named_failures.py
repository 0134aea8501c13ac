"""One failure at a time, by name: service resumes within its bound, nobody is asked, and the pair finds together again."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import pytest

from futago.cluster.model import Op, OpKind, PairState, PgState
from futago.sim.engine import MS, S
from futago.sim.member import SimMember
from futago.sim.network import NETWORKS
from futago.sim.world import Settings, World

FAULT_AT = 10 * S
SEEDS = range(5)
FAST = Settings(h=S // 10, k=5, bias=S // 5)


class Scene:
    """A quiet pair to which one thing happens."""

    def __init__(self, seed: int, settings: Settings | None = None) -> None:
        self.world = World(seed, settings=settings or Settings(), is_telling=True)
        self.a, self.b = self.world.members
        self.acks: list[int] = []
        done = self.world.checker.on_ack

        def noted(member: SimMember, number: int) -> None:
            self.acks.append(self.world.engine.now)
            done(member, number)

        self.world.checker.on_ack = noted  # type: ignore[method-assign]

    def after(self, seconds: float) -> None:
        """Let time pass."""
        self.world.engine.run_until(self.world.engine.now + int(seconds * S))

    def until_fault(self) -> None:
        self.world.engine.run_until(FAULT_AT)

    @property
    def outage_s(self) -> float:
        """The longest time since the fault without an acknowledged commit."""
        since = [FAULT_AT, *(t for t in self.acks if t >= FAULT_AT), self.world.engine.now]
        return max(b - a for a, b in pairwise(since)) / S

    def is_protected(self) -> bool:
        decisions = [m.v.decision for m in self.world.members]
        return all(d is not None and d.is_protected and d.state is PairState.PAIRED for d in decisions)

    def tell(self) -> str:
        return "\n".join(f"{at / 1e9:8.3f} {who:6} {what}" for at, who, what in self.world.engine.story)


def play(seed: int, fault: Callable[[Scene], None], *, settings: Settings | None = None, seconds: float = 40) -> Scene:
    scene = Scene(seed, settings)
    scene.until_fault()
    fault(scene)
    scene.after(seconds)
    return scene


def cut(scene: Scene, a: str, b: str, seconds: float | None, networks: tuple[str, ...] = NETWORKS) -> None:
    network = scene.world.network
    for path in [(x, y, n) for x, y in ((a, b), (b, a)) for n in networks]:
        network.cut(*path)
        if seconds is not None:
            scene.world.engine.after(int(seconds * S), lambda path=path: network.mend(*path))  # type: ignore[misc]


def isolate(scene: Scene, m: SimMember, seconds: float) -> None:
    for other in (m.other.name, *scene.world.jurors, "clients"):
        cut(scene, m.name, other, seconds)


def hang_postgres(scene: Scene) -> None:
    scene.a.db.state = PgState.HUNG
    scene.a.db.on_change()


def switch_over(scene: Scene) -> None:
    scene.a.op = Op(OpKind.SWITCHOVER, scene.a.local())
    scene.a.poke()


WRITERS_PAUSE_S = 0.9  # how long the two writers may be quiet by themselves


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(
    ("fault", "bound_s", "primary"),
    [
        (lambda s: s.a.power_off(), 2.3 + 1.0, "m2"),
        (lambda s: s.a.freeze(20 * S), 2.3 + 1.0, "m2"),
        (lambda s: isolate(s, s.a, 15), 2.3 + 1.0, "m2"),
        (lambda s: s.a.shut_down(), 1.0, "m2"),
        (lambda s: s.a.kill_controller(50 * MS), 0.0, "m1"),
        (lambda s: s.a.db.stop(PgState.DIED), 1.0, "m2"),
        (hang_postgres, 1.0, "m2"),
        (switch_over, 1.3, "m2"),
        (lambda s: s.b.power_off(), 2.0 + 0.6, "m1"),
        (lambda s: s.b.freeze(20 * S), 2.0 + 0.6, "m1"),
        (lambda s: isolate(s, s.b, 15), 2.0 + 0.6, "m1"),
        (lambda s: s.b.kill_controller(50 * MS), 0.0, "m1"),
        (lambda s: cut(s, "m1", "m2", 15), 2.0 + 0.6, "m1"),
        (lambda s: cut(s, "m1", "m2", 15, ("heartbeat",)), 0.0, "m1"),
        (lambda s: [j.crash() for j in s.world.jurors.values()], 0.0, "m1"),
        (lambda s: setattr(s.b.db, "disk_free_at", FAULT_AT + 12 * S), 2.0 + 0.9, "m1"),
    ],
    ids=[
        "primary-power-off",
        "primary-frozen",
        "primary-isolated",
        "primary-shut-down",
        "primary-controller-dies",
        "primary-postgres-dies",
        "primary-postgres-hangs",
        "switchover",
        "standby-power-off",
        "standby-frozen",
        "standby-isolated",
        "standby-controller-dies",
        "members-parted",
        "one-network-down",
        "jury-lost",
        "standby-disk-full",
    ],
)
def test_service_resumes_by_itself_within_its_bound(
    seed: int, fault: Callable[[Scene], None], bound_s: float, primary: str
) -> None:
    scene = play(seed, fault)
    assert scene.outage_s <= bound_s + WRITERS_PAUSE_S, scene.tell()
    serving = [m.name for m in scene.world.members if m.v.decision is not None and m.v.decision.is_serving]
    assert serving == [primary], scene.tell()


@pytest.mark.parametrize("seed", SEEDS)
def test_fast_profile_takes_over_sooner(seed: int) -> None:
    scene = play(seed, lambda s: s.a.power_off(), settings=FAST)
    assert scene.outage_s <= 0.7 + 0.9 + WRITERS_PAUSE_S, scene.tell()


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(
    "fault",
    [
        lambda s: s.a.power_off(),
        lambda s: s.a.freeze(20 * S),
        lambda s: s.a.db.stop(PgState.DIED),
        switch_over,
        lambda s: cut(s, "m1", "m2", 15),
        lambda s: isolate(s, s.a, 15),
        lambda s: isolate(s, s.b, 15),
    ],
    ids=["power-off", "frozen", "postgres-dies", "switchover", "members-parted", "a-isolated", "b-isolated"],
)
def test_pair_is_protected_again_without_anybody(seed: int, fault: Callable[[Scene], None]) -> None:
    scene = play(seed, fault, seconds=60)
    assert scene.is_protected(), scene.tell()


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("order", ["m1-first", "m2-first", "together"])
def test_both_lost_power_and_come_back(seed: int, order: str) -> None:
    scene = Scene(seed)
    scene.until_fault()
    scene.a.power_off()
    scene.b.power_off()
    first, second = (scene.a, scene.b) if order == "m1-first" else (scene.b, scene.a)
    scene.after(5)
    first.power_on()
    scene.after(0.01 if order == "together" else 20)
    if order != "together":
        assert first.v.decision is not None and first.v.decision.is_serving, scene.tell()
    second.power_on()
    scene.after(40)
    assert scene.is_protected(), scene.tell()


@pytest.mark.parametrize("seed", SEEDS)
def test_old_side_that_comes_back_alone_says_why_it_waits(seed: int) -> None:
    """A goes on alone, A loses power, B (which missed writes) boots alone: it must not serve."""
    scene = Scene(seed, Settings(fence_after="stay_off"))
    scene.until_fault()
    scene.b.power_off()
    scene.after(15)
    scene.a.power_off()
    scene.b.power_on()
    scene.after(30)
    d = scene.b.v.decision
    assert d is not None and d.state is PairState.BLOCKED and d.command and not d.is_serving, scene.tell()
    scene.a.power_on()
    scene.after(30)
    assert scene.is_protected(), scene.tell()


@pytest.mark.parametrize("seed", SEEDS)
def test_fence_that_died_with_its_host_delays_only_the_outward_effects(seed: int) -> None:
    scene = Scene(seed)
    scene.b.fence_of_peer_works = False
    scene.until_fault()
    scene.a.power_off()
    scene.after(3.6)
    d = scene.b.v.decision
    assert d is not None and d.is_serving and not d.may_act_outward, scene.tell()
    scene.after(3)
    d = scene.b.v.decision
    assert d is not None and d.may_act_outward and scene.b.address, scene.tell()


@pytest.mark.parametrize("seed", SEEDS)
def test_controller_that_keeps_dying_does_not_keep_the_address_beside_a_winner(seed: int) -> None:
    scene = Scene(seed)
    scene.b.fence_of_peer_works = False
    scene.until_fault()
    isolate(scene, scene.a, 60)
    for i in range(12):
        scene.world.engine.after(i * 700 * MS, lambda: scene.a.kill_controller(100 * MS))
    scene.after(15)
    assert not scene.a.answers_address and scene.b.answers_address, scene.tell()
