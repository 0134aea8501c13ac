"""The intake on the primary: journals in, events out, each message once.

    own journal ─┐
                 ├─ merge ─ rules ─ one transaction: events, new hosts, positions, state of the merge
    copy ────────┘

Everything this engine knows is rows and files. A batch commits only onto the revision it was made from; after anything
but a clear success the engine forgets what it holds and begins again from the rows, so a batch whose outcome was
unknown is neither lost nor repeated.
"""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from futago.intake import mib_store, notices, syslog
from futago.intake import store as rows
from futago.intake.addresses import address_text
from futago.intake.following import Following
from futago.intake.keeping import Keeper
from futago.intake.kept import Kept
from futago.intake.merge import WINDOW_NS, Copies, Merger
from futago.intake.model import Mark, Protocol, Record
from futago.intake.normalise import copies_of
from futago.intake.options import OPTIONS, OptionsWatch
from futago.intake.reader import Bookmarks, JournalReader, Read
from futago.intake.rules import Match
from futago.intake.store import Event
from futago.intake.suppress import Repeats, Said, Summary
from futago.intake.telling import host_named, tell
from futago.intake.traps import TrapCounters, TrapReader
from futago.runtime.clock import S, now_utc
from futago.runtime.engine import EngineContext
from futago.runtime.faults import WorldFault
from futago.runtime.unreadable import UNREADABLE
from futago.setup import paths
from futago.store.commit import Connection

READ_BYTES = 256 << 10  # about a thousand messages: the loop belongs to other engines too
READS_MAX = 12  # of both streams, for one transaction of a backlog; other tasks run in between
POLL_S = 0.005
LOOK_EVERY = 20  # at the end of a journal, look for newer files at every twentieth poll
BATCH_S = 0.015  # collect for so long what comes slowly: fewer, larger transactions
RULES_EVERY_S = 1.0
INVENTORY_EVERY_S = 5.0
PRUNE_EVERY_S = 5.0
AGAIN_S = 0.2
COMMIT_S = 10.0
PRUNE_S = 2.0
NOTICES = "receiver"  # stands for the monitor of what receivers say of themselves
EVENT_DETAIL_CHARS_MAX = 2000


@dataclass(slots=True)
class Counters(TrapCounters):
    """What this engine did since it was started."""

    records: int = 0
    messages: int = 0
    suppressed: int = 0
    events: int = 0
    repeats: int = 0  # messages that made no event because one like them had made one
    batches: int = 0
    reloads: int = 0
    damaged: int = 0


@dataclass(frozen=True, slots=True)
class Places:
    """Where the journals and the receiver of this member are; tests have others."""

    own: Path = paths.JOURNAL_OWN
    copy: Path = paths.JOURNAL_PEER
    receiver: Path = paths.RECEIVER_SOCKET
    options: Path = OPTIONS


class _Stream:
    """One member's journal, as this engine reads it."""

    def __init__(self, member: str, root: Path, after: dict[str, int], bookmarks: Bookmarks) -> None:
        self.member = member
        self.reader = JournalReader(root, after, bookmarks=bookmarks)
        self.held: Read | None = None
        self.is_full = False

    def look(self, *, is_looking: bool) -> Read | None:
        """Return what comes next in this stream, without taking it."""
        if self.held is None:
            self.held = self.reader.read(bytes_max=READ_BYTES, is_looking=is_looking)
            self.is_full = self.held is not None and len(self.held.raw) > READ_BYTES // 2
        return self.held

    def take(self) -> Read:
        """Return what `look` showed and go on behind it."""
        assert self.held is not None
        taken, self.held = self.held, None
        return taken


@dataclass(slots=True)
class _Batch:
    """What one transaction will hold."""

    events: list[Event]
    new_hosts: set[str]
    positions: dict[tuple[str, str], int]
    messages: int = 0
    kept: list[Kept] = field(default_factory=list)

    @property
    def is_empty(self) -> bool:
        return not self.positions


