"""The program that speaks to Amazon's EC2 API about addresses: a helper (helper.py), never part of the controller.

Lives here: the calls of each kind, and what their errors mean. Must not live here: when. Three ways to lead an address
to this member's network interface:

- `aws-route`: a route for the address alone (/32, /128) in each route table named. Works across availability zones,
  within the network and what is joined to it. The interface must not check source and destination.
- `aws-secondary`: the address as a secondary one of the interface. Same subnet only, so same zone.
- `aws-eip`: the elastic IP is associated with the interface. Reachable from the internet.

Whatever is done is read back, and only what was read counts: another member may have done the same at the same time.

Source: the EC2 API reference: ReplaceRoute, CreateRoute, ModifyNetworkInterfaceAttribute, AssignPrivateIpAddresses,
AssociateAddress; error codes: "Error codes for the Amazon EC2 API".
"""

from __future__ import annotations

import ipaddress
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import boto3
import msgspec
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError, PartialCredentialsError

from futago.cluster.address import Where
from futago.cluster.address.helper import Answer, Request
from futago.runtime.faults import Refused, Unknown, WorldFault
from futago.setup.addresses import AddressSettings

CONNECT_S_MAX = 2.0
_UNSURE = {"InternalError", "InternalFailure", "RequestLimitExceeded", "ServiceUnavailable", "Unavailable"}
_NO_ROUTE = {"InvalidRoute.NotFound", "InvalidParameterValue"}  # there is none yet to be replaced
Client = Any
"""boto3's EC2 client, which is made at run time and has no types."""


def client_of(address: AddressSettings) -> Client:
    """Return an EC2 client. Raises Refused if there are no credentials to be read."""
    config = Config(
        connect_timeout=CONNECT_S_MAX,
        read_timeout=max(CONNECT_S_MAX, address.deadline_s / 2),
        retries={"total_max_attempts": 2},
        tcp_keepalive=True,
    )
    given = _credentials(address.credentials_file) if address.credentials_file else {}
    return boto3.client(
        "ec2",
        region_name=address.region,
        endpoint_url=address.endpoint or None,
        aws_access_key_id=given.get("AWS_ACCESS_KEY_ID"),
        aws_secret_access_key=given.get("AWS_SECRET_ACCESS_KEY"),
        aws_session_token=given.get("AWS_SESSION_TOKEN"),
        config=config,
    )


