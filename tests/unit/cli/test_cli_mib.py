"""`futago mib` against two listening members and a real database."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from test_cli_api import Run, futago, pair  # noqa: F401  fixtures

MIBS = Path(__file__).parent.parent / "intake/mibs"


async def test_mib_files_are_loaded_listed_shown_and_removed(
    futago: Run,  # noqa: F811
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert await futago("mib", "load", str(MIBS / "IF-MIB.txt")) == 2
    told = capsys.readouterr().err
    assert "IANAifType-MIB, imported by IF-MIB" in told
    assert "[mib.missing]" in told
    (tmp_path / "IANAifType-MIB.txt").write_bytes((MIBS / "IANAifType-MIB.txt").read_bytes() + b"-- caf\xe9\n")
    assert await futago("mib", "load", str(tmp_path / "IANAifType-MIB.txt"), str(MIBS / "IF-MIB.txt"), "--json") == 0
    loaded = json.loads(capsys.readouterr().out)["mibs"]
    assert [(one["mib_name"], one["notifications"]) for one in loaded] == [("IANAifType-MIB", 0), ("IF-MIB", 2)]
    assert await futago("mib", "list") == 0
    assert "IF-MIB" in capsys.readouterr().out
    assert await futago("mib", "show", "IF-MIB") == 0
    assert "up(1), down(2), testing(3)" in capsys.readouterr().out
    assert await futago("mib", "remove", "IANAifType-MIB") == 2
    assert "[mib.needed]" in capsys.readouterr().err
    assert await futago("mib", "remove", "IF-MIB") == 0
    assert await futago("mib", "show", "IF-MIB") == 2
    assert await futago("mib", "load", str(tmp_path / "nowhere")) == 2
