"""When this host was last in contact with the peer or W, remembered across restarts of the controller.

Lives here: a few bytes on tmpfs. A primary that reaches nobody closes after T_self; a controller that dies and comes back must not begin to count
anew, or a host whose controller keeps dying would hold the address for ever. A boot clears the note, and then there is nothing to hold.
"""

from __future__ import annotations

import contextlib
import os
import struct
import zlib
from pathlib import Path

from futago.cluster.model import At
from futago.runtime.clock import MS

KEEP_EVERY = 100 * MS
_BODY = struct.Struct("!Q")
_NOTE = struct.Struct("!QI")


class ContactNote:
    """The note, and what it said when this controller started."""

    def __init__(self, path: Path, *, started_at: At) -> None:
        self._path = path
        self._kept = 0
        self._started_at = started_at
        self.before: At | None = self._read()
        """None: no controller has decided anything in this boot."""

    def keep(self, contact_at: At) -> None:
        """Write the note anew if contact has moved on; with no contact of our own, the old note stays."""
        if contact_at - self._kept < KEEP_EVERY and self._path.exists():
            return
        base = self._started_at if self.before is None else self.before
        newest = max(contact_at, self._kept, base)
        body = _BODY.pack(newest)
        with contextlib.suppress(OSError):
            fd = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                os.pwrite(fd, _NOTE.pack(newest, zlib.crc32(body)), 0)
            finally:
                os.close(fd)
            self._kept = newest

    def _read(self) -> At | None:
        try:
            note = self._path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError:
            return At(0)
        if len(note) != _NOTE.size:
            return At(0)
        newest, crc = _NOTE.unpack(note)
        return At(newest if crc == zlib.crc32(_BODY.pack(newest)) else 0)
