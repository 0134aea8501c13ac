"""The recovery ladder of a simulated member: the production choice of rungs (cluster/rungs.py) on a simulated data directory.

A rung takes its time, needs the primary to be reached, and may be cut short; what a destructive one leaves then is no data directory. Afterwards the
member must really stream, whatever a tool said of itself; else the next rung is tried.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from futago.cluster.model import At, PgState, Rejoin, RejoinStep
from futago.cluster.rungs import Choice, Holds, Own, Rung, Source, choose
from futago.sim.database import SYSTEM_ID, Database, lsn
from futago.sim.engine import MS, S

if TYPE_CHECKING:
    from collections.abc import Callable

    from futago.sim.member import SimMember
    from futago.sim.world import World

FOLLOW_NS = 4 * S  # a standby that does not stream by then does not fit
PAUSE_NS = 2 * S


class SimLadder:
    """Climbs for both members.

    Args:
        start: begins to start a database. done: ends the order.
    """

    def __init__(self, world: World, *, start: Callable[..., None], done: Callable[[SimMember, str], None]) -> None:
        self._engine = world.engine
        self._world = world
        self._start = start
        self._done = done

    def climb(self, m: SimMember) -> None:
        """Ask the primary what it has, choose, and go up as far as needed."""
        m.v.rejoin = Rejoin(RejoinStep.RUNNING, "follow")
        m.later(self._engine.between(30 * MS, 700 * MS), lambda: self._chosen(m))

    def _chosen(self, m: SimMember) -> None:
        source = m.other.db
        if not self._is_reached(m):
            self._ended(m, ok=False)
            return
        source.has_checkpoint = True  # it makes one before it answers: a rewind before that would do nothing
        rungs = choose(own_of(m.db), source_of(source))
        self._engine.tell(m.name, f"  the ladder: {', '.join(f'{c.rung.value} ({c.why})' for c in rungs)}")
        self._next(m, rungs)

    def _is_reached(self, m: SimMember) -> bool:
        db = m.other.db
        return db.is_running and db.state is PgState.PRIMARY and m.network.is_joined(m.name, db.name)

    def _next(self, m: SimMember, rungs: tuple[Choice, ...]) -> None:
        if not rungs:
            self._ended(m, ok=False)
            return
        first, rest = rungs[0].rung, rungs[1:]
        m.v.rejoin = Rejoin(RejoinStep.RUNNING, first.value)
        counts = self._world.rungs
        counts[first.value] = counts.get(first.value, 0) + 1
        if first is Rung.FOLLOW:
            self._follow(m, self._engine.now + FOLLOW_NS * m.haste, rest)
        else:
            self._overwrite(m, first, rest)

    def _follow(self, m: SimMember, until: int, rest: tuple[Choice, ...]) -> None:
        db = m.db
        if db.state is PgState.STANDBY and db.is_streaming:
            self._ended(m, ok=True)
            return
        if self._engine.now > until:
            self._next(m, rest if self._is_reached(m) else ())
            return
        if db.state in (PgState.STOPPED, PgState.DIED) and "StartPg" not in m.v.busy:
            m.v.busy.add("StartPg")
            self._start(m, as_standby=True, enforced=False)
        m.later(100 * MS, lambda: self._follow(m, until, rest))

    def _overwrite(self, m: SimMember, rung: Rung, rest: tuple[Choice, ...]) -> None:
        """Rewind or copy: while it runs, and when it is cut short, there is no usable data directory."""
        db, source, view = m.db, m.other.db, m.disk.view
        if (
            view is None or m.v.is_writing or m.name in view.insync
        ):  # the primary counts on it again since this was ordered
            self._ended(m, ok=False)
            return
        self._world.checker.on_destroy(m)
        does_nothing = rung is Rung.REWIND and not source.has_checkpoint
        db.stop(PgState.STOPPED if does_nothing else PgState.ABSENT)
        db.is_half_made = not does_nothing
        instance = db.instance

        def copied() -> None:
            if db.instance != instance or db.is_disk_broken or not self._is_reached(m):
                self._ended(m, ok=False)
                return
            if not does_nothing:
                copy(source, db)
            self._follow(m, self._engine.now + FOLLOW_NS * m.haste, rest)

        is_rewind = rung is Rung.REWIND
        m.later(self._engine.between(S // 2 if is_rewind else 2 * S, 2 * S if is_rewind else 5 * S), copied)

    def _ended(self, m: SimMember, *, ok: bool) -> None:
        step = RejoinStep.DONE if ok else RejoinStep.FAILED
        m.v.rejoin = Rejoin(step, m.v.rejoin.rung, retry_at=At(m.local() + PAUSE_NS))
        self._done(m, "StartRejoin")


def own_of(db: Database) -> Own:
    """What a stopped member has, as its control file and its log say."""
    suspect = "EIO" if db.is_suspect else ""
    if db.state is PgState.ABSENT:
        return Own(Holds.HALF if db.is_half_made else Holds.NOTHING, suspect=suspect)
    if suspect:
        return Own(Holds.WHOLE, suspect=suspect)
    return Own(Holds.WHOLE, SYSTEM_ID, db.ended_as, db.timeline, lsn(len(db.wal)))


def source_of(db: Database) -> Source:
    """What the primary tells about itself."""
    history = "".join(f"{t}\t{at >> 32:X}/{at & 0xFFFFFFFF:X}\tx\n" for t, at in ((t, lsn(n)) for t, n in db.forks))
    return Source(SYSTEM_ID, db.timeline, history, len(db.wal) << 20, flush=lsn(len(db.wal)))


def copy(source: Database, target: Database) -> None:
    """Make the target's data directory the source's."""
    target.wal = list(source.wal)
    target.observed = 0
    target.timeline, target.forks = source.timeline, source.forks
    target.ended_as = "in archive recovery"
    target.has_signal = True
    target.is_half_made = target.is_suspect = False  # the copy was read back
    target.state = PgState.STOPPED
