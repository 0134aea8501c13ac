"""An agent that dies at any step it makes on the disk, twice: whatever it leaves, the run ends, and begins once at most.

The keeper, its files and its shims are real. Every call that changes the disk is counted, and the agent process "dies" at
the n-th: nothing that it does afterwards happens. Then its host goes on, or loses power: what was not synced is torn
(the names are there, the contents are not), or the directories of the runs are gone altogether; the next agent process is
killed in the same way, and the one after it is left in peace. The side of the pair is played by the rules of
jobs/engine.py, and it asks at the worst instant: when the agent has loaded, and has not looked at its runs.
"""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from enum import Enum
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from agent_world import WAIT_S, QuietLog, lines, order
from futago.agent import runs as room
from futago.agent.held import Phase
from futago.agent.ledger import LEDGER_FILE
from futago.agent.records import Records
from futago.agent.runs import RunKeeper
from futago.link.orders import Order, OrderTaken, Outcome, Refused, RunEnded

RUN = "6a1f0f5c-6f0e-4c59-9d3c-2f6f3b0a7c11"
CODE = 7
_STEPS = ("mkdir", "write", "pwrite", "fsync", "fdatasync", "rename", "unlink", "rmdir", "posix_spawn")


class Death(BaseException):
    """The agent process is no more."""


class After(Enum):
    """What becomes of the host when the agent has died."""

    GOES_ON = "goes on"
    TORN = "lost power, contents torn"
    LOST = "lost power, directories lost"


class Disk:
    """Counts the steps of an agent process, lets it die at one of them, and knows what was synced."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.steps = 0
        self.dies_at = 0  # 0: never
        self.shims: list[int] = []
        self._synced: dict[int, bytes] = {}  # inode -> content
        self._real: dict[str, Callable[..., Any]] = {name: getattr(os, name) for name in _STEPS}

    def new_process(self, dies_at: int) -> None:
        self.steps, self.dies_at = 0, dies_at

    @property
    def is_dead(self) -> bool:
        return 0 < self.dies_at <= self.steps

    @contextmanager
    def watched(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
        with monkeypatch.context() as m:
            for name in _STEPS:
                m.setattr(os, name, self._step(name))
            yield

    def _step(self, name: str) -> Callable[..., Any]:
        def step(*args: Any, **more: Any) -> Any:
            if not self._is_ours(name, args):
                return self._real[name](*args, **more)
            if self.is_dead:
                raise Death
            self.steps += 1
            if self.is_dead:
                raise Death
            if name in ("fsync", "fdatasync"):  # the power cut is played: the device need not be waited for
                return self._note_synced(args[0])
            made = self._real[name](*args, **more)
            if name == "posix_spawn":
                self.shims.append(made)
            return made

        return step

    def _is_ours(self, name: str, args: tuple[Any, ...]) -> bool:
        """Whether it is a step of the agent on its files, and none of the event loop's."""
        if name == "posix_spawn":
            return True
        target = args[0]
        where = os.readlink(f"/proc/self/fd/{target}") if isinstance(target, int) else os.fspath(target)
        return where.startswith(str(self.root)) or "dir_fd" in name

    def _note_synced(self, fd: int) -> None:
        stat = os.fstat(fd)
        with suppress(OSError):
            self._synced[stat.st_ino] = Path(f"/proc/self/fd/{fd}").read_bytes()

    def shims_end(self) -> None:
        """Let the shims come to their ends: what they would do later, they have done."""
        for pid in self.shims:
            with suppress(ChildProcessError):
                os.waitpid(pid, 0)
        self.shims.clear()

    def lose_power(self, after: After) -> None:
        if after is After.LOST:
            shutil.rmtree(self.root / "runs", ignore_errors=True)
        for path in self.root.rglob("*"):
            if path.is_file():
                path.write_bytes(self._synced.get(path.stat().st_ino, b""))
        ledger = self.root / LEDGER_FILE
        if ledger.exists() and not ledger.read_bytes():  # a rename is not ahead of the file's own sync
            raise AssertionError("the ledger was put in its place before it was synced")


