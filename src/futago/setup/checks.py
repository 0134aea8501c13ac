"""What must be true before a machine becomes part of a pair. Asked before anything is changed; every "no" is a
sentence with a way out.

A check is a function without arguments that raises OperatorFault. `ask_all` runs all of them and names everything
that is wrong at once, so that a person mends once. Checks look; they never mend.
"""

from __future__ import annotations

import ipaddress
import os
import socket
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from pathlib import Path

from futago.runtime.faults import OperatorFault, Refused
from futago.setup import machine, paths
from futago.setup.fences import FenceDevice
from futago.setup.fencing import FencePlan, power_state
from futago.setup.files import read_secret
from futago.setup.settings import CHOICES, check_name

Check = Callable[[], None]

POSTGRES_MAJOR = 15
POSTGRES_MINOR_MIN = 13  # 15.13: a starting server no longer forgets for a moment that commits wait for the standby
CLOCKS_APART_MAX = timedelta(seconds=1)
PASSWORD_CHARS = range(8, 129)
VOLUME_BYTES_MIN = 400 << 20  # an empty database, its write-ahead log, and room to move

TCP_PORTS = {
    paths.PORT_POSTGRES: "PostgreSQL",
    paths.PORT_CONTROL: "the controller",
    paths.PORT_JOURNAL: "the receiver's journal",
    paths.PORT_AGENT: "agents",
    paths.PORT_WEB: "the web pages",
    514: "syslog",
}
UDP_PORTS = {paths.PORT_HEARTBEAT: "heartbeats", 514: "syslog", 162: "SNMP traps"}
TOOLS = {"ip": "iproute2", "arping": "iputils-arping", "systemctl": "systemd", "setpriv": "util-linux"}
UNITS = ("receiver", "guard", "controller", "postgres", "manager", "web")
UNIT_NAMES = tuple(f"futago-{name}.service" for name in UNITS)


@dataclass(frozen=True, slots=True)
class Place:
    """Where a member stands in the networks, as the operator gave it."""

    name: str
    service: str
    heartbeat: str
    interface: str
    eni: str = ""


def ask_all(checks: Iterable[Check]) -> None:
    """Run every check.

    Raises:
        OperatorFault: naming everything that was found; its code is that of the first finding.
    """
    found: list[OperatorFault] = []
    for check in checks:
        try:
            check()
        except OperatorFault as fault:
            found.append(fault)
    if len(found) == 1:
        only = found[0]
        raise OperatorFault(f"{only.what} Nothing has been changed.", hint=only.hint, code=only.code)
    if found:
        lines = "".join(f"\n  - {fault.what}\n    {fault.hint}  [{fault.code}]" for fault in found)
        raise OperatorFault(
            f"{len(found)} things must be put right first; nothing has been changed:{lines}", code=found[0].code
        )


# --- what the operator wrote: needs no machine ---


def parse_address(text: str, *, option: str) -> machine.Address:
    """Return the address. Raises OperatorFault naming the option."""
    try:
        return ipaddress.ip_address(text)
    except ValueError as e:
        raise OperatorFault(
            f"{option}: `{text}` is not an IP address.",
            hint="Write it as in 192.0.2.11, without prefix length.",
            code="setup.address",
        ) from e


def parse_floating(text: str) -> machine.Interface:
    """Return the floating IP with its network. Raises OperatorFault."""
    hint = "Write it as in 192.0.2.100/24, with the prefix length of the service network."
    if "/" not in text:
        raise OperatorFault(f"--floating-ip: `{text}` has no prefix length.", hint=hint, code="setup.floating-ip")
    try:
        found = ipaddress.ip_interface(text)
    except ValueError as e:
        raise OperatorFault(f"--floating-ip: {e}.", hint=hint, code="setup.floating-ip") from e
    net = found.network
    if net.num_addresses > 2 and found.ip in (net.network_address, net.broadcast_address):
        raise OperatorFault(
            f"--floating-ip: {found.ip} is not the address of a machine in {net}.", hint=hint, code="setup.floating-ip"
        )
    return found


def check_admin_password(path: Path) -> None:
    """The first administrator's password is there and long enough."""
    size = len(read_secret(path, option="--admin-password-file"))
    if size not in PASSWORD_CHARS:
        raise OperatorFault(
            f"--admin-password-file: the password has {size} characters; {PASSWORD_CHARS.start} to "
            f"{PASSWORD_CHARS.stop - 1} are needed.",
            code="setup.password",
        )


