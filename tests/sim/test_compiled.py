"""The copy of the simulator that `make simulate-long` compiles is rewritten before: that must change no schedule."""

import ast
from pathlib import Path

import compiled
import pytest


def test_rewritten_copy_tells_the_same_stories(tmp_path: Path) -> None:
    compiled.copy(tmp_path / "copy")
    text = (tmp_path / "copy/futago/cluster/situation.py").read_text()
    assert "@once" not in text and "_find_is_own_win" in text, "nothing was rewritten"
    compiled.check(tmp_path / "copy", 3)


def test_copy_with_another_rule_is_found_out(tmp_path: Path) -> None:
    compiled.copy(tmp_path / "copy")
    rule = tmp_path / "copy/futago/cluster/decide.py"
    text, often = rule.read_text(), "READ_EVERY_NS: Final = 1_000_000_000"
    assert text.count(often) == 1
    rule.write_text(text.replace(often, often.replace("1_000", "1_100")))
    with pytest.raises(AssertionError, match="another story"):
        compiled.check(tmp_path / "copy", 3)


def test_every_room_of_the_decision_is_compiled() -> None:
    files = set(compiled.compiled_files())
    assert {"futago/cluster/decide.py", "futago/cluster/situation.py", "futago/sim/world.py"} <= files
    for name in files:
        if name.startswith("futago/cluster/rules/"):
            ast.parse(compiled.rewritten((compiled.SOURCE / name).read_text()))
