"""The golden root: the file system that every lab host starts from; built once from the distribution's packages and
cached.

It holds systemd, PostgreSQL's programs, the tools the product calls, the product's dependencies in /opt/futago (a
virtual environment, from the
locked list with hashes) and the tests' own tools in /opt/labtools. The product itself is a layer of its own
(product.py), since it changes often.
What the developer's machine is configured with (package indexes, proxies) is used for the build and leaves no trace in
the image.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from futago.lab import machine
from futago.lab.places import CACHE, SOURCE, locked
from futago.lab.progress import Say, step
from futago.runtime.faults import OperatorFault, Refused

SUITE = "bookworm"
INSIDE = "/var/wheels"  # where the wheels lie inside the image while it is built
FORMAT = "1"  # grows whenever this file changes what an image holds

PACKAGES = (
    "systemd",
    "systemd-sysv",
    "dbus",
    "iproute2",
    "iputils-ping",
    "iputils-arping",
    "python3",
    "python3-venv",
    "postgresql-15",
    "rsyslog",
    "snmp",
    "ipmitool",
    "procps",
    "psmisc",
    "bsdutils",
    "util-linux",
    "passwd",
    "ca-certificates",
    "openssl",
    "nftables",
    "ethtool",
    "netbase",
    "tzdata",
    "less",
    "curl",
    "tcpdump",
    "strace",
)
LABTOOLS = ("aiosmtpd", "atpublic", "attrs")  # for the tests' SMTP sink; from requirements-dev.lock

# Units that have no place in a lab host: they would slow its boot down, listen, or touch the machine that all hosts
# share.
MASKED = (
    "apt-daily.timer",
    "apt-daily-upgrade.timer",
    "dpkg-db-backup.timer",
    "e2scrub_all.timer",
    "e2scrub_reap.service",
    "fstrim.timer",
    "getty@.service",
    "console-getty.service",
    "serial-getty@.service",
    "getty-static.service",
    "systemd-sysctl.service",
    "systemd-timesyncd.service",
    "ipmievd.service",
    "systemd-networkd.service",
    "systemd-networkd.socket",
    "systemd-resolved.service",
    "rsyslog.service",
    "postgresql.service",
    "openipmi.service",
    "systemd-random-seed.service",
    "systemd-pstore.service",
    "systemd-hwdb-update.service",
    "modprobe@.service",
    "systemd-modules-load.service",
    "systemd-firstboot.service",
    "sys-kernel-debug.mount",
    "sys-kernel-tracing.mount",
    "sys-fs-fuse-connections.mount",
    "sys-kernel-config.mount",
    "dev-hugepages.mount",
    "nftables.service",
    "systemd-logind.service",
    "systemd-update-utmp.service",
    "systemd-update-utmp-runlevel.service",
)

_JOURNALD = """[Journal]
Storage=volatile
RuntimeMaxUse=64M
RateLimitIntervalSec=0
ForwardToSyslog=no
ForwardToConsole=yes
MaxLevelConsole=info
"""


def image_hash() -> str:
    """Return the name of the image that this source tree asks for."""
    text = "\n".join(
        [
            FORMAT,
            SUITE,
            os.uname().machine,
            *PACKAGES,
            *MASKED,
            _JOURNALD,
            (SOURCE / "requirements.lock").read_text(encoding="utf-8"),
            _labtools_requirements(),
        ]
    )
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _labtools_requirements() -> str:
    """Return the locked lines, with their hashes, of the tests' tools."""
    blocks = re.split(
        r"^(?=[A-Za-z0-9])", (SOURCE / "requirements-dev.lock").read_text(encoding="utf-8"), flags=re.MULTILINE
    )
    return "".join(b for b in blocks if b.split("==")[0].strip() in LABTOOLS)


def ensure(*, say: Say) -> Path:
    """Return the golden root, built if it is not cached. Two callers at once build it once."""
    home = CACHE / f"golden-{image_hash()}"
    with locked(CACHE / ".golden.lock", wait=True, busy=""):
        if is_complete(home):
            return home / "root"
        for stale in [*CACHE.glob("golden-build-*"), *([home] if home.exists() else [])]:
            shutil.rmtree(stale)
        with step("building the golden root (once; one to two minutes)", say=say):
            build = CACHE / f"golden-build-{os.getpid()}"
            try:
                _build(build, say=say)
                (build / "complete").write_text(f"{_count(build / 'root')}\n", encoding="ascii")
                tool_sync(build)
                build.rename(home)
            except BaseException:
                shutil.rmtree(build, ignore_errors=True)
                raise
    return home / "root"


def is_complete(home: Path) -> bool:
    """Return whether a cached image is whole: it was finished, and no file has gone since."""
    try:
        recorded = int((home / "complete").read_text(encoding="ascii"))
    except (FileNotFoundError, ValueError):
        return False
    return recorded == _count(home / "root")


def _count(root: Path) -> int:
    return sum(len(files) for _, _, files in os.walk(root))


def tool_sync(folder: Path) -> None:
    """Write the file system that holds `folder` to its disk."""
    machine.tool("sync", "-f", str(folder), deadline_s=300)