def input_checks(place: Place, floating_ips: Sequence[str]) -> list[Check]:
    """Return the checks that need nothing but the words themselves."""

    def addresses() -> None:
        service = parse_address(place.service, option="--service")
        heartbeat = parse_address(place.heartbeat, option="--heartbeat")
        if service == heartbeat:
            raise OperatorFault(
                f"--service and --heartbeat are the same address, {service}.",
                hint="The heartbeat needs a network of its own, else one cable is all that joins the members.",
                code="setup.networks",
            )

    def floating() -> None:
        wanted = [parse_floating(text).ip for text in floating_ips]
        if len(set(wanted)) != len(wanted):
            raise OperatorFault("--floating-ip names an address twice.", code="setup.floating-ip")
        if any(ip in _valid(place.service, place.heartbeat) for ip in wanted):
            raise OperatorFault(
                "--floating-ip is an address of this machine's own.",
                hint="The floating IP moves between the members; choose an address that nobody has.",
                code="setup.floating-ip",
            )

    return [lambda: _named(place.name, "--member"), addresses, floating]


def check_choices(profile: str, recovery: str, fence_after: str) -> None:
    """Each of the settings with a fixed set of words has one of them."""
    for option, word, allowed in (
        ("--profile", profile, CHOICES["profile"]),
        ("--recovery", recovery, CHOICES["recovery"]),
        ("--fence-after", fence_after, CHOICES["fence_after"]),
    ):
        if word not in allowed:
            raise OperatorFault(
                f"{option}: there is no `{word}`.",
                hint=f"It is one of {', '.join(sorted(allowed))}.",
                code="setup.choice",
            )


def _named(name: str, option: str) -> None:
    check_name(name, what=option)


def _valid(*texts: str) -> list[machine.Address]:
    found = []
    for text in texts:
        try:
            found.append(ipaddress.ip_address(text))
        except ValueError:
            continue
    return found


# --- what the machine is ---


def check_root() -> None:
    """Only root may set up a machine."""
    if os.geteuid() != 0:
        raise OperatorFault("This needs root.", hint="Run the same line as root.", code="setup.root")


def check_systemd() -> None:
    """The programs are systemd units."""
    if not machine.is_systemd_running():
        raise OperatorFault(
            "systemd does not run this machine.",
            hint="Futago's programs are systemd units; use a machine that systemd started.",
            code="setup.systemd",
        )


def check_tools(*, fence: FencePlan) -> None:
    """The system's tools that the product calls are installed."""
    wanted = {**TOOLS, **({"ipmitool": "ipmitool"} if any(d.driver == "ipmi" for d in fence.devices) else {})}
    missing = sorted(package for name, package in wanted.items() if not machine.is_installed(name))
    if missing:
        raise OperatorFault(
            f"Programs are missing: {', '.join(missing)}.",
            hint=f"apt-get install {' '.join(missing)}",
            code="setup.tools",
        )


def check_postgres() -> None:
    """PostgreSQL 15 is installed, with a minor version whose synchronous replication can be trusted."""
    hint = "apt-get install postgresql-15"
    try:
        major, minor = machine.postgres_version()
    except Refused as e:
        raise OperatorFault(
            f"PostgreSQL {POSTGRES_MAJOR} is not installed: {e}.", hint=hint, code="setup.postgres"
        ) from e
    if major != POSTGRES_MAJOR or minor < POSTGRES_MINOR_MIN:
        raise OperatorFault(
            f"PostgreSQL {major}.{minor} is installed; {POSTGRES_MAJOR}.{POSTGRES_MINOR_MIN} or a later "
            f"{POSTGRES_MAJOR} is needed: "
            "earlier ones may acknowledge a write before the other member has it.",
            hint=hint,
            code="setup.postgres",
        )


def check_place(place: Place, floating_ips: Sequence[str]) -> None:
    """Both addresses are this machine's, the service address on the given interface, in two networks, and the
    floating IPs in networks of that interface.
    """
    try:
        own = machine.own_addresses()
    except Refused as e:
        raise OperatorFault(f"This machine's addresses cannot be read: {e}.", code="setup.address") from e
    service = _held(own, place.service, option="--service")
    heartbeat = _held(own, place.heartbeat, option="--heartbeat")
    if service.interface != place.interface:
        raise OperatorFault(
            f"--interface {place.interface} does not carry {place.service}; {service.interface} does.",
            hint=f"Use --interface {service.interface}, or another --service address.",
            code="setup.interface",
        )
    if service.address.network == heartbeat.address.network or service.interface == heartbeat.interface:
        raise OperatorFault(
            f"--service and --heartbeat are on the same network ({service.interface}, {service.address.network}).",
            hint="The heartbeat needs an interface and a network of its own, else one cable is all that joins the "
            "members.",
            code="setup.networks",
        )
    there = {a.address.network for a in own if a.interface == service.interface and not a.address.ip.is_link_local}
    for floating in map(parse_floating, floating_ips):
        if floating.network not in there:
            networks = ", ".join(map(str, sorted(there, key=str)))
            raise OperatorFault(
                f"--floating-ip {floating} is not in the service network {networks}.",
                hint="Choose a free address there, with the same prefix length.",
                code="setup.floating-ip",
            )


