"""The plan of a recovery and its checks: what is wrong, what would be done, what stands in the way."""

from __future__ import annotations

from typing import Any

import pytest

from futago.cluster import plan, preflight
from futago.cluster.preflight import Grade, Report
from futago.cluster.rungs import Choice, Holds, Own, Rung, Source, oldest_wal, read_progress
from futago.cluster.volume import Look

GB = 1 << 30
SOURCE = Source("7", 2, "1\t0/5000000\tx\n", size_bytes=2 * GB, wal_from=0x1000000, flush=0x9000000, version=15)


def serving(**changes: Any) -> Report:
    base: dict[str, Any] = {
        "member": "m1", "version": "1", "utc": 0.0, "pg": "primary", "pg_version": 15, "volume": Look(9 * GB, 20 * GB),
        "source": SOURCE,
    }  # fmt: skip
    return Report(**(base | changes))


def away(**changes: Any) -> Report:
    base: dict[str, Any] = {
        "member": "m2", "version": "1", "utc": 0.0, "pg": "stopped", "pg_version": 15, "volume": Look(9 * GB, 20 * GB),
        "data_bytes": 2 * GB, "own": Own(Holds.WHOLE, "7", "shut down", 1, 0x4000000),
    }  # fmt: skip
    return Report(**(base | changes))


def status(state: str = "solo", **changes: Any) -> dict[str, Any]:
    base: dict[str, Any] = {
        "state": state, "primary": "m1", "reason": "m1 serves alone.", "not_protected": ["Only m1 holds all data."],
        "members": [{"name": "m1"}, {"name": "m2"}], "links": [{"name": "service", "up": True}],
        "fences": [{"member": "m2", "driver": "ipmi", "ok": True, "state": "on", "error": ""}],
        "third_vote": {"kind": "jury", "ok": True},
    }  # fmt: skip
    return base | changes


def rungs_of(made: plan.Plan) -> list[str]:
    return [s.what for s in made.steps]


def test_whole_pair_needs_no_recovery() -> None:
    made = plan.make(status("paired"), serving(), away())
    assert not made.is_needed and not made.steps and not made.refusal


@pytest.mark.parametrize("own_is_serving", [True, False])
def test_plan_is_the_same_on_either_member(own_is_serving: bool) -> None:
    pair = (serving(), away()) if own_is_serving else (away(), serving())
    made = plan.make(status(), *pair, clock_s=0.0)
    assert (made.back, made.source, made.refusal) == ("m2", "m1", "")
    assert rungs_of(made) == ["follow", "basebackup", "add"]
    assert made.steps[0].bytes_max == 0x5000000 and not made.steps[0].is_destructive and made.steps[1].is_destructive
    assert all(c.grade is Grade.OK for c in made.checks)


@pytest.mark.parametrize(
    ("own", "expected"),
    [
        (Own(Holds.WHOLE, "7", "in production", 1, 0x5000008), ["rewind", "basebackup", "add"]),
        (Own(Holds.WHOLE, "7", "shut down", 1, 0x500), ["basebackup", "add"]),
        (Own(Holds.NOTHING), ["empty", "add"]),
        (Own(Holds.WHOLE, "7", "shut down", 1, 0x4000000, suspect="EIO"), ["basebackup", "add"]),
    ],
)
def test_plan_names_the_rung_that_the_ladder_will_take(own: Own, expected: list[str]) -> None:
    assert rungs_of(plan.make(status(), serving(), away(own=own))) == expected


def test_member_that_follows_already_is_only_added() -> None:
    made = plan.make(status(), serving(), away(pg="standby", own=None))
    assert rungs_of(made) == ["follow", "add"] and not any(s.is_destructive for s in made.steps)


def test_too_little_room_refuses_and_says_how_much_is_missing() -> None:
    made = plan.make(status(), serving(), away(own=Own(Holds.NOTHING), data_bytes=0, volume=Look(GB, 20 * GB)))
    assert made.refusal.startswith("m2: 1024 MiB free") and "1281 MiB of room" in made.repair


def test_room_for_one_copy_only_is_said_and_does_not_refuse() -> None:
    made = plan.make(status(), serving(), away(own=Own(Holds.HALF), volume=Look(GB, 20 * GB)))
    assert not made.refusal
    assert any(c.grade is Grade.WARN and "deleted before the copy" in c.text for c in made.checks)


def test_volume_that_is_not_mounted_and_another_database_version_refuse() -> None:
    made = plan.make(status(), serving(), away(volume=Look(problem="nothing is mounted on /pg")))
    assert "nothing is mounted" in made.refusal and "mount" in made.repair
    made = plan.make(status(), serving(pg_version=16), away())
    assert "PostgreSQL 15 here, 16 on m1" in made.refusal


def test_clocks_links_devices_and_votes_warn_and_never_refuse() -> None:
    worn = status(
        links=[{"name": "heartbeat", "up": False}],
        fences=[{"member": "m2", "driver": "ipmi", "ok": False, "state": "unknown", "error": "no answer"}],
        third_vote={"kind": "jury", "ok": False},
    )
    made = plan.make(worn, serving(version="2", maintenance=True), away(), clock_s=90.0, clock_error_s=0.1)
    assert not made.refusal
    warned = {c.name for c in made.checks if c.grade is Grade.WARN}
    assert warned == {"network", "fence", "third vote", "clock", "version", "maintenance"}
    assert all(c.repair for c in made.checks if c.grade is Grade.WARN)


def test_clock_that_may_be_right_is_not_complained_of() -> None:
    choice = Choice(Rung.FOLLOW, "", 0, is_destructive=False)
    found = preflight.checks(away(), serving(), choice=choice, clock_s=1.5, clock_error_s=0.6)
    assert [c.grade for c in found if c.name == "clock"] == [Grade.OK]


def test_silent_member_is_powered_on_where_that_is_possible_and_else_somebody_must() -> None:
    made = plan.make(status(), serving(), None)
    assert rungs_of(made) == ["power-on", "wait", "add"] and made.back == "m2" and not made.refusal
    made = plan.make(status(fences=[]), serving(), None)
    assert rungs_of(made) == ["wait", "add"] and "Power m2 on" in made.repair
    made = plan.make(status("blocked"), away(), None)
    assert made.back == "m2" and made.source == "m1"


def test_without_a_second_member_there_is_nothing_to_recover() -> None:
    made = plan.make(status(members=[{"name": "m1"}]), serving(), None)
    assert made.refusal and "futago join" in made.repair


def test_nobody_serves_yet_means_waiting_not_copying() -> None:
    made = plan.make(status("starting"), serving(pg="starting", source=None, own=Own(Holds.WHOLE)), away())
    assert rungs_of(made) == ["wait"] and not made.refusal


def test_progress_of_the_tools_is_read_as_bytes() -> None:
    found = read_progress(" 51200/102400 kB (50%), 0/1 tablespace")
    assert found is not None and (found.done, found.total, found.percent) == (50 << 20, 100 << 20, 50)
    rewind = read_progress("10240/20480 kB (50%) copied")
    assert rewind is not None and rewind.percent == 50
    assert read_progress("pg_rewind: connected to server") is None


def test_oldest_log_is_found_among_histories_and_partial_files() -> None:
    names = [
        "00000002.history",
        "000000020000000000000005",
        "000000010000000000000004.partial",
        "000000010000000000000004",
    ]
    assert oldest_wal(names) == 0x4000000 and oldest_wal([]) == 0
