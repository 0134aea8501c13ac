"""A simulated PostgreSQL: a log of commits, synchronous streaming to one standby, and the quirks that were measured on the real one.

Quirks (docs/internals/sim.md says what each is): waiting is enabled by the checkpointer, later than the setting says, and disabled by it as well;
ending a waiting session makes its commit visible; after a start everything in the log is visible; an orderly stop without a standby commits what
waits; the primary goes on showing "streaming" for 5 s after the line went dead; sessions of a postmaster that hangs or was killed go on committing;
a standby with a full disk is alive and confirms nothing; processes on a hanging disk cannot be killed; an I/O error ends the server; a rewind before
the first checkpoint after a promotion does nothing and says all is well.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from futago.cluster.model import PgState
from futago.sim.engine import MS, Engine, S
from futago.sim.network import Network

LSN_BASE = 1000
LSN_SHIFT = 20  # a commit is one MiB of log, so that lags reach the bounds that count in bytes
SYSTEM_ID = "one database"
GHOST_NS = 5 * S  # wal_sender_timeout
SERVES = (PgState.PRIMARY, PgState.HUNG)


def lsn(count: int) -> int:
    """Return the position at the end of this many commits."""
    return LSN_BASE + (count << LSN_SHIFT)


@dataclass(slots=True)
class Wait:
    """One commit that waits for the standby."""

    position: int
    done: Callable[[bool | None], None]  # True: acknowledged; None: unknown


class Stream:
    """One replication connection, as both ends believe it to be."""

    __slots__ = ("acked", "blocked_at", "is_moving", "primary", "standby")

    def __init__(self, primary: Database, standby: Database) -> None:
        self.primary = primary
        self.standby = standby
        self.acked = len(standby.wal)
        self.is_moving = False
        self.blocked_at: int | None = None

    def is_given_up(self, now: int, *, is_passing: bool) -> bool:
        """Take note whether packets pass, and tell whether they have not for as long as the ends wait."""
        if is_passing:
            self.blocked_at = None
        elif self.blocked_at is None:
            self.blocked_at = now
        return self.blocked_at is not None and now - self.blocked_at > GHOST_NS


class Database:
    """One member's PostgreSQL and its data directory."""

    def __init__(self, engine: Engine, network: Network, name: str) -> None:
        self.engine = engine
        self.network = network
        self.name = name
        self.other: Database = self
        self.state = PgState.STOPPED
        self.wal: list[int] = []
        self.timeline = 1
        self.forks: tuple[tuple[int, int], ...] = ()  # (timeline, how many commits it had when the next one began)
        self.ended_as = "shut down"  # the control file's word
        self.has_signal = False
        self.start_position = 0
        self.has_checkpoint = True  # a checkpoint has been made since the last promotion
        self.setting = False  # what the include file and every session say
        self.waits = False  # what committing backends do
        self.checkpointer_free_at = 0
        self.disk_free_at = 0  # the data volume does not write before
        self.disk_slow_ns = 0  # it takes so much longer
        self.is_disk_broken = False  # it answers with errors, or is full
        self.is_suspect = False  # an I/O error was seen, and the data have not been copied anew since
        self.is_half_made = False  # a copy was cut short
        self.sender_free_at = 0  # a busy standby's receiver takes nothing before
        self.is_frozen: Callable[[], bool] = lambda: False
        self.is_running = False  # any process of it may still act
        self.instance = 0
        self.sessions_instance = 0  # bumped when all sessions are ended
        self.waiting: list[Wait] = []
        self.stream: Stream | None = None  # as primary: to the standby; as standby: from the primary
        self.unconfirmed_at: int | None = None
        self.barrier_epoch = 0
        self.on_change: Callable[[], None] = lambda: None
        self.on_role: Callable[[], None] = lambda: None
        self.is_caught_up = False  # the standby has all that we started with
        self.observed = 0  # how far the log has been shown to readers

    # --- what can be seen of it ---

    @property
    def flush(self) -> int:
        """Position of the end of the log."""
        return LSN_BASE + (len(self.wal) << LSN_SHIFT)

    @property
    def start_flush(self) -> int:
        """Position of the log that the standby must reach before clients are let in."""
        return lsn(self.start_position)

    @property
    def peer_flush(self) -> int:
        """As primary: what the standby has confirmed."""
        stream = self.stream
        return lsn(stream.acked) if stream is not None and stream.primary is self else 0

    @property
    def is_streaming(self) -> bool:
        """Standby: the receiver streams. Primary: the sender says so, which may be a ghost."""
        return self.stream is not None

    @property
    def is_primary(self) -> bool:
        """It can commit, if only in old sessions."""
        return self.is_running and self.state in SERVES and not self.has_signal

    @property
    def can_acknowledge(self) -> bool:
        """A client's commit could be acknowledged now or by messages under way."""
        if not self.is_primary:
            return False
        return not self.waits or (self.stream is not None and self.stream.standby.stream is self.stream)

    @property
    def visible(self) -> int:
        """How many commits a reader sees."""
        return self.waiting[0].position - 1 if self.waiting else len(self.wal)

    # --- commits ---

    def commit(self, number: int, done: Callable[[bool | None], None]) -> None:
        """Append one commit and acknowledge it when that is due."""
        self.wal.append(number)
        position = len(self.wal)
        if self.unconfirmed_at is None:
            self.unconfirmed_at = self.engine.now
        if self.waits:
            self.waiting.append(Wait(position, done))
        else:
            done(True)
        self.push()

    def release(self, upto: int | None = None) -> None:
        """Acknowledge what waits (up to a position), because it arrived or waiting ended."""
        kept = []
        for wait in self.waiting:
            if upto is None or wait.position <= upto:
                wait.done(True)
            else:
                kept.append(wait)
        self.waiting = kept

    def end_sessions(self) -> None:
        """End all sessions: what waits becomes visible here, and its client learns nothing."""
        waiting, self.waiting = self.waiting, []
        self.sessions_instance += 1
        self.start_position = len(self.wal)
        self.is_caught_up = self.peer_flush >= self.start_flush
        for wait in waiting:
            wait.done(None)

    # --- waiting for the standby ---

    def set_waiting(self, on: bool) -> None:
        """Write the setting and reload; the checkpointer makes it true later."""
        if not on:
            self.barrier_epoch = 0
        self.setting = on
        instance = self.instance
        due = max(self.engine.now + self.engine.between(5 * MS, 300 * MS), self.checkpointer_free_at)

        def take_effect() -> None:
            if self.instance == instance and self.is_running and self.setting == on and self.waits != on:
                self.waits = on
                if not on:
                    self.release()
                self.on_role()
                self.on_change()

        self.engine.at(due, take_effect)

    # --- life ---

    def run_as(self, state: PgState, *, waits: bool) -> None:
        """Begin to run in this role."""
        self.state = state
        self.is_running = True
        self.instance += 1
        self.barrier_epoch = 0
        self.waiting = []
        self.setting = self.waits = waits if state is PgState.PRIMARY else False
        self.start_position = len(self.wal)
        self.is_caught_up = False
        self.unconfirmed_at = self.engine.now if waits else None
        self.has_signal = state is PgState.STANDBY
        if self.has_signal:
            self.ended_as = "in archive recovery"
        self.on_role()
        self.on_change()

    def promote(self) -> None:
        """Become primary on a new timeline."""
        self.forks = (*self.forks, (self.timeline, len(self.wal)))
        self.timeline = max(self.timeline, self.other.timeline) + 1
        self.disconnect()
        self.run_as(PgState.PRIMARY, waits=False)
        self.has_checkpoint = False
        instance = self.instance

        def checkpoint() -> None:
            if self.instance == instance and self.is_running:
                self.has_checkpoint = True

        self.engine.after(self.engine.between(S // 5, 4 * S), checkpoint)

    def stop_orderly(self) -> None:
        """Fast shutdown: a connected standby receives everything; without one, waiting commits are simply made."""
        stream = self.stream
        is_served = self.state in (PgState.PRIMARY, PgState.STOPPING) and self._is_passing()
        if stream is not None and stream.primary is self and is_served and stream.standby.stream is stream:
            standby = stream.standby
            if standby.disk_free_at <= self.engine.now:
                standby.wal.extend(self.wal[len(standby.wal) :])
                self.release(len(self.wal))
        was_running = self.is_running
        self.stop(PgState.ABSENT if self.state is PgState.ABSENT else PgState.STOPPED)
        if was_running:
            self.ended_as = "shut down"

    def stop(self, state: PgState) -> None:
        """All its processes end; sessions learn nothing."""
        was_running = self.is_running
        if was_running:
            self.ended_as = "in archive recovery" if self.has_signal else "in production"
        self.is_running = False
        self.state = state
        self.instance += 1
        waiting, self.waiting = self.waiting, []
        for wait in waiting:
            wait.done(None)
        self.disconnect()
        if was_running:
            self.on_role()
        self.on_change()

    # --- streaming ---

    def disconnect(self) -> None:
        """Drop the connection at both ends; an end that cannot hear of it goes on believing for a while."""
        stream = self.stream
        if stream is None:
            return
        self.stream = None
        other = stream.standby if stream.primary is self else stream.primary
        if other.stream is not stream:
            return
        if other is stream.primary and not self.network.is_joined(self.name, other.name):
            self.engine.after(GHOST_NS, lambda: other.forget(stream))  # the ghost
        else:
            other.forget(stream)

    def forget(self, stream: Stream) -> None:
        """Notice that the connection is gone."""
        if self.stream is stream:
            self.stream = None
            if self.is_primary and self.setting and self.unconfirmed_at is None:
                self.unconfirmed_at = self.engine.now
            self.on_change()

    def try_connect(self) -> None:
        """As standby: connect to the other member, if it is a primary whose log goes on from ours."""
        p = self.other
        if self.state is not PgState.STANDBY or self.stream is not None or self.is_frozen() or p.is_frozen():
            return
        if not (p.is_running and p.state is PgState.PRIMARY and self.network.is_joined(self.name, p.name)):
            return
        if len(self.wal) > len(p.wal) or self.wal != p.wal[: len(self.wal)]:
            return  # forked: the receiver loops
        if p.stream is not None:
            p.stream = None
        self.timeline, self.forks = p.timeline, p.forks
        self.stream = p.stream = Stream(p, self)
        p.confirmed(p.stream)
        p.push()
        p.on_change()
        self.on_change()

    def push(self) -> None:
        """Send what the standby lacks, one piece under way at a time."""
        stream = self.stream
        if stream is None or stream.is_moving or stream.primary is not self or stream.acked >= len(self.wal):
            return
        stream.is_moving = True
        upto = len(self.wal)
        self.engine.after(self.network.delay(), lambda: self._deliver(stream, upto))

    def _deliver(self, stream: Stream, upto: int) -> None:
        standby = stream.standby
        is_dead = self.stream is not stream or standby.stream is not stream
        if is_dead:
            stream.is_moving = False
            return
        now = self.engine.now
        if not self._is_passing() or standby.disk_free_at > now or standby.sender_free_at > now:
            self.engine.after(100 * MS, lambda: self._deliver(stream, upto))
            return
        standby.wal.extend(self.wal[len(standby.wal) : upto])
        self.engine.after(self.network.delay(), lambda: self._confirm(stream, upto))

    def _confirm(self, stream: Stream, upto: int) -> None:
        if self.stream is not stream or not self.is_running:
            stream.is_moving = False
            return
        if not self._is_passing():
            self.engine.after(100 * MS, lambda: self._confirm(stream, upto))
            return
        stream.is_moving = False
        stream.acked = upto
        self.confirmed(stream)
        self.push()

    def _is_passing(self) -> bool:
        other = self.other
        return not self.is_frozen() and not other.is_frozen() and self.network.is_joined(self.name, other.name)

    def tick(self) -> None:
        """Do what a receiver and a sender do now and then: connect again, or give a dead line up."""
        if self.stream is None:
            if self.state is PgState.STANDBY:
                self.try_connect()
        elif self.stream.standby is self and self.other.stream is not self.stream and self._is_passing():
            self.forget(self.stream)  # the sender is gone, and now that packets pass again this end is told
        elif not self.is_frozen() and self.stream.is_given_up(self.engine.now, is_passing=self._is_passing()):
            self.forget(self.stream)

    def confirmed(self, stream: Stream) -> None:
        """Take note of what the standby has."""
        self.release(stream.acked)
        self.unconfirmed_at = None if stream.acked >= len(self.wal) else self.engine.now
        if stream.acked >= self.start_position and not self.is_caught_up:
            self.is_caught_up = True
            self.on_change()
