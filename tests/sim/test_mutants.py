"""Every mutant must be found by the unchanged simulator, the unchanged search or the unchanged test of crash points."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

MUTANTS = Path(__file__).resolve().parent.parent / "mutants"


def _load_runner() -> ModuleType:
    spec = importlib.util.spec_from_file_location("mutants_runner", MUTANTS / "runner.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["mutants_runner"] = module
    spec.loader.exec_module(module)
    return module


runner = _load_runner()
PATCHES: list[Path] = runner.patches()


def test_all_seven_of_the_protocol_are_there() -> None:
    assert {int(p.name.split("-")[0]) for p in PATCHES} >= set(range(1, 8))


@pytest.mark.parametrize("patch", PATCHES, ids=lambda p: p.stem)
def test_mutant_is_found(patch: Path) -> None:
    verdict = runner.judge(patch)
    assert verdict.violation, f"{verdict.name} survived {verdict.looked_at} states or schedules"


def test_patch_that_no_longer_applies_is_an_error(tmp_path: Path) -> None:
    text = PATCHES[0].read_text(encoding="utf-8")
    old = next(line for line in text.splitlines() if line.startswith(" ") and line.strip())
    stale = tmp_path / "1-stale.patch"
    stale.write_text(text.replace(old, old + " # not there"), encoding="utf-8")
    with pytest.raises(subprocess.CalledProcessError):
        runner.judge(stale)