def _credentials(file: str) -> dict[str, str]:
    path = Path(file)
    try:
        if path.stat().st_mode & 0o077:
            raise Refused(f"{file} can be read by others than root: chmod 600 {file}")
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as e:
        raise Refused(f"{file} cannot be read: {e.strerror}") from e
    found = dict(x.strip().partition("=")[::2] for x in lines if "=" in x and not x.lstrip().startswith("#"))
    if not {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"} <= found.keys():
        raise Refused(f"{file} does not hold AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY")
    return found


class Routes:
    """`aws-route`."""

    def __init__(self, client: Client, request: Request) -> None:
        self._client, self._request = client, request
        self._tables = request.address.route_tables

    def acquire(self) -> None:
        self._allow_forwarding()
        for table in self._tables:
            for target in self._targets():
                self._lead(table, target)

    def is_here(self) -> bool:
        """Do all routes of all tables lead to our interface, and is it there?"""
        wanted = {next(iter(t.values())) for t in self._targets()}
        for table in self._client.describe_route_tables(RouteTableIds=self._tables)["RouteTables"]:
            here = {
                r.get("DestinationCidrBlock") or r.get("DestinationIpv6CidrBlock")
                for r in table["Routes"]
                if r.get("NetworkInterfaceId") == self._request.eni and r.get("State", "active") == "active"
            }
            if not wanted <= here:
                return False
        return True

    def _targets(self) -> Iterator[dict[str, str]]:
        for address in self._request.addresses:
            ip = ipaddress.ip_address(address)
            key = "DestinationCidrBlock" if ip.version == 4 else "DestinationIpv6CidrBlock"
            yield {key: f"{ip}/{ip.max_prefixlen}"}

    def _lead(self, table: str, target: dict[str, str]) -> None:
        route = {"RouteTableId": table, "NetworkInterfaceId": self._request.eni, **target}
        try:
            self._client.replace_route(**route)
        except ClientError as e:
            if _code(e) not in _NO_ROUTE:
                raise
            self._client.create_route(**route)

    def _allow_forwarding(self) -> None:
        """The interface would drop packets for an address that the cloud does not know as its own."""
        found = self._client.describe_network_interfaces(NetworkInterfaceIds=[self._request.eni])
        if not found["NetworkInterfaces"]:
            raise Refused(f"there is no network interface {self._request.eni}")
        if found["NetworkInterfaces"][0].get("SourceDestCheck", True):
            self._client.modify_network_interface_attribute(
                NetworkInterfaceId=self._request.eni, SourceDestCheck={"Value": False}
            )


class Secondary:
    """`aws-secondary`."""

    def __init__(self, client: Client, request: Request) -> None:
        self._client, self._request = client, request
        self._v4 = [a for a in request.addresses if ":" not in a]
        self._v6 = [a for a in request.addresses if ":" in a]

    def acquire(self) -> None:
        eni = self._request.eni
        if self._v4:
            self._check_subnet()
            self._client.assign_private_ip_addresses(
                NetworkInterfaceId=eni, PrivateIpAddresses=self._v4, AllowReassignment=True
            )
        for address in self._v6:  # has to be taken from its holder first
            for other in self._holders(address):
                if other != eni:
                    self._client.unassign_ipv6_addresses(NetworkInterfaceId=other, Ipv6Addresses=[address])
            self._client.assign_ipv6_addresses(NetworkInterfaceId=eni, Ipv6Addresses=[address])

    def is_here(self) -> bool:
        """Has our interface all of them?"""
        own = self._own()
        have = {x["PrivateIpAddress"] for x in own.get("PrivateIpAddresses", [])}
        have |= {str(ipaddress.ip_address(x["Ipv6Address"])) for x in own.get("Ipv6Addresses", [])}
        return set(self._request.addresses) <= have

    def _own(self) -> dict[str, Any]:
        found = self._client.describe_network_interfaces(NetworkInterfaceIds=[self._request.eni])["NetworkInterfaces"]
        if not found:
            raise Refused(f"there is no network interface {self._request.eni}")
        return dict(found[0])

    def _holders(self, address: str) -> list[str]:
        wanted = [{"Name": "ipv6-addresses.ipv6-address", "Values": [address]}]
        found = self._client.describe_network_interfaces(Filters=wanted)["NetworkInterfaces"]
        return [str(x["NetworkInterfaceId"]) for x in found]

    def _check_subnet(self) -> None:
        subnet = self._client.describe_subnets(SubnetIds=[self._own()["SubnetId"]])["Subnets"][0]
        network = ipaddress.ip_network(subnet["CidrBlock"])
        for address in self._v4:
            if ipaddress.ip_address(address) not in network:
                raise Refused(
                    f"{address} is not in {network}, the subnet of {self._request.eni}: members in different zones "
                    "need the kind aws-route"
                )


class Elastic:
    """`aws-eip`."""

    def __init__(self, client: Client, request: Request) -> None:
        self._client, self._request = client, request

    def acquire(self) -> None:
        self._client.associate_address(
            AllocationId=self._request.address.allocation,
            NetworkInterfaceId=self._request.eni,
            AllowReassociation=True,
        )

    def is_here(self) -> bool:
        """Is the elastic IP associated with our interface?"""
        found = self._client.describe_addresses(AllocationIds=[self._request.address.allocation])["Addresses"]
        return bool(found) and found[0].get("NetworkInterfaceId") == self._request.eni


_KINDS: dict[str, Callable[[Client, Request], Routes | Secondary | Elastic]] = {
    "aws-route": Routes,
    "aws-secondary": Secondary,
    "aws-eip": Elastic,
}


class Clerk:
    """Answers requests with one client, which is made at the first."""

    def __init__(self) -> None:
        self._client: Client | None = None
        self._made_for: AddressSettings | None = None

    def answer(self, request: Request) -> Answer:
        """Do what was asked; return what came of it."""
        try:
            return self._act(request)
        except Refused as e:
            return Answer("refused", why=str(e))
        except WorldFault as e:
            return Answer("unknown", why=str(e))
        except (NoCredentialsError, PartialCredentialsError) as e:
            return Answer("refused", why=f"there are no credentials for the cloud: {e}")
        except ClientError as e:
            said = e.response.get("Error", {})
            words = f"{said.get('Code', '')}: {said.get('Message', '')}"[:300]
            return Answer("unknown" if _code(e) in _UNSURE else "refused", why=f"the cloud said {words}")
        except BotoCoreError as e:
            return Answer("unknown", why=f"the cloud does not answer: {e}"[:300])

    def _act(self, request: Request) -> Answer:
        if self._client is None or self._made_for != request.address:
            self._client, self._made_for = client_of(request.address), request.address
        way = _KINDS[request.address.kind](self._client, request)
        if request.verb == "acquire":
            way.acquire()
            if not way.is_here():
                raise Unknown("it was led here, but does not lead here: somebody else moves it, too")
            return Answer("done", Where.HERE)
        return Answer("done", Where.HERE if way.is_here() else Where.ELSEWHERE)  # to look also warms everything up


def _code(e: ClientError) -> str:
    return str(e.response.get("Error", {}).get("Code", ""))


def main() -> int:
    """Answer one request a line until standard input ends."""
    clerk = Clerk()
    for line in sys.stdin.buffer:
        answer = clerk.answer(msgspec.json.decode(line, type=Request))
        sys.stdout.buffer.write(msgspec.json.encode(answer) + b"\n")
        sys.stdout.buffer.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main())
