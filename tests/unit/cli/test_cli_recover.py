"""`futago recover` as a person starts it: the plan on one screen, its exit codes, and what Ctrl-C ends."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from web_bench import PLAN

Answers = Callable[[dict[str, Any]], list[dict[str, Any]]]


class Member:
    """A member's tree, with a controller that answers by what a test says; it holds a conversation open that it has
    not ended."""

    def __init__(self, root: Path, answers: Answers) -> None:
        self.root, self._answers = root, answers
        self.requests: list[dict[str, Any]] = []
        (root / "etc/futago").mkdir(parents=True)
        (root / "etc/futago/futago.toml").write_text("")
        (root / "run/futago").mkdir(parents=True)
        self._listening = socket.socket(socket.AF_UNIX)
        self._listening.bind(str(root / "run/futago/controller.sock"))
        self._listening.listen(4)
        self._held: list[socket.socket] = []
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                s = self._listening.accept()[0]
            except OSError:
                return
            request = json.loads(s.makefile("rb").readline())
            self.requests.append(request)
            for answer in self._answers(request):
                s.sendall(json.dumps(answer).encode() + b"\n")
            self._held.append(s)

    def start(self, *words: str) -> subprocess.Popen[str]:
        """Start the command."""
        return subprocess.Popen(
            [sys.executable, "-m", "futago", "recover", *words], text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            env={**os.environ, "FUTAGO_ROOT": str(self.root), "PYTHONUNBUFFERED": "1"},
        )  # fmt: skip

    def run(self, *words: str) -> tuple[int, str, str]:
        """Run it to its end."""
        out, err = (p := self.start(*words)).communicate(timeout=60)
        return p.returncode, out, err

    def close(self) -> None:
        self._listening.close()
        for s in self._held:
            s.close()


@pytest.fixture
def member(tmp_path: Path) -> Iterator[Callable[[Answers], Member]]:
    made: list[Member] = []

    def make(answers: Answers) -> Member:
        made.append(Member(tmp_path, answers))
        return made[0]

    yield make
    for m in made:
        m.close()


def answering(end: dict[str, Any], plan: dict[str, Any] = PLAN) -> Answers:
    def answers(request: dict[str, Any]) -> list[dict[str, Any]]:
        if request.get("plan"):
            return [{"ok": True, "plan": plan}]
        return [{"progress": "m2 [rewind] 50 % 1 of 2 MiB"}, end]

    return answers


def test_plan_progress_and_proof_are_shown(member: Callable[[Answers], Member]) -> None:
    m = member(answering({"ok": True, "text": "The pair is paired again: m2 came back by rewind.", "rung": "rewind"}))
    code, out, err = m.run("--patience", "60")
    assert code == 0, err
    for words in (
        "What is wrong",
        "m1 serves alone",
        "undo on m2",
        "replaces data",
        "clocks differ",
        "came back by rewind",
    ):
        assert words in out
    assert "50 %" in err and m.requests[-1] == {"op": "recover", "patience_s": 60}
    assert len(out.splitlines()) < 24  # one screen


def test_plan_alone_asks_for_nothing_else_and_tells_a_refusal_by_its_exit_code(
    member: Callable[[Answers], Member],
) -> None:
    refused = PLAN | {"refusal": "m2: 1 MiB free", "repair": "Make room on m2."}
    m = member(answering({"ok": True}, refused))
    code, out, _ = m.run("--plan")
    assert code == 2 and "It cannot begin" in out and "Make room on m2." in out
    code, out, _ = m.run("--dry-run", "--json")
    assert code == 2 and json.loads(out)["refusal"] == "m2: 1 MiB free"
    assert all(r.get("plan") for r in m.requests)


def test_refusal_says_what_to_repair_and_ends_with_2(member: Callable[[Answers], Member]) -> None:
    m = member(answering({"ok": False, "error": "the disk under /pg fails.", "hint": "Replace the disk."}))
    code, out, err = m.run("--json")
    assert code == 2 and "Replace the disk." in err and json.loads(out)["ok"] is False


def test_interruption_ends_the_watching_only(member: Callable[[Answers], Member]) -> None:
    m = member(lambda r: [{"ok": True, "plan": PLAN}] if r.get("plan") else [{"progress": "copying"}])
    p = m.start()
    assert p.stderr is not None
    assert "copying" in p.stderr.readline()
    p.send_signal(signal.SIGINT)
    _out, err = p.communicate(timeout=60)
    assert p.returncode == 130 and "goes on in the controllers" in err
