"""The command line's conversation with a controller that answers, refuses, stays silent, or dies."""

from __future__ import annotations

import json
import socket
import struct
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from futago.cli import controller_line as line
from futago.runtime.faults import OperatorFault, Refused, Unknown
from futago.setup import paths


@pytest.fixture
def controller(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[socket.socket], None]], None]:
    """Makes a controller that does with one conversation what the test says."""
    settings, where = tmp_path / "futago.toml", tmp_path / "c.sock"
    settings.write_text("")
    monkeypatch.setattr(paths, "SETTINGS", settings)
    monkeypatch.setattr(paths, "CONTROLLER_SOCKET", where)

    def serve(behave: Callable[[socket.socket], None]) -> None:
        listening = socket.socket(socket.AF_UNIX)
        listening.bind(str(where))
        listening.listen(1)

        def answer() -> None:
            with listening, listening.accept()[0] as s:
                s.makefile("rb").readline()
                behave(s)

        threading.Thread(target=answer, daemon=True).start()

    return serve


def say(*answers: dict[str, object]) -> Callable[[socket.socket], None]:
    return lambda s: s.sendall(b"".join(json.dumps(a).encode() + b"\n" for a in answers))


def test_progress_is_shown_and_the_answer_returned(
    controller: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    controller(say({"progress": "half way"}, {"ok": True, "text": "done"}))
    assert line.operate({"op": "recover"}, deadline_s=5, as_json=True)["text"] == "done"
    shown = capsys.readouterr()
    assert "half way" in shown.err and json.loads(shown.out)["ok"]


def test_refusal_and_doubt_are_told_apart(controller: Callable[..., None]) -> None:
    controller(say({"ok": False, "error": "m2 is silent.", "hint": "Power it on."}))
    with pytest.raises(OperatorFault) as refused:
        line.ask({"op": "recover"}, deadline_s=5)
    assert refused.value.hint == "Power it on." and refused.value.code == "pair.recover"


def test_doubt_of_the_controller_is_unknown(controller: Callable[..., None]) -> None:
    controller(say({"ok": False, "error": "late", "hint": "", "unknown": True}))
    with pytest.raises(Unknown):
        line.ask({"op": "switchover"}, deadline_s=5)


def test_controller_that_is_killed_in_the_middle_leaves_the_outcome_unknown(controller: Callable[..., None]) -> None:
    def die(s: socket.socket) -> None:
        s.sendall(b'{"progress": "begun"}\n')
        s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    controller(die)
    with pytest.raises(Unknown):
        line.operate({"op": "recover"}, deadline_s=5, as_json=False)


def test_silence_ends_at_the_deadline(controller: Callable[..., None]) -> None:
    held: list[socket.socket] = []
    controller(lambda s: (held.append(s.dup()), threading.Event().wait(1)))  # type: ignore[arg-type,return-value]
    with pytest.raises(Unknown, match="within 0 s"):
        line.ask({"op": "status"}, deadline_s=0.1)


def test_no_controller_is_a_refusal_of_the_world(controller: Callable[..., None]) -> None:
    with pytest.raises(Refused, match="no controller runs"):
        line.ask_status()