@dataclass
class Pair:
    """The side of the pair, in small: what the engine knows of the run, and what it does about what the agent says."""

    order: Order
    state: str = "ordered"
    ends: list[RunEnded] = field(default_factory=list)
    has_said_taken: bool = False

    async def meet(self, keeper: RunKeeper) -> None:
        """A session begins: ask what became of the run. What was never taken is ordered again."""
        phase = keeper.phase(self.order.run_id)
        if phase is Phase.HELD:
            self._taken()
        elif phase is None and self.state == "ordered":
            keeper.take(self.order, self._answered)
        elif phase is None and self.state == "running":
            assert not self.has_said_taken, "the agent has lost a run that it had acknowledged"
            self._end(RunEnded(self.order.run_id, Outcome.UNKNOWN))

    def _answered(self, answer: OrderTaken | Refused) -> None:
        assert isinstance(answer, OrderTaken), answer
        self.has_said_taken = True
        self._taken()

    def _taken(self) -> None:
        self.state = "running" if self.state == "ordered" else self.state

    def _end(self, said: RunEnded) -> None:
        self.ends.append(said)
        self.state = "ended"

    async def hear(self, keeper: RunKeeper) -> None:
        """Take the result if there is one, and let the agent forget it."""
        said = await keeper.result(self.order.run_id)
        if said is not None:
            if self.state != "ended":
                self._end(said)
            keeper.commit(self.order.run_id)


class World:
    """One run on one host through the lives of several agent processes."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.oracle = root / "begun"
        self.disk = Disk(root / "agent")
        self.pair = Pair(order(RUN, f"echo begun >> {self.oracle}; exit {CODE}"))
        self._monkeypatch = monkeypatch
        self._boot = 0

    async def life(self, dies_at: int = 0) -> int:
        """Let an agent process live until it dies, or has nothing left to do; return how many steps it made."""
        self.disk.new_process(dies_at)
        records = Records(self.disk.root, boot=f"boot-{self._boot}")
        keeper = RunKeeper(records, boot=f"boot-{self._boot}", log=QuietLog())
        with self.disk.watched(self._monkeypatch):
            task = asyncio.create_task(self._live(keeper))
            with suppress(asyncio.CancelledError, Death, BaseExceptionGroup):
                await task
            if not self.disk.is_dead and not task.cancelled() and task.exception() is not None:
                raise task.exception() or AssertionError
        records.close()  # a process that dies holds no file
        return self.disk.steps

    async def _live(self, keeper: RunKeeper) -> None:
        await keeper.load()
        await self.pair.meet(keeper)
        work = asyncio.create_task(keeper.run())
        try:
            async with asyncio.timeout(WAIT_S):
                while not work.done() and not self._is_done(keeper):
                    await self.pair.hear(keeper)
                    await asyncio.sleep(0.001)
            if work.done():
                await work
        except TimeoutError:
            raise AssertionError(f"the run stays {self.pair.state}; the agent: {keeper.phase(RUN)}") from None
        finally:
            work.cancel()
            with suppress(asyncio.CancelledError, Death, BaseExceptionGroup):
                await work

    def _is_done(self, keeper: RunKeeper) -> bool:
        is_gone = not (self.disk.root / "runs" / RUN).exists()
        return self.pair.state == "ended" and keeper.phase(RUN) is None and is_gone

    def befalls(self, after: After) -> None:
        self.disk.shims_end()
        if after is not After.GOES_ON:
            self._boot += 1
            self.disk.lose_power(after)

    def verify(self, what: str) -> None:
        """One end; a true one or *unknown*; and the command began once at most."""
        begun = lines(self.oracle)
        assert len(self.pair.ends) == 1, what
        end = self.pair.ends[0]
        assert len(begun) <= 1, what
        if end.outcome is Outcome.EXITED:
            assert (end.exit_code, begun) == (CODE, ["begun"]), what
        else:
            assert (end.outcome, end.exit_code) == (Outcome.UNKNOWN, None), (what, end)


@pytest.fixture(autouse=True)
def quick_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "KEEPING_S", 0.002)


@pytest.mark.parametrize("after", After)
async def test_run_ends_and_begins_once_at_most_wherever_the_agent_died(
    after: After, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    outcomes: set[Outcome] = set()
    for step in count(1):
        world = World(_fresh(tmp_path / f"{step}"), monkeypatch)
        steps = await world.life(step)
        is_over = not world.disk.is_dead
        world.befalls(after)
        await world.life()
        world.verify(f"died at step {step}, the host {after.value}")
        outcomes.add(world.pair.ends[0].outcome)
        if is_over:
            break
    assert steps > 10  # it was a whole life
    assert Outcome.EXITED in outcomes
    assert (Outcome.UNKNOWN in outcomes) == (after is not After.GOES_ON)


@pytest.mark.parametrize("then", After)
async def test_run_ends_wherever_the_agent_after_a_power_cut_died_too(
    then: After, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for first in range(6, 26, 2):
        for second in count(1):
            world = World(_fresh(tmp_path / f"{first}-{second}"), monkeypatch)
            await world.life(first)
            world.befalls(After.TORN)
            await world.life(second)
            is_over = not world.disk.is_dead
            world.befalls(then)
            await world.life()
            world.verify(f"died at steps {first} (power cut) and {second} (the host {then.value})")
            if is_over:
                break


def _fresh(where: Path) -> Path:
    where.mkdir()
    return where
