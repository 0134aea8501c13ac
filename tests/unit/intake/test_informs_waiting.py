"""Which INFORMs are remembered, and which answers wait."""

from __future__ import annotations

import pytest

from futago.intake import informs
from futago.intake.informs import Informs, Place, answered_inform, key_of
from futago.intake.model import Position


def key(n: int) -> bytes:
    return key_of(bytes(16), 1000, b"%d" % n)


def test_an_answer_waits_for_its_record_and_the_last_repetition_gets_it() -> None:
    made: Informs[str] = Informs()
    assert made.wait(key(1), 5, b"answer 1", "first")
    assert made.wait(key(1), 5, b"answer 2", "again")
    assert made.wait(key(2), 9, b"answer 3", "other")
    assert made.due(4) == []
    assert [(one.reply, one.to) for one in made.due(5)] == [(b"answer 2", "again")]
    assert made.due(5) == []
    assert [one.to for one in made.due(100)] == ["other"]
    assert made.waiting == 0


def test_what_is_kept_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(informs, "WAITING_MAX", 3)
    monkeypatch.setattr(informs, "REMEMBERED_MAX", 3)
    made: Informs[str] = Informs()
    assert [made.wait(key(n), n, b"", "") for n in range(5)] == [True, True, True, False, False]
    assert made.wait(key(0), 7, b"", ""), "a repetition takes no more room"
    for n in range(5):
        made.note(key(n), Place(True, Position("i", n)))
    assert [made.place(key(n)) is not None for n in range(5)] == [False, False, True, True, True]


def test_the_first_place_of_an_inform_stays() -> None:
    made: Informs[str] = Informs()
    made.note(key(1), Place(True, Position("i", 1)))
    made.note(key(1), Place(False, Position("j", 7)))
    assert made.place(key(1)) == Place(True, Position("i", 1))


def test_the_sender_the_port_and_the_request_make_an_inform_another() -> None:
    one = key_of(bytes(16), 1000, b"x")
    assert len({one, key_of(b"y" * 16, 1000, b"x"), key_of(bytes(16), 1001, b"x"), key_of(bytes(16), 1000, b"y")}) == 4
    assert answered_inform(b"\x30\x03junk") is None


def test_the_bytes_of_waiting_answers_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(informs, "WAITING_BYTES_MAX", 1000)
    made: Informs[str] = Informs()
    assert [made.wait(key(n), n, bytes(400), "") for n in range(4)] == [True, True, False, False]
    assert made.wait(key(1), 2, bytes(500), "")
    assert not made.wait(key(1), 2, bytes(700), "")
    assert len(made.due(0)) == 1
    assert made.waiting_bytes == 500
    made.due(9)
    assert made.waiting_bytes == 0
