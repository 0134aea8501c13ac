"""Faults that ask for less than a power cut, one after the other under one night's load; the last test reckons the whole night.

The tests run in the order in which they stand: together they are one night.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from load import Night
from test_power_cut import other, recover

from futago.lab.lab import PROGRAM, Lab
from futago.lab.pair import wait_for_pair, wait_protected
from futago.runtime.clock import now_at

CLIENT_PATIENCE_S = 5.0  # far above the targets of the bench: a test is no measurement


@pytest.fixture(scope="module")
def busy(pair: Lab) -> Iterator[Night]:
    """A night under way, with its net of jobs."""
    wait_protected(pair)
    night = Night(pair)
    night.start()
    night.start_net()
    night.wait_for_starts(2)
    yield night
    night.senders.close()
    night.sink.stop()
    night.writer.stop()


def test_a_killed_controller_interrupts_nothing(busy: Night) -> None:
    before = wait_protected(busy.lab)
    at = int(busy.lab.fault("kill", "primary", "controller")["at"])
    cut = busy.note(at)
    time.sleep(3)  # longer than the peer's patience: had anything been switched, it would have happened by now
    after = wait_protected(busy.lab)
    assert (after["epoch"], after["primary"]) == (before["epoch"], before["primary"])
    assert cut.outage_s < 1.0


def test_a_killed_database_hands_the_service_over_and_comes_back(busy: Night) -> None:
    before = wait_protected(busy.lab)
    at = int(busy.lab.fault("kill", "primary", "postgres")["at"])
    cut = busy.note(at)
    assert cut.outage_s < CLIENT_PATIENCE_S
    after = wait_for_pair(busy.lab, key="primary", value=other(str(before["primary"])), deadline_s=10)
    assert after["epoch"] > before["epoch"]
    recover(busy.lab, on=str(after["primary"]))


def test_a_planned_switchover_moves_the_service(busy: Night) -> None:
    before = wait_protected(busy.lab)
    at = now_at()
    busy.lab.host(str(before["primary"])).run([PROGRAM, "switchover"])
    cut = busy.note(at)
    assert cut.outage_s < CLIENT_PATIENCE_S
    wait_for_pair(busy.lab, key="primary", value=other(str(before["primary"])), deadline_s=10)
    recover(busy.lab, on=other(str(before["primary"])))


def test_a_power_cut_of_the_standby_stalls_writes_shortly_and_the_primary_goes_on_alone(busy: Night) -> None:
    before = wait_protected(busy.lab)
    primary = str(before["primary"])
    at = int(busy.lab.host(other(primary)).power_cut()["at"])
    cut = busy.note(at)
    assert cut.outage_s < CLIENT_PATIENCE_S
    after = wait_for_pair(busy.lab, key="state", value="solo", deadline_s=10)
    assert after["primary"] == primary and after["command"] == "futago recover"
    recover(busy.lab, on=primary)


def test_the_night_adds_up(busy: Night) -> None:
    busy.pull()
    busy.wait_for_mails(1)
    busy.plug()
    busy.wait_for_mails(2)
    busy.reckon()
