"""The command's door: programs without the command line library, verbs one at a time, faults in one message and one
exit code.
"""

from __future__ import annotations

import subprocess
import sys

import pytest

from futago.cli import main as cli
from futago.cli import run as programs
from futago.runtime.faults import BrokenInvariant, FutagoFault, OperatorFault, Refused, Unknown

LIGHT_FOR_ALL = ("typer", "pydantic", "cryptography", "psycopg", "fastapi", "rich", "click")


def test_programs_are_started_without_the_command_line_library() -> None:
    code = f"""
import sys, types
from futago.cli.main import main
fake = types.ModuleType("fake")
fake.main = lambda: 7
sys.modules["futago.cluster.controller"] = fake
assert main(["run", "controller"]) == 7
loaded = [name for name in {LIGHT_FOR_ALL!r} if name in sys.modules]
assert not loaded, loaded
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def test_help_lists_every_verb_and_loads_none(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--help"]) == 0
    out = capsys.readouterr().out
    for name in cli.VERBS:
        assert f"  {name} " in out
    code = "import sys; from futago.cli.main import main; main(['--help']); assert 'futago.cli.lab' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120, stdout=subprocess.DEVNULL)


def test_a_verb_whose_module_is_missing_says_so_and_breaks_no_other(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(cli.VERBS, "status", cli.Verb("futago.cli.no_such_module", "status", "Help."))
    assert cli.main(["status"]) == cli.EXIT_OPERATOR
    assert "`futago status` is not part of this installation" in capsys.readouterr().err
    assert cli.main(["init", "--help"]) == 0


@pytest.mark.parametrize(
    "args", [["no-such-verb"], ["init", "--no-such-option"], ["jury"], ["run", "nothing"], ["run"]]
)
def test_wrong_usage_ends_with_2(args: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(args) == 2
    assert capsys.readouterr().err or args == ["jury"]


@pytest.mark.parametrize(
    ("fault", "code", "words"),
    [
        (OperatorFault("It is wrong.", hint="Do it right.", code="a.b"), 2, ["It is wrong.", "Do it right.", "[a.b]"]),
        (Refused("no room"), 1, ["no room"]),
        (Unknown("line cut"), 3, ["unknown", "line cut"]),
        (BrokenInvariant("two views"), 4, ["defect", "two views"]),
    ],
)
def test_each_kind_of_fault_has_its_exit_code_and_one_message(
    fault: FutagoFault,
    code: int,
    words: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def start(program: str, rest: list[str]) -> int:
        raise fault

    monkeypatch.setattr(programs, "start", start)
    assert cli.main(["run", "receiver"]) == code
    captured = capsys.readouterr()
    assert captured.out == ""
    for word in words:
        assert word in captured.err
    assert "Traceback" not in captured.err


def test_a_program_takes_no_arguments(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["run", "receiver", "--fast"]) == 2
    assert "take no arguments" in capsys.readouterr().err


def test_version_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("futago 0.")
