"""Power that is lost in the middle of something: of a planned switchover, of a copy onto an empty disk, of the return of a member.

A client writes all the time; what was acknowledged to it is there at the end, once. The tests run in the order in which they
stand; the last one counts.
"""

from __future__ import annotations

import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from api import Api
from oracles import compare
from senders import ApiWriter, Write, first_write_after
from test_lab_recover_rungs import PSQL, shut_down
from walk import recover

from futago.lab.lab import PROGRAM, Lab, LabHost
from futago.lab.pair import wait_protected
from futago.runtime.clock import S, now_at

RESUMED_S = 40.0  # a test is no measurement
BULK = "CREATE TABLE bulk AS SELECT i, repeat(md5(i::text), 8) AS words FROM generate_series(1, 1200000) AS i"
"""About 400 MB: a copy of it takes long enough to be cut short."""


@dataclass
class Stage:
    """The pair, and the client that writes."""

    lab: Lab
    writer: ApiWriter

    def members(self) -> tuple[LabHost, LabHost]:
        """Return the primary and the standby of a protected pair."""
        primary = str(wait_protected(self.lab)["primary"])
        return self.lab.host(primary), next(m for m in self.lab.members if m.name != primary)

    def bring_back(self) -> None:
        """Heal everything, and recover by the one command."""
        self.lab.heal()
        for node in self.lab.state.nodes:
            self.lab.host(node.name).wait_booted()
        recover(self.lab)
        wait_protected(self.lab)


@pytest.fixture(scope="module")
def stage(pair: Lab) -> Iterator[Stage]:
    wait_protected(pair)
    writer = ApiWriter(pair, rate=20, threads=4)
    writer.start(prefix=f"transition{time.monotonic_ns()}")
    yield Stage(pair, writer)
    writer.stop()


def until(what: str, found: Callable[[], bool], *, deadline_s: float) -> None:
    """Wait until it is so."""
    end = time.monotonic() + deadline_s
    while not found():
        assert time.monotonic() < end, f"no {what} within {deadline_s:g} s"
        time.sleep(0.02)


def resumed_or_waits(stage: Stage, at: int) -> Write | None:
    """Return the first write that was begun after an instant and acknowledged; None: the member that is left says that it
    must wait for the other one, which may have newer data.
    """
    end = time.monotonic() + RESUMED_S
    while time.monotonic() < end:
        if (write := first_write_after(stage.writer.writes(), at)) is not None:
            return write
        found = stage.lab.pair_status() or {}
        if found.get("state") == "blocked" and found.get("rule") == "R2.alone":
            return None
        time.sleep(0.1)
    raise AssertionError(f"neither served nor said why: {stage.lab.pair_status()}")


