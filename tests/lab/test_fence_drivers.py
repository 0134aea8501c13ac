"""Every driver powers a real lab host off and on, from the other member, through the network of the BMCs; and what each
trouble of a BMC does to an order. No pair is formed: the port is asked as the controller asks it. And the
watchdog of a member resets it when it hangs.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from typing import Any

import pytest

from futago.lab import fencing
from futago.lab.lab import Lab
from futago.lab.progress import say
from futago.lab.topology import standard

KINDS = ("redfish", "ipmi", "agent", "command")
ALL = (*KINDS, "aws")  # its emulator takes any key, and its helper takes a second to begin
ASK = """
import asyncio, json, sys, time
import msgspec
from futago.cluster.fence.kinds import open_levels
from futago.runtime.faults import Refused, Unknown
from futago.setup.fencing import parse_device

asked = json.load(sys.stdin)
devices = [parse_device(word, member="m2", level=1) for word in asked["words"]]
levels = open_levels([msgspec.structs.replace(d, password_file=asked["password"]) for d in devices])
began = time.monotonic()
try:
    found = asyncio.run(getattr(levels, asked["verb"])())
    said = {"outcome": "done", "power": getattr(found, "value", ""), "by": levels.cut_by}
except Refused as e:
    said = {"outcome": "refused", "why": str(e)}
except Unknown as e:
    said = {"outcome": "unknown", "why": str(e)}
print(json.dumps({**said, "s": time.monotonic() - began}))
"""


@pytest.fixture(scope="module")
def bare() -> Iterator[Lab]:
    """Two members, each with a BMC that offers every service."""
    made = Lab(f"f{os.getpid()}")
    nodes = standard(hosts=0, device=False, client=False)
    try:
        made.up(nodes=nodes, owner_pid=os.getpid(), fence=ALL, watchdog=True, say=say)
        fencing.put_files(made, made.host("m1"), "m2")
        yield made
    finally:
        made.down(say=say, keep_logs=True)


@pytest.fixture
def healed(bare: Lab) -> Iterator[Lab]:
    """The lab, with every fault healed and m2 on after the test."""
    yield bare
    bare.heal()
    bare.host("m2").wait_booted()


def ask(lab: Lab, verb: str, *kinds: str, changes: str = "", password: str = fencing.PASSWORD) -> dict[str, Any]:
    """Have m1 ask m2's devices of these kinds, in order; return what came of it, and after how many seconds."""
    words = [fencing.word(lab, kind, "m2") for kind in kinds]
    words = [w + ("&" if "?" in w else "?") + changes if changes else w for w in words]
    request = json.dumps({"words": words, "verb": verb, "password": password})
    done = lab.host("m1").run(["/opt/futago/bin/python", "-c", ASK], stdin=request, deadline_s=90)
    found: dict[str, Any] = json.loads(done.stdout)
    print(f"{verb} by {', '.join(kinds)}: {found}")
    return found


@pytest.mark.parametrize("kind", ALL)
def test_driver_really_powers_a_host_off_and_on(healed: Lab, kind: str) -> None:
    host = healed.host("m2")
    boots = host.status()["boots"]
    assert ask(healed, "power", kind)["power"] == "on"
    off = ask(healed, "off", kind)
    assert off["outcome"] == "done" and off["s"] < (30 if kind == "aws" else 8), off  # a helper starts thrice
    assert not host.is_on()
    assert ask(healed, "power", kind)["power"] == "off"
    assert ask(healed, "off", kind)["outcome"] == "done", "off counts when it is off already"
    on = ask(healed, "on", kind)
    assert on["outcome"] == "done", on
    assert host.is_on() and host.status()["boots"] == boots + 1


@pytest.mark.parametrize("kind", KINDS)
def test_driver_with_a_wrong_password_switches_nothing(healed: Lab, kind: str) -> None:
    healed.host("m1").write("/root/wrong.password", "nonsense\n", mode=0o600)
    said = ask(healed, "off", kind, password="/root/wrong.password")
    assert said["outcome"] == ("refused" if kind in ("redfish", "ipmi") else said["outcome"]) != "done", said
    assert healed.host("m2").is_on()


@pytest.mark.parametrize("kind", ALL)
@pytest.mark.parametrize("fault", ["bmc-hang", "bmc-dead"])
def test_driver_never_takes_silence_for_off(healed: Lab, kind: str, fault: str) -> None:
    healed.fault(fault, "m2")
    said = ask(healed, "off", kind, changes="deadline=2")
    assert said["outcome"] == "unknown" and said["s"] < 4, said
    assert healed.host("m2").is_on()


def test_second_level_stops_a_host_whose_first_device_hangs(healed: Lab) -> None:
    healed.fault("bmc-service-hang", "m2", "redfish")
    said = ask(healed, "off", "redfish", "ipmi", changes="deadline=3")
    assert said["outcome"] == "done" and said["by"].startswith("ipmi") and said["s"] < 6, said
    assert not healed.host("m2").is_on()


def test_bmc_that_dies_with_its_host_confirms_nothing_at_any_level(healed: Lab) -> None:
    """Why a pair needs a third vote, or a device with a power supply of its own."""
    healed.fault("zone-lost", "m2")
    said = ask(healed, "off", *KINDS, changes="deadline=2")
    assert said["outcome"] == "unknown", said


def test_lie_cannot_be_told_from_the_truth_by_the_device_alone(healed: Lab) -> None:
    """It says off before and after; what finds it out is the self-test, which hears the member live."""
    healed.fault("bmc-lie", "m2")
    assert ask(healed, "off", "ipmi")["outcome"] == "done"
    assert healed.host("m2").is_on()


HOLD = """
import os, socket, time
from futago.cluster.guard import Handle, send
from futago.setup import paths

hand = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
while True:
    send(hand, Handle(pid=os.getpid(), is_armed=True, cgroup="/sys/fs/cgroup/none", watchdog_s=3))
    time.sleep(0.1)
"""


def test_watchdog_resets_a_member_that_is_frozen(healed: Lab) -> None:
    """The real guard holds the device, for a hand that lives; then nothing on that host turns any more."""
    host = healed.host("m2")
    boots = host.status()["boots"]
    with host.start(["/opt/futago/bin/futago", "run", "guard"]), host.start(["/opt/futago/bin/python", "-c", HOLD]):
        end = time.monotonic() + 15
        while host.run(["cat", "/run/futago/watchdog.json"], check=False).returncode:
            assert time.monotonic() < end, "the guard does not hold the watchdog"
            time.sleep(0.1)
        time.sleep(4)
        assert host.status()["boots"] == boots, "it is petted"
        host.fault("freeze")
        frozen = time.monotonic()
        while host.status()["boots"] == boots:
            assert time.monotonic() < frozen + 10, "nobody resets it"
            time.sleep(0.05)
        print(f"reset {time.monotonic() - frozen:.2f} s after it froze")
    assert host.wait_booted() in ("running", "degraded")
