"""Progress of long commands, for people: one line a step on standard error, with the time it took."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

Say = Callable[[str], None]

_lock = threading.Lock()


def say(text: str) -> None:
    """Print one line of progress."""
    with _lock:
        sys.stderr.write(f"{text}\n")
        sys.stderr.flush()


def silent(text: str) -> None:
    """Print nothing."""


@contextmanager
def step(text: str, *, say: Say) -> Iterator[None]:
    """Announce a step, and how long it took once it is done."""
    say(f"  .. {text}")
    began = time.monotonic()
    yield
    say(f"  ok {text} ({time.monotonic() - began:.1f} s)")
