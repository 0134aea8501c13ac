"""The tools of the distribution that a lab needs on the machine.

The missing ones are installed through apt-get. Nothing is started by that.
"""

from __future__ import annotations

import os
import shutil
from ctypes.util import find_library
from pathlib import Path

from futago.lab import machine
from futago.lab.progress import Say, step
from futago.runtime.faults import OperatorFault, Refused

# program -> package
TOOLS = {
    "mmdebstrap": "mmdebstrap",
    "nft": "nftables",
    "ip": "iproute2",
    "arping": "iputils-arping",
    "ethtool": "ethtool",
    "ipmi_sim": "openipmi",
    "ipmitool": "ipmitool",
    "mkfs.ext4": "e2fsprogs",
    "losetup": "mount",
    "nsenter": "util-linux",
    "python3": "python3",
    "tcc": "tcc",  # for a clock that a lab host has to itself; needs no other package
}
_WHERE = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def missing() -> list[str]:
    """Return the packages whose tools are not there."""
    return sorted({package for program, package in TOOLS.items() if shutil.which(program, path=_WHERE) is None})


def ensure_fuse(*, say: Say) -> None:
    """Install the library for file systems in user space, if it is missing. Raises OperatorFault."""
    if find_library("fuse") is None and find_library("fuse3") is None:
        _install(["libfuse2"], say=say)


def ensure(*, say: Say) -> None:
    """Install what is missing. Does nothing, quickly, when all is there.

    Raises:
        OperatorFault: this is no Debian-like system, or apt-get failed.
    """
    packages = missing()
    if packages:
        _install(packages, say=say)


def _install(packages: list[str], *, say: Say) -> None:
    if shutil.which("apt-get", path=_WHERE) is None:
        raise OperatorFault(
            f"The lab needs {', '.join(packages)}, and this machine has no apt-get to install them.",
            hint="Run the lab on Debian 12, or install these tools yourself.",
            code="lab.tools",
        )
    env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "PATH": _WHERE}
    with step(f"installing {', '.join(packages)}", say=say):
        try:
            machine.tool("apt-get", "-q", "update", deadline_s=300, env=env)
            machine.tool(
                "apt-get", "-q", "install", "-y", "--no-install-recommends", *packages, deadline_s=600, env=env
            )
        except Refused as e:
            raise OperatorFault(
                f"apt-get could not install {', '.join(packages)}: {e}",
                hint="Install them by hand, then try again.",
                code="lab.tools",
            ) from e


INOTIFY_INSTANCES = Path("/proc/sys/fs/inotify/max_user_instances")
INOTIFY_INSTANCES_MIN = 1024  # a host's systemd, dbus and units take about six; all labs and the machine share them


def ensure_limits(*, say: Say) -> None:
    """Raise the one limit of the machine that systemd in every host runs into, until its next boot.

    Kernels allow root 128 inotify instances in all; with three labs the last one's units would fail in odd ways.
    """
    allowed = int(INOTIFY_INSTANCES.read_text(encoding="ascii"))
    if allowed >= INOTIFY_INSTANCES_MIN:
        return
    try:
        INOTIFY_INSTANCES.write_text(str(INOTIFY_INSTANCES_MIN), encoding="ascii")
    except OSError as e:
        say(f"  !! fs.inotify.max_user_instances stays {allowed} ({e}): no more than two labs will run at once")
        return
    say(f"  ok fs.inotify.max_user_instances raised from {allowed} to {INOTIFY_INSTANCES_MIN} until the next boot")


def check_kernel() -> None:
    """Refuse where the kernel lacks what a lab is made of."""
    filesystems = Path("/proc/filesystems").read_text(encoding="ascii")
    for name in ("overlay", "ext4", "cgroup2"):
        if f"\t{name}\n" not in filesystems and not machine.succeeds("modprobe", name):
            raise OperatorFault(
                f"The kernel of this machine has no {name}.",
                hint="The lab needs overlay, ext4, loop devices and cgroup2.",
                code="lab.kernel",
            )
    if not Path("/dev/loop-control").exists() and not machine.succeeds("modprobe", "loop"):
        raise OperatorFault(
            "The kernel of this machine has no loop devices.",
            hint="The lab keeps the disks of its hosts on loop devices.",
            code="lab.kernel",
        )
