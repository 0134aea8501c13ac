"""The intake's rows: positions, the state of the merge, hosts, monitors, events.

Everything of one batch is written by `save` in one transaction, onto the revision it was made from.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime

import msgspec

from futago.intake import kept
from futago.intake.kept import Kept
from futago.intake.merge import Changes, StoredChunk
from futago.intake.rules import MessageMonitor, Rule, Suppress
from futago.intake.suppress import RepeatChanges, Said, Window
from futago.inventory.duration import parse_duration
from futago.runtime.clock import S
from futago.runtime.faults import Refused
from futago.store.commit import Connection

AUTOMATA_KEPT = 6  # of both kinds, for processors that may differ between the members
HOSTS_UNREGISTERED_MAX = 10_000  # a flood with forged sources must not fill the inventory
_ESCAPED = str.maketrans({"\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t"})
_EVENT_COLUMNS = "occurred_utc, priority, source, monitor_name, host_name, message, detail, epoch, notify"


class Stale(Refused):
    """The stored state is not the one that the batch was made from: read it again."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """Where the intake stands."""

    revision: int
    head: bytes
    chunks: list[StoredChunk]
    positions: dict[str, dict[str, int]]
    repeats: list[tuple[bytes, Window]] = field(default_factory=list)


class Event(msgspec.Struct, frozen=True, gc=False):
    """One event row of a message. `occurred_ns` is wall time."""

    occurred_ns: int
    priority: str
    monitor: str
    host: str
    message: str
    detail: dict[str, object]
    notify: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Inventory:
    """What the intake must know of hosts and scopes."""

    hosts: dict[str, str] = field(default_factory=dict)  # address -> host name
    scopes: dict[str, frozenset[str]] = field(default_factory=dict)
    unregistered: int = 0
    registered: frozenset[str] = frozenset()  # names of declared hosts


async def load(conn: Connection) -> Loaded:
    """Return the stored state; to be run in a reading transaction."""
    state = await (await conn.execute("SELECT revision, state FROM intake_state")).fetchone()
    assert state is not None, "the migration makes the row"
    rows = await conn.execute("SELECT chunk_id, member_name, pool, entries FROM intake_unmatched ORDER BY chunk_id")
    chunks = [StoredChunk(*row) for row in await rows.fetchall()]
    positions: dict[str, dict[str, int]] = {}
    found = await conn.execute("SELECT member_name, incarnation, sequence FROM intake_position ORDER BY updated_utc")
    for member, incarnation, sequence in await found.fetchall():
        positions.setdefault(member, {})[incarnation] = sequence
    return Loaded(state[0], bytes(state[1]), chunks, positions, await _load_repeats(conn))


async def _load_repeats(conn: Connection) -> list[tuple[bytes, Window]]:
    found = await conn.execute("SELECT repeat_key, since_ns, until_ns, suppressed, last_event FROM intake_repeat")
    return [
        (bytes(key), Window(since, until, count, msgspec.msgpack.decode(last, type=Said)))
        for key, since, until, count, last in await found.fetchall()
    ]


async def save(
    conn: Connection,
    *,
    revision: int,
    changes: Changes,
    positions: Sequence[tuple[str, str, int]],
    events: Sequence[Event],
    new_hosts: Iterable[str],
    epoch: int,
    repeats: RepeatChanges | None = None,
    messages: Sequence[Kept] = (),
    today: date | None = None,
) -> None:
    """Write one batch; to be run in a committing transaction. `messages` are kept, in a segment of `today`.

    Raises:
        Stale: another batch was committed meanwhile.
    """
    # A batch that still waits for the other member holds this row: we wait for its outcome here, and then see it.
    done = await conn.execute(
        "UPDATE intake_state SET revision = revision + 1, state = %s WHERE revision = %s", (changes.head, revision)
    )
    if done.rowcount != 1:
        raise Stale(f"the intake's state is no longer at revision {revision}")
    await _save_state(conn, changes, positions)
    if repeats is not None:
        await _save_repeats(conn, repeats)
    if messages and today is not None:
        await kept.write(conn, messages, today=today)
    addresses = list(new_hosts)
    if addresses:
        await conn.execute(
            "INSERT INTO host (host_name, address, is_registered) SELECT a, a::inet, false FROM unnest(%s::text[]) a"
            " ON CONFLICT DO NOTHING",
            (addresses,),
        )
    if events:
        lines = "".join(_line(event, epoch) for event in events)
        async with conn.cursor().copy(f"COPY event ({_EVENT_COLUMNS}) FROM STDIN") as copy:
            await copy.write(lines)


async def _save_state(conn: Connection, changes: Changes, positions: Sequence[tuple[str, str, int]]) -> None:
    if positions:
        await conn.execute(
            "INSERT INTO intake_position (member_name, incarnation, sequence)"
            " SELECT * FROM unnest(%s::text[], %s::text[], %s::bigint[])"
            " ON CONFLICT (member_name, incarnation)"
            " DO UPDATE SET sequence = excluded.sequence, updated_utc = now()",
            tuple(list(column) for column in zip(*positions, strict=True)),
        )
    if changes.deleted:
        await conn.execute("DELETE FROM intake_unmatched WHERE chunk_id = ANY(%s)", (changes.deleted,))
    for chunk in changes.chunks:
        await conn.execute(
            "INSERT INTO intake_unmatched (chunk_id, member_name, pool, entries) VALUES (%s, %s, %s, %s)"
            " ON CONFLICT (chunk_id) DO UPDATE SET entries = excluded.entries",
            (chunk.chunk_id, chunk.member, chunk.pool, chunk.entries),
        )


async def _save_repeats(conn: Connection, repeats: RepeatChanges) -> None:
    if repeats.deleted:
        await conn.execute("DELETE FROM intake_repeat WHERE repeat_key = ANY(%s)", (repeats.deleted,))
    if not repeats.windows:
        return
    columns = zip(
        *((k, w.since_ns, w.until_ns, w.suppressed, msgspec.msgpack.encode(w.last)) for k, w in repeats.windows),
        strict=True,
    )
    await conn.execute(
        "INSERT INTO intake_repeat (repeat_key, since_ns, until_ns, suppressed, last_event)"
        " SELECT * FROM unnest(%s::bytea[], %s::bigint[], %s::bigint[], %s::bigint[], %s::bytea[])"
        " ON CONFLICT (repeat_key) DO UPDATE SET since_ns = excluded.since_ns, until_ns = excluded.until_ns,"
        " suppressed = excluded.suppressed, last_event = excluded.last_event",
        tuple(list(column) for column in columns),
    )


def _line(event: Event, epoch: int) -> str:
    """Return one line of COPY's text format."""
    occurred = datetime.fromtimestamp(event.occurred_ns / 1e9, UTC).isoformat()
    detail = msgspec.json.encode(event.detail).decode()
    if "\\" in detail:  # JSON has no other character that COPY minds
        detail = detail.replace("\\", "\\\\")
    notify = _escaped(_array(event.notify)) if event.notify else "\\N"
    return (
        f"{occurred}\t{event.priority}\tmessage\t{_escaped(event.monitor)}\t{_escaped(event.host)}"
        f"\t{_escaped(event.message)}\t{detail}\t{epoch}\t{notify}\n"
    )


