"""The entry of the controller: take the dead man's handle first, then load and run the bridge.

A controller that was killed is started again in 50 ms, but loading the rest takes half a second on a busy machine, and
the guard waits one second only. So nothing but the standard library's smallest parts is imported before the guard has
been told that a hand is back; and asyncio is not among them.
"""

from __future__ import annotations

import os
import socket

from futago.setup import paths


def take_handle() -> None:
    """Tell the guard that a controller lives again. No will goes with it: the last one stands until we turn."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC) as s:
        try:
            s.sendto(b'{"pid":%d,"is_armed":true}' % os.getpid(), str(paths.GUARD_SOCKET))
        except OSError:
            return  # no guard, no handle


def main() -> int:
    """Run the controller; return its exit code."""
    take_handle()
    from futago.cluster.guard import PRIORITY, stay_in_memory
    from futago.runtime.log import Log

    log = Log(program="controller")
    stay_in_memory(log, priority=PRIORITY)
    from futago.cluster import bridge

    take_handle()
    return bridge.serve(log)
