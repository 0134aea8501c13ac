"""The product layer: the package built from this source tree and installed over the golden root; cached by the content
of the source.

So a change of code costs a few seconds, and what runs in the lab is an installed wheel, as on a real machine, never the
source tree.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
import time
from pathlib import Path

from futago.lab import machine
from futago.lab.golden import tool_sync
from futago.lab.places import CACHE, LABS, SOURCE, locked
from futago.lab.progress import Say, step

LAYERS_KEPT = 6  # layers that no lab uses, newest first
_PARTS = ("pyproject.toml", "README.md", "LICENSE", "src")


def ensure(golden: Path, *, say: Say) -> Path:
    """Return the layer (a folder that overlays `golden`) with the product installed, built if it is not cached."""
    with locked(CACHE / ".product.lock", wait=True, busy=""):
        build = CACHE / f"product-build-{os.getpid()}"
        shutil.rmtree(build, ignore_errors=True)
        try:
            digest = _snapshot(build / "source", golden.parent.name)
            home = CACHE / f"product-{digest}"
            if not (home / "complete").exists():
                with step("building and installing the product", say=say):
                    _build(build, golden)
                shutil.rmtree(home, ignore_errors=True)
                build.rename(home)
            os.utime(home)
        finally:
            shutil.rmtree(build, ignore_errors=True)
        _prune(keep=home)
    return home / "layer"


def _snapshot(target: Path, golden: str) -> str:
    """Copy the source, so that what is built is what was hashed; return the hash."""
    target.mkdir(parents=True)
    digest = hashlib.sha256(golden.encode())
    for part in _PARTS:
        if (SOURCE / part).is_dir():
            shutil.copytree(
                SOURCE / part, target / part, ignore=shutil.ignore_patterns("__pycache__", "*.pyc", "*.egg-info")
            )
        elif (SOURCE / part).exists():
            shutil.copy(SOURCE / part, target / part)
    for file in sorted(p for p in target.rglob("*") if p.is_file()):
        digest.update(f"{file.relative_to(target)}\0".encode() + hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()[:16]


def _build(build: Path, golden: Path) -> None:
    wheels, layer, memory = (build / d for d in ("wheels", "layer", "memory"))
    for folder in (wheels, layer, memory):
        folder.mkdir()
    machine.tool(
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "-q",
        "--no-deps",
        "--no-build-isolation",
        "-w",
        str(wheels),
        str(build / "source"),
        deadline_s=300,
    )
    wheel = next(wheels.glob("*.whl"))
    env = " ".join(f"{k}={v}" for k, v in machine.CLEAN_ENV.items())
    pip = (
        f"/opt/futago/bin/python -m pip --isolated install -q --no-deps --no-index --force-reinstall /var/{wheel.name}"
    )
    # The overlay is mounted in a mount namespace of its own: it is gone with the process, whatever happens. Its upper half
    # is in memory, since the cache may itself lie on an overlay, which cannot carry one.
    script = f"""set -e
mount -t tmpfs -o mode=755 tmpfs {memory}
mkdir {memory}/upper {memory}/work {memory}/root
mount -t overlay overlay -o lowerdir={golden},upperdir={memory}/upper,workdir={memory}/work {memory}/root
cp {wheel} {memory}/root/var/
chroot {memory}/root /usr/bin/env -i {env} {pip}
rm {memory}/root/var/{wheel.name}
cp -a {memory}/upper/. {layer}/
"""
    machine.tool("unshare", "--mount", "--propagation", "private", "sh", "-c", script, deadline_s=300)
    for folder in (wheels, memory, build / "source"):
        shutil.rmtree(folder, ignore_errors=True)
    tool_sync(build)
    (build / "complete").write_text(f"{time.time():.0f}\n", encoding="ascii")


def _prune(*, keep: Path) -> None:
    """Remove old layers that no lab stands on."""
    used = {keep.name}
    for state in LABS.glob("*/state.json"):
        try:
            used.add(Path(json.loads(state.read_text(encoding="utf-8"))["product"]).parent.name)
        except (OSError, ValueError, KeyError):
            continue
    idle = [p for p in CACHE.glob("product-*") if p.name not in used]
    for old in sorted(idle, key=lambda p: p.stat().st_mtime, reverse=True)[LAYERS_KEPT:]:
        shutil.rmtree(old, ignore_errors=True)