def _build(build: Path, *, say: Say) -> None:
    build.mkdir(parents=True)
    root = build / "root"
    with ThreadPoolExecutor(max_workers=2) as pool:
        wheels = pool.submit(_download, build / "wheels", say=say)
        _bootstrap(root, say=say)
        wheels.result()
    with step("installing the product's dependencies into it", say=say):
        _install(root, build / "wheels")
    _configure(root)
    shutil.rmtree(build / "wheels")


def _bootstrap(root: Path, *, say: Say) -> None:
    keep_out = [f"--dpkgopt=path-exclude=/usr/share/{d}/*" for d in ("man", "doc", "locale", "info", "lintian")]
    common = "$1/etc/postgresql-common"
    no_cluster = f'mkdir -p "{common}" && echo "create_main_cluster = false" > "{common}/createcluster.conf"'
    proxy = machine.tool("apt-config", "shell", "P", "Acquire::http::Proxy").strip().partition("=")[2].strip("'")
    options = [f'--aptopt=Acquire::http::Proxy "{proxy}"'] if proxy else []
    mirror = os.environ.get("FUTAGO_LAB_MIRROR")
    with step(f"unpacking Debian {SUITE}, {len(PACKAGES)} packages and what they need", say=say):
        try:
            machine.tool(
                "mmdebstrap",
                "--variant=minbase",
                f"--include={','.join(PACKAGES)}",
                "--dpkgopt=force-unsafe-io",
                *keep_out,
                *options,
                '--aptopt=Acquire::Languages "none"',
                f"--essential-hook={no_cluster}",
                SUITE,
                str(root),
                *([mirror] if mirror else []),
                deadline_s=1200,
            )
        except Refused as e:
            raise OperatorFault(
                f"The golden root could not be built: {e}",
                hint="The machine must reach a Debian mirror; FUTAGO_LAB_MIRROR names another one.",
                code="lab.golden",
            ) from e


def _download(wheels: Path, *, say: Say) -> None:
    """Fetch the locked wheels with the developer's own pip and its configuration."""
    wheels.mkdir(parents=True)
    extra = wheels.parent / "labtools.txt"
    extra.write_text(_labtools_requirements(), encoding="utf-8")
    other = [] if sys.version_info[:2] == (3, 11) else ["--python-version", "3.11"]
    with step("fetching the product's dependencies", say=say):
        for listed in (SOURCE / "requirements.lock", extra):
            try:
                machine.tool(
                    sys.executable,
                    "-m",
                    "pip",
                    "download",
                    "-q",
                    "--no-deps",
                    "--require-hashes",
                    "--only-binary=:all:",
                    *other,
                    "-r",
                    str(listed),
                    "-d",
                    str(wheels),
                    deadline_s=900,
                )
            except Refused as e:
                raise OperatorFault(
                    f"The dependencies could not be fetched: {e}",
                    hint="The machine must reach a Python package index.",
                    code="lab.golden",
                ) from e


def chroot(root: Path, *args: str, deadline_s: float = 300) -> str:
    """Run a program inside `root`, with nothing of the developer's environment."""
    return machine.tool(
        "chroot",
        str(root),
        "/usr/bin/env",
        "-i",
        *[f"{k}={v}" for k, v in machine.CLEAN_ENV.items()],
        *args,
        deadline_s=deadline_s,
    )


def _install(root: Path, wheels: Path) -> None:
    inside = root / INSIDE.lstrip("/")
    shutil.copytree(wheels, inside)
    shutil.copy(SOURCE / "requirements.lock", inside / "requirements.lock")
    (inside / "labtools.txt").write_text(_labtools_requirements(), encoding="utf-8")
    for venv, listed in (("/opt/futago", "requirements.lock"), ("/opt/labtools", "labtools.txt")):
        chroot(root, "python3", "-m", "venv", venv)
        chroot(
            root,
            f"{venv}/bin/python",
            "-m",
            "pip",
            "--isolated",
            "install",
            "-q",
            "--no-index",
            "--find-links",
            INSIDE,
            "--require-hashes",
            "-r",
            f"{INSIDE}/{listed}",
        )
    shutil.rmtree(inside)


def _configure(root: Path) -> None:
    units = root / "etc/systemd/system"
    units.mkdir(parents=True, exist_ok=True)
    for unit in MASKED:
        (units / unit).unlink(missing_ok=True)
        (units / unit).symlink_to("/dev/null")
    (units / "default.target").unlink(missing_ok=True)
    (units / "default.target").symlink_to("/lib/systemd/system/multi-user.target")
    drop = root / "etc/systemd/journald.conf.d"
    drop.mkdir(parents=True, exist_ok=True)
    (drop / "lab.conf").write_text(_JOURNALD, encoding="utf-8")
    for leftover in ("etc/apt/apt.conf.d/99mmdebstrap", "etc/apt/sources.list", "etc/hostname", "etc/resolv.conf"):
        (root / leftover).unlink(missing_ok=True)
    (root / "etc/machine-id").write_text("", encoding="ascii")
    (root / "etc/fstab").write_text("", encoding="ascii")
    for cached in ("var/lib/apt/lists", "var/cache/apt"):
        shutil.rmtree(root / cached, ignore_errors=True)
