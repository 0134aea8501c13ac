"""The command `futago`: a table of verbs, each loaded only when it is used.

Two doors. Programs (`futago run ...`, `futago agent run`) are started at once, without the command line library.
Everything else goes through a typer app that holds the one verb that was asked for; `futago --help` is drawn from the
table alone. So a verb costs only its own imports, and a broken one cannot break another.

Exit codes: 0 done · 1 the world did not do it (it certainly did not happen) · 2 the request must be corrected (usage,
settings, refused input) · 3 the outcome is unknown (it may have happened) · 4 a defect of this program ·
130 interrupted.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from futago import __version__
from futago.runtime.faults import BrokenInvariant, FutagoFault, OperatorFault, Unknown

if TYPE_CHECKING:
    import typer

EXIT_WORLD, EXIT_OPERATOR, EXIT_UNKNOWN, EXIT_DEFECT, EXIT_INTERRUPTED = 1, 2, 3, 4, 130


@dataclass(frozen=True, slots=True)
class Verb:
    """Where a verb lives: `attribute` of `module` is a function (one command) or a typer app (a group of commands)."""

    module: str
    attribute: str
    help: str


VERBS = {
    "init": Verb("futago.cli.setup", "init", "Make this machine the first member of a new pair."),
    "join": Verb("futago.cli.setup", "join", "Make this machine the second member of an existing pair."),
    "token": Verb("futago.cli.setup", "token_app", "Print the lines that let a member join or a host enroll."),
    "agent": Verb("futago.cli.setup", "agent_app", "Enroll this host with a pair, or run its agent."),
    "jury": Verb("futago.cli.setup", "jury_app", "Seat or show the third vote: three or five agents."),
    "vote": Verb("futago.cli.vote", "app", "Set or show where the third vote is kept: a jury, an etcd, and others."),
    "status": Verb(
        "futago.cli.pair", "status", "Show the pair: who serves, what is not protected, and what resolves it."
    ),
    "recover": Verb("futago.cli.recover", "recover", "Bring the pair back to two members, whatever happened."),
    "switchover": Verb("futago.cli.pair", "switchover", "Hand the service over to the other member, as planned."),
    "maintenance": Verb(
        "futago.cli.pair", "maintenance", "Keep the pair from switching unasked while people work on it."
    ),
    "force-primary": Verb("futago.cli.pair", "force_primary", "Last resort: let this member serve, data may be lost."),
    "fence": Verb("futago.cli.pair", "fence_app", "Test the devices that power a member off by force."),
    "explain": Verb(
        "futago.cli.explain", "explain", "Explain the pair's state, a rule, or what a failure would do now."
    ),
    "drill": Verb("futago.cli.drill", "drill", "Make a failure happen on purpose, and see that nothing is lost."),
    "apply": Verb("futago.cli.apply", "apply", "Load definitions from YAML files, all or nothing."),
    "export": Verb("futago.cli.export", "export", "Print the definitions that the pair has, as YAML."),
    "diff": Verb("futago.cli.export", "diff", "Show what applying files would change, line by line."),
    "schema": Verb("futago.cli.schema", "schema", "Print JSON schemas of the definitions, for editors."),
    "job": Verb("futago.cli.job", "job_app", "Start job nets and look at their runs."),
    "schedule": Verb("futago.cli.schedule", "schedule_app", "Show schedules and the starts that they will make."),
    "trigger": Verb("futago.cli.trigger", "trigger_app", "Show triggers, and draw the secrets of their requests."),
    "account": Verb("futago.cli.account", "account_app", "Make and change accounts, owner roles and API tokens."),
    "event": Verb("futago.cli.event", "event_app", "Show and post events."),
    "mib": Verb("futago.cli.mib", "mib_app", "Load MIB files, so that traps are shown with names."),
    "tail": Verb("futago.cli.tail", "tail", "Show the messages that devices send, as they come."),
    "messages": Verb("futago.cli.messages", "messages_app", "Search the received messages that are kept."),
    "lab": Verb("futago.cli.lab", "app", "Run a whole pair on this machine: hosts, networks, power, faults."),
    "simulate": Verb("futago.cli.simulate", "simulate", "Run the pair in a simulated world with seeded faults."),
    "run": Verb("futago.cli.run", "start", "Start one of the programs, as its systemd unit does."),
}


def run() -> None:
    """Run the command line of this process and exit."""
    sys.exit(main(sys.argv[1:]))


def main(args: list[str]) -> int:
    """Run one command line; return its exit code."""
    try:
        return _dispatch(args)
    except FutagoFault as fault:
        return _explain(fault)
    except KeyboardInterrupt:
        print("futago: interrupted.", file=sys.stderr)
        return EXIT_INTERRUPTED


def _dispatch(args: list[str]) -> int:
    match args:
        case ["run", program, *rest] if not program.startswith("-"):
            from futago.cli.run import start

            return start(program, rest)
        case ["agent", "run", *rest]:
            from futago.cli.run import start_agent

            return start_agent(rest)
        case ["--version"]:
            print(f"futago {__version__}")
            return 0
    return _typer(args)


def _explain(fault: FutagoFault) -> int:
    if isinstance(fault, OperatorFault):
        print(f"futago: {fault.what}", file=sys.stderr)
        if fault.hint:
            print(f"  -> {fault.hint}", file=sys.stderr)
        print(f"  [{fault.code}]", file=sys.stderr)
        return EXIT_OPERATOR
    if isinstance(fault, Unknown):
        print(f"futago: the outcome is unknown, it may have happened: {fault}", file=sys.stderr)
        return EXIT_UNKNOWN
    if isinstance(fault, BrokenInvariant):
        print(f"futago: defect: {fault}", file=sys.stderr)
        return EXIT_DEFECT
    print(f"futago: {fault}", file=sys.stderr)
    return EXIT_WORLD


def _typer(args: list[str]) -> int:
    import typer

    app = typer.Typer(
        help="Futago (双子): an operations manager that does not stop, on two ordinary machines.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
    )

    @app.callback()
    def root(version: bool = typer.Option(False, "--version", help="Print the version.")) -> None:
        """Futago (双子): an operations manager that does not stop, on two ordinary machines."""

    verb = args[0] if args else ""
    for name, entry in VERBS.items():
        if name == verb:
            _add(app, name, entry)
        else:
            app.command(name, help=entry.help)(_placeholder)
    try:
        app(args=args, prog_name="futago")
    except SystemExit as e:
        return e.code if isinstance(e.code, int) else EXIT_WORLD
    return 0


def _add(app: typer.Typer, name: str, verb: Verb) -> None:
    import typer

    if importlib.util.find_spec(verb.module) is None:
        raise OperatorFault(
            f"`futago {name}` is not part of this installation.", hint="Install the complete package.", code="cli.verb"
        )
    found: typer.Typer | Callable[..., object] = getattr(importlib.import_module(verb.module), verb.attribute)
    if isinstance(found, typer.Typer):
        app.add_typer(found, name=name, help=verb.help)
    else:
        app.command(name, help=found.__doc__ or verb.help)(found)


def _placeholder() -> None:
    """Stand in the table of `--help` for a verb that was not asked for."""
