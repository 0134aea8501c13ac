"""Messages in the simulated world: devices, the receivers' journals on both members, their sync, and the consumer beside the database.

The merge is the production one (intake/merge.py), with its state and the positions in the same commit as the effects, as the real engine has them;
journals and their sync are simulated by their promises: what is on a disk stays, a copy is a beginning of the original, `complete` is said only after
it was so. The oracle counts, outside all this, what each member received of each content.

Some messages are INFORMs: a member acknowledges them once both disks have them, alone once its own has (intake/receiver.py, safe_sequence).
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from futago.cluster.model import PgState
from futago.intake.merge import Copies, Merger, StoredChunk
from futago.sim.engine import MS, S

if TYPE_CHECKING:
    from futago.sim.member import SimMember
    from futago.sim.world import World

BATCH_BASE = 1_000_000  # numbers of the consumer's commits begin here
TICK_NS = 250 * MS
SILENCE_NS = 3 * S // 2  # a conversation that hears nothing ends after this
FRESH_NS = 7 * S // 10  # `complete` is as old as this at most
AGAIN = 0.15  # share of messages with the content of an earlier one


@dataclass(slots=True)
class Journal:
    """What one receiver took, on its disk, and how much of it the other member has copied. One list a life of the receiver."""

    own: list[list[int]] = field(default_factory=lambda: [[]])
    copied: list[int] = field(default_factory=lambda: [0])
    unanswered: list[tuple[int, int, int]] = field(default_factory=list)  # (life, sequence, content) of INFORMs
    boots: int = 0
    told_alone: tuple[int, int] = (0, 0)  # up to here senders were told that it is safe while only this disk counted

    def take(self, content: int) -> tuple[int, int]:
        """Append; return where."""
        self.own[-1].append(content)
        return len(self.own) - 1, len(self.own[-1])

    def copy_all(self) -> None:
        """The other has everything."""
        self.copied = [len(one) for one in self.own]

    @property
    def is_copied(self) -> bool:
        """The other has everything."""
        return self.copied[-1] == len(self.own[-1]) and len(self.copied) == len(self.own)


@dataclass(frozen=True, slots=True)
class Batch:
    """One commit of the consumer: how far it has read each life of each journal, the state of the merge, the effects."""

    positions: dict[tuple[str, int], int]
    head: bytes
    chunks: dict[int, StoredChunk]
    effects: tuple[int, ...]


NOTHING = Batch({}, b"", {}, ())


class Messages:
    """Devices, journals, sync and consumers of both members."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.engine = world.engine
        self.journals: dict[str, Journal] = {m.name: Journal() for m in world.members}
        self.received: dict[str, Counter[int]] = {m.name: Counter() for m in world.members}
        self.acknowledged: set[int] = set()  # contents of INFORMs that were answered
        self.batches: dict[int, Batch] = {}
        self._mergers: dict[str, tuple[int, Merger, Batch]] = {}  # of a consumer that goes on: (number, state, batch)
        self._is_committing = {m.name: False for m in world.members}
        self._content = 0
        self._number = BATCH_BASE
        self._is_connected = True
        self._joined_at = 0
        self._complete_at = 0
        self.engine.after(self.engine.between(0, S), self._device)
        self.engine.after(TICK_NS, self._tick)

    # --- devices ---

    def _device(self) -> None:
        """A device sends to both members, now and then to one of them only."""
        if self.world.is_over:
            return
        chance = self.engine.chance
        if self._content and chance(AGAIN):
            content = self._content
        else:
            self._content += 1
            content = self._content
        members = self.world.members if chance(0.8) else (self.engine.random.choice(self.world.members),)
        is_inform = chance(0.3)
        for m in members:
            if m.is_reached_by_clients():
                self._take(m, content, is_inform=is_inform)
        self.engine.after(self.engine.between(400 * MS, 1400 * MS), self._device)

    def _take(self, m: SimMember, content: int, *, is_inform: bool) -> None:
        journal = self.journals[m.name]
        if journal.boots != m.boots:  # another life of the receiver
            journal.boots = m.boots
            journal.own.append([])
            journal.copied.append(0)
            journal.unanswered.clear()
        life, sequence = journal.take(content)
        self.received[m.name][content] += 1
        if is_inform:
            journal.unanswered.append((life, sequence, content))
            if self._is_known_alone(m):
                self._answer(m)

    def _is_known_alone(self, m: SimMember) -> bool:
        return m.is_running and m.is_told_alone

    def _answer(self, m: SimMember) -> None:
        journal, alone = self.journals[m.name], self._is_known_alone(m)
        left = []
        for life, sequence, content in journal.unanswered:
            if alone or sequence <= journal.copied[life]:
                self.acknowledged.add(content)
                journal.told_alone = max(journal.told_alone, (life, sequence)) if alone else journal.told_alone
            else:
                left.append((life, sequence, content))
        journal.unanswered = left

    # --- sync ---

    def _tick(self) -> None:
        """Copy what the other lacks; say so; let consumers look."""
        world = self.world
        if world.is_over:
            return
        engine, now = self.engine, self.engine.now
        a, b = world.members
        both = a.is_powered and b.is_powered and a.frozen_at is None and b.frozen_at is None
        if both and (world.network.is_calm or world.network.is_joined(a.name, b.name)):
            if self._is_connected:
                for m in world.members:
                    journal = self.journals[m.name]
                    if not journal.is_copied:
                        journal.copy_all()
                    if journal.unanswered:
                        self._answer(m)
                self._complete_at = now
            elif now - self._joined_at > 2 * TICK_NS:
                self._is_connected = True
        else:
            if now - self._complete_at > SILENCE_NS:
                self._is_connected = False
            self._joined_at = now
        for m in world.members:
            self._settle(m)
        is_synced = self._is_connected and now - self._complete_at < FRESH_NS
        if is_synced != world.is_synced:
            world.is_synced = is_synced
            a.poke()
            b.poke()
        self._consume(a)
        self._consume(b)
        engine.after(TICK_NS, self._tick)

    def _settle(self, m: SimMember) -> None:
        """Its controller asks its receiver: is nothing told safe alone any more, and does the other have all that was?"""
        journal = self.journals[m.name]
        life, sequence = journal.told_alone
        is_settled = self._is_connected and not self._is_known_alone(m) and journal.copied[life] >= sequence
        if is_settled != m.is_settled:
            m.is_settled = is_settled
            m.poke()

    # --- the consumer ---

    def _known(self, m: SimMember) -> list[tuple[str, int, list[int], int]]:
        """Lives of journals that a member has on its disk: (whose, which, contents, how many are here)."""
        mine, theirs = self.journals[m.name], self.journals[m.other.name]
        found: list[tuple[str, int, list[int], int]] = [(m.name, i, one, len(one)) for i, one in enumerate(mine.own)]
        return found + [(m.other.name, life, theirs.own[life], n) for life, n in enumerate(theirs.copied)]

    def _consume(self, m: SimMember) -> None:
        d, db = m.v.decision, m.db
        if self._is_committing[m.name] or d is None or not d.is_serving or not m.gate_open or m.frozen_at is not None:
            return
        if db.state is not PgState.PRIMARY or db.disk_free_at > self.engine.now:
            return
        instance, merger, last = self._mergers.get(m.name, (-1, None, NOTHING))
        if instance != db.instance or merger is None:
            last = self._last(m)
            merger = Merger((m.name, m.other.name), last.head, list(last.chunks.values()))
            self._mergers[m.name] = (db.instance, merger, last)
        todo = [k for k in self._known(m) if k[3] > last.positions.get((k[0], k[1]), 0)]
        if todo:
            self._commit(m, merger, last, todo)

    def _commit(self, m: SimMember, merger: Merger, last: Batch, todo: list[tuple[str, int, list[int], int]]) -> None:
        positions, effects, now = dict(last.positions), [], self.engine.now
        for whose, life, contents, n in todo:
            fresh = contents[positions.get((whose, life), 0) : n]
            copies = Copies(fresh, [now] * len(fresh), [True] * len(fresh))
            effects += [fresh[i] for i in merger.feed(whose, copies)]
            positions[whose, life] = n
        changes = merger.changes()
        chunks = dict(last.chunks)
        for gone in changes.deleted:
            chunks.pop(gone, None)
        chunks.update({c.chunk_id: c for c in changes.chunks})
        self._number += 1
        batch = self.batches[self._number] = Batch(positions, changes.head, chunks, tuple(effects))
        self._is_committing[m.name] = True
        self._mergers[m.name] = (m.db.instance, merger, batch)
        m.db.commit(self._number, partial(self._committed, m))

    def _committed(self, m: SimMember, ok: bool | None) -> None:
        self._is_committing[m.name] = False
        if not ok:  # it may have happened: read again what is there
            self._mergers.pop(m.name, None)

    def _last(self, m: SimMember) -> Batch:
        number = next((n for n in reversed(m.db.wal) if n > BATCH_BASE), None)
        return NOTHING if number is None else self.batches[number]

    # --- the oracle ---

    def effects(self, m: SimMember) -> Counter[int]:
        """How often each content has had its effect, by what is committed on a member."""
        found: Counter[int] = Counter()
        for number in m.db.wal:
            if number > BATCH_BASE:
                found.update(self.batches[number].effects)
        return found

    def wrong(self, m: SimMember) -> str:
        """Return what took effect too often; empty: nothing."""
        a, b = self.received.values()
        for content, count in self.effects(m).items():
            if count > max(a[content], b[content]):
                return (
                    f"message {content} took effect {count} times on {m.name}; received {a[content]} and {b[content]}"
                )
        return ""

    def lost(self, m: SimMember) -> list[int]:
        """Return acknowledged contents that are in no journal on a member's disk."""
        have = {c for _, _, contents, n in self._known(m) for c in contents[:n]}
        return sorted(self.acknowledged - have)

    def counted_on(self, m: SimMember) -> None:
        """From now on a member may have to go on alone: it must have all that senders were told is safe."""
        lacks = self.lost(m)
        if lacks:
            self.world.checker.fail(
                "S3", f"{m.name} is counted on and lacks messages {lacks[:5]}, which were acknowledged"
            )

    def missing(self, m: SimMember, *, everything: bool, spare: int = 2) -> list[int]:
        """Return contents that a serving member lacks the effect of, apart from the newest few.

        Args:
            everything: of both members' journals; else of what is on this member's disk.
        """
        done = self.effects(m)
        if not everything:
            have = {c for _, _, contents, n in self._known(m) for c in contents[:n]}
            return sorted(c for c in have if not done[c] and c <= self._content - spare)
        a, b = self.received.values()
        return sorted(c for c in set(a) | set(b) if c <= self._content - spare and done[c] < max(a[c], b[c]))
