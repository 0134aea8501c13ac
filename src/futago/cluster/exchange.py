"""With whom the controller talks all the time: the other member (heartbeats) and the third vote.

Lives here: these two conversations, begun, renewed when the settings change, and ended. Must not live here: what is
said (word.py) and what it means (decide.py). The idea: the radio room. A line that is in use is left alone: a contact
that is begun anew counts as lost for a moment.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Coroutine, Iterable, Sequence
from dataclasses import replace
from typing import Any

from futago import __version__
from futago.cluster.facts import NO_EPOCH, Board
from futago.cluster.model import Cas, Heartbeat, MemberName, Peer
from futago.link import heartbeat
from futago.link.heartbeat import HeartbeatEndpoint, PeerWatch
from futago.register import kinds as register_kinds
from futago.register.memory import Memory
from futago.register.port import Health, Register
from futago.runtime.clock import now_at
from futago.runtime.log import Log
from futago.setup import paths
from futago.setup.settings import Settings

VOTE_MEMORY = paths.CLUSTER / "vote.memory.json"


class Exchange:
    """The conversations.

    Args:
        settings: returns the present ones. compose: returns our present word. on_change: called when the other member
            says something new of itself.
    """

    def __init__(
        self,
        *,
        board: Board,
        boot: str,
        context: ssl.SSLContext,
        settings: Callable[[], Settings],
        compose: Callable[[], Heartbeat],
        on_change: Callable[[], None],
        log: Log,
    ) -> None:
        self._board, self._boot, self._context, self._settings = board, boot, context, settings
        self._compose, self._on_change, self._log = compose, on_change, log
        self._memory = Memory(VOTE_MEMORY)
        self._endpoint: HeartbeatEndpoint | None = None
        self._watched: tuple[object, ...] = ()  # who the endpoint's bookkeeping is about
        self._parts: dict[str, asyncio.Task[None]] = {}
        self._group: asyncio.TaskGroup | None = None
        self.register: Register | None = None

    # --- begun and renewed ------------------------------------------------------------------------------------------

    def start(self, group: asyncio.TaskGroup) -> None:
        """Begin both, as tasks of `group`."""
        self._group = group
        self._renew_heartbeat()
        self.renew_register()

    def follow(self, before: Settings) -> None:
        """Begin anew what has changed since `before`."""
        s = self._settings()
        if (before.members, before.pair) != (s.members, s.pair):
            self._renew_heartbeat()
        if _vote(before) != _vote(s):
            self.renew_register()

    def renew_register(self) -> None:
        """Begin the conversation with the third vote anew, as the settings name it."""
        self._end("register")
        settings = self._settings()
        self.register = register_kinds.usable_or_not(
            settings, context=self._context, memory=self._memory, log=self._log
        )
        if self.register is not None:
            self._begin("register", self.register.run())
        # what is known of the view stays; that somebody answered, and what became of a put, was the word of another
        self._board.put_register(
            is_configured=self.register is not None,
            read_at=None,
            contact_at=None,
            asked_at=None,
            is_pending=False,
            cas=Cas.NONE,
            cas_epoch=NO_EPOCH,
            cas_at=None,
        )

    def _renew_heartbeat(self) -> None:
        self._end("heartbeat")
        settings = self._settings()
        self._endpoint = None if settings.peer is None else self._make_endpoint(settings)
        if self._endpoint is not None:
            self._begin("heartbeat", self._endpoint.run())

    def _begin(self, name: str, work: Coroutine[Any, Any, None]) -> None:
        assert self._group is not None, "not started"
        self._parts[name] = self._group.create_task(work)

    def _end(self, name: str) -> None:
        task = self._parts.pop(name, None)
        if task is not None:
            task.cancel()

    def tasks(self) -> Iterable[asyncio.Task[None]]:
        """Return what runs, to be cancelled."""
        return list(self._parts.values())

    def _make_endpoint(self, s: Settings) -> HeartbeatEndpoint:
        assert s.peer is not None
        links = (
            heartbeat.Path("service", s.own.service, s.peer.service),
            heartbeat.Path("heartbeat", s.own.heartbeat, s.peer.heartbeat),
        )
        watch = self._watch_of(s, s.peer.name, tuple(x.name for x in links))
        return HeartbeatEndpoint(
            watch=watch,
            links=links,
            h=self._board.cfg.h,
            compose=self._compose,
            on_change=self._on_change,
            log=self._log,
            program=__version__,
            roster=lambda: self._settings().roster,
        )

    def _watch_of(self, s: Settings, peer: str, links: tuple[str, ...]) -> PeerWatch:
        """The bookkeeping goes on where it is about the same member: what was heard of it has not become less true."""
        key = paths.HEARTBEAT_KEY.read_bytes()
        watched, before = (s.pair.id, s.me, peer, links, key), self._endpoint
        if before is not None and watched == self._watched:
            return before.watch
        self._watched = watched
        return PeerWatch(
            pair=s.pair.id,
            own=MemberName(s.me),
            peer=MemberName(peer),
            boot=self._boot,
            links=links,
            key=key,
            now=now_at(),
        )

    # --- the other member -------------------------------------------------------------------------------------------

    def peer_fact(self) -> Peer:
        """Return what is known of the other member."""
        if self._endpoint is None:
            return Peer(watching_since=self._board.started_at)
        return self._endpoint.watch.peer

    @property
    def peer_program(self) -> str:
        """The version of its software; empty if it was never heard."""
        return "" if self._endpoint is None else self._endpoint.watch.program

    @property
    def peer_roster(self) -> int:
        """The version of the third vote in its settings; 0 if it was never heard."""
        return 0 if self._endpoint is None else self._endpoint.watch.roster

    def say_now(self) -> None:
        """Send our word at once."""
        if self._endpoint is not None and "heartbeat" in self._parts:
            self._endpoint.send_now()

    async def say_bye(self) -> None:
        """Announce an orderly end."""
        if self._endpoint is not None:
            await self._endpoint.say_bye()

    def forget_peers_sign(self) -> None:
        """An operator knows better than the last word about maintenance of a member that is silent."""
        watch = None if self._endpoint is None else self._endpoint.watch
        if watch is not None and watch.peer.heartbeat is not None:
            said = replace(watch.peer.heartbeat, maintenance=False)
            watch.peer = replace(watch.peer, heartbeat=said)
            self._board.bell.set()

    # --- the third vote ---------------------------------------------------------------------------------------------

    def health(self, now: int) -> Sequence[Health]:
        """Return how each part of the third vote is; empty if there is none."""
        return [] if self.register is None else self.register.health(now)


def _vote(s: Settings) -> tuple[object, ...]:
    """What tells one third vote from another."""
    return s.jurors, s.roster, s.third_vote, s.pair.authority, s.pair.id
