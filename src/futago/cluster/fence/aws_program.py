"""The program that stops and starts an EC2 instance: a helper (helper.py), never part of the controller.

Lives here: the calls, and what the cloud's words mean. An order to stop waits here until the instance has stopped, for
as long as the request allows: each look in a process of its own would cost a second of processor time, just when the
other member needs it.

Source: the EC2 API reference: StopInstances (Force), StartInstances, DescribeInstances; "Instance lifecycle".
"""

from __future__ import annotations

import sys
import time
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError, PartialCredentialsError

from futago.cluster.fence import Power
from futago.cluster.fence.command import password
from futago.cluster.fence.helper import Request, serve
from futago.runtime.faults import Refused, Unknown

SPARE_S = 2.0  # for the caller's own look afterwards
LOOK_AGAIN_S = 0.5
CALL_S_MAX = 3.0
_STATES = {"running": Power.ON, "stopped": Power.OFF, "terminated": Power.OFF}  # all others: in between
_UNSURE = {"InternalError", "InternalFailure", "RequestLimitExceeded", "ServiceUnavailable", "Unavailable"}
Client = Any
"""boto3's EC2 client, which is made at run time and has no types."""


def act(request: Request) -> Power:
    """Carry out one request. Raises Refused or Unknown."""
    try:
        return _act(request, ends_at=time.monotonic() + request.deadline_s - SPARE_S)
    except (NoCredentialsError, PartialCredentialsError) as e:
        raise Refused(f"there are no credentials for the cloud: {e}") from e
    except ClientError as e:
        said = e.response.get("Error", {})
        words = f"the cloud said {said.get('Code', '')}: {said.get('Message', '')}"[:300]
        raise (Unknown if said.get("Code") in _UNSURE else Refused)(words) from e
    except BotoCoreError as e:
        raise Unknown(f"the cloud does not answer: {e}"[:300]) from e


def _act(request: Request, *, ends_at: float) -> Power:
    client, instance = _client(request), request.device.address
    if request.verb == "status":
        return _state(client, instance)
    if request.verb == "on":
        client.start_instances(InstanceIds=[instance])
        return Power.UNKNOWN
    client.stop_instances(InstanceIds=[instance], Force=True)
    while (found := _state(client, instance)) is not Power.OFF and time.monotonic() < ends_at:
        time.sleep(LOOK_AGAIN_S)
    return found


def _state(client: Client, instance: str) -> Power:
    found = client.describe_instances(InstanceIds=[instance])["Reservations"]
    if not found or not found[0]["Instances"]:
        raise Refused(f"there is no instance {instance}")
    return _STATES.get(found[0]["Instances"][0]["State"]["Name"], Power.UNKNOWN)


def _client(request: Request) -> Client:
    device = request.device
    return boto3.client(
        "ec2",
        region_name=device.options["region"],
        endpoint_url=device.options.get("endpoint"),
        aws_access_key_id=device.user or None,
        aws_secret_access_key=password(device.password_file) if device.user else None,
        config=Config(connect_timeout=CALL_S_MAX, read_timeout=CALL_S_MAX, retries={"total_max_attempts": 2}),
    )


if __name__ == "__main__":
    sys.exit(serve(act))