class ConsumeEngine:
    """Reads both journals and commits the effects.

    Args:
        context: the engine's world.
        places: where the journals are.
    """

    def __init__(self, context: EngineContext, *, places: Places | None = None) -> None:
        self._context = context
        self._places = places or Places()
        self._me = context.settings.me
        peer = context.settings.peer
        self._peer = peer.name if peer else ""
        self.counters = Counters()
        self._options = OptionsWatch(self._places.options)
        self._options.look()
        self._traps = TrapReader(self._options.current.snmp, self.counters)
        self._mibs_version: tuple[int, int] | None = None
        self.following = Following(context)
        self._repeats = Repeats()
        self._streams: list[_Stream] = []
        self._bookmarks = {True: Bookmarks(), False: Bookmarks()}  # of the own journal, and of the copy
        self._merger = Merger((self._me, self._peer))
        self._revision = 0
        self._positions: dict[str, dict[str, int]] = {}
        self._polls = 0
        self._due: dict[str, float] = {}

    async def run(self) -> None:
        """Consume until cancelled."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(Keeper(self._context, self._options).run(), name="intake.keeping")
                await self._consume_for_ever()
        finally:
            self.following.close()

    async def _consume_for_ever(self) -> None:
        while True:
            try:
                await self._begin()
                while True:
                    await self._round()
            except WorldFault as e:
                self.counters.reloads += 1
                self._context.log.warning("intake.again", error=str(e), kind=type(e).__name__)
                await asyncio.sleep(AGAIN_S)
            finally:
                self._close()

    async def _begin(self) -> None:
        """Forget everything and read where the intake stands."""
        store = self._context.store
        self._due.clear()
        await self._refresh()
        loaded = await store.read(rows.load, name="intake.load")
        self._revision = loaded.revision
        self._positions = loaded.positions
        # After a long cut a million copies may wait: about a second, which the loop has other uses for.
        members = (self._me, self._peer)
        self._merger = await asyncio.to_thread(Merger, members, loaded.head, loaded.chunks)
        self._repeats = Repeats(loaded.repeats)
        self._streams = [self._stream(self._me, loaded.positions)]
        if self._peer:
            self._streams.append(self._stream(self._peer, loaded.positions))
        self._context.log.event("intake.begun", revision=loaded.revision, chunks=len(loaded.chunks))

    def _stream(self, member: str, positions: dict[str, dict[str, int]]) -> _Stream:
        is_own = member == self._me
        root = self._places.own if is_own else self._places.copy
        return _Stream(member, root, positions.get(member, {}), self._bookmarks[is_own])

    def _close(self) -> None:
        for stream in self._streams:
            stream.reader.close()
        self._streams = []

    async def _round(self) -> None:
        """Read, merge, commit once."""
        self._context.beat("intake")
        await self._refresh()
        await self._prune()
        batch = self._collect()
        if batch.is_empty:
            await asyncio.sleep(POLL_S)
            return
        if self._is_backlog:
            await self._collect_more(batch)
        else:
            await asyncio.sleep(BATCH_S)
            self._collect_into(batch)
        await self._commit(batch)

    @property
    def _is_backlog(self) -> bool:
        return any(stream.is_full for stream in self._streams)

    async def _collect_more(self, batch: _Batch) -> None:
        """Add to the batch while there is a backlog."""
        for _ in range(READS_MAX - 1):
            await asyncio.sleep(0)
            self._collect_into(batch)
            if not self._is_backlog:
                break

    def _collect(self) -> _Batch:
        batch = _Batch([], set(), {})
        self._collect_into(batch)
        return batch

    def _collect_into(self, batch: _Batch) -> None:
        self._polls += 1
        is_looking = self._polls % LOOK_EVERY == 0 or self._is_backlog
        ready = [stream for stream in self._streams if stream.look(is_looking=is_looking) is not None]
        for stream in sorted(ready, key=self._time_of):
            if len(ready) > 1 and self._is_far_ahead(stream):
                continue
            self._consume(stream.member, stream.take(), batch)

    def _time_of(self, stream: _Stream) -> int:
        held = stream.held
        assert held is not None
        return held.records[0].time_ns - self._merger.timelines.shift(stream.member, held.incarnation.zero_ns)

    def _is_far_ahead(self, stream: _Stream) -> bool:
        """While both streams have a backlog, keep them side by side: fewer copies wait for their twins."""
        others = [other for other in self._streams if other is not stream and other.is_full]
        return any(
            other.held is not None and self._time_of(stream) > self._time_of(other) + WINDOW_NS for other in others
        )

    def _consume(self, member: str, read: Read, batch: _Batch) -> None:
        """Merge what was read and add its effects to the batch."""
        zero_ns = read.incarnation.zero_ns
        if read.passed:
            batch.events.append(self._damage(member, read))
        messages: list[Record] = []
        for record in read.records:
            if record.protocol == Protocol.CONTROL:
                self._take_copies(member, zero_ns, messages, batch)
                messages = []
                self._take_mark(member, zero_ns, record)
                self._tell_repeats(batch)
            else:
                messages.append(record)
        self._take_copies(member, zero_ns, messages, batch)
        batch.positions[member, read.incarnation.id] = read.records[-1].sequence
        self.counters.records += len(read.records)

    def _damage(self, member: str, read: Read) -> Event:
        """Return what to say of damage that was passed over. It commits with the positions behind it: it is told once."""
        self.counters.damaged += read.passed
        self._context.log.warning("intake.journal_damaged", journal=member, places=read.passed, before=read.first)
        at_ns = read.records[0].time_ns + self._merger.timelines.wall_ahead(member, read.incarnation.zero_ns)
        return _event_of(notices.damage_met(self._me, member, read.passed, before=read.first), at_ns)

    def _take_mark(self, member: str, zero_ns: int, record: Record) -> None:
        try:
            mark = msgspec.msgpack.decode(record.data, type=Mark)
        except UNREADABLE:
            self.counters.malformed += 1
            return
        timelines = self._merger.timelines
        timelines.learn(member, zero_ns, self._merger.other(member), mark)
        settled_ns = record.time_ns if mark.open_since_ns is None else mark.open_since_ns
        shift_ns = timelines.shift(member, zero_ns)
        unheard_ns = settled_ns if mark.unheard_since_ns is None else mark.unheard_since_ns
        self._merger.pass_time(member, min(settled_ns, unheard_ns) - shift_ns)
        self._repeats.pass_time(settled_ns - shift_ns - WINDOW_NS)  # a sender that is gone holds no summary up

    def _take_copies(self, member: str, zero_ns: int, records: list[Record], batch: _Batch) -> None:
        if not records:
            return
        timelines = self._merger.timelines
        effects = self._merger.feed(member, self._copies(records, timelines.shift(member, zero_ns)))
        self.counters.suppressed += len(records) - len(effects)
        self.counters.messages += len(effects)
        batch.messages += len(effects)
        wall_ahead_ns, shift_ns = timelines.wall_ahead(member, zero_ns), timelines.shift(member, zero_ns)
        for place in effects:
            self._take_effect(records[place], wall_ahead_ns, shift_ns, batch)

    def _copies(self, records: list[Record], shift_ns: int) -> Copies:
        return copies_of(records, shift_ns=shift_ns, trap_content=self._traps.content)

    def _take_effect(self, record: Record, wall_ahead_ns: int, shift_ns: int, batch: _Batch) -> None:
        if record.protocol == Protocol.NOTICE:
            batch.events += _notice(record, wall_ahead_ns)
            return
        told = tell(record, self._traps)
        kind, text = told.kind, told.text
        rules, is_kept = self.following.rules.get(kind), self._options.current.messages.keep == "all"
        found = rules.patterns.match(text) if rules else []
        address = address_text(record.source)
        if not found and not is_kept and address in self.following.inventory.hosts:
            return  # nearly all messages: nobody asks whose they are
        host = self._host(address, record, batch)
        scopes, occurred_ns = self.following.inventory.scopes, record.time_ns + wall_ahead_ns
        for match in rules.matches(text, found, host=host, scopes=scopes, fields=told.fields) if rules else ():
            is_kept = is_kept or match.monitor.keep
            if match.rule.suppress is not None and self._is_repeat(match, host, occurred_ns, record.time_ns - shift_ns):
                self.counters.repeats += 1
                continue
            self._tell_repeats(batch)
            detail: dict[str, object] = {"address": address, **told.detail}
            if match.message is not text:
                detail["text"] = text[:EVENT_DETAIL_CHARS_MAX]
            if match.groups:
                detail["groups"] = dict(match.groups)
            if told.kind == "syslog" and (structured := syslog.structured_of(text)):
                detail["structured"] = structured
            monitor = match.monitor
            event = Event(occurred_ns, match.priority, monitor.name, host, match.message, detail, monitor.notify)
            batch.events.append(event)
        if is_kept:
            severity = syslog.severity_of(record.data) if kind == "syslog" else None
            batch.kept.append(Kept(occurred_ns, host, address, kind, severity, text))

    def _is_repeat(self, match: Match, host: str, occurred_ns: int, time_ns: int) -> bool:
        assert match.rule.suppress is not None
        said = Said(occurred_ns, match.priority, match.monitor.name, host, match.message)
        return self._repeats.is_repeat(match.repeat_key(host), time_ns, match.rule.suppress.length_ns, said)

    def _tell_repeats(self, batch: _Batch) -> None:
        """Say how often what was suppressed came, where that is over."""
        if self._repeats.ended:
            ended, self._repeats.ended = self._repeats.ended, []
            batch.events += [_summary(one) for one in ended]

    def _host(self, address: str, record: Record, batch: _Batch) -> str:
        """Return the sender: by its address, else, of syslog, by the name in the message (it came over a relay)."""
        inventory = self.following.inventory
        host = inventory.hosts.get(address)
        is_foreign = (host is None or host not in inventory.registered) and bool(inventory.registered)
        if is_foreign and record.protocol != Protocol.SNMP_UDP:
            named = host_named(record)
            for name in (named, named.partition(".")[0]):
                if name in inventory.registered:
                    return name
        return host if host is not None else self._unregistered(address, batch)

    def _unregistered(self, address: str, batch: _Batch) -> str:
        """Name a host that nobody registered after its address, and remember it."""
        inventory = self.following.inventory
        if inventory.unregistered + len(batch.new_hosts) < rows.HOSTS_UNREGISTERED_MAX:
            batch.new_hosts.add(address)
            inventory.hosts[address] = address
        return address

    async def _commit(self, batch: _Batch) -> None:
        changes, repeats = self._merger.changes(), self._repeats.changes()
        positions = [(member, inc, sequence) for (member, inc), sequence in batch.positions.items()]

        async def work(conn: Connection) -> None:
            await rows.save(
                conn,
                revision=self._revision,
                changes=changes,
                positions=positions,
                events=batch.events,
                new_hosts=sorted(batch.new_hosts),
                epoch=self._context.epoch,
                repeats=repeats,
                messages=batch.kept,
                today=now_utc().date(),
            )

        await self._context.store.commit(work, name="intake.batch", deadline_s=COMMIT_S)
        self._revision += 1
        self.counters.batches += 1
        self.counters.events += len(batch.events)
        for member, incarnation, sequence in positions:
            self._positions.setdefault(member, {})[incarnation] = sequence

    async def _refresh(self) -> None:
        """Read monitors, hosts and scopes again where it is time to."""
        if self._is_due("rules", RULES_EVERY_S):
            await self.following.look()
            await self._read_options()
        if self._is_due("inventory", INVENTORY_EVERY_S):
            await self.following.read_inventory()

    async def _read_options(self) -> None:
        names = self._traps.names
        if self._options.look():
            if self._options.fault:
                self._context.log.error("intake.options_refused", error=self._options.fault)
            # Making keys of passwords takes milliseconds each.
            self._traps = await asyncio.to_thread(TrapReader, self._options.current.snmp, self.counters)
        version = await self._context.store.read(mib_store.version, name="intake.mib_version")
        if version != self._mibs_version:
            names = await self._context.store.read(mib_store.load_names, name="intake.mibs")
            self._mibs_version = version
        self._traps.names = names

    def _is_due(self, what: str, every_s: float) -> bool:
        now = asyncio.get_running_loop().time()
        if now < self._due.get(what, 0.0):
            return False
        self._due[what] = now + every_s
        return True

    async def _prune(self) -> None:
        """Tell the receiver what had its effect; it tells the other member's."""
        if not self._is_due("prune", PRUNE_EVERY_S) or not self._positions:
            return
        known = {"op": "prune", "positions": self._positions, "damaged": self.counters.damaged}
        request = msgspec.json.encode(known) + b"\n"
        with contextlib.suppress(OSError, TimeoutError, ValueError):  # the receiver restarts: next time
            async with asyncio.timeout(PRUNE_S):
                reader, writer = await asyncio.open_unix_connection(str(self._places.receiver))
                try:
                    writer.write(request)
                    await reader.readline()
                finally:
                    writer.close()


def _notice(record: Record, wall_ahead_ns: int) -> list[Event]:
    """Return what a receiver says of itself."""
    notice = notices.read(record.data)
    if notice is None:
        return []
    return [_event_of(notice, record.time_ns + wall_ahead_ns)]


def _event_of(notice: notices.Notice, at_ns: int) -> Event:
    return Event(at_ns, notice.priority, NOTICES, notice.member, notice.message, {**notice.detail}, ())


def _summary(ended: Summary) -> Event:
    """Return the event that says how often a suppressed one came. It notifies nobody: the first one did."""
    last = ended.last
    detail: dict[str, object] = {"repeats": ended.count, "within_s": ended.length_ns / S}
    times = "once" if ended.count == 1 else f"{ended.count} times"
    message = f"repeated {times}: {last.message}"
    return Event(last.occurred_ns, last.priority, last.monitor, last.host, message, detail, ())
