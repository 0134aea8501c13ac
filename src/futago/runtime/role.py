"""What this member may do right now, as told by its controller: the lease under which the other programs work.

Lives here: the role itself, and the watch that follows the controller's local socket. Must not live here: any
decision about roles. The idea: a lamp on the wall. While it burns green a program works; when it goes out, for
whatever reason (role lost, socket silent for two seconds, controller gone for one), the program is inert. A missing
lamp is as one that is out.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import msgspec

from futago.runtime.clock import S, now_at
from futago.runtime.faults import RemoteProtocolFault
from futago.runtime.log import Log
from futago.runtime.unreadable import UNREADABLE
from futago.setup import paths

SILENCE_S_MAX = 2.0  # the controller writes a line every 500 ms at the latest
GRACE_S = 1.0  # a killed controller is back sooner and adopts what runs; else the guard closes the gate after as long
RETRY_S = 0.05  # a killed controller is back in 50 ms
LINE_BYTES_MAX = 64 * 1024


class RoleKind(StrEnum):
    """Which side of the pair this member is on."""

    PRIMARY = "primary"
    STANDBY = "standby"
    NONE = "none"  # unknown, blocked, or no controller: inert


class GateState(StrEnum):
    """Whether application roles may enter the database."""

    OPEN = "open"
    CLOSED = "closed"


@dataclass(frozen=True, slots=True)
class RoleView:
    """The view in words that any program can read."""

    epoch: int
    primary: str
    insync: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Role:
    """One line of the controller's role stream. The default is the inert role."""

    role: RoleKind = RoleKind.NONE
    epoch: int = 0
    solo: bool = False  # what is on this member's disk is safe: nobody counts on the other one
    turn: int = 0  # the receiver says it back with what it knows of `solo`
    cut: bool = False  # nobody is heard over the service network
    gate: GateState = GateState.CLOSED
    outward: bool = False
    primary: str | None = None
    view: RoleView | None = None

    @property
    def is_active(self) -> bool:
        """May the engines work and commit? Outward effects need `outward` besides."""
        return self.role is RoleKind.PRIMARY and self.gate is GateState.OPEN


INERT = Role()
_decoder = msgspec.json.Decoder(Role)


def parse_line(line: bytes) -> Role:
    """Return the role that one line of the stream tells.

    Raises:
        RemoteProtocolFault: the line is not a role.
    """
    try:
        return _decoder.decode(line)
    except UNREADABLE as e:
        raise RemoteProtocolFault(f"not a role line: {e}") from e


class RoleWatch:
    """Follows the controller's role stream; `role` is always the newest known, INERT when nothing is known.

    Args:
        path: the controller's local socket.
        log: where a lost or regained controller is noted.
    """

    def __init__(self, path: Path = paths.CONTROLLER_SOCKET, *, log: Log | None = None) -> None:
        self._path = path
        self._log = log
        self._role = INERT
        self._news: asyncio.Future[None] | None = None
        self._heard_at = 0

    @property
    def role(self) -> Role:
        return self._role

    async def changed(self, since: Role | None = None) -> Role:
        """Return the role as soon as it differs from `since` (default: from the present one)."""
        known = self._role if since is None else since
        while self._role == known:
            if self._news is None:
                self._news = asyncio.get_running_loop().create_future()
            await asyncio.shield(self._news)
        return self._role

    async def run(self) -> None:
        """Follow the controller until cancelled; reconnect whenever it goes away."""
        try:
            while True:
                await self._follow()
                if self._grace_s <= 0:
                    self._set(INERT)
                await asyncio.sleep(RETRY_S)
        finally:
            self._set(INERT)

    @property
    def _grace_s(self) -> float:
        """How long the role that was told last still counts without a controller."""
        return GRACE_S - (now_at() - self._heard_at) / S

    async def _follow(self) -> None:
        writer: asyncio.StreamWriter | None = None
        is_told = False
        try:
            async with asyncio.timeout(SILENCE_S_MAX if self._role == INERT else max(RETRY_S, self._grace_s)):
                reader, writer = await asyncio.open_unix_connection(str(self._path), limit=LINE_BYTES_MAX)
                writer.write(b'{"op":"role"}\n')
                await writer.drain()
            while True:
                async with asyncio.timeout(
                    SILENCE_S_MAX if is_told or self._role == INERT else max(RETRY_S, self._grace_s)
                ):
                    line = await reader.readline()
                if not line:
                    return
                self._set(parse_line(line))
                is_told, self._heard_at = True, now_at()
        except (OSError, TimeoutError, ValueError, RemoteProtocolFault) as e:
            if is_told and isinstance(e, TimeoutError):
                self._heard_at = 0  # it lives and says nothing: no grace
            if self._role != INERT and self._log is not None:
                self._log.warning("role.lost", error=str(e) or type(e).__name__)
        finally:
            if writer is not None:
                writer.close()

    def _set(self, role: Role) -> None:
        if role == self._role:
            return
        self._role = role
        if self._news is not None and not self._news.done():
            self._news.set_result(None)
        self._news = None
