"""A virtual machine of Amazon EC2, stopped and started through the cloud's API. The calls are made by a helper
(aws_program.py), since the cloud's library takes most of a second to load; the controller only sees `AwsDriver`.

A forced stop takes from seconds to minutes there, so give the device a `deadline_s` of 120 or more. Until the machine
is `stopped`, it does not count as off: `stopping` is neither. What happens outside waits meanwhile only until the loser
must have stopped itself, as with every slow device.
"""

from __future__ import annotations

from futago.cluster.fence.helper import HelperDriver
from futago.setup.fences import FenceDevice as FenceSettings


class AwsDriver(HelperDriver):
    """One instance.

    `address`: its id, such as i-0123456789abcdef0. `user` and the password: an access key id and its secret; without
    them the role of the machine that asks is used. Options: `region` (needed), `endpoint` (URL of the API where it is
    not the public one).
    """

    def __init__(self, settings: FenceSettings) -> None:
        super().__init__("futago.cluster.fence.aws_program", settings)
