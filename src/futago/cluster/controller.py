"""The entry of the controller: take the dead man's handle first, then load and run the bridge.

A controller that was killed is started again in 50 ms, but loading the rest takes half a second on a busy machine,
and the guard waits one second only. So this file imports next to nothing before it has told the guard that a hand is
back.
"""

from __future__ import annotations

import asyncio
import os
import socket

from futago.cluster.guard import PRIORITY, Handle, send, stay_in_memory
from futago.runtime import service
from futago.runtime.faults import Corrupt, OperatorFault
from futago.runtime.log import Log


def main() -> int:
    """Run the controller; return its exit code."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC) as sock:
        send(sock, Handle(pid=os.getpid(), is_armed=True))
    log = Log(program="controller")
    stay_in_memory(log, priority=PRIORITY)
    from futago.cluster.bridge import Controller
    from futago.setup import settings as settings_room

    try:
        settings = settings_room.load()
    except OperatorFault as e:
        log.error("controller.settings", error=str(e))
        return 2
    log = log.bind(member=settings.me)

    async def run(stop: asyncio.Event) -> int:
        try:
            controller = Controller(settings, log=log)
        except Corrupt as e:
            log.error("controller.slots", error=str(e))
            return 2
        return await controller.run(stop)

    return service.run(run)
