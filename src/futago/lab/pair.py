"""A pair inside a lab, set up as an operator would: by the product's own commands and nothing else.

Whatever these commands need they are given as files on the host; whatever they print is what the next command uses.
"""

from __future__ import annotations

import json
import os
import secrets
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from futago.lab import fencing
from futago.lab.lab import PROGRAM, Lab, LabHost
from futago.lab.progress import Say, silent, step
from futago.lab.topology import FLOATING_IP, Network
from futago.runtime.faults import Refused, Unknown

ADMIN_PASSWORD = "/root/admin.password"  # noqa: S105
ADMIN_TOKEN = "/etc/futago/secrets/admin.token"  # noqa: S105
PAIR_NAME = "lab"
JURORS = 3
PROTECTED_WITHIN_S = 120.0
ENROLLED_WITHIN_S = 60.0


def form_pair(
    lab: Lab,
    *,
    profile: str = "default",
    recovery: str = "auto",
    floating_ip: str = FLOATING_IP,
    is_agents_first: bool = False,
    say: Say = silent,
) -> dict[str, Any]:
    """Set a pair up in `lab` and wait until it is protected; a step that was done already is done again harmlessly.

    Args:
        lab: a lab that is up.
        profile: timing of failure detection.
        recovery: `auto` or `manual`.
        floating_ip: with prefix length; empty for a pair without one.
        is_agents_first: enroll the agents while there is one member only.
        say: where progress goes.

    Returns:
        The pair's status.

    Raises:
        Refused: a command failed; Unknown: it was not protected in time.
    """
    first, second = lab.members
    with step("the first member: futago init", say=say):
        lines = _init(lab, first, profile=profile, recovery=recovery, floating_ip=floating_ip)
    if is_agents_first:
        _enroll(lab, lines, say=say)
    with step("the second member: futago join", say=say):
        _secrets(lab, second)
        join = [*_command(lines["join_token"], "join", "--token"), *_place(lab, second), "--json"]
        second.run(join, deadline_s=660)
    if not is_agents_first:
        _enroll(lab, lines, say=say)
    jurors = [h.name for h in lab.managed[:JURORS]]
    if len(jurors) == JURORS:
        with step(f"the third vote: futago jury set {' '.join(jurors)}", say=say):
            first.run([PROGRAM, "jury", "set", *jurors], deadline_s=120)
    with step("waiting until the pair is protected", say=say):
        return wait_protected(lab)


def _enroll(lab: Lab, lines: dict[str, str], *, say: Say) -> None:
    enroll = _command(lines["enroll_token"], "agent", "enroll", "--token")
    agents = f"agents on {', '.join(h.name for h in lab.managed)}: futago agent enroll"
    with step(agents, say=say), ThreadPoolExecutor(max_workers=2) as pool:
        list(pool.map(lambda host: _enroll_one(host, enroll, say=say), lab.managed))


def _enroll_one(host: LabHost, enroll: list[str], *, say: Say) -> None:
    """Enroll a host; like an operator, once more while the member does not answer and says that nothing was changed.

    A machine that is busy with other things may keep a fresh member from answering for longer than the command waits.
    """
    end = time.monotonic() + ENROLLED_WITHIN_S
    while True:
        try:
            host.run([*enroll, "--name", host.name, "--json"], deadline_s=120)
            return
        except Refused as e:
            if "[enrol.unreachable]" not in str(e) or time.monotonic() > end:
                raise
            say(f"  .. {host.name}: no member answered; once more")
            time.sleep(1)


def _command(token: str, *words: str) -> list[str]:
    return [PROGRAM, *words, token]


def _place(lab: Lab, member: LabHost) -> list[str]:
    """Return what both `init` and `join` are told about the machine they run on."""
    heartbeat = member.node.address(Network.HEARTBEAT)
    return [
        *("--member", member.name, "--service", member.address, "--heartbeat", heartbeat, "--interface", "eth0"),
        *fencing.arguments(lab, member.name),
    ]


def _secrets(lab: Lab, member: LabHost) -> None:
    fencing.put_files(lab, member, member.name)


def _init(lab: Lab, first: LabHost, *, profile: str, recovery: str, floating_ip: str) -> dict[str, str]:
    _secrets(lab, first)
    first.write(ADMIN_PASSWORD, admin_password(lab) + "\n", mode=0o600)
    args = [PROGRAM, "init", "--pair", PAIR_NAME, *_place(lab, first)]
    args += ["--floating-ip", floating_ip] if floating_ip else []
    args += ["--admin-password-file", ADMIN_PASSWORD, "--profile", profile, "--recovery", recovery, "--json", "--yes"]
    printed: dict[str, str] = json.loads(first.run(args, deadline_s=300).stdout)
    return printed


def admin_password(lab: Lab) -> str:
    """Return the password of the pair's user `admin`, made at the first call; only root can read its file."""
    file: Path = lab.places.admin_password
    if not file.exists():
        fd = os.open(file, os.O_CREAT | os.O_WRONLY | os.O_EXCL, 0o600)
        with os.fdopen(fd, "w") as f:
            f.write(secrets.token_urlsafe(9) + "\n")
    return file.read_text(encoding="ascii").strip()


def admin_token(lab: Lab) -> str:
    """Return the API token of root on a living member."""
    for member in lab.members:
        if member.is_on():
            return member.read(ADMIN_TOKEN).strip()
    raise Refused("no member is on")


def wait_for_pair(lab: Lab, *, key: str, value: object, deadline_s: float) -> dict[str, Any]:
    """Wait until the pair's status has `value` under `key`; return that status.

    Raises:
        Unknown: it did not within the deadline; the message holds what it says of itself.
    """
    end = time.monotonic() + deadline_s
    while True:
        status = lab.pair_status()
        if status is not None and status.get(key) == value:
            return status
        if time.monotonic() > end:
            raise Unknown(f"{key} is not {value} within {deadline_s:.0f} s: {explain(status)}")
        time.sleep(0.25)


def wait_protected(lab: Lab, *, deadline_s: float = PROTECTED_WITHIN_S) -> dict[str, Any]:
    """Wait until the pair says that it is protected; return its status."""
    return wait_for_pair(lab, key="protected", value=True, deadline_s=deadline_s)


def explain(status: dict[str, Any] | None) -> str:
    """Return in one line what a pair says of itself."""
    if status is None:
        return "no member says anything"
    missing = "; ".join(str(m) for m in status.get("not_protected", []))
    return f"{status.get('state')}, primary {status.get('primary')}: {status.get('reason')} [{missing}]"


def apply(lab: Lab, yaml: str) -> str:
    """Load definitions with `futago apply` on the primary; return what it printed, once messages meet them."""
    primary = lab.host(lab.resolve("primary"))
    primary.write("/root/definitions.yaml", yaml, mode=0o600)
    return primary.run([PROGRAM, "apply", "--wait", "-f", "/root/definitions.yaml"], deadline_s=180).stdout
