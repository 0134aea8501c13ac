"""The one place that reads clocks.

Instants named ``..._at`` are nanoseconds of CLOCK_BOOTTIME: monotonic, local to one boot of one machine, and counting while the machine sleeps, so a
resumed machine sees that time has passed. ``..._utc`` is an aware datetime, for people and rows only; no decision rests on it.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime

MS = 1_000_000
S = 1_000_000_000


def now_at() -> int:
    """Return the present instant in nanoseconds since boot."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


def now_utc() -> datetime:
    """Return the present wall-clock time, aware, in UTC."""
    return datetime.now(UTC)


def boot_id() -> str:
    """Return the kernel's id of this boot (proc(5), /proc/sys/kernel/random/boot_id), or of this host's init where hosts share a kernel.

    Machines that share one kernel (containers) share its boot id; the start time of their own pid 1 tells their boots apart.
    """
    with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as f:
        kernel = f.read().strip()
    with open("/proc/1/stat", encoding="ascii", errors="replace") as f:
        started = f.read().rsplit(")", 1)[1].split()[19]
    return f"{kernel[:18]}-{int(started):x}"
