"""Replay: take what a production controller recorded, decide again, and tell both.

The facts are those of the real machine; nothing is simulated here. A decision that comes out otherwise means that the rules have changed since, or that
they are not as pure as they say.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from futago.cluster.decide import decide
from futago.cluster.model import Facts
from futago.cluster.record import Decided, Header, Record, decided_of, files_in, read
from futago.runtime.faults import Corrupt


@dataclass(frozen=True, slots=True)
class Replayed:
    """One decision, and what comes out now. `differs` names what is not the same."""

    record: Record
    again: Decided
    differs: tuple[str, ...]


def replay(place: Path) -> Iterator[Header | Replayed]:
    """Decide again everything in a file or a recorder's folder, oldest first. Raises OSError, Corrupt."""
    for path in files_in(place):
        for item in read(path):
            if isinstance(item, Header):
                yield item
                continue
            again = decided_of(decide(item.facts, item.now))
            names = Decided.__struct_fields__
            yield Replayed(item, again, tuple(n for n in names if getattr(again, n) != getattr(item.decided, n)))


def replay_files(place: Path, *, as_json: bool) -> int:
    """Print a replay; return 0 if everything came out as recorded, 1 if not, 2 if it cannot be read."""
    decisions = different = 0
    before: Facts | None = None
    try:
        for item in replay(place):
            if isinstance(item, Header):
                before = None
                if not as_json:
                    print(
                        f"--- controller of {item.member}, futago {item.program}, started {_utc(item.started_utc)} ---"
                    )
                continue
            decisions += 1
            different += bool(item.differs)
            print(_json(item) if as_json else "\n".join(_lines(item, before)))
            before = item.record.facts
    except (OSError, Corrupt) as e:
        print(f"futago: {e}", file=sys.stderr)
        return 2
    if not as_json:
        print(f"{decisions} decisions replayed, {different} came out otherwise")
    return int(different > 0)


def _utc(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%S.%f")[:-3]


def _json(item: Replayed) -> str:
    d = item.record.decided
    told = {
        "utc": _utc(item.record.utc),
        "rule": d.rule,
        "reason": d.reason,
        "state": d.state,
        "epoch": _epoch(item.record.facts),
        "actions": list(d.actions),
        "skipped": item.record.skipped,
        "differs": {n: [str(getattr(d, n)), str(getattr(item.again, n))] for n in item.differs},
    }
    return json.dumps(told, ensure_ascii=False)


def _epoch(facts: Facts) -> int:
    return 0 if facts.durable.view is None else facts.durable.view.epoch


def _lines(item: Replayed, before: Facts | None) -> Iterator[str]:
    r, d = item.record, item.record.decided
    if r.skipped:
        yield f"{'':25} ({r.skipped} decisions before this one were not written)"
    yield f"{_utc(r.utc)}  {d.rule:16} {d.state}, epoch {_epoch(r.facts)}: {d.reason}"
    for change in _changes(before, r.facts):
        yield f"{'':25}   now {change}"
    for action in d.actions:
        yield f"{'':25}   does {action}"
    for name in item.differs:
        yield f"{'':25} ! {name} was {getattr(d, name)!r} and comes out as {getattr(item.again, name)!r}"


def _changes(before: Facts | None, facts: Facts) -> Iterator[str]:
    """What became known between two records, as far as a person would name it."""
    now, was = dict(_named(facts)), {} if before is None else dict(_named(before))
    for name, value in now.items():
        if was.get(name) != value and before is not None:
            yield f"{name}: {value} (was {was.get(name)})"


def _named(f: Facts) -> Iterator[tuple[str, object]]:
    hb, w = f.peer.heartbeat, f.register
    view = f.durable.view
    yield "view", "none" if view is None else f"epoch {view.epoch}, {view.primary}, {sorted(view.insync)}"
    yield "intent", f.durable.intent
    yield "system disk", "writable" if f.durable.is_able else "not writable"
    yield "PostgreSQL", f.pg.state.value
    yield "data volume", "writable" if f.pg.is_disk_ok else "not writable"
    yield "commits wait for the peer", f.pg.enforced
    yield "gate", f.gate.value
    yield "floating address", f.address_held
    yield "peer's PostgreSQL", "unheard" if hb is None else hb.pg.value
    yield "peer's view", "none" if hb is None or hb.view is None else f"epoch {hb.view.epoch}, {hb.view.primary}"
    yield "peer wants", "nothing" if hb is None or hb.wants is None else f"{hb.wants.kind} in epoch {hb.wants.epoch}"
    yield "peer's goodbye", f.peer.said_bye
    yield "third vote's epoch", None if w.view is None else w.view.epoch
    yield "third vote's answer to the last put", f"{w.cas.value} (epoch {w.cas_epoch})"
    yield "fence", f"{f.fence.outcome.value} (epoch {f.fence.epoch})"
    yield "operator asks", f.op.kind.value
    yield "recovery", f"{f.rejoin.step.value} {f.rejoin.rung}".strip()
    yield "maintenance", f.maintenance
