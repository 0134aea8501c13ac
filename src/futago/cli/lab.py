"""`futago lab`: a whole pair with hosts, networks, power and BMCs on this machine, and everything that can break in it.

Progress goes to standard error; `--json` prints one JSON object on standard output. The lab itself is futago.lab.
"""

from __future__ import annotations

import json
import os
from typing import Annotated, Any

import typer

app = typer.Typer(no_args_is_help=True, add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)

Name = Annotated[str, typer.Option("--name", help="The lab's name; labs of different names run side by side.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


def _print(value: dict[str, Any], *, as_json: bool, text: str) -> None:
    typer.echo(json.dumps(value, ensure_ascii=False) if as_json else text)


@app.command()
def up(  # noqa: PLR0917  typer passes by name
    name: Name = "lab",
    as_json: AsJson = False,
    hosts: Annotated[int, typer.Option(help="How many managed hosts.", min=0, max=9)] = 4,
    members_only: Annotated[bool, typer.Option("--members-only", help="Only the two members and their BMCs.")] = False,
    remote_volumes: Annotated[
        bool, typer.Option("--remote-volumes", help="Databases on disks behind a network, which may hang or vanish.")
    ] = False,
    pair: Annotated[bool, typer.Option("--pair", help="Set a pair up in it, with the product's own commands.")] = False,
    fence: Annotated[
        str,
        typer.Option(
            help="How members are fenced: ipmi, redfish, agent or command; with commas: first this, then that."
        ),
    ] = "ipmi",
    watchdog: Annotated[
        bool, typer.Option("--watchdog", help="Give the members a /dev/watchdog that resets them.")
    ] = False,
) -> None:
    """Bring a lab up: tools, golden root, product, networks, BMCs, hosts booted."""
    from futago.lab.lab import Lab
    from futago.lab.progress import say
    from futago.lab.topology import standard

    lab = Lab(name)
    nodes = standard(
        hosts=0 if members_only else hosts,
        device=not members_only,
        client=not members_only,
        remote_volumes=remote_volumes,
    )
    lab.up(nodes=nodes, fence=tuple(fence.split(",")), watchdog=watchdog, say=say)
    if pair:
        from futago.lab.pair import form_pair

        form_pair(lab, say=say)
    _print(lab.status(), as_json=as_json, text=f"The lab `{name}` is up. Look: futago lab status --name {name}")


@app.command()
def down(
    name: Name = "lab",
    as_json: AsJson = False,
    orphans: Annotated[
        bool, typer.Option("--orphans", help="Also take down labs whose owner process is gone.")
    ] = False,
    keep_logs: Annotated[
        bool, typer.Option("--keep-logs", help="Keep console and daemon logs beside the lab's folder.")
    ] = False,
) -> None:
    """Take a lab down and remove everything of it, whatever state it is in."""
    from futago.lab.lab import Lab, remove_orphans
    from futago.lab.progress import say

    was = Lab(name).down(say=say, keep_logs=keep_logs)
    left = remove_orphans(say=say) if orphans else []
    _print(
        {"name": name, "removed": was, "orphans_left": left},
        as_json=as_json,
        text=f"The lab `{name}` is gone." if was else f"There was no lab `{name}`.",
    )
    if left:
        raise typer.Exit(1)


@app.command()
def status(name: Name = "lab", as_json: AsJson = False) -> None:
    """Show a lab: its hosts, BMCs, faults, and what the pair in it says of itself."""
    from futago.lab.lab import Lab

    found = Lab(name).status()
    _print(found, as_json=as_json, text=_table(found))


def _table(s: dict[str, Any]) -> str:
    lines = [f"lab {s['name']}"]
    for host, h in s["hosts"].items():
        addresses = " ".join(f"{n}={a}" for n, a in h["addresses"].items())
        extra = " frozen" if h["frozen"] else ""
        lines.append(f"  {host:<6} {h['kind']:<7} {h['power']:<4} {h['systemd'] or '-':<9} {addresses}{extra}")
    for member, b in s["bmcs"].items():
        word = "hung" if b["hung"] else "lies" if b["lies"] else "runs" if b["running"] else "ended"
        lines.append(f"  bmc-{member} {word}")
    lines += [f"  fault {f['fault']} {f['target']} {' '.join(f['words'])} since {f['utc']}" for f in s["faults"]]
    if s["page"]:
        lines.append(f"  page {s['page']}")
    pair = s["pair"]
    lines.append(
        "  pair: none"
        if pair is None
        else f"  pair: {pair.get('state')}, primary {pair.get('primary')}, protected {pair.get('protected')}"
    )
    return "\n".join(lines)


@app.command(
    name="exec",
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True, "allow_interspersed_args": False},
)
def execute(
    context: typer.Context,
    host: Annotated[str, typer.Argument(help="A host, `primary`, `standby`, or `switch`.")],
    name: Name = "lab",
) -> None:
    """Run a program inside a host: futago lab exec m1 -- CMD. Its exit code is passed on."""
    from futago.lab.lab import Lab
    from futago.lab.network import SWITCH

    args = [a for i, a in enumerate(context.args) if not (i == 0 and a == "--")] or ["bash"]
    lab = Lab(name)
    if host == SWITCH:
        command = ["nsenter", "-t", str(lab.state.daemon_pid), "-m", "nsenter", f"--net=/run/netns/{SWITCH}", *args]
    else:
        command = lab.host(lab.resolve(host)).command(args)
    os.execvp(command[0], command)  # noqa: S606  a list, not a shell


@app.command()
def fault(  # noqa: PLR0917  typer passes by name
    fault: Annotated[
        str | None, typer.Argument(help="What happens, or a pattern F01 to F27; --list shows all.")
    ] = None,
    target: Annotated[
        str, typer.Argument(help="A host, several with commas, `both`, `primary` (default) or `standby`.")
    ] = "",
    words: Annotated[
        list[str] | None, typer.Argument(help="What the fault needs besides: a network, a program, ...")
    ] = None,
    name: Name = "lab",
    as_json: AsJson = False,
    list_: Annotated[bool, typer.Option("--list", help="List the faults.")] = False,
) -> None:
    """Break something, and say when it broke."""
    from futago.lab.faults import FAULTS
    from futago.lab.lab import Lab
    from futago.lab.patterns import PATTERNS

    if list_ or fault is None:
        table = {n: {"words": list(f.words), "text": f.text, "heals": f.end is not None} for n, f in FAULTS.items()}
        rows = [f"{' '.join([n, 'HOST', *(w.upper() for w in f.words)]):<34} {f.text}" for n, f in FAULTS.items()]
        rows += [f"{n:<34} {'; '.join(' '.join([f, t, *w]) for f, t, w in steps)}" for n, steps in PATTERNS.items()]
        _print(table, as_json=as_json, text="\n".join(rows))
        return
    lab = Lab(name)
    if fault in PATTERNS and not target:
        done = lab.begin(PATTERNS[fault])
    elif fault in PATTERNS:
        last = PATTERNS[fault][-1]
        done = lab.fault(last[0], target, *(words or last[2]))
    else:
        done = lab.fault(fault, target or "primary", *(words or []))
    _print(
        done,
        as_json=as_json,
        text=f"{done['utc']} {' '.join([done['fault'], done['target'], *done['words']])} at {done['at']} ns since boot",
    )


@app.command()
def heal(
    fault: Annotated[str | None, typer.Argument(help="Only faults of this kind.")] = None,
    target: Annotated[str | None, typer.Argument(help="Only faults of this host.")] = None,
    name: Name = "lab",
    as_json: AsJson = False,
) -> None:
    """Heal: everything (hosts that are off are powered on as well), one kind of fault, or one fault of one host."""
    from futago.lab.lab import Lab

    done = Lab(name).heal(fault, target)
    healed = ", ".join(" ".join([h["fault"], h["target"], *h["words"]]) for h in done["healed"]) or "nothing to heal"
    _print(done, as_json=as_json, text=f"{done['utc']} healed: {healed}")


@app.command()
def demo(
    name: Name = "lab",
    detach: Annotated[
        bool, typer.Option("--detach", help="Return when the pair is protected, and leave it running.")
    ] = False,
    port: Annotated[
        int, typer.Option(help="Port of the page on this machine's loopback; the first free one from here.")
    ] = 8443,
) -> None:
    """Show it all.

    A lab, a pair in it, sample monitors and jobs, the page's URL, three things to try. Ctrl-C takes everything down.
    """
    from futago.lab.demo import run_demo

    raise typer.Exit(run_demo(name, detach=detach, first_port=port))


if __name__ == "__main__":
    app()
