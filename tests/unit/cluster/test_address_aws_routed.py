"""A route of the emulated cloud, turned into a real one: a client reaches whoever the API says.

The switch's namespace is the cloud: it answers the API, and a small poller there makes its routing table follow the
emulator's. The members know nothing of that; they have their production parts and their own interface.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from address_world import Answers, Client, Lan, Machine, ip, lan
from aws_emulator import REGION, VIP, Emulator, Network, emulator, make_network

from futago.cluster.address.carried import CarriedAddress
from futago.cluster.address.floating import FloatingAddress
from futago.cluster.address.helper import HelperMover
from futago.cluster.address.kinds import AWS_PROGRAM
from futago.runtime.faults import Unknown
from futago.runtime.log import Log
from futago.setup.addresses import AddressSettings

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="makes network namespaces")
CLOUD = "192.0.2.254"
GAP_S_MAX = 3.0  # measured 0.1 to 0.3 s; each call is 10 to 20 ms in the emulator, and the poller looks every 50 ms


class Cloud:
    """The lan, with the emulator and the poller in its switch."""

    def __init__(self, world: Lan, api: Emulator, network: Network) -> None:
        self.world, self.api, self.network = world, api, network
        self._ended = threading.Event()
        self._homes = {network.enis["m1"]: "192.0.2.1", network.enis["m2"]: "192.0.2.2"}
        self._poller = threading.Thread(target=lambda: world.switch.do_elsewhere(self._follow), daemon=True)
        self._poller.start()

    def _follow(self) -> None:
        client, present = self.api.client(), ""
        while not self._ended.wait(0.05):
            try:
                table = client.describe_route_tables(RouteTableIds=[self.network.table])["RouteTables"][0]
            except Exception:  # noqa: BLE001  an API that hangs changes no route
                continue
            enis = [
                r.get("NetworkInterfaceId") for r in table["Routes"] if r.get("DestinationCidrBlock") == f"{VIP}/32"
            ]
            home = self._homes.get(enis[0], "") if enis else ""
            if home != present:
                ip("route", "replace", f"{VIP}/32", "via", home)
                present = home

    def close(self) -> None:
        self._ended.set()
        self._poller.join(10)

    def address(self, machine: Machine, member: str, keys: str, *, deadline_s: float = 10) -> CarriedAddress:
        """Return the pair's address as that member carries it."""
        settings = AddressSettings(
            kind="aws-route",
            region=REGION,
            endpoint=self.api.endpoint,
            route_tables=[self.network.table],
            credentials_file=keys,
            deadline_s=deadline_s,
        )

        def make() -> CarriedAddress:
            near = FloatingAddress(
                interface="e0", addresses=(VIP,), on_change=lambda: None, log=Log(), is_announced=False
            )
            eni = self.network.enis[member]
            mover = HelperMover(AWS_PROGRAM, address=settings, addresses=(VIP,), eni=eni, log=Log())
            return CarriedAddress(near, mover=mover, on_change=lambda: None, log=Log())

        return machine.do(make)


def route(path: str, value: str) -> None:
    Path(f"/proc/sys/net/ipv4/{path}").write_text(value)


@pytest.fixture
def routed() -> Iterator[Cloud]:
    with lan() as world:
        world.switch.ip(f"addr add {CLOUD}/24 dev br0")
        world.switch.ip("link set lo up")
        for path, value in (("ip_forward", "1"), ("conf/all/send_redirects", "0"), ("conf/br0/send_redirects", "0")):
            world.switch.do(lambda path=path, value=value: route(path, value))  # type: ignore[misc]
        world.client.ip(f"route add {VIP}/32 via {CLOUD}")
        with emulator(CLOUD, inside=world.switch.do_elsewhere) as api:
            network = world.switch.do_elsewhere(lambda: make_network(api.client()))
            found = Cloud(world, api, network)
            yield found
            found.close()


@pytest.fixture
def keys(tmp_path: Path) -> str:
    file = tmp_path / "aws"
    file.write_text("AWS_ACCESS_KEY_ID=test\nAWS_SECRET_ACCESS_KEY=test\n")
    file.chmod(0o600)
    return str(file)


def listen(cloud: Cloud, to: str) -> tuple[Client, bool]:
    client = Client(VIP)
    return client, cloud.world.client.do_elsewhere(lambda: client.run(until=lambda c: c.is_answered_by(to), limit_s=15))


def test_client_reaches_the_member_that_the_cloud_leads_to(routed: Cloud, keys: str) -> None:
    cloud, world = routed, routed.world
    Answers(world.a, [VIP]), Answers(world.b, [VIP])
    a, b = cloud.address(world.a, "m1", keys), cloud.address(world.b, "m2", keys, deadline_s=8)
    world.b.run(b._mover.where())  # type: ignore[union-attr]  warm, as in a controller that runs for a while
    world.a.run(a.hold())
    assert listen(cloud, "a")[1]

    results: list[tuple[Client, bool]] = []
    client = Client(VIP)
    talking = threading.Event()

    def until_b(c: Client) -> bool:
        if c.is_answered_by("a"):
            talking.set()
        return c.is_answered_by("b")

    thread = threading.Thread(
        target=lambda: results.append(
            (client, world.client.do_elsewhere(lambda: client.run(until=until_b, limit_s=15)))
        )
    )
    thread.start()
    assert talking.wait(10)
    world.a.run(a.drop())
    world.b.run(b.hold())
    thread.join(20)
    assert results[0][1], "the client did not reach b"
    assert client.gap_s() < GAP_S_MAX
    assert (a.is_held, b.is_held) == (False, True)

    # An API that hangs is no reason to stop: b goes on, and says what is wrong.
    cloud.api.stop()
    try:
        with pytest.raises(Unknown):
            world.b.run(b.hold())
        assert b.is_held is None and "cannot be led here" in b.error()
        assert listen(cloud, "b")[1]
    finally:
        cloud.api.go()
    until(lambda: again(world.b, b))
    for machine, address in ((world.a, a), (world.b, b)):
        machine.run(address.close())


def again(machine: Machine, address: CarriedAddress) -> bool:
    try:
        machine.run(address.hold())
    except Unknown:
        return False
    return address.is_held is True


def until(condition: Any) -> None:
    end = time.monotonic() + 90
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.1)
