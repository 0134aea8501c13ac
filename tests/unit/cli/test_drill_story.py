"""The reckoning and the story of a drill: promises against what is found, and the controllers' notes in order."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest

from futago.cli import drill, drill_story, drill_writer, main
from futago.runtime.faults import OperatorFault

BEGAN = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def account(*lines: dict[str, object]) -> drill_story.Account:
    made = drill_story.Account()
    for line in lines:
        made.take(json.loads(json.dumps(line)))
    return made


def test_acknowledged_event_that_is_not_found_is_lost_and_one_found_twice_is_counted_so() -> None:
    texts = [
        drill_writer.message("ab", 1),
        drill_writer.message("ab", 3),
        drill_writer.message("ab", 3),
        "something else",
    ]
    texts += [drill_writer.message("other", 2)]
    found = drill_writer.counted("ab", texts)
    acks = [{"n": n, "at": 10.0 + n / 10, "utc": 0, "ms": 1} for n in (1, 2, 3)]
    result = drill_story.reckon(
        account(*acks, {"n": 4, "error": "?"}, {"found": found}), injected_at=10.0, ended_at=10.4
    )
    assert (result.written, result.lost, result.twice, result.refused) == (3, (2,), (3,), (4,))


def test_event_that_was_never_acknowledged_is_not_missed() -> None:
    result = drill_story.reckon(account({"n": 1, "at": 1.0}, {"found": {"1": 1}}), injected_at=0.5, ended_at=1.1)
    assert result.lost == () and result.twice == ()


def test_pause_is_the_longest_time_without_an_acknowledgement_after_the_injection() -> None:
    acks = [{"n": n, "at": at} for n, at in enumerate((0.0, 9.0, 10.0, 10.1, 12.6, 12.7), start=1)]
    result = drill_story.reckon(account(*acks, {"found": {}}), injected_at=10.05, ended_at=12.8)
    assert (result.pause_s, result.pause_at_s) == (2.5, 0.05)


def test_writes_that_never_come_back_are_a_pause_until_the_end() -> None:
    result = drill_story.reckon(account({"n": 1, "at": 10.0}, {"found": {}}), injected_at=10.1, ended_at=70.0)
    assert result.pause_s == 60.0 and result.lost == (1,)


def note(seconds: float, event: str, **fields: object) -> dict[str, object]:
    utc = (BEGAN + timedelta(seconds=seconds)).isoformat(timespec="milliseconds")
    return {"utc": utc, "event": event, "member": "m1", **fields}


def test_story_is_told_in_order_without_what_was_before_and_without_repetitions() -> None:
    notes = [
        note(2.0, "gate.open"),
        note(-5.0, "decision", reason="Long ago.", rule="P7.serve"),
        note(0.1, "postgres.died"),
        note(0.2, "decision", reason="It hands over.", rule="T4.announce"),
        note(0.3, "decision", reason="It hands over.", rule="T4.announce"),
        note(0.4, "settings.reloaded"),
    ]
    told = drill_story.story(notes, injected_utc=BEGAN)
    assert [(t.at_s, t.text) for t in told] == [
        (0.1, "its database died."),
        (0.2, "It hands over. [T4.announce]"),
        (2.0, "clients are let into its database."),
    ]


def test_switch_of_an_earlier_day_is_not_told() -> None:
    pair: dict[str, dict[str, object]] = {"last_switch": {"epoch": 7, "steps": [{"name": "won", "ms": 12.5}]}}
    assert drill_story.switch_steps(pair, epoch_before=7) == []
    assert drill_story.switch_steps(pair, epoch_before=6)[0][:2] == ("won", 12.5)
    assert drill_story.switch_steps({"last_switch": None}, epoch_before=1) == []
    pair["last_switch"]["kind"] = "solo"
    assert drill_story.switch_steps(pair, epoch_before=6) == []


def test_every_drill_says_what_it_does_and_what_should_happen(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main(["drill", "--list", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert {r["name"] for r in rows} == set(drill.DRILLS) and all(r["text"] and r["expect"] for r in rows)


def solo() -> dict[str, object]:
    return {"protected": False, "reason": "m1 serves alone.", "not_protected": [], "primary": "m1", "members": []}


def test_drill_is_refused_while_the_pair_is_not_protected() -> None:
    class Ground:
        def status(self) -> dict[str, object]:
            return solo()

    with pytest.raises(OperatorFault) as refused:
        drill._require_protected(Ground())  # type: ignore[arg-type]
    assert refused.value.code == "drill.unprotected" and "m1 serves alone." in str(refused.value)


def test_verdict_needs_nothing_lost_nothing_twice_and_the_service_where_it_should_be() -> None:
    before = {"primary": "m1", "epoch": 4, "protected": True}
    clean = drill_story.Reckoning(50, (), (), (), 0.2, 0.0)
    moved = {"primary": "m2", "protected": True}
    kill, stay = drill.DRILLS["database-kill"], drill.DRILLS["controller-kill"]
    assert drill._result(kill, before, moved, clean)["passed"]
    assert not drill._result(stay, before, moved, clean)["passed"]
    assert not drill._result(kill, before, before, clean)["passed"]
    assert not drill._result(kill, before, {**moved, "protected": False}, clean)["passed"]
    assert not drill._result(kill, before, None, clean)["passed"]
    lossy = drill_story.Reckoning(50, (3,), (4,), (), 0.2, 0.0)
    found = drill._result(kill, before, moved, lossy)
    assert not found["passed"] and (found["lost"], found["twice"]) == (1, 1)
