"""Any fence agent of ClusterLabs (`fence_*`), by its standard interface: parameters as `name=value` lines on standard
input, the answer as an exit code.

So hypervisors, power strips and service processors that nobody here has seen can be used. The account's password goes
in on standard input as well; what the agent does with it is the agent's business (fence_ipmilan 4.12 hands it to
ipmitool as an argument).

`status` answers 0 for on and 2 for off. Some programs also end with 2 when they do not understand their input, which
must never count as "off", so the word "off" must be in what it prints, as it is with every agent of the collection.

Source: ClusterLabs fence-agents, doc/FenceAgentAPI.md, and lib/fencing.py.py 4.12.1.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from futago.cluster.fence import Power
from futago.cluster.fence.command import password, require_trusted
from futago.runtime import process
from futago.runtime.faults import Refused, Unknown
from futago.setup.fences import FenceDevice as FenceSettings

_NO = re.compile(
    r"connect/login|correct privileges|set login password|Unrecognised action|not available for this|"
    r"Failed: You have to|Parse error",
    re.IGNORECASE,
)
"""What agents print when the device, or the agent itself, said no before anything was switched."""


class AgentDriver:
    """One device behind one agent.

    `address`, `user` and the password become `ip`, `username` and `password`; every option is handed on by its name,
    such as `plug`, `lanplus` or `ssl_insecure`.
    """

    has_sessions = False

    def __init__(self, settings: FenceSettings) -> None:
        self._program = settings.program
        self._password_file = settings.password_file
        known = {"ip": settings.address, "username": settings.user}
        self._parameters = {**{k: v for k, v in known.items() if v}, **settings.options}

    async def status(self, *, deadline_s: float) -> Power:
        """Run `action=status`."""
        ended = await self._run("status", deadline_s=deadline_s)
        if ended.code == 0:
            return Power.ON
        if ended.code == 2 and re.search(r"\boff\b", ended.out, re.IGNORECASE):
            return Power.OFF
        raise _fault(ended)

    async def order(self, wanted: Power, *, deadline_s: float) -> None:
        """Run `action=off` or `action=on`; an agent waits for the effect itself."""
        ended = await self._run(wanted.value, deadline_s=deadline_s)
        if ended.code != 0:
            raise _fault(ended)

    async def _run(self, action: str, *, deadline_s: float) -> process.Ended:
        program = find(self._program)
        secret = password(self._password_file)
        parameters = {"action": action, **self._parameters, **({"password": secret} if secret else {})}
        lines = "".join(f"{name}={value}\n" for name, value in parameters.items())
        return await process.run([str(program)], deadline_s=deadline_s, stdin=lines.encode())


def find(program: str) -> Path:
    """Return the agent's path: an absolute one as it is, a name from the system's folders of programs.

    Raises:
        Refused: there is none, or others than root may change it.
    """
    found = program if program.startswith("/") else shutil.which(program, path=process.ENVIRONMENT["PATH"])
    if not found:
        raise Refused(f"there is no program {program}; install the package that holds this agent")
    require_trusted(Path(found))
    return Path(found)


def _fault(ended: process.Ended) -> Refused | Unknown:
    kind = Refused if _NO.search(f"{ended.err}\n{ended.out}") else Unknown
    return kind(f"the agent ended with exit code {ended.code}: {ended.last_words}")
