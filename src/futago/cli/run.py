"""`futago run PROGRAM` and `futago agent run`: start one of our programs, as its systemd unit does.

Reached before the command line library is loaded, so that the controller is back within milliseconds after a crash.
A program reads its settings itself.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence

from futago.runtime.faults import OperatorFault

PROGRAMS = {
    "receiver": "futago.intake.receiver",
    "controller": "futago.cluster.controller",
    "guard": "futago.cluster.guard",
    "manager": "futago.manager",
    "web": "futago.web.app",
    "witness": "futago.agent.witness",
}
AGENT = "futago.agent.main"


def start(program: str, rest: Sequence[str] = ()) -> int:
    """Run the program until it ends; return its exit code.

    Raises:
        OperatorFault: there is no such program, or it was given arguments.
    """
    if program not in PROGRAMS:
        raise OperatorFault(
            f"There is no program `{program}`.",
            hint=f"Programs are: {', '.join(PROGRAMS)}; systemd starts them.",
            code="cli.program",
        )
    return _main(PROGRAMS[program], rest)


def start_agent(rest: Sequence[str] = ()) -> int:
    """Run the agent until it ends; return its exit code."""
    return _main(AGENT, rest)


def _main(module: str, rest: Sequence[str]) -> int:
    if rest:
        raise OperatorFault(
            f"Programs take no arguments, but got `{' '.join(rest)}`.",
            hint="Settings come from files.",
            code="cli.program",
        )
    return int(importlib.import_module(module).main())
