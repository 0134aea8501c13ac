"""What a lab was made of, as its state file tells: enough to find it again, and to remove it after any crash."""

from __future__ import annotations

import json
import os
from pathlib import Path

import msgspec

from futago.lab import machine
from futago.lab.places import LABS, Places
from futago.lab.topology import Node
from futago.runtime.faults import OperatorFault
from futago.runtime.unreadable import UNREADABLE


class LabState(msgspec.Struct, frozen=True):
    """The state file.

    `owner` ties a test's lab to the process that made it; its lab may be removed when that process is gone.
    """

    name: str
    golden: str
    product: str
    nodes: tuple[Node, ...]
    created_utc: str
    daemon_pid: int = 0
    daemon_started: int = 0
    owner_pid: int = 0
    owner_started: int = 0
    fence: tuple[str, ...] = ("ipmi",)  # kinds of devices, in the order of trying
    watchdog: bool = False  # members have a watchdog device
    extra: tuple[str, ...] = ()  # layers of the hosts' roots between the product and the golden root


def save_state(where: Places, state: LabState) -> None:
    """Write the state file, whole or not at all."""
    new = where.state.with_suffix(".new")
    new.write_bytes(msgspec.json.format(msgspec.json.encode(state), indent=1))
    os.replace(new, where.state)


def load_state(where: Places) -> LabState:
    """Read the state file. Raises OperatorFault if there is no such lab."""
    try:
        return msgspec.json.decode(where.state.read_bytes(), type=LabState)
    except FileNotFoundError as e:
        raise OperatorFault(
            f"There is no lab `{where.name}`.", hint=f"Run `futago lab up --name {where.name}`.", code="lab.none"
        ) from e
    except UNREADABLE as e:
        raise OperatorFault(
            f"{where.state} cannot be read: {e}.",
            hint=f"Run `futago lab down --name {where.name}`, then `up`.",
            code="lab.state",
        ) from e


def is_alive(state: LabState) -> bool:
    """Return whether the lab's daemon lives."""
    return state.daemon_pid > 0 and machine.started_ticks(state.daemon_pid) == state.daemon_started


def orphans() -> list[str]:
    """Return the labs whose owner process is gone."""
    found = []
    for file in LABS.glob("*/state.json"):
        try:
            state = msgspec.json.decode(file.read_bytes(), type=LabState)
        except (OSError, *UNREADABLE):
            continue
        if state.owner_pid and machine.started_ticks(state.owner_pid) != state.owner_started:
            found.append(state.name)
    return found


def all_labs() -> list[Path]:
    """Return the homes of all labs of this machine."""
    return sorted(p.parent for p in LABS.glob("*/state.json"))


def relay_file(where: Places) -> Path:
    """Return the file in which the relay from the machine's loopback says where it listens."""
    return where.home / "relay.json"


def page_url(where: Places) -> str | None:
    """Return the URL under which the lab's page is reached from this machine; None if no relay runs."""
    try:
        found = json.loads(relay_file(where).read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None
    alive = machine.started_ticks(found["pid"]) == found["started"]
    return f"https://127.0.0.1:{found['port']}/" if alive else None
