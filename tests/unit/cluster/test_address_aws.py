"""The kinds of address of Amazon's cloud, through their own helper process, against an emulator of the API."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path
from typing import Any

import pytest
from aws_emulator import REGION, VIP, Emulator, Network, emulator, make_network

from futago.cluster.address import Where
from futago.cluster.address.helper import HelperMover
from futago.cluster.address.kinds import AWS_PROGRAM
from futago.runtime.faults import Refused, Unknown
from futago.runtime.log import Log
from futago.setup.addresses import AddressSettings


@pytest.fixture(scope="module")
def network(cloud: Emulator) -> Network:
    return make_network(cloud.client())


@pytest.fixture
def keys(tmp_path: Path) -> str:
    return write_keys(tmp_path / "aws", "test", "test")


def write_keys(path: Path, key: str, secret: str) -> str:
    path.write_text(f"# keys\nAWS_ACCESS_KEY_ID={key}\nAWS_SECRET_ACCESS_KEY={secret}\n")
    path.chmod(0o600)
    return str(path)


class Pair:
    """Movers of several members, ended together."""

    def __init__(self, cloud: Emulator, network: Network, keys: str) -> None:
        self._cloud, self._network, self._keys = cloud, network, keys
        self._made: list[HelperMover] = []

    def mover(
        self, member: str, kind: str, *, addresses: tuple[str, ...] = (VIP,), deadline_s: float = 10, **more: Any
    ) -> HelperMover:
        needs: dict[str, Any] = {
            "aws-route": {"route_tables": [self._network.table]},
            "aws-eip": {"allocation": self._network.allocation},
        }.get(kind, {})
        settings = {"region": REGION, "endpoint": self._cloud.endpoint, "credentials_file": self._keys, **needs, **more}
        address = AddressSettings(kind=kind, deadline_s=deadline_s, **settings)
        made = HelperMover(AWS_PROGRAM, address=address, addresses=addresses, eni=self._network.enis[member], log=Log())
        self._made.append(made)
        return made

    async def __aenter__(self) -> Pair:
        return self

    async def __aexit__(self, *_: object) -> None:
        for made in self._made:
            await made.close()


async def test_route_leads_to_whoever_acquired_it_last(cloud: Emulator, network: Network, keys: str) -> None:
    async with Pair(cloud, network, keys) as pair:
        a, b = pair.mover("m1", "aws-route"), pair.mover("m2", "aws-route")
        assert await a.where() is Where.ELSEWHERE
        await a.acquire()
        assert (await a.where(), await b.where()) == (Where.HERE, Where.ELSEWHERE)
        await b.acquire()
        assert (await a.where(), await b.where()) == (Where.ELSEWHERE, Where.HERE)
        eni = cloud.client().describe_network_interfaces(NetworkInterfaceIds=[network.enis["m2"]])
        assert eni["NetworkInterfaces"][0]["SourceDestCheck"] is False
        found = cloud.client().describe_route_tables(RouteTableIds=[network.table])["RouteTables"][0]["Routes"]
        leads = [r["NetworkInterfaceId"] for r in found if r.get("DestinationCidrBlock") == f"{VIP}/32"]
        assert leads == [network.enis["m2"]]


async def test_elastic_ip_moves_between_zones(cloud: Emulator, network: Network, keys: str) -> None:
    async with Pair(cloud, network, keys) as pair:
        a, b = pair.mover("m1", "aws-eip", addresses=()), pair.mover("m2", "aws-eip", addresses=())
        await a.acquire()
        await b.acquire()
        assert (await a.where(), await b.where()) == (Where.ELSEWHERE, Where.HERE)


async def test_secondary_address_moves_within_a_subnet_and_never_out_of_it(
    cloud: Emulator, network: Network, keys: str
) -> None:
    async with Pair(cloud, network, keys) as pair:
        a, b = (pair.mover(m, "aws-secondary", addresses=("10.20.1.200",)) for m in ("m1", "m3"))
        await a.acquire()
        await b.acquire()
        assert await b.where() is Where.HERE
        with pytest.raises(Refused, match="aws-route"):
            await pair.mover("m2", "aws-secondary", addresses=("10.20.1.200",)).acquire()


async def test_api_that_hangs_is_unknown_in_time_and_works_again_later(
    cloud: Emulator, network: Network, keys: str
) -> None:
    async with Pair(cloud, network, keys) as pair:
        a = pair.mover("m1", "aws-route", deadline_s=5)
        await a.where()
        cloud.stop()
        began = time.monotonic()
        try:
            with pytest.raises(Unknown):
                await a.acquire()
            assert time.monotonic() - began < 15
        finally:
            cloud.go()
        await until_acquired(a)


async def until_acquired(mover: HelperMover) -> None:
    async with asyncio.timeout(90):
        while True:
            try:
                await mover.acquire()
                return
            except Unknown:  # the helper is new, and has to load its library within this short deadline
                await asyncio.sleep(0.1)


async def test_order_that_is_taken_back_ends_the_program_that_carries_it_out(
    cloud: Emulator, network: Network, keys: str
) -> None:
    async with Pair(cloud, network, keys) as pair:
        a = pair.mover("m1", "aws-route")
        await a.where()
        assert a._process is not None
        pid = a._process.pid
        cloud.stop()
        try:
            order = asyncio.create_task(a.acquire())
            await asyncio.sleep(0.2)
            order.cancel()
            with pytest.raises(asyncio.CancelledError):
                await order
            async with asyncio.timeout(30):
                while is_alive(pid):
                    await asyncio.sleep(0.01)
        finally:
            cloud.go()


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    with open(f"/proc/{pid}/stat") as f:
        return f.read().rpartition(")")[2].split()[0] != "Z"


async def test_two_that_acquire_at_once_end_with_one_holder_and_no_false_belief(
    cloud: Emulator, network: Network, keys: str
) -> None:
    """Whoever believes that it leads here has seen it; a later loss is seen by looking again."""
    async with Pair(cloud, network, keys) as pair:
        a, b = pair.mover("m1", "aws-route"), pair.mover("m2", "aws-route")
        await asyncio.gather(a.where(), b.where())
        for _ in range(5):
            await asyncio.gather(a.acquire(), b.acquire(), return_exceptions=True)
            assert sorted([(await a.where()).value, (await b.where()).value]) == ["elsewhere", "here"]


@pytest.mark.parametrize(
    ("text", "mode", "said"),
    [
        ("AWS_ACCESS_KEY_ID=x\nAWS_SECRET_ACCESS_KEY=y\n", 0o644, "chmod 600"),
        ("AWS_ACCESS_KEY_ID=x\n", 0o600, "does not hold"),
        (None, 0, "cannot be read"),
    ],
)
async def test_credentials_that_cannot_be_used_are_refused(
    cloud: Emulator, network: Network, tmp_path: Path, text: str | None, mode: int, said: str
) -> None:
    file = tmp_path / "aws"
    if text is not None:
        file.write_text(text)
        file.chmod(mode)
    async with Pair(cloud, network, str(file)) as pair:
        with pytest.raises(Refused, match=said):
            await pair.mover("m1", "aws-route").acquire()


async def test_settings_that_name_nothing_real_are_refused(cloud: Emulator, network: Network, keys: str) -> None:
    async with Pair(cloud, network, keys) as pair:
        with pytest.raises(Refused, match="InvalidRouteTableID"):
            await pair.mover("m1", "aws-route", route_tables=["rtb-00000000"]).acquire()


async def test_keys_that_the_cloud_does_not_know_are_refused(tmp_path: Path) -> None:
    with emulator() as strict:
        network = make_network(strict.client())
        strict.ask_for_credentials(after_calls=0)
        async with Pair(strict, network, write_keys(tmp_path / "aws", "AKIAWRONG", "wrong")) as pair:
            with pytest.raises(Refused, match="AuthFailure"):
                await pair.mover("m1", "aws-route").acquire()
