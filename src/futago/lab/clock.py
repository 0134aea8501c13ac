"""The wall clock of one lab host's programs: made wrong, and moved while they run.

All hosts share the machine's kernel and its clock, so the programs of the product are preloaded with a clock of their
own (clock.c), which adds what stands in a file that they share; a write to that file is a jump in all of them at once.
Only the wall clock is moved, as when somebody sets it: instants since boot stay true, as they do then.
"""

from __future__ import annotations

import hashlib
import struct
from pathlib import Path

from futago.lab import machine
from futago.lab.places import CACHE
from futago.runtime.faults import OperatorFault

SOURCE = Path(__file__).with_name("clock.c")
INSTALLED = "usr/local/lib/lab-clock.so"
OFFSET = "etc/lab-clock"
DROP_IN = "etc/systemd/system/futago-.service.d/lab-clock.conf"
OFFSET_S_MAX = 10 * 365 * 86400


def built() -> Path:
    """Return the library, compiled if it is not cached."""
    source = SOURCE.read_bytes()
    target = CACHE / f"clock-{hashlib.sha256(source).hexdigest()[:16]}.so"
    if not target.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        machine.tool("tcc", "-nostdlib", "-shared", "-o", f"{target}.new", str(SOURCE))
        Path(f"{target}.new").rename(target)
    return target


def install(root: Path) -> None:
    """Let the product's programs below `root` read this clock from their next start on; it is true at first."""
    for name in (INSTALLED, DROP_IN):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / INSTALLED).write_bytes(built().read_bytes())
    if not (root / OFFSET).exists():
        (root / OFFSET).write_bytes(struct.pack("=q", 0))
    (root / DROP_IN).write_text(f"[Service]\nEnvironment=LD_PRELOAD=/{INSTALLED}\n", encoding="ascii")


def remove(root: Path) -> None:
    """Let them read the true clock from their next start on."""
    (root / DROP_IN).unlink(missing_ok=True)


def jump(root: Path, offset_s: float) -> None:
    """Set how far the clock is from the truth; whoever reads it reads that from now on."""
    if abs(offset_s) > OFFSET_S_MAX:
        raise OperatorFault(f"{offset_s} seconds are too many.", hint="Ten years at most.", code="lab.clock")
    with (root / OFFSET).open("r+b", buffering=0) as f:
        f.write(struct.pack("=q", round(offset_s * 1e9)))


def is_read_by(pid: int) -> bool:
    """Return whether a process reads this clock."""
    try:
        return "/lab-clock.so" in Path(f"/proc/{pid}/maps").read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return False
