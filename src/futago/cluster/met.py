"""Which view this boot of the host is part of, where the fence decides (Facts.met_epoch); remembered across restarts
of the controller.

Lives here: a line on tmpfs. Must not live here: when two members have met (decide.py). The idea: a stamp on the hand
at the door. A boot washes it off, and that is what it is for: a host that was powered off may have been powered off
by the other one, which may have acknowledged alone since.
"""

from __future__ import annotations

import os
from pathlib import Path

from futago.cluster.model import Epoch


class MetNote:
    """The note.

    Args:
        path: on tmpfs. boot: this boot's id; a note of another one says nothing, should the file have outlived it.
    """

    def __init__(self, path: Path, *, boot: str) -> None:
        self._path, self._boot = path, boot
        self.epoch = self._read()

    def keep(self, epoch: Epoch) -> None:
        """Note that both members have the view of `epoch`. Raises OSError; then a restart forgets it."""
        self.epoch = epoch
        fresh = self._path.with_suffix(".new")
        fresh.write_text(f"{self._boot} {epoch}\n", encoding="ascii")
        os.replace(fresh, self._path)

    def _read(self) -> Epoch:
        try:
            boot, epoch = self._path.read_text(encoding="ascii").split()
            return Epoch(int(epoch) if boot == self._boot else 0)
        except (OSError, ValueError):
            return Epoch(0)
