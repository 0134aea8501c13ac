"""What the controller watches besides PostgreSQL and the peer: the journals, the programs beside it, the service
network, its disk.

Lives here: loops that keep facts fresh. Must not live here: consequences. The idea: watchmen, each with one window. A
watchman who sees nothing says so; none of them may ever hold the others up.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from futago.cluster.address.carried import CarriedAddress
from futago.cluster.facts import Board
from futago.cluster.model import Durable, Peer
from futago.cluster.slots import RECHECK_S, Keeper
from futago.cluster.starved import Use, stood_still, use_of
from futago.cluster.unit import DeathWatch
from futago.register.port import Register
from futago.runtime import process
from futago.runtime.clock import MS, S, now_at
from futago.runtime.faults import WorldFault
from futago.runtime.log import Log
from futago.setup import paths

JOURNAL_S = 0.3
JOURNAL_S_MAX = 1.0
NET_S = 0.2
NET_BAD = 1.5 * S  # how long nobody but the peer's other link is heard until our service network counts as broken
BEAT_SHARE = 0.6  # of t_stall: how long a program may stand still; 1.2 s by default. Programs beat every 200 ms
BEAT_BUSY = 12 * S  # one that is late but at work (or kept from it by other programs) is borne so long
BEAT_FIRST = 20 * S  # so long a program that has just been started may stand still before its first beat
BEGIN_BUSY = 120 * S  # ... and be at work, on a machine that lets it hardly run
PROGRAMS_S = 0.1
FIND_S = 0.25
RESTART_PAUSE = 5 * S
RECHECK_SOON_S = 0.25
UNHEARD = 4 * S  # jurors are asked every second or two; the merge of messages has 10 s of tolerance for what is late


class Journals:
    """Are both journals of messages complete on both members, and is nothing told safe any more that only this one has?

    Asked of the receiver here. That it tells nothing safe alone counts only as an answer to the role line of this turn.
    """

    def __init__(self, board: Board, *, path: Path = paths.RECEIVER_SOCKET) -> None:
        self._board, self._path = board, path
        self.said: dict[str, Any] = {}

    async def run(self) -> None:
        """Ask for ever."""
        while True:
            self.said = await self._ask()
            is_settled = bool(self.said.get("settled")) and self.said.get("turn") == self._board.turn
            self._board.put(journals_complete=bool(self.said.get("complete")), journals_settled=is_settled)
            await asyncio.sleep(JOURNAL_S)

    async def _ask(self) -> dict[str, Any]:
        writer: asyncio.StreamWriter | None = None
        try:
            async with asyncio.timeout(JOURNAL_S_MAX):
                reader, writer = await asyncio.open_unix_connection(str(self._path))
                writer.write(b'{"op":"status"}\n')
                answer = json.loads(await reader.readline())
            return answer if isinstance(answer, dict) else {}
        except (OSError, TimeoutError, ValueError):
            return {}
        finally:
            if writer is not None:
                writer.close()


@dataclass(slots=True)
class _Program:
    """One program that the controller keeps running."""

    name: str
    unit: str
    death: DeathWatch
    beat_at: int | None = None
    started_at: int = field(default_factory=now_at)
    restarted_at: int = 0
    is_dead: bool = False  # it died, or was killed because it stood still, and has not beaten since
    still: int = 0  # ns it has stood still since its last beat
    looked_at: int = field(default_factory=now_at)
    use: Use = field(default_factory=Use)

    def look(self) -> None:
        """Note for how long it has stood still."""
        now, use = now_at(), use_of(self.death.pid)
        self.still += stood_still(self.use, use, passed=now - self.looked_at, looks_every=int(PROGRAMS_S * S))
        self.use, self.looked_at = use, now

    def beaten(self) -> None:
        """Note a beat."""
        self.beat_at, self.is_dead, self.still = now_at(), False, 0

    def begun(self, pid: int) -> None:
        """Note that it runs anew, as this process; it has all the time that a fresh one has."""
        self.death.watch(pid)
        self.started_at, self.still = now_at(), 0

    def is_stuck(self, limit: int) -> bool:
        """Does what runs stand still? A fresh process, also of a program that counts as dead, may take its time."""
        now = now_at()
        if self.beat_at is None or self.beat_at < self.started_at:
            return self.still >= BEAT_FIRST or now - self.started_at >= BEGIN_BUSY
        return self.still >= limit or now - self.beat_at >= BEAT_BUSY


class Programs:
    """The manager and the web program: started, kept started, and known to be alive by beats from inside their loops.

    A death is known at once from the kernel; a program that stands still, from its missing beats while it uses no
    processor time, waits for none and for no disk: one that is only late, on a machine that is saturated, is not taken for
    dead (starved.py). One that stands still is killed, since it may wake up later; systemd starts it again. Until it beats
    the member goes on without it, and the other one had better serve.
    """

    def __init__(self, board: Board, *, log: Log, names: tuple[str, ...] = ("manager", "web")) -> None:
        self._board, self._log = board, log
        self._programs = {n: self._make(n) for n in names}

    def _make(self, name: str) -> _Program:
        return _Program(name, f"futago-{name}.service", DeathWatch(lambda _pid: self._died(name)))

    @property
    def _limit(self) -> int:
        return int(BEAT_SHARE * self._board.cfg.t_stall)

    def beat(self, name: str) -> None:
        """Note a beat."""
        program = self._programs.get(name)
        if program is not None:
            program.beaten()
            self._judge()

    def _died(self, name: str) -> None:
        program = self._programs[name]
        program.is_dead = program.is_dead or program.beat_at is not None
        self._log.warning("program.died", program=name)
        self._judge()

    def is_ok(self, name: str) -> bool:
        """Does this program beat?"""
        program = self._programs[name]
        return not program.is_dead and not program.is_stuck(self._limit)

    def _judge(self) -> None:
        self._board.put(manager_ok=all(self.is_ok(n) for n in self._programs))

    async def run(self) -> None:
        """Keep them running until cancelled."""
        for program in self._programs.values():
            await self._start(program)
        async with asyncio.TaskGroup() as group:
            group.create_task(self._watch())
            group.create_task(self._find_all())

    async def _watch(self) -> None:
        while True:
            for program in self._programs.values():
                program.look()
            self._judge()
            for program in self._programs.values():
                is_due = now_at() - program.restarted_at > RESTART_PAUSE
                if is_due and (program.is_stuck(self._limit) or (program.is_dead and not program.death.pid)):
                    await self._restart(program)
            await asyncio.sleep(PROGRAMS_S)

    async def _find_all(self) -> None:
        """Learn which processes they are. Asking systemd may take seconds, and whoever stands still meanwhile is seen."""
        while True:
            for program in self._programs.values():
                if not program.death.pid:
                    await self._find(program)
            await asyncio.sleep(FIND_S)

    async def _start(self, program: _Program) -> None:
        await self._systemctl("start", "--no-block", program.unit)

    async def _restart(self, program: _Program) -> None:
        self._log.error("program.does-not-answer", program=program.name, still_ms=program.still // MS)
        program.restarted_at = now_at()
        program.is_dead = True  # its death is on its way; what comes after it must beat first
        if not program.death.signal(9):
            await self._systemctl("reset-failed", program.unit)
            await self._systemctl("start", "--no-block", program.unit)

    async def _find(self, program: _Program) -> None:
        said = await self._systemctl("show", "-p", "MainPID", "--value", program.unit)
        if said.isdigit() and int(said):
            program.begun(int(said))

    async def _systemctl(self, *words: str) -> str:
        try:
            return (await process.run(["systemctl", *words], deadline_s=3)).out
        except WorldFault as e:
            self._log.warning("program.systemctl", words=words, error=str(e))
            return ""


class Network:
    """Does our service network work, as far as we can tell?

    The carrier, and whether anybody answers over it. When the peer is heard only by the other network, one of the two
    members has a broken service network; a juror, who lives on it, tells which.
    """

    def __init__(
        self, board: Board, *, address: CarriedAddress, peer: Callable[[], Peer], jury: Callable[[], Register | None]
    ) -> None:
        self._board, self._address, self._peer, self._jury = board, address, peer, jury
        self._bad_since: int | None = None
        self._began_at = now_at()
        # nobody is heard over it, whoever's fault it is; decides nothing, the receiver wants to know
        self.is_cut = False

    async def run(self) -> None:
        """Judge for ever."""
        while True:
            self.judge()
            await asyncio.sleep(NET_S)

    def judge(self) -> None:
        """Set the facts. Who answers for the floating IP matters only where the fence decides."""
        now = now_at()
        self.is_cut = not self._address.has_carrier or self._is_unheard(now)
        asks = self._board.cfg.authority == "fence"
        self._board.put(address_answers=self._address.answers() if asks else None)
        if not self._address.has_carrier or self._address.trouble():
            self._board.put(service_ok=False)
            return
        if not self._is_doubtful(now):
            self._bad_since = None
        elif self._bad_since is None:
            self._bad_since = now
        self._board.put(service_ok=self._bad_since is None or now - self._bad_since < NET_BAD)

    def _is_unheard(self, now: int) -> bool:
        """Neither the peer nor a juror is heard over it; if there is no juror: the peer is, by the other network."""
        fresh, jury = self._fresh(now), self._jury()
        if fresh.get("service", False):
            return False
        if jury is None:
            return any(fresh.values())
        return now - max(jury.heard_at(), self._began_at) > UNHEARD

    def _fresh(self, now: int) -> dict[str, bool]:
        limit = self._board.cfg.t_det
        return {x.name: bool(x.echo_at) and now - (x.echo_at or 0) < limit for x in self._peer().links}

    def _is_doubtful(self, now: int) -> bool:
        """The peer is heard, but not over the service network, and the jurors are not heard either."""
        limit, fresh = self._board.cfg.t_det, self._fresh(now)
        if fresh.get("service", True) or not any(fresh.values()):
            return False
        jury = self._jury()
        return jury is not None and now - jury.heard_at() > limit


class SystemDisk:
    """Asks the disk of the view slots, while it is idle, whether it still writes."""

    def __init__(self, keeper: Keeper) -> None:
        self._keeper = keeper

    async def run(self) -> None:
        """Ask for ever; soon again after a failure."""
        while True:
            durable: Durable = self._keeper.durable
            is_bad = not durable.is_able or durable.is_writing
            with contextlib.suppress(TimeoutError):
                await asyncio.sleep(RECHECK_SOON_S if is_bad else RECHECK_S)
            await self._keeper.recheck()
