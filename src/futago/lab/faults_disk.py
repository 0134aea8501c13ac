"""What can happen to the disks of a lab host, and how each ends. Steps of the table in faults.py."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from futago.lab.host import Power, PoweredHost
from futago.runtime.faults import OperatorFault, Refused

if TYPE_CHECKING:
    from futago.lab.daemon import Daemon

Stages = dict[str, float]
_FILLER = "lab-filler"


def _volume_host(d: Daemon, host: str) -> PoweredHost:
    found = d.host(host)
    if not found.disks.has_volume:
        raise OperatorFault(f"{host} has no volume for a database.", hint="m1 and m2 have one.", code="lab.volume")
    if found.power is Power.OFF:
        raise OperatorFault(f"{host} is off.", hint=f"Run `futago lab fault power-on {host}`.", code="lab.off")
    return found


def disk_hang(d: Daemon, host: str, _: list[str]) -> Stages:
    _volume_host(d, host).disks.hang()
    return {}


def disk_unhang(d: Daemon, host: str, _: list[str]) -> Stages:
    d.host(host).disks.thaw()
    return {}


def disk_detach(d: Daemon, host: str, _: list[str]) -> Stages:
    _volume_host(d, host).disks.detach()
    return {}


def attach(d: Daemon, host: str, _: list[str]) -> Stages:
    """The file system gave up when its disk went: it is whole again after a reboot only, as on a real machine."""
    found = d.host(host)
    with found.lock:
        if found.power is Power.ON and found.disks.is_detached():
            found.cut()
            found.power_on()
    return {}


def device_hang(d: Daemon, host: str, _: list[str]) -> Stages:
    disks = _volume_host(d, host).disks
    disks.require_remote()
    disks.hang(device=True)
    return {}


def device_gone(d: Daemon, host: str, _: list[str]) -> Stages:
    disks = _volume_host(d, host).disks
    disks.require_remote()
    disks.detach(device=True)
    return {}


def disk_full(d: Daemon, host: str, _: list[str]) -> Stages:
    d.fill(_volume_host(d, host).disks.volume / _FILLER)
    return {}


def disk_roomy(d: Daemon, host: str, _: list[str]) -> Stages:
    found = d.host(host)
    if found.power is Power.ON:
        (found.disks.volume / _FILLER).unlink(missing_ok=True)
    return {}


def root_full(d: Daemon, host: str, _: list[str]) -> Stages:
    found = d.host(host)
    if found.power is Power.OFF:
        raise Refused(f"{host} is off")
    d.fill(found.disks.root_spare / _FILLER)
    left = os.statvfs(found.disks.root_spare)
    return {"left_kib": left.f_bavail * left.f_frsize / 1024}


def root_roomy(d: Daemon, host: str, _: list[str]) -> Stages:
    found = d.host(host)
    if found.power is Power.ON:
        (found.disks.root_spare / _FILLER).unlink(missing_ok=True)
    return {}
