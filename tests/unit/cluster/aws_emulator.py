"""A process that answers as Amazon's EC2 API does (moto), and a small network in it: two zones, a route table, two
machines, an elastic IP."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import boto3

REGION = "eu-central-1"
VIP = "10.99.0.1"
ENVIRONMENT = {"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8", "HOME": "/nonexistent"}


@dataclass(slots=True)
class Emulator:
    """The process and its API. `stop`/`go` make it hang and answer again."""

    process: subprocess.Popen[bytes]
    endpoint: str

    def client(self, service: str = "ec2") -> Any:
        return boto3.client(
            service,
            region_name=REGION,
            endpoint_url=self.endpoint,
            aws_access_key_id="test",
            aws_secret_access_key="test",
        )

    def stop(self) -> None:
        self.process.send_signal(signal.SIGSTOP)

    def go(self) -> None:
        self.process.send_signal(signal.SIGCONT)

    def ask_for_credentials(self, *, after_calls: int) -> None:
        """From then on only signed requests of known keys are obeyed."""
        url = f"{self.endpoint}/moto-api/reset-auth"
        said = urllib.request.Request(url, data=str(after_calls).encode(), headers={"Content-Type": "text/plain"})
        urllib.request.urlopen(said, timeout=10).close()


@contextlib.contextmanager
def emulator(
    host: str = "127.0.0.1", *, inside: Callable[[Callable[[], Any]], Any] = lambda work: work()
) -> Iterator[Emulator]:
    """Run an emulator on a free port. `inside` calls a function where the emulator shall live."""

    def free_port() -> int:
        with socket.socket() as s:
            s.bind((host, 0))
            return int(s.getsockname()[1])

    port = inside(free_port)
    command = [sys.executable, "-m", "moto.server", "-H", host, "-p", str(port)]
    quiet = subprocess.DEVNULL
    process = inside(lambda: subprocess.Popen(command, stdout=quiet, stderr=quiet, env=ENVIRONMENT))
    found = Emulator(process, f"http://{host}:{port}")
    try:
        end = time.monotonic() + 30
        while True:
            assert process.poll() is None, "the emulator ended"
            try:
                inside(lambda: urllib.request.urlopen(f"{found.endpoint}/moto-api/data.json", timeout=10).close())
                break
            except OSError:
                assert time.monotonic() < end
                time.sleep(0.1)
        yield found
    finally:
        found.go()
        process.kill()
        process.wait(10)


@dataclass(frozen=True, slots=True)
class Network:
    """What the pair's two members stand in: m1 in the first zone, m2 in the second, m3 beside m1."""

    table: str
    enis: dict[str, str]
    instances: dict[str, str]
    allocation: str


def make_network(ec2: Any) -> Network:
    """Make it."""
    vpc = ec2.create_vpc(CidrBlock="10.20.0.0/16")["Vpc"]["VpcId"]
    zones = [
        ec2.create_subnet(VpcId=vpc, CidrBlock=f"10.20.{n}.0/24", AvailabilityZone=f"{REGION}{z}")
        for n, z in ((1, "a"), (2, "b"))
    ]
    subnets = [z["Subnet"]["SubnetId"] for z in zones]
    enis, instances = {}, {}
    for name, subnet in (("m1", subnets[0]), ("m2", subnets[1]), ("m3", subnets[0])):
        made = ec2.run_instances(ImageId="ami-12c6146b", MinCount=1, MaxCount=1, SubnetId=subnet)["Instances"][0]
        instances[name] = made["InstanceId"]
        enis[name] = made["NetworkInterfaces"][0]["NetworkInterfaceId"]
    table = ec2.create_route_table(VpcId=vpc)["RouteTable"]["RouteTableId"]
    allocation = ec2.allocate_address(Domain="vpc")["AllocationId"]
    return Network(table, enis, instances, allocation)
