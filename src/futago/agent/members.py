"""Which members this agent talks to: those it was enrolled with, and those that the pair has told it of since.

Lives here: the list, kept on the disk, and a link for each. Must not live here: what is said on a link. The idea: an
address book that the pair itself keeps up to date. A host that was enrolled before the second member joined knows one
address only; without the other it would lose the pair with the first switch.

Addresses are only ever added: one that is wrong costs a vain attempt a second, one that is missing costs the pair.
"""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from futago.agent.session import MemberLink
from futago.runtime.log import Log
from futago.runtime.unreadable import UNREADABLE
from futago.setup import files

ADDRESSES_MAX = 8


class MemberBook:
    """The addresses, and the links to them.

    Args:
        path: where the learned ones are kept.
        enrolled: the addresses in the agent's settings.
        make_link: makes the link to one address.
    """

    def __init__(
        self, path: Path, *, enrolled: Sequence[str], make_link: Callable[[str], MemberLink], log: Log
    ) -> None:
        self._path, self._make_link, self._log = path, make_link, log
        self._enrolled = tuple(enrolled)
        self._learned = [a for a in _read(path, log) if a not in self._enrolled]
        self.links: list[MemberLink] = []
        self._group: asyncio.TaskGroup | None = None
        self._writing: asyncio.Task[None] | None = None

    @property
    def addresses(self) -> list[str]:
        """All of them, those of the enrolment first."""
        return [*self._enrolled, *self._learned]

    async def run(self) -> None:
        """Keep a link to each address until cancelled."""
        async with asyncio.TaskGroup() as group:
            self._group = group
            for address in self.addresses:
                self._start(address)
            await asyncio.Event().wait()

    def learn(self, told: Sequence[str]) -> None:
        """Take up what a member that may give orders has told."""
        fresh = [a for a in told if _is_address(a) and a not in self.addresses]
        if not fresh or self._group is None or len(self.addresses) + len(fresh) > ADDRESSES_MAX:
            return
        self._learned += fresh
        self._log.event("members.learned", addresses=fresh)
        for address in fresh:
            self._start(address)
        self._writing = self._group.create_task(self._keep(list(self._learned), after=self._writing))

    def _start(self, address: str) -> None:
        assert self._group is not None
        link = self._make_link(address)
        self.links.append(link)
        self._group.create_task(link.run())

    async def _keep(self, learned: list[str], *, after: asyncio.Task[None] | None) -> None:
        if after is not None:
            await asyncio.wait({after})
        data = msgspec.json.encode(learned)
        try:
            await asyncio.to_thread(files.write, self._path, data, mode=0o644)
        except OSError as e:  # it is told again at the next greeting
            self._log.error("members.not-kept", error=str(e))


def _read(path: Path, log: Log) -> list[str]:
    """Return the addresses in the file; none if it is missing or damaged, since every member tells them again."""
    try:
        found = msgspec.json.decode(path.read_bytes(), type=list[str])
    except FileNotFoundError:
        return []
    except (OSError, *UNREADABLE) as e:
        log.warning("members.unreadable", error=str(e))
        return []
    return [a for a in found if _is_address(a)][:ADDRESSES_MAX]


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True
