"""Definitions that engines of earlier epochs have read are not read again, and do not gather without end."""

from __future__ import annotations

from typing import Any

import pytest

from futago.jobs import shelf
from futago.jobs.shelf import NetShelf
from futago.runtime.faults import Refused


def spec(name: str, jobs: int = 1) -> dict[str, Any]:
    return {"name": name, "jobs": [{"name": f"j{n}", "host": "h1", "command": "true"} for n in range(jobs)]}


class Rows:
    """The kept definitions, and which were read."""

    def __init__(self, **specs: dict[str, Any]) -> None:
        self.specs = specs
        self.asked: list[list[str]] = []

    async def read(self, digests: list[str]) -> dict[str, dict[str, Any]]:
        self.asked.append(digests)
        return {d: self.specs[d] for d in digests if d in self.specs}


async def test_a_net_is_read_once_whichever_epoch_asks() -> None:
    rows, kept = Rows(a=spec("a"), b=spec("b", 2)), NetShelf()
    await kept.fill({"a"}, rows.read)
    first = kept.get("a")
    await kept.fill({"a", "b"}, rows.read)
    await kept.fill({"a", "b"}, rows.read)
    assert rows.asked == [["a"], ["b"]]
    assert first is not None and kept.get("a") is first
    assert [str(name) for name in kept.get("b").units if str(name)] == ["j0", "j1"]  # type: ignore[union-attr]


async def test_what_cannot_be_read_is_asked_for_again_and_keeps_nothing_else_from_being_read() -> None:
    rows, kept = Rows(a={"name": "a", "jobs": "of another version"}, b=spec("b")), NetShelf()
    await kept.fill({"a", "b", "gone"}, rows.read)
    assert kept.get("a") is None and kept.get("gone") is None and kept.get("b") is not None
    await kept.fill({"a", "b", "gone"}, rows.read)
    assert rows.asked[-1] == ["a", "gone"]


async def test_a_failed_reading_is_the_callers() -> None:
    async def refuse(_digests: list[str]) -> dict[str, dict[str, Any]]:
        raise Refused("no database")

    with pytest.raises(Refused, match="no database"):
        await NetShelf().fill({"a"}, refuse)


async def test_what_nobody_needs_goes_first_and_what_is_needed_never(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shelf, "UNITS_KEPT_MAX", 8)
    rows, kept = Rows(**{d: spec(d, 3) for d in "abcd"}), NetShelf()
    for one in "abac":  # a was needed later than b
        await kept.fill({one}, rows.read)
    assert kept.get("b") is None and kept.get("a") is not None and kept.get("c") is not None
    await kept.fill(set("abcd"), rows.read)
    assert len(kept) == 4
    await kept.fill({"d"}, rows.read)
    assert kept.get("d") is not None and len(kept) <= 2
