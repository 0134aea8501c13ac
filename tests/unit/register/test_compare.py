"""What a member makes of what it finds in a cell of somebody else's store."""

from __future__ import annotations

import msgspec
import pytest

from futago.register.compare import Found, Record, Seat, Verdict, decode, encode, fault_of, judge, judge_seating
from futago.register.model import Value

SEAT = Seat("p1", "s1", 3)


def value(epoch: int, *, roster: int = 3, primary: str = "m1") -> Value:
    return Value(epoch=epoch, primary=primary, insync=(primary,), roster=roster)


HELD = Record(pair_id="p1", seat="s1", serial=9, writer="m1", nonce="n", value=value(5))


def found(**changes: object) -> Found:
    return Found("7", msgspec.structs.replace(HELD, **changes))


def test_what_is_written_is_found_again() -> None:
    assert decode("7", encode(HELD)) == Found("7", HELD)
    assert decode("", None) == Found("", None)
    assert decode("7", b"{}").is_strange and decode("7", b"\xff").is_strange


@pytest.mark.parametrize(
    ("what", "expected"),
    [
        (Found("7", None, is_strange=True), "no register wrote"),
        (Found("", None), "lost its memory"),
        (found(pair_id="p2"), "another pair"),
        (found(seat="s2"), "seated anew by somebody else"),
        (found(value=value(5, roster=4)), "old-roster"),
        (found(serial=8), "went back"),
    ],
)
def test_register_that_is_not_ours_any_more_has_no_vote(what: Found, expected: str) -> None:
    assert expected in fault_of(what, SEAT, serial_seen=9)
    assert judge(what, value(6), SEAT, serial_seen=9)[0] is Verdict.REFUSE


@pytest.mark.parametrize(
    ("new", "verdict"),
    [
        (value(6), Verdict.STORE),
        (value(6, primary="m2"), Verdict.STORE),
        (value(5), Verdict.STORE),  # the very same again
        (value(5, primary="m2"), Verdict.TOUCH),
        (value(4), Verdict.TOUCH),
        (value(5, roster=4), Verdict.STORE),  # retiring it
        (value(4, roster=4), Verdict.TOUCH),
    ],
)
def test_only_newer_views_are_stored_and_refusals_write_too(new: Value, verdict: Verdict) -> None:
    assert judge(Found("7", HELD), new, SEAT, serial_seen=9) == (verdict, "")


@pytest.mark.parametrize(
    ("what", "verdict"),
    [
        (Found("", None), Verdict.STORE),
        (Found("7", None, is_strange=True), Verdict.REFUSE),
        (found(pair_id="p2"), Verdict.REFUSE),
        (found(seat="s0", value=value(5, roster=2)), Verdict.STORE),
        (found(seat="s0", value=value(5, roster=3)), Verdict.STORE),  # retired just now
        (found(seat="s0", value=value(6, roster=2)), Verdict.TOUCH),  # knows a newer view than we do
        (found(seat="s0", value=value(5, roster=4)), Verdict.REFUSE),
    ],
)
def test_seating_takes_what_is_empty_or_older(what: Found, verdict: Verdict) -> None:
    assert judge_seating(what, value(5), SEAT)[0] is verdict
