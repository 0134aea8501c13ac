"""How a program speaks with systemd: ready, alive, status, stop (sd_notify(3), without a library).

One datagram to the socket named by NOTIFY_SOCKET; without that variable (a terminal, a test) every call does nothing
and says so by returning False. Nothing here waits or raises: a program must not die, nor stall its heartbeat, because
its supervisor is slow. `run` is the frame around the main coroutine of every program: uvloop, and a stop event that
SIGTERM and SIGINT set.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import Awaitable, Callable

STATUS_CHARS_MAX = 200  # systemctl status shows one line


def notify_ready(status: str = "") -> bool:
    """Say that the program serves. For `Type=notify` units, systemd waits for this."""
    return _notify("READY=1" + (f"\nSTATUS={_line(status)}" if status else ""))


def notify_watchdog() -> bool:
    """Say that the program's loop turns. To be called at least twice within WatchdogSec."""
    return _notify("WATCHDOG=1")


def notify_status(text: str) -> bool:
    """Set the line that `systemctl status` shows."""
    return _notify(f"STATUS={_line(text)}")


def notify_reloading() -> bool:
    """Say that settings are being read again; `notify_ready` ends it."""
    return _notify("RELOADING=1")


def notify_stopping() -> bool:
    """Say that the program has begun to stop."""
    return _notify("STOPPING=1")


def watchdog_s() -> float | None:
    """Return the unit's WatchdogSec in seconds; None if it has none for this process."""
    usec, pid = os.environ.get("WATCHDOG_USEC", ""), os.environ.get("WATCHDOG_PID", "")
    if not usec.isdigit() or (pid and pid != str(os.getpid())):
        return None
    return int(usec) / 1e6


def stop_event() -> asyncio.Event:
    """Return an event of the running loop that SIGTERM and SIGINT set."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    return stop


def run(main: Callable[[asyncio.Event], Awaitable[int]]) -> int:
    """Run `main(stop)` on uvloop and return its exit code; `stop` is set by SIGTERM and SIGINT."""
    import uvloop

    async def framed() -> int:
        code = await main(stop_event())
        notify_stopping()
        return code

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(framed())


def _line(text: str) -> str:
    return " ".join(text.split())[:STATUS_CHARS_MAX]


def _notify(state: str) -> bool:
    where = os.environ.get("NOTIFY_SOCKET", "")
    if not where:
        return False
    address = "\0" + where[1:] if where.startswith("@") else where
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as s:
            s.setblocking(False)
            s.sendto(state.encode(), address)
    except OSError:
        return False
    return True
