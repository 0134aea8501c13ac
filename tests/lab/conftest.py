"""Fixtures of the lab suites: a lab of this test run's own, brought down always, and a pair in it.

The lab's name holds this process's id, so test runs, demos and benches live side by side. A lab whose test run was
killed is removed by the next one.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from futago.lab.lab import Lab, remove_orphans
from futago.lab.progress import say

KEEP = "FUTAGO_LAB_KEEP"  # set: leave the lab up after the tests, to look at it


# Stories of minutes each, half an hour in all: `make test-long`. Every other story is part of `make test`.
LONG = {
    "test_addresses",
    "test_drill",
    "test_fault_in_transition",
    "test_faults_hard",
    "test_fence_decides",
    "test_fence_drivers",
    "test_fence_pair",
    "test_flight_recorder",
    "test_jury_in_takeover",
    "test_lab_pair_verbs",
    "test_lab_recover_rungs",
    "test_vote_in_etcd",
}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Everything in this folder needs root and the lab."""
    here = Path(__file__).parent
    for item in items:
        if item.path.parent != here:
            continue
        item.add_marker(pytest.mark.lab)
        if item.path.stem in LONG:
            item.add_marker(pytest.mark.long)
        if os.geteuid() != 0:
            item.add_marker(pytest.mark.skip(reason="the lab needs root"))


@pytest.fixture(scope="session")
def lab() -> Iterator[Lab]:
    """A lab with all hosts booted; no pair in it yet."""
    remove_orphans(say=say)
    made = Lab(f"t{os.getpid()}")
    keep = bool(os.environ.get(KEEP))
    try:
        made.up(owner_pid=0 if keep else os.getpid(), say=say)
        yield made
    finally:
        if keep:
            say(f"kept: futago lab status --name {made.name}")
        else:
            made.down(say=say, keep_logs=True)


@pytest.fixture(scope="session")
def pair(lab: Lab) -> Lab:
    """The lab with a protected pair in it."""
    from futago.lab.pair import form_pair

    form_pair(lab, recovery="manual", say=say)  # `futago recover` is what is tested
    return lab


@pytest.fixture
def healed(lab: Lab) -> Iterator[Lab]:
    """The lab, with every fault healed and every host booted after the test."""
    yield lab
    lab.heal()
    for node in lab.state.nodes:
        lab.host(node.name).wait_booted()
