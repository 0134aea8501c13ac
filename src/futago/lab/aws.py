"""A cloud that controls one machine: moto's EC2 API, whose one instance is a lab host.

Runs as a program of its own, in the namespace of a BMC. moto's instances are a fiction; here stopping, starting and
describing go to the control program that ipmi_sim calls too:

    CONTROL MEMBER get power        prints power:1 or power:0
    CONTROL MEMBER set power 0

Keys are taken as they are: moto checks them only when it is told to, and then for every call.
"""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

PORT = 5000
REGION = "eu-central-1"
_CONTROL_S_MAX = 60.0


def main(home: Path, address: str, control: str, member: str) -> int:
    """Serve until ended; the id of the instance is in the file that `instance` names.

    Args:
        home: takes that file.
        address: where to listen.
        control: the program that switches the power.
        member: the machine's name.
    """
    import boto3
    from moto.ec2.models.instances import Instance
    from moto.ec2.responses.instances import InstanceResponse
    from moto.server import ThreadedMotoServer

    def ask(*words: str) -> str:
        done = subprocess.run(
            [control, member, *words], capture_output=True, text=True, check=True, timeout=_CONTROL_S_MAX
        )
        return done.stdout

    plain_stop, plain_start = Instance.stop, Instance.start
    plain_describe = InstanceResponse.describe_instances

    def stop(self: Any) -> Any:
        ask("set", "power", "0")
        return plain_stop(self)

    def start(self: Any) -> Any:
        ask("set", "power", "1")
        return plain_start(self)

    def describe(self: Any) -> Any:
        is_on = "power:1" in ask("get", "power")
        for reservation in self.ec2_backend.reservations.values():
            for found in reservation.instances:  # what happened behind the cloud's back
                found._state.name, found._state.code = ("running", 16) if is_on else ("stopped", 80)
        return plain_describe(self)

    server = ThreadedMotoServer(ip_address=address, port=PORT, verbose=False)
    server.start()
    client = boto3.client(
        "ec2",
        region_name=REGION,
        endpoint_url=endpoint(address),
        aws_access_key_id="lab",
        aws_secret_access_key="lab",  # noqa: S106  moto takes any
    )
    made = client.run_instances(ImageId="ami-12c6146b", MinCount=1, MaxCount=1)["Instances"][0]["InstanceId"]
    Instance.stop, Instance.start = stop, start  # type: ignore[method-assign]
    InstanceResponse.describe_instances = describe  # type: ignore[method-assign]
    fresh = instance(home).with_suffix(".new")
    fresh.write_text(f"{made}\n", encoding="ascii")
    fresh.rename(instance(home))
    signal.pause()
    return 0


def endpoint(address: str) -> str:
    """Return the URL of the API."""
    return f"http://{address}:{PORT}"


def instance(home: Path) -> Path:
    """Return the file that holds the id of the instance, once the API answers."""
    return home / "aws.instance"


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2], sys.argv[3], sys.argv[4]))
