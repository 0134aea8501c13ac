"""Stopping a machine of Amazon's cloud by force, against an emulator of the API."""

from __future__ import annotations

import time
from pathlib import Path

import msgspec
import pytest
from aws_emulator import REGION, Emulator, Network, make_network

from futago.cluster.fence import Power
from futago.cluster.fence.kinds import open_device
from futago.runtime.faults import Refused, Unknown
from futago.setup.fences import FenceDevice, problem
from futago.setup.fencing import parse_device, written


@pytest.fixture(scope="module")
def network(cloud: Emulator) -> Network:
    return make_network(cloud.client())


@pytest.fixture
def settings(cloud: Emulator, network: Network, tmp_path: Path) -> FenceDevice:
    secret = tmp_path / "secret"
    secret.write_text("test\n")
    secret.chmod(0o600)
    return FenceDevice(
        "aws",
        address=network.instances["m2"],
        user="test",
        password_file=str(secret),
        options={"region": REGION, "endpoint": cloud.endpoint},
        deadline_s=20,
    )


def state(cloud: Emulator, instance: str) -> str:
    found = cloud.client().describe_instances(InstanceIds=[instance])
    return str(found["Reservations"][0]["Instances"][0]["State"]["Name"])


async def test_off_and_on_do_what_they_say(cloud: Emulator, settings: FenceDevice) -> None:
    device = open_device(settings)
    await device.off()
    assert state(cloud, settings.address) == "stopped" and await device.power() is Power.OFF
    await device.on()
    assert state(cloud, settings.address) == "running"


async def test_instance_that_does_not_exist_is_refused(settings: FenceDevice) -> None:
    with pytest.raises(Refused, match="InvalidInstanceID"):
        await open_device(msgspec.structs.replace(settings, address="i-0123456789abcdef0")).off()


async def test_api_that_hangs_is_unknown_in_time(cloud: Emulator, settings: FenceDevice) -> None:
    cloud.stop()
    began = time.monotonic()
    try:
        with pytest.raises(Unknown):
            await open_device(msgspec.structs.replace(settings, deadline_s=2)).off()
        assert time.monotonic() - began < 20
    finally:
        cloud.go()
    assert state(cloud, settings.address) == "running"


def test_word_of_an_instance_is_understood_and_written_again() -> None:
    word = "aws://AKIAX@i-0123456789abcdef0?region=eu-central-1&deadline=120"
    device = parse_device(word, member="m1", level=1)
    assert (device.address, device.user, device.deadline_s) == ("i-0123456789abcdef0", "AKIAX", 120)
    assert parse_device(written(device), member="m1", level=1) == device
    role = parse_device("aws://i-0123456789abcdef0?region=eu-central-1", member="m1", level=1)
    assert role.user == role.password_file == ""
    assert "region" in problem(FenceDevice("aws", address="i-0123456789abcdef0"))
