"""Drills in a lab, held from outside: every failure pattern, power cuts included.

Lives here: the lab as a ground for drills. Must not live here: the faults themselves (futago.lab.patterns).
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from futago.cli.drill import DRILLS, Drill, Status, read_notes
from futago.lab.faults import FAULTS
from futago.lab.lab import PROGRAM, Lab
from futago.lab.pair import admin_token
from futago.lab.patterns import PATTERNS
from futago.lab.topology import FLOATING_IP
from futago.runtime.faults import OperatorFault, Refused, Unknown

CLIENT = "c1"
PYTHON = PROGRAM.rpartition("/")[0] + "/python"
TOKEN, CA = "/root/drill.token", "/root/drill.ca.crt"


def lab_drills() -> list[Drill]:
    """Return every pattern as a drill."""
    return [_drill(name) for name in PATTERNS]


def _drill(name: str) -> Drill:
    steps = PATTERNS[name]
    text = "; ".join(f"{FAULTS[fault].text} ({' '.join((target, *words))})" for fault, target, words in steps)
    return Drill(name, "lab", text, "the service goes on or comes back, and nothing is lost", switches=None)


class LabGround:
    """The lab of a name, with a pair in it."""

    def __init__(self, name: str) -> None:
        self._lab = Lab(name)
        if not self._lab.is_up():
            raise OperatorFault(
                f"There is no lab `{name}`.",
                hint="Name a lab that is up (`futago lab status --name NAME`), or run make demo.",
                code="drill.lab",
            )

    def drill(self, name: str) -> Drill:
        if name not in PATTERNS:
            words = f"Patterns are {', '.join(PATTERNS)}. On a member there are {', '.join(DRILLS)}."
            raise OperatorFault(f"There is no pattern `{name}`.", hint=words, code="drill.name")
        return _drill(name)

    def status(self) -> Status | None:
        return self._lab.pair_status()

    def writer(self) -> tuple[list[str], dict[str, Any]]:
        client = self._lab.host(CLIENT)
        member = next(m for m in self._lab.members if m.is_on())
        client.write(TOKEN, admin_token(self._lab), mode=0o600)
        client.write(CA, member.read("/etc/futago/pki/ca.crt"))
        servers = [*(m.address for m in self._lab.members), FLOATING_IP.partition("/")[0]]
        command = client.command([PYTHON, "-m", "futago.cli.drill_writer"])
        return command, {"servers": servers, "token_file": TOKEN, "ca": CA}

    def inject(self, drill: Drill) -> None:
        self._lab.begin(PATTERNS[drill.name])

    def heal(self) -> None:
        self._lab.heal()

    def recover(self) -> None:
        for member in self._lab.members:
            try:
                member.run([PROGRAM, "recover"], deadline_s=240)
                return
            except (Refused, Unknown):
                continue

    def notes(self, since: datetime) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        for member in self._lab.members:
            found += read_notes(since, run=lambda command, m=member: m.run(command, check=False).stdout)  # type: ignore[misc]
        return found