def _held(own: Sequence[machine.OwnAddress], text: str, *, option: str) -> machine.OwnAddress:
    wanted = parse_address(text, option=option)
    for candidate in own:
        if candidate.address.ip == wanted:
            return candidate
    have = ", ".join(
        f"{a.address.ip} ({a.interface})"
        for a in own
        if not a.address.ip.is_loopback and not a.address.ip.is_link_local
    )
    raise OperatorFault(
        f"{option}: {wanted} is not an address of this machine.",
        hint=f"It has: {have or 'none'}.",
        code="setup.address",
    )


def check_floating_free(place: Place, floating_ip: str) -> None:
    """Nobody in the service network owns the floating IP."""
    floating = parse_floating(floating_ip).ip
    try:
        if any(a.address.ip == floating for a in machine.own_addresses()):
            taken = "by this machine itself"
        elif machine.is_address_answered(floating, place.interface):
            taken = "by another machine"
        else:
            return
    except Refused as e:
        raise OperatorFault(f"--floating-ip cannot be checked: {e}.", code="setup.floating-ip") from e
    raise OperatorFault(
        f"--floating-ip: {floating} is in use {taken}.",
        hint="Choose an address that nobody has.",
        code="setup.floating-ip",
    )


def check_ports() -> None:
    """Every port our programs listen on is free."""
    held = [
        f"TCP {p} ({what}): {why}"
        for p, what in TCP_PORTS.items()
        if (why := machine.port_holder(p, kind=socket.SOCK_STREAM))
    ]
    held += [
        f"UDP {p} ({what}): {why}"
        for p, what in UDP_PORTS.items()
        if (why := machine.port_holder(p, kind=socket.SOCK_DGRAM))
    ]
    if held:
        raise OperatorFault(
            f"Ports are taken: {'; '.join(held)}.",
            hint="`ss -lntup` shows by whom; stop or move that service, such as the distribution's own PostgreSQL "
            "cluster or syslog listener.",
            code="setup.ports",
        )


def check_directories() -> None:
    """Nothing of somebody else's lies where our files go."""
    ours = [paths.PKI, paths.SECRETS, paths.CLUSTER, paths.PGDATA, paths.JOURNAL_OWN, paths.JOURNAL_PEER]
    full = [str(p) for p in ours if p.exists() and (not p.is_dir() or any(p.iterdir()))]
    if full:
        raise OperatorFault(
            f"There are files in {', '.join(full)}, but no settings in {paths.SETTINGS}: they are not of this set-up.",
            hint="Move them away if they are of an earlier installation.",
            code="setup.directories",
        )


def check_volume() -> None:
    """The database's volume has room."""
    place = next(p for p in (paths.PG_VOLUME, *paths.PG_VOLUME.parents) if p.exists())
    found = os.statvfs(place)
    if found.f_bavail * found.f_frsize < VOLUME_BYTES_MIN:
        raise OperatorFault(
            f"{place} has less than {VOLUME_BYTES_MIN >> 20} MiB free for the database.",
            hint="Mount a larger volume there.",
            code="setup.volume",
        )


def check_fence(device: FenceDevice, password: str) -> None:
    """The fence device answers, knows the password, and controls a machine that is on, as this one is."""
    where = f"The fence device {device.place}"
    try:
        state = power_state(device, password)
    except Refused as e:
        raise OperatorFault(
            f"{where} cannot be used: {e}.",
            hint="Check --fence, its password file and the network to it.",
            code="fence.device",
        ) from e
    if state != "on":
        raise OperatorFault(
            f"{where} says that its machine is {state}, but this machine is on: it is not this machine's device.",
            hint="Give the device that powers this machine.",
            code="fence.device",
        )


def machine_checks(place: Place, floating_ips: Sequence[str], fence: FencePlan, *, is_repeat: bool) -> list[Check]:
    """Return the checks of this machine. On a repeat, what our own programs hold already is no obstacle."""
    found: list[Check] = [
        check_systemd,
        lambda: check_tools(fence=fence),
        check_postgres,
        lambda: check_place(place, floating_ips),
        check_volume,
    ]
    for device, password in zip(fence.devices, fence.passwords, strict=True):
        found.append(partial(check_fence, device, password))
    if not is_repeat:
        found += [check_directories]
    if not any(machine.unit_state(unit) in ("active", "activating", "reloading") for unit in UNIT_NAMES):
        found.append(check_ports)
    return found
