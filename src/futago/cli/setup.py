"""The verbs that make a pair: init, join, token, agent enroll, jury. Words in, words out; the work is in futago.setup.

Progress goes to standard error, the result to standard output; `--json` prints one JSON object there and nothing else.
"""

from __future__ import annotations

import json
import sys
from datetime import timedelta
from pathlib import Path
from typing import Annotated

import typer

from futago.runtime.faults import OperatorFault

Fence = Annotated[
    list[str],
    typer.Option(
        help="The device that can power THIS machine off: ipmi://user@address and others (docs/operations/fencing.md);"
        " again for the device to be tried next; `none` to do without."
    ),
]
PasswordFile = Annotated[
    list[Path] | None,
    typer.Option(help="File with the password of the fence device; once for each --fence with a user, in that order."),
]
Service = Annotated[str, typer.Option(help="This machine's address on the service network.")]
Heartbeat = Annotated[str, typer.Option(help="This machine's address on the heartbeat network.")]
Interface = Annotated[str, typer.Option(help="The interface of the service network; it will carry the floating IP.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
Hours = Annotated[int, typer.Option(help="For how long the token is good.", min=1, max=24 * 30)]

token_app = typer.Typer(no_args_is_help=True, help="Print the lines that let a member join or a host enroll.")
agent_app = typer.Typer(no_args_is_help=True, help="Enroll this host with a pair.")
jury_app = typer.Typer(no_args_is_help=True, help="Seat or show the third vote.")


def _say(text: str) -> None:
    print(f"  {text}", file=sys.stderr, flush=True)


def init(
    *,
    pair: Annotated[str, typer.Option(help="A name for the pair.")],
    member: Annotated[str, typer.Option(help="This machine's name in the pair.")],
    service: Service,
    heartbeat: Heartbeat,
    interface: Interface,
    fence: Fence,
    admin_password_file: Annotated[Path, typer.Option(help="File with the password for the user `admin`.")],
    floating_ip: Annotated[
        list[str] | None,
        typer.Option(help="The address that moves, with prefix length: 192.0.2.100/24. May be repeated, or left out."),
    ] = None,
    fence_password_file: PasswordFile = None,
    profile: Annotated[str, typer.Option(help="Failure detection: default, fast, or vm.")] = "default",
    recovery: Annotated[str, typer.Option(help="After a failure, rejoin by itself: auto, or manual.")] = "auto",
    fence_after: Annotated[str, typer.Option(help="A fenced member is powered on again: on, or stay_off.")] = "on",
    as_json: AsJson = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask for confirmation.")] = False,
) -> None:
    """Make this machine the first member of a new pair.

    Everything is checked before anything is changed. May be run again with the same values at any time.
    """
    from futago.setup import init as work
    from futago.setup.checks import Place

    if not yes and sys.stdin.isatty():
        typer.confirm(f"Make this machine the first member, {member}, of the new pair {pair}?", abort=True, err=True)
    options = work.Options(
        pair=pair,
        place=Place(member, service, heartbeat, interface),
        floating_ips=tuple(floating_ip or ()),
        fence=fence,
        fence_password_file=fence_password_file or [],
        admin_password_file=admin_password_file,
        profile=profile,
        recovery=recovery,
        fence_after=fence_after,
    )
    lines = work.run(options, say=_say)
    if as_json:
        print(
            json.dumps(
                {
                    "join": lines.join,
                    "enroll": lines.enroll,
                    "join_token": lines.join_token,
                    "enroll_token": lines.enroll_token,
                }
            )
        )
        return
    print(f"\n{lines.state} {lines.join_when}, run:\n\n{lines.join}\n")
    print(f"On every host that shall run jobs or be a juror, run:\n\n{lines.enroll}\n")
    print("Then seat three or five of the hosts as third vote: futago jury set HOST1 HOST2 HOST3")
    print("The lines hold secrets and are good for a day; `futago token` prints fresh ones.")


def join(
    *,
    token: Annotated[str, typer.Option(help="From the line that the first member printed.")],
    member: Annotated[str, typer.Option(help="This machine's name in the pair.")],
    service: Service,
    heartbeat: Heartbeat,
    interface: Interface,
    fence: Fence,
    fence_password_file: PasswordFile = None,
    eni: Annotated[str, typer.Option(help="This machine's network interface in Amazon's cloud, eni-...")] = "",
    wait: Annotated[int, typer.Option(help="Seconds to wait until the two are paired.", min=5)] = 600,
    as_json: AsJson = False,
) -> None:
    """Make this machine the second member of an existing pair.

    Everything is checked before anything is changed. May be run again with the same values at any time.
    """
    from futago.setup import join as work
    from futago.setup.checks import Place

    place = Place(member, service, heartbeat, interface, eni)
    options = work.Options(token, place, fence, fence_password_file or [], wait_s=float(wait))
    status = work.run(options, say=_say)
    if as_json:
        print(json.dumps({"state": status.state, "protected": status.protected, "not_protected": status.not_protected}))
        return
    print(f"\nThe pair is {status.state}; {status.primary} serves.")
    if not status.protected:
        print("It is not protected yet:" + "".join(f"\n  - {missing}" for missing in status.not_protected))


@token_app.command("join")
def token_join(hours: Hours = 24, as_json: AsJson = False) -> None:
    """Print the line that makes another machine the second member."""
    from futago.setup.lines import fresh_token, join_line
    from futago.setup.settings import load
    from futago.setup.token import Purpose

    own = load()
    word = fresh_token(own, Purpose.JOIN, life=timedelta(hours=hours))
    line = join_line(own, word)
    print(json.dumps({"join": line, "join_token": word}) if as_json else line)


@token_app.command("enroll")
def token_enroll(hours: Hours = 24, as_json: AsJson = False) -> None:
    """Print the line that makes a host an agent; the same line serves any number of hosts."""
    from futago.setup.lines import enroll_line, fresh_token
    from futago.setup.settings import load
    from futago.setup.token import Purpose

    word = fresh_token(load(), Purpose.ENROLL, life=timedelta(hours=hours))
    line = enroll_line(word)
    print(json.dumps({"enroll": line, "enroll_token": word}) if as_json else line)


@agent_app.command("enroll")
def agent_enroll(
    *,
    token: Annotated[str, typer.Option(help="From the line that a member printed.")],
    name: Annotated[str, typer.Option(help="This host's name; its host name if not given.")] = "",
    address: Annotated[
        str, typer.Option(help="This host's address; the one that leads to the pair if not given.")
    ] = "",
    wait: Annotated[int, typer.Option(help="Seconds to wait until the agent is connected.", min=1)] = 30,
    witness: Annotated[bool, typer.Option("--witness", help="Run no jobs here: only hold the third vote.")] = False,
    as_json: AsJson = False,
) -> None:
    """Make this host an agent of the pair, or its witness. May be run again at any time."""
    from futago.setup import enrol as work

    own = work.run(work.Options(token, name, address, wait_s=float(wait), is_witness=witness), say=_say)
    said = f"{own.name} is enrolled and connected."
    if witness:
        said = f"{own.name} listens. On a member: futago vote set witness {own.name}=ADDRESS"
    print(json.dumps({"name": own.name, "members": own.members}) if as_json else said)


@agent_app.command("run")
def agent_run() -> None:
    """Run the agent, as its systemd unit does."""
    from futago.cli.run import start_agent

    raise typer.Exit(start_agent())


@jury_app.command("set")
def jury_set(names: Annotated[list[str], typer.Argument(help="Three or five agents: NAME, or NAME=ADDRESS.")]) -> None:
    """Seat these agents as the third vote."""
    from futago.setup import jury as work

    work.seat(names, say=_say)
    print(f"The jury is seated: {', '.join(name.partition('=')[0] for name in names)}.")


@jury_app.command("show")
def jury_show(as_json: AsJson = False) -> None:
    """Show who sits in the third vote, and whether each can be reached."""
    from futago.setup import jury as work

    vote = work.show()
    if as_json:
        print(json.dumps(vote))
        return
    jurors = vote.get("jurors") or []
    if not jurors:
        raise OperatorFault("No jury is seated.", hint="futago jury set HOST1 HOST2 HOST3", code="jury.none")
    print(f"third vote: {'in order' if vote.get('ok') else 'NOT in order'}, epoch {vote.get('epoch')}")
    for juror in jurors:
        print(f"  {juror.get('name')}: {'answers' if juror.get('ok') else juror.get('error') or 'silent'}")
