"""The fence agents of ClusterLabs as a layer of lab hosts: Debian's package, unpacked, with what its programs load.

Unpacked and not installed: the package depends on three dozen others that its hundred agents need, and fence_ipmilan
needs four of them.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import tempfile
from pathlib import Path

from futago.lab import machine
from futago.lab.golden import SUITE
from futago.lab.places import CACHE, locked
from futago.lab.progress import Say, silent, step

PACKAGES = ("fence-agents", "python3-pexpect", "python3-ptyprocess", "python3-pycurl", "libcurl3-gnutls")
FORMAT = "1"  # grows whenever this file changes what the layer holds


def ensure(*, say: Say = silent) -> Path:
    """Return the layer, unpacked if it is not cached. Raises Refused if the packages cannot be fetched."""
    digest = hashlib.sha256("\n".join([FORMAT, SUITE, *PACKAGES]).encode()).hexdigest()[:16]
    home = CACHE / f"agents-{digest}"
    with locked(CACHE / ".agents.lock", wait=True, busy=""):
        if not home.exists():
            with step("fetching the fence agents", say=say):
                _build(home)
    return home


def _build(home: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="futago-agents-") as folder:
        build = Path(folder) / "layer"
        build.mkdir()
        machine.tool("apt-get", "-q", "download", *PACKAGES, cwd=Path(folder), deadline_s=300)
        for package in sorted(Path(folder).glob("*.deb")):
            machine.tool("dpkg", "-x", str(package), str(build))
        for part in ("usr/share/doc", "usr/share/man", "usr/share/lintian"):
            shutil.rmtree(build / part, ignore_errors=True)
        subprocess.run(["cp", "-a", str(build), f"{home}.new"], check=True)
        Path(f"{home}.new").rename(home)


def runner(layer: Path, agent: str, where: Path) -> Path:
    """Write a program that runs an agent straight from the layer, on the machine itself; return it."""
    modules = f"{layer}/usr/share/fence:{layer}/usr/lib/python3/dist-packages"
    libraries = ":".join(str(p) for p in (layer / "usr/lib").glob("*-linux-gnu"))
    environment = f"PYTHONPATH={modules} LD_LIBRARY_PATH={libraries}"
    script = f'#!/bin/sh\n{environment} exec /usr/bin/python3 {layer}/usr/sbin/{agent} "$@"\n'
    where.write_text(script, encoding="ascii")
    where.chmod(0o755)
    return where
