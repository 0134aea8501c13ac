"""What fences the members of a lab: which services a BMC must offer for a kind of device, and what an operator writes and
puts on the hosts to use it.

Every kind really switches the power of a lab host: ipmi_sim, sushy-emulator and moto all act through the lab's daemon; the
agent is Debian's fence_ipmilan, unpacked into the hosts; the command is a shell script around curl.
"""

from __future__ import annotations

import hashlib
import ssl
import time
from typing import TYPE_CHECKING
from urllib.parse import quote

from futago.lab import aws, redfish
from futago.lab.topology import BMC_USER, bmc_address
from futago.runtime.faults import OperatorFault, Unknown

if TYPE_CHECKING:
    from futago.lab.lab import Lab, LabHost

IPMI, REDFISH, AWS = "ipmi", "redfish", "aws"
SERVICES = {"ipmi": IPMI, "agent": IPMI, "redfish": REDFISH, "command": REDFISH, "aws": AWS}
"""Kind of device -> the service of a BMC that it speaks to."""
PASSWORD = "/root/fence.password"  # noqa: S105  a file's name
COMMAND = "/usr/local/sbin/lab-power"
CLOUD_S_MAX = 40.0

_COMMAND = """#!/bin/sh
# lab-power status|off|on ADDRESS USER: switches a machine by the Redfish service at ADDRESS. An example of a program for
# the driver `command`; the password is read from standard input.
read -r password
url=https://$2/redfish/v1/Systems
ask() { printf 'user = "%s:%s"\\n' "$user" "$password" | curl -sS -k -m 8 -f -K - "$@"; }
user=$3
system=$(ask "$url" | sed -n 's/.*"@odata.id": *"\\([^"]*Systems\\/[^"]*\\)".*/\\1/p' | head -n 1)
[ -n "$system" ] || exit 3
case "$1" in
  status)
    state=$(ask "https://$2$system" | sed -n 's/.*"PowerState": *"\\([A-Za-z]*\\)".*/\\1/p')
    case "$state" in On) exit 0;; Off) exit 2;; *) exit 3;; esac;;
  off) type=ForceOff;;
  on) type=On;;
  *) exit 1;;
esac
ask -H 'Content-Type: application/json' -d "{\\"ResetType\\": \\"$type\\"}" \\
  "https://$2$system/Actions/ComputerSystem.Reset" > /dev/null || exit 3
"""


def check_kinds(kinds: tuple[str, ...]) -> tuple[str, ...]:
    """Return the kinds. Raises OperatorFault if there is none, or one that the lab cannot emulate."""
    unknown = [k for k in kinds if k not in SERVICES]
    if unknown or not kinds:
        raise OperatorFault(
            f"The lab has no fence device `{', '.join(unknown)}`.",
            hint=f"It has {', '.join(SERVICES)}; several with commas are levels, in order.",
            code="lab.fence",
        )
    return kinds


def services(kinds: tuple[str, ...]) -> tuple[str, ...]:
    """Return the services that a BMC must offer for these kinds of devices."""
    return tuple(dict.fromkeys(SERVICES[k] for k in kinds))


def word(lab: Lab, kind: str, member: str) -> str:
    """Return how an operator names the member's device of a kind."""
    account = f"{BMC_USER}@{bmc_address(member)}"
    match kind:
        case "redfish":
            return f"redfish://{account}?fingerprint={fingerprint(lab, member)}"
        case "agent":
            return f"agent://{account}/fence_ipmilan?lanplus=1&cipher=3&power_wait=0"
        case "command":
            return f"command://{account}{COMMAND}"
        case "aws":
            where = quote(aws.endpoint(bmc_address(member)), safe="")
            return f"aws://{BMC_USER}@{_instance(lab, member)}?region={aws.REGION}&endpoint={where}&deadline=60"
    return f"ipmi://{account}"


def _instance(lab: Lab, member: str) -> str:
    """Return the id of a member's instance; the cloud takes some seconds to answer for the first time."""
    file = aws.instance(lab.places.bmc(member))
    end = time.monotonic() + CLOUD_S_MAX
    while not file.exists():
        if time.monotonic() > end:
            raise Unknown(f"the cloud of {member} does not answer: see {file.parent / 'aws.log'}")
        time.sleep(0.1)
    return file.read_text(encoding="ascii").strip()


def fingerprint(lab: Lab, member: str) -> str:
    """Return the SHA-256 fingerprint of the certificate of a member's Redfish service."""
    text = redfish.certificate(lab.places.bmc(member)).read_text(encoding="ascii")
    return hashlib.sha256(ssl.PEM_cert_to_DER_cert(text)).hexdigest()


def put_files(lab: Lab, host: LabHost, member: str) -> None:
    """Put what the devices of `member` need onto a host: the password of its BMC, and the lab's command."""
    host.write(PASSWORD, lab.places.bmc_password(member).read_text(encoding="ascii"), mode=0o600)
    if "command" in lab.state.fence:
        host.write(COMMAND, _COMMAND, mode=0o755)


def arguments(lab: Lab, member: str) -> list[str]:
    """Return the options of `futago init` and `join` that name the member's devices, in order."""
    return [
        x for kind in lab.state.fence for x in ("--fence", word(lab, kind, member), "--fence-password-file", PASSWORD)
    ]
