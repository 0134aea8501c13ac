"""Apply a mutant to a copy of the tree and let the unchanged simulator, search or crash-point test look for it.

Run by hand: python tests/mutants/runner.py [part of a name].
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
TREE = HERE.parent.parent
SEEDS_MAX = 4000
LIMIT_S = 600
CRASH_LIMIT_S = 600
# Every point at which the way into a real database can break; it ends at the first one that loses or repeats something.
CRASH_POINTS = "tests/unit/intake/test_crash_points.py::test_a_death_at_any_point_loses_and_repeats_nothing"
CONFIRM = 'import futago; assert "mutant" in futago.__file__, "the copy is not what runs"'
HUNT = """
import json, sys
from futago.sim.exhaustive import Bounds, search
from futago.sim.hunt import hunt
assert "mutant" in __import__("futago").__file__, "the copy is not what runs"
how, most = sys.argv[1], int(sys.argv[2])
if how == "search":
    found = search(Bounds(commits=0, epochs=3, crashes=0, turns=2))
    print(json.dumps([found.violation, found.states]))
else:
    for tally in hunt(0, seeds=most):
        broken = [r.violation for r in tally.violations if not r.violation.startswith("L")]
        if broken:
            break
    print(json.dumps([broken[0] if broken else "", tally.schedules]))
"""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of a mutant."""

    name: str
    violation: str  # empty: it survived
    looked_at: int  # states or schedules until then


def patches() -> list[Path]:
    """All mutants, in order."""
    return sorted(HERE.glob("*.patch"), key=lambda p: int(p.name.split("-")[0]))


def finder(patch: Path) -> str:
    """Which of the three finds it."""
    line = patch.read_text(encoding="utf-8").splitlines()[1]
    assert line in ("Found by: search", "Found by: seeds", "Found by: crash-points"), f"{patch.name}: second line"
    return line.rsplit(" ", 1)[1]


def judge(patch: Path) -> Verdict:
    """Apply one mutant and look for it.

    Raises:
        subprocess.CalledProcessError: the patch does not apply, or the mutated tree does not run.
    """
    with tempfile.TemporaryDirectory(prefix="mutant-") as place:
        copy = Path(place) / "mutant"
        shutil.copytree(TREE / "src" / "futago", copy / "src" / "futago", ignore=shutil.ignore_patterns("__pycache__"))
        subprocess.run(["git", "apply", "-p1", str(patch)], cwd=copy, check=True, capture_output=True, text=True)
        changed = subprocess.run(
            ["diff", "-rq", "-x", "__pycache__", str(TREE / "src" / "futago"), str(copy / "src" / "futago")],
            check=False,
            capture_output=True,
            text=True,
        ).stdout
        assert changed, f"{patch.name} changes nothing"
        environment = {**os.environ, "PYTHONPATH": str(copy / "src"), "PYTHONDONTWRITEBYTECODE": "1"}
        if finder(patch) == "crash-points":
            return Verdict(patch.stem, *_broken_at_a_crash_point(environment))
        done = subprocess.run(
            [sys.executable, "-c", HUNT, finder(patch), str(SEEDS_MAX)],
            env=environment,
            check=True,
            capture_output=True,
            text=True,
            timeout=LIMIT_S,
        )
        violation, looked_at = json.loads(done.stdout)
        return Verdict(patch.stem, violation, looked_at)


def _broken_at_a_crash_point(environment: dict[str, str]) -> tuple[str, int]:
    """Return what the crash-point test says of the copy, and at which point; empty if it passes.

    Raises:
        subprocess.CalledProcessError: it failed by something else than a loss or a repetition.
    """
    subprocess.run([sys.executable, "-c", CONFIRM], env=environment, check=True, capture_output=True, text=True)
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "--tb=short", CRASH_POINTS]
    done = subprocess.run(
        command, cwd=TREE, env=environment, check=False, capture_output=True, text=True, timeout=CRASH_LIMIT_S
    )
    if done.returncode == 0:
        return "", 0
    found = re.search(r"AssertionError: (\d+): (.*(?:lost|twice) .*)", done.stdout)
    if found is None:
        raise subprocess.CalledProcessError(done.returncode, command, done.stdout, done.stderr)
    return found[2][:300], int(found[1])


if __name__ == "__main__":
    for each in patches():
        if len(sys.argv) < 2 or sys.argv[1] in each.name:
            verdict = judge(each)
            print(f"{verdict.name}: {verdict.violation or 'SURVIVED'} ({verdict.looked_at})", flush=True)
