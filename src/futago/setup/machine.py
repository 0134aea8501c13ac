"""What this machine is and has, asked of its own tools: addresses, ports, services, programs, fence devices. It
changes nothing.

Every question has a deadline. An answer that cannot be had is a `Refused` with the tool's own words; the checks turn
it into a sentence for people.
"""

from __future__ import annotations

import errno
import ipaddress
import re
import shutil
import socket
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from futago.runtime.faults import Refused
from futago.setup import paths

Interface = ipaddress.IPv4Interface | ipaddress.IPv6Interface
Address = ipaddress.IPv4Address | ipaddress.IPv6Address


@dataclass(frozen=True, slots=True)
class OwnAddress:
    """An address that this machine has now."""

    interface: str
    address: Interface


class _AddrInfo(msgspec.Struct):
    local: str = ""
    prefixlen: int = 0


class _IpLink(msgspec.Struct):
    ifname: str = ""
    addr_info: list[_AddrInfo] = []


def tool(args: Sequence[str], *, deadline_s: float = 10) -> str:
    """Run one of the system's tools; return its standard output.

    Raises:
        Refused: it is not installed, failed, or did not end in time.
    """
    done = attempt(args, deadline_s=deadline_s)
    if done.returncode != 0:
        said = (done.stderr.strip() or done.stdout.strip() or "nothing").splitlines()
        raise Refused(f"{Path(args[0]).name} ended with {done.returncode}: {said[-1][:300]}")
    return done.stdout


def attempt(args: Sequence[str], *, deadline_s: float = 10) -> subprocess.CompletedProcess[str]:
    """Run one of the system's tools, whose failure is an answer too. Raises Refused: not installed, or no end in
    time.
    """
    try:
        return subprocess.run(args, capture_output=True, text=True, timeout=deadline_s, check=False)
    except FileNotFoundError as e:
        raise Refused(f"{args[0]} is not installed") from e
    except subprocess.TimeoutExpired as e:
        raise Refused(f"{args[0]} did not answer within {deadline_s:g} s") from e


def is_installed(name: str) -> bool:
    """Is there a program of this name (also in the administrator's folders, whatever PATH says)?"""
    return shutil.which(name, path="/usr/sbin:/usr/bin:/sbin:/bin:/usr/local/bin") is not None


def own_addresses() -> list[OwnAddress]:
    """Return every address of this machine with its interface. Raises Refused."""
    links = msgspec.json.decode(tool(["ip", "-j", "address", "show"]), type=list[_IpLink])
    return [
        OwnAddress(link.ifname, ipaddress.ip_interface(f"{a.local}/{a.prefixlen}"))
        for link in links
        for a in link.addr_info
        if a.local
    ]


def is_systemd_running() -> bool:
    """Did systemd start this machine?"""
    return Path("/run/systemd/system").is_dir()


def postgres_version() -> tuple[int, int]:
    """Return (major, minor) of the PostgreSQL programs in paths.PG_BIN. Raises Refused."""
    said = tool([str(paths.PG_BIN / "postgres"), "--version"])
    found = re.search(r"\b(\d+)\.(\d+)\b", said)
    if found is None:
        raise Refused(f"its version cannot be read from `{said.strip()[:100]}`")
    return int(found[1]), int(found[2])


def port_holder(port: int, *, kind: socket.SocketKind) -> str:
    """Return why this port cannot be taken; empty if it is free."""
    with socket.socket(socket.AF_INET, kind) as s:
        if kind is socket.SOCK_STREAM:
            s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            s.bind(("0.0.0.0", port))  # noqa: S104  only asked whether anybody holds it
        except OSError as e:
            return "in use" if e.errno == errno.EADDRINUSE else (e.strerror or str(e))
    return ""


def unit_state(unit: str) -> str:
    """Return systemd's word for the unit's state: active, inactive, failed, ...; empty if systemd cannot be asked."""
    try:
        return attempt(["systemctl", "is-active", unit]).stdout.strip()
    except Refused:
        return ""


def is_address_answered(address: Address, interface: str) -> bool:
    """Does any other machine of the network own this address (ARP; for IPv6, an echo)? Raises Refused if it cannot be
    asked.
    """
    if address.version == 6:
        return attempt(["ping", "-6", "-c", "1", "-W", "1", "-I", interface, str(address)]).returncode == 0
    code = attempt(["arping", "-D", "-q", "-c", "2", "-w", "2", "-I", interface, str(address)]).returncode
    if code not in (0, 1):
        raise Refused(f"arping ended with {code}")
    return code == 1


def status_text(unit: str) -> str:
    """Return what the unit's program last told systemd about itself (StatusText); empty if nothing."""
    try:
        return tool(["systemctl", "show", "-p", "StatusText", "--value", unit]).strip()
    except Refused:
        return ""
