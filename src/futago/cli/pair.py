"""The short verbs of the pair: status, switchover, maintenance, force-primary, fence. `recover`, `explain` and `drill`
have files of their own.

They ask the controller of this machine over its local socket (controller_line.py); nothing is decided here. `futago
status --json` prints exactly what the controller says.

Exit codes of `status`: 0 the pair is protected, 1 it is not, 2 this machine is not set up or the request is wrong, 3 no
controller answers. Of the others: 0 done, 1 no controller answers, 2 refused, with what to do first, 3 it is not known
whether it was done.
"""

from __future__ import annotations

import json
import sys
import time
from enum import StrEnum
from typing import Annotated, Any

import typer

from futago.cli.controller_line import AsJson, ask_status, operate
from futago.cli.status_table import draw
from futago.runtime.faults import OperatorFault, Refused, Unknown

EXIT_UNPROTECTED, EXIT_NO_CONTROLLER = 1, 3
FENCE_S_MAX = 120
CONFIRM_HINT = "Give the pair's name with --confirm, or type it when asked."


class Switch(StrEnum):
    """On or off."""

    ON = "on"
    OFF = "off"


def status(
    as_json: AsJson = False,
    watch: Annotated[bool, typer.Option("--watch", help="Draw it again every second until Ctrl-C.")] = False,
) -> None:
    """Show the pair: who serves, what is not protected, and what resolves it.

    Exit codes: 0 the pair is protected · 1 it is not · 2 this machine is not set up · 3 no controller answers.
    """
    while True:
        try:
            found = ask_status()
        except (Refused, Unknown) as e:
            print(
                json.dumps({"error": str(e)}) if as_json else f"futago: {e}", file=sys.stdout if as_json else sys.stderr
            )
            raise typer.Exit(EXIT_NO_CONTROLLER) from e
        if as_json:
            print(json.dumps(found, ensure_ascii=False))
        else:
            draw(found, clear=watch)
        if not watch:
            raise typer.Exit(0 if found.get("protected") else EXIT_UNPROTECTED)
        time.sleep(1)


def switchover(
    as_json: AsJson = False,
    deadline: Annotated[int, typer.Option(help="Give up waiting after so many seconds.")] = 75,
) -> None:
    """Hand the service over to the other member, as planned.

    Either member takes the order. It takes about half a second, during which writes wait; nothing is lost, running
    jobs go on, and connections are to be made anew. It is refused, and nothing changes, if the other member is not in
    sync. There is no preferred member: the same command hands back.

    Exit codes: 0 the other member serves · 1 no controller answers · 2 refused, with what to do first · 3 it is not
    known how it ended: see futago status.
    """
    done = operate({"op": "switchover"}, deadline_s=deadline, as_json=as_json)
    if not as_json:
        print(done["text"])


def maintenance(
    switch: Annotated[
        Switch, typer.Argument(help="`on`: an operator is at work; `off`: the pair acts by itself again.")
    ],
    as_json: AsJson = False,
) -> None:
    """Keep the pair from switching unasked while people work on it.

    With `on`, whatever happens, nobody takes over, hands over, powers the other member off or on by itself: cables may
    be moved and members rebooted without a switch. If the standby goes away, the primary goes on alone, and takes it
    back when it returns. If the PRIMARY goes away, the service stops until it is back, or until `off`. Orders of an
    operator are carried out as always: switchover, recover. It holds for both members and outlives their restarts;
    one that is away learns it when it returns. To work on the primary, hand over first: futago switchover.

    Exit codes: 0 done · 1 no controller answers · 2 refused · 3 it is not known.
    """
    done = operate({"op": "maintenance", "on": switch is Switch.ON}, deadline_s=30, as_json=as_json)
    if not as_json:
        print(done["text"])


def force_primary(
    confirm: Annotated[
        str, typer.Option(help="The pair's name, as the confirmation; without it you are asked on a terminal.")
    ] = "",
    as_json: AsJson = False,
) -> None:
    """Let this member serve although it cannot know that its data are complete. The last resort.

    It is for one case: the other member is gone for good, or will not be back in time, and this one waits because the
    other may have acknowledged writes that it lacks. What only the other one has is lost, and the other one comes back
    as an empty member later. Before this: start the other member, and its controller, if that is possible at all; two
    that see each other find out by themselves. It is refused while the other member is heard.

    You state that the other member is powered off and stays off: confirm with the pair's name.

    Exit codes: 0 this member serves · 1 no controller answers · 2 refused or not confirmed · 3 it is not known.
    """
    found = ask_status()
    if not confirm:
        confirm = _ask_for_confirmation(found)
    done = operate({"op": "force-primary", "confirm": confirm}, deadline_s=120, as_json=as_json)
    if not as_json:
        print(done["text"])


