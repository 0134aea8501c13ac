"""Definitions of nets as the engine uses them, kept from one epoch to the next.

A definition is known by the digest of its text and never changes, so what was made of it once is right for as long as the
program runs. Making it takes 50 us a job: with large nets most of the time that an engine needs to begin, and each epoch has
an engine of its own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any

from futago.jobs.definitions import read_net
from futago.jobs.plan import Net
from futago.runtime.faults import Corrupt

UNITS_KEPT_MAX = 10_000  # jobs and nets in all, about 30 MB; what open sessions need is kept whatever its number

Read = Callable[[list[str]], Awaitable[Mapping[str, dict[str, Any]]]]
"""Returns the definition of each of these digests, as far as there is one."""


class NetShelf:
    """Nets by digest. Those that were asked for last are kept longest."""

    __slots__ = ("_nets",)

    def __init__(self) -> None:
        self._nets: dict[str, Net] = {}

    def __len__(self) -> int:
        return len(self._nets)

    def get(self, digest: str) -> Net | None:
        """Return a net that was filled in; None: it could not be read, another version of the program wrote it."""
        return self._nets.get(digest)

    async def fill(self, digests: Iterable[str], read: Read) -> None:
        """Have these nets, as far as they can be read. Raises what `read` raises."""
        wanted = set(digests)
        missing = sorted(wanted - self._nets.keys())
        specs = await read(missing) if missing else {}
        for digest, spec in specs.items():
            try:
                self._nets[digest] = await asyncio.to_thread(read_net, spec)  # ten thousand jobs take half a second
            except Corrupt:
                continue
        self._drop_all_but(wanted)

    def _drop_all_but(self, wanted: set[str]) -> None:
        for digest in wanted & self._nets.keys():
            self._nets[digest] = self._nets.pop(digest)  # to the end: used last
        units = sum(len(net.units) for net in self._nets.values())
        for digest in [d for d in self._nets if d not in wanted]:
            if units <= UNITS_KEPT_MAX:
                return
            units -= len(self._nets.pop(digest).units)
