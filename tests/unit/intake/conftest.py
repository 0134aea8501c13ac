"""Fixtures for the intake's suite."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from receivers import ReceiverProcess, make_pair, make_pki


@pytest.fixture(scope="session")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pair's certificates."""
    return make_pki(tmp_path_factory.mktemp("pki"), "m1", "m2")


@pytest.fixture
def pair(tmp_path: Path, pki: Path) -> Iterator[tuple[ReceiverProcess, ReceiverProcess]]:
    """Two receivers, started, speaking with each other."""
    one, two = make_pair(tmp_path, pki)
    try:
        one.start()
        two.start()
        for each in (one, two):
            each.wait(lambda status: status["sync"]["connected"])
        yield one, two
    finally:
        one.stop()
        two.stop()
