"""What several tests of this column share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from aws_emulator import Emulator, emulator


@pytest.fixture(scope="session")
def cloud() -> Iterator[Emulator]:
    """One emulator for all; a test that makes it hang lets it go again."""
    with emulator() as found:
        yield found