def _ask_for_confirmation(found: dict[str, Any]) -> str:
    """Say what may be lost and read the pair's name."""
    me = _own_name(found)
    other = next((m for m in found["members"] if m["name"] != me["name"]), None)
    name = "the other member" if other is None else other["name"]
    print(f"{found['reason']} [{found['rule']}]", file=sys.stderr)
    print(f"What may be lost: every write that {name} acknowledged and {me['name']} does not have.", file=sys.stderr)
    print(f"{me['name']} has everything up to {me['flush_lsn']} in epoch {found['epoch']}.", file=sys.stderr)
    for link in found["links"]:
        heard = link.get("last_heard_ms")
        when = "never since this controller started" if heard is None else f"{heard / 1000:.0f} s ago"
        print(f"{name} was heard on the {link['name']} network: {when}.", file=sys.stderr)
    for fence in found["fences"]:
        if fence["member"] == name:
            print(f"Its power device says: {fence['state']} {fence['error'] or ''}".rstrip() + ".", file=sys.stderr)
    if not sys.stdin.isatty():
        raise OperatorFault("A forced start must be confirmed.", hint=CONFIRM_HINT, code="pair.confirm")
    print(f"If {name} is powered off and stays off, type the pair's name to go on: ", end="", file=sys.stderr)
    sys.stderr.flush()
    return sys.stdin.readline().strip()


def _own_name(found: dict[str, Any]) -> dict[str, Any]:
    """Return the row of the member that told the status: its own comes first."""
    row: dict[str, Any] = found["members"][0]
    return row


# --- power devices ----------------------------------------------------------------------------------------------------

fence_app = typer.Typer(no_args_is_help=True, help="The devices that power a member off by force.")


@fence_app.callback()
def _fence() -> None:
    """The devices that power a member off by force."""


def _power_cycle(member: str, *, level: int, confirm: str, as_json: bool) -> None:
    if not member:
        raise OperatorFault(
            "--power-cycle needs the name of the standby.", hint="See futago status.", code="pair.member"
        )
    if not confirm and sys.stdin.isatty():
        print(f"{member} is powered off without being asked. Type its name to go on: ", end="", file=sys.stderr)
        sys.stderr.flush()
        confirm = sys.stdin.readline().strip()
    request = {"op": "fence-test", "member": member, "power_cycle": True, "level": level, "confirm": confirm}
    done = operate(request, deadline_s=FENCE_S_MAX, as_json=as_json)
    if not as_json:
        print(done["text"])


@fence_app.command("test")
def fence_test(
    member: Annotated[str, typer.Argument(help="Only the devices of this member; empty: of both.")] = "",
    power_cycle: Annotated[
        bool, typer.Option("--power-cycle", help="Really power this member, the standby, off and on again.")
    ] = False,
    level: Annotated[int, typer.Option(help="With --power-cycle: by which of its devices.", min=1)] = 1,
    confirm: Annotated[
        str, typer.Option(help="With --power-cycle: the member's name again, as the confirmation.")
    ] = "",
    as_json: AsJson = False,
) -> None:
    """Ask the power devices for their state now, with the real account, from both members. Nothing is switched.

    The controllers do this every 30 seconds; `futago status` shows the age of the last answer. A device that calls a
    machine off which is heard to run fails the test.

    With --power-cycle, on the member that serves, the standby is really powered off, the pair goes on without it, and it
    is powered on again. The pair must be protected before.

    Exit codes: 0 every test passed · 1 at least one failed, or no controller answers · 2 no device is configured, or it
    was not confirmed · 3 it is not known whether the machine was switched.
    """
    if power_cycle:
        _power_cycle(member, level=level, confirm=confirm, as_json=as_json)
        return
    done = operate({"op": "fence-test", "member": member}, deadline_s=FENCE_S_MAX, as_json=as_json)
    if not as_json:
        from futago.cli.tables import table

        rows = [
            [r["from"], r["member"], r["level"], r["driver"], r["device"], r["state"], "ok" if r["ok"] else r["error"]]
            for r in done["tests"]
        ]
        table(["asked by", "device of", "level", "driver", "where", "power", "result"], rows)
        print(done["text"])
    if not done["passed"]:
        raise typer.Exit(1)
