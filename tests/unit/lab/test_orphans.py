"""Labs of processes that are gone are removed; one that cannot be removed keeps no other work from going on."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from futago.lab.lab import remove_orphans
from futago.lab.places import lab_lock, places
from futago.lab.state import LabState, save_state


@pytest.fixture
def machine_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Labs and their locks are kept in a folder of this test's own, so that no real lab of this machine is seen."""
    monkeypatch.setattr("futago.lab.places.LABS", tmp_path / "labs")
    monkeypatch.setattr("futago.lab.state.LABS", tmp_path / "labs")
    monkeypatch.setattr("futago.lab.places.LOCKS", tmp_path / "locks")


def orphan(name: str) -> Path:
    """Leave a lab's folder behind whose owner has ended; return it."""
    owner = subprocess.Popen(["true"])
    owner.wait()
    where = places(name)
    where.home.mkdir(parents=True)
    save_state(where, LabState(name, "", "", (), "", owner_pid=owner.pid, owner_started=1))
    return where.home


@pytest.mark.skipif(os.geteuid() != 0, reason="only root takes labs down")
@pytest.mark.usefixtures("machine_of_its_own")
def test_an_orphan_that_another_command_is_removing_is_left_to_it_and_the_others_go() -> None:
    busy, free = orphan(f"a{os.getpid()}"), orphan(f"b{os.getpid()}")
    said: list[str] = []
    with lab_lock(busy.name):
        assert remove_orphans(say=said.append) == [busy.name]
        assert busy.exists()
        assert not free.exists()
    assert any(busy.name in line and "Another command" in line for line in said)
    assert remove_orphans() == []
    assert not busy.exists()