@pytest.mark.parametrize("who", ["the member that gives", "the member that takes"])
@pytest.mark.parametrize("after_s", [0.05, 0.15, 0.3, 0.5])
def test_power_lost_during_a_switchover(stage: Stage, who: str, after_s: float) -> None:
    """The member that takes is alone from the moment at which it was given everything until the other one follows it: if it
    dies just then, the service waits for it, as after any switch (docs/operations/recover.md).
    """
    giving, taking = stage.members()
    told = giving.start([PROGRAM, "switchover"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    time.sleep(after_s)
    lost = giving if who == "the member that gives" else taking
    at = int(lost.power_cut()["at"])
    write = resumed_or_waits(stage, at)
    told.kill()
    told.wait(30)
    found = stage.lab.pair_status() or {}
    print(f"{who} lost its power {after_s} s after the order: {found.get('state')}, primary {found.get('primary')}")
    print(f"  {found.get('reason')}")
    if write is None:
        assert lost is taking and found["primary"] == taking.name
        back_at = now_at()
        stage.lab.heal()
        write = stage.writer.wait_for_write_after(back_at, deadline_s=90)
    else:
        assert found["primary"] == (taking if lost is giving else giving).name
    print(f"  written again after {(write.acked_at - at) / S:.2f} s")
    stage.bring_back()


def story(lab: Lab) -> dict[str, Any]:
    found: dict[str, Any] = (lab.pair_status() or {}).get("recovery") or {}
    return found


def is_returning(lab: Lab) -> bool:
    """Is a recovery under way, or over already?"""
    found = lab.pair_status() or {}
    return bool((found.get("recovery") or {}).get("running")) or bool(found.get("protected"))


def begin_copy(stage: Stage) -> tuple[LabHost, LabHost]:
    """Empty the standby's disk and have a copy under way; return primary and standby."""
    primary, standby = stage.members()
    primary.run([*PSQL, "-c", "DROP TABLE IF EXISTS bulk", "-c", BULK], deadline_s=300)
    wait_protected(stage.lab)
    shut_down(stage.lab, standby)
    stage.lab.fault("power-on", standby.name)
    standby.wait_booted()
    standby.run(["sh", "-c", "rm -rf /var/lib/futago/pg/*"])
    asked = primary.start([PROGRAM, "recover"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    until("copy", lambda: story(stage.lab).get("done_bytes", 0) > 0, deadline_s=60)
    print(f"the copy is under way: {story(stage.lab).get('progress')}")
    asked.kill()  # whoever asked may leave; the recovery goes on
    asked.wait(30)
    return primary, standby


def test_member_that_loses_its_power_while_it_is_copied_is_copied_anew(stage: Stage) -> None:
    primary, standby = begin_copy(stage)
    at = int(standby.power_cut()["at"])
    stage.writer.wait_for_write_after(at, deadline_s=RESUMED_S)
    stage.bring_back()
    assert stage.lab.resolve("primary") == primary.name


def test_primary_that_loses_its_power_while_it_is_copied_serves_again_and_the_copy_is_made_anew(stage: Stage) -> None:
    """Nobody else has the data: the member that was being made must not serve. The recovery under way switches the primary on."""
    primary, standby = begin_copy(stage)
    at = int(primary.power_cut()["at"])
    end = time.monotonic() + 8  # longer than a takeover takes
    while time.monotonic() < end:
        found = stage.lab.pair_status() or {}
        assert found.get("primary") in (None, primary.name), found
        time.sleep(0.2)
    stage.lab.heal()
    stage.writer.wait_for_write_after(at, deadline_s=90)
    stage.bring_back()
    assert stage.lab.resolve("primary") == primary.name
    primary.run([*PSQL, "-c", "DROP TABLE bulk"], deadline_s=60)
    assert standby.is_on()


@pytest.mark.parametrize("who", ["the primary", "the member that returns"])
@pytest.mark.parametrize("after_s", [0.0, 0.3])
def test_power_lost_while_a_member_is_being_made_part_of_the_pair(stage: Stage, who: str, after_s: float) -> None:
    """From the moment at which it follows to the moment at which commits wait for it."""
    primary, standby = stage.members()
    shut_down(stage.lab, standby)
    stage.lab.fault("power-on", standby.name)
    standby.wait_booted()
    asked = primary.start([PROGRAM, "recover"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    until("return", lambda: is_returning(stage.lab), deadline_s=60)
    time.sleep(after_s)
    lost = primary if who == "the primary" else standby
    at = int(lost.power_cut()["at"])
    if lost is standby:
        stage.writer.wait_for_write_after(at, deadline_s=RESUMED_S)
    else:  # whether the other one may serve depends on how far it was; that nothing is lost does not
        time.sleep(8)
        print(f"without {lost.name}: {(stage.lab.pair_status() or {}).get('reason')}")
        back_at = now_at()
        stage.lab.heal()
        stage.writer.wait_for_write_after(back_at, deadline_s=90)
    asked.kill()
    asked.wait(30)
    stage.bring_back()


def test_what_was_acknowledged_is_there_once(stage: Stage) -> None:
    writes = stage.writer.stop()
    acked = {w.key for w in writes if w.status}
    assert len(acked) > 500
    found = Counter(e["message"].removeprefix("written ") for e in Api(stage.lab).event_messages(source="api"))
    difference = compare(acked, (k for k in found.elements() if k in acked))
    assert difference.is_none, str(difference)
    assert max(found.values()) == 1