def _escaped(text: str) -> str:
    return text if text.isprintable() and "\\" not in text else text.translate(_ESCAPED)


def _array(names: tuple[str, ...]) -> str:
    quoted = (name.replace("\\", "\\\\").replace('"', '\\"') for name in names)
    return "{" + ",".join(f'"{name}"' for name in quoted) + "}"


async def rules_version(conn: Connection) -> str:
    """Return something that differs after any change of message monitors, declared hosts and scopes."""
    row = await (await conn.execute("SELECT intake_rules_version()")).fetchone()
    assert row is not None
    return str(row[0])


async def note_rules(conn: Connection, version: str, fault: str) -> None:
    """Say which version is at work; `fault`: why parts of it are not."""
    await conn.execute(
        "UPDATE intake_rules SET version = %s, fault = %s, since_utc = now() WHERE (version, fault) <> (%s, %s)",
        (version, fault, version, fault),
    )


async def load_automaton(conn: Connection, digest: bytes) -> bytes | None:
    """Return what was compiled under this digest, if anything was."""
    found = await (await conn.execute("SELECT content FROM intake_automaton WHERE digest = %s", (digest,))).fetchone()
    return None if found is None else bytes(found[0])


async def save_automaton(conn: Connection, digest: bytes, content: bytes) -> None:
    """Keep what was compiled, and of older ones the newest few."""
    await conn.execute(
        "INSERT INTO intake_automaton (digest, content) VALUES (%s, %s) ON CONFLICT DO NOTHING", (digest, content)
    )
    await conn.execute(
        "DELETE FROM intake_automaton WHERE digest NOT IN"
        " (SELECT digest FROM intake_automaton ORDER BY made_utc DESC LIMIT %s)",
        (AUTOMATA_KEPT,),
    )


async def load_monitors(conn: Connection) -> list[MessageMonitor]:
    """Return the enabled message monitors."""
    found = await conn.execute(
        "SELECT monitor_name, kind, scope_name, spec FROM monitor"
        " WHERE kind IN ('syslog', 'snmptrap', 'customtrap') AND is_enabled ORDER BY monitor_name"
    )
    return [_monitor(*row) for row in await found.fetchall()]


def _monitor(name: str, kind: str, scope: str, spec: dict[str, object]) -> MessageMonitor:
    read = msgspec.convert(spec, _Spec)
    rules = tuple(Rule(p.match, p.priority, p.message, _suppress(p.suppress)) for p in read.patterns)
    return MessageMonitor(name, kind, scope, rules, tuple(read.notify), read.keep)


def _suppress(spec: _SuppressSpec | None) -> Suppress | None:
    if spec is None:
        return None
    return Suppress(round(parse_duration(spec.length).total_seconds() * S), spec.by)


class _SuppressSpec(msgspec.Struct):
    length: str = msgspec.field(name="for")
    by: tuple[str, ...] = ("host",)


class _PatternSpec(msgspec.Struct):
    match: str
    priority: str
    message: str = "{text}"
    suppress: _SuppressSpec | None = None


class _Spec(msgspec.Struct):
    patterns: list[_PatternSpec]
    notify: list[str] = []
    keep: bool = False


async def load_inventory(conn: Connection) -> Inventory:
    """Return the hosts by address, and the scopes."""
    hosts: dict[str, str] = {}
    registered: set[str] = set()
    unregistered = 0
    found = await conn.execute("SELECT host(address), host_name, is_registered FROM host")
    for address, name, is_registered in await found.fetchall():
        if address is not None:
            hosts[address] = name
        if is_registered:
            registered.add(name)
        unregistered += not is_registered
    scopes: dict[str, set[str]] = {}
    found = await conn.execute("SELECT scope_name, host_name FROM scope_host")
    for scope, host in await found.fetchall():
        scopes.setdefault(scope, set()).add(host)
    return Inventory(
        hosts, {name: frozenset(members) for name, members in scopes.items()}, unregistered, frozenset(registered)
    )
