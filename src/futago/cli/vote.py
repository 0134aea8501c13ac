"""`futago vote`: where the third vote is kept. Words in, words out; the work is in futago.setup.vote.

`futago jury set` and `futago vote set jury` are the same.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from futago.runtime.faults import OperatorFault
from futago.setup.thirdvote import ETCD, OBJECTSTORE, ThirdVote

app = typer.Typer(no_args_is_help=True, help="Set or show where the third vote is kept.")
set_app = typer.Typer(no_args_is_help=True, help="Seat a third vote in place of the present one.")
app.add_typer(set_app, name="set")

Prefix = Annotated[str, typer.Option(help="Where in it: the register is kept at PREFIX/<pair id>/...")]
CaFile = Annotated[Path | None, typer.Option(help="Whom to trust; the system's authorities if not given.")]


def _say(text: str) -> None:
    print(f"  {text}", file=sys.stderr, flush=True)


@set_app.command("jury")
def set_jury(names: Annotated[list[str], typer.Argument(help="Three or five agents: NAME, or NAME=ADDRESS.")]) -> None:
    """Three or five agents."""
    from futago.setup import jury as work

    work.seat(names, say=_say)
    print(f"The jury is seated: {', '.join(name.partition('=')[0] for name in names)}.")


@set_app.command("witness")
def set_witness(name: Annotated[str, typer.Argument(help="One host: NAME, or NAME=ADDRESS.")]) -> None:
    """One host, with an agent or with a witness process alone."""
    from futago.setup import vote as work

    work.seat_witness(name, say=_say)
    print(f"{name.partition('=')[0]} holds the third vote.")


@set_app.command(ETCD)
def set_etcd(
    *,
    endpoint: Annotated[list[str], typer.Option(help="URL of a member of the etcd; give it for each.")],
    prefix: Prefix = "futago",
    user: Annotated[str, typer.Option(help="The account, where the etcd has authentication enabled.")] = "",
    password_file: Annotated[Path | None, typer.Option(help="File with its password.")] = None,
    ca_file: CaFile = None,
    cert_file: Annotated[Path | None, typer.Option(help="Client certificate, where the etcd asks for one.")] = None,
    key_file: Annotated[Path | None, typer.Option(help="Its private key.")] = None,
) -> None:
    """An etcd, version 3.4 or later."""
    from futago.setup import vote as work

    vote = ThirdVote(kind=ETCD, endpoints=endpoint, prefix=prefix, user=user)
    files = {"password": password_file, "ca": ca_file, "cert": cert_file, "key": key_file}
    work.seat_store(vote, files, say=_say)
    print(f"The etcd at {', '.join(endpoint)} holds the third vote.")


@set_app.command(OBJECTSTORE)
def set_objectstore(
    *,
    endpoint: Annotated[str, typer.Option(help="URL of the store, such as https://s3.eu-central-1.amazonaws.com.")],
    bucket: Annotated[str, typer.Option(help="An existing bucket.")],
    region: Annotated[str, typer.Option(help="The region that requests are signed for.")],
    access_key: Annotated[str, typer.Option(help="The account's access key id.")],
    secret_key_file: Annotated[Path, typer.Option(help="File with its secret access key.")],
    prefix: Prefix = "futago",
    ca_file: CaFile = None,
) -> None:
    """An S3-compatible object store that honours If-Match and If-None-Match."""
    from futago.setup import vote as work

    vote = ThirdVote(
        kind=OBJECTSTORE, endpoints=[endpoint], bucket=bucket, region=region, prefix=prefix, user=access_key
    )
    work.seat_store(vote, {"password": secret_key_file, "ca": ca_file}, say=_say)
    print(f"The object store at {endpoint} holds the third vote.")


@set_app.command("none")
def set_none(yes: Annotated[bool, typer.Option("--yes", help="Do not ask for confirmation.")] = False) -> None:
    """None: the power devices decide, and nobody takes over from a machine whose device is dead with it."""
    from futago.setup import vote as work

    if not yes:
        print(
            "When a machine loses all power, its power device dies with it. Without a third vote nobody can then know"
        )
        print("that it is off, and the other one waits for an operator. See docs/operations/third-vote.md.")
        typer.confirm("Do without a third vote?", abort=True)
    work.seat_none(say=_say)
    print("There is no third vote now; the power devices decide.")


@app.command("show")
def show(as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False) -> None:
    """Show where the third vote is kept, and whether each part of it can be reached."""
    from futago.setup import vote as work

    vote = work.show()
    if as_json:
        print(json.dumps(vote))
        return
    parts = vote.get("jurors") or []
    if not parts:
        raise OperatorFault(
            "There is no third vote.", hint="futago vote set jury HOST1 HOST2 HOST3, or another kind", code="jury.none"
        )
    state = "in order" if vote.get("ok") and vote.get("knows_view") else "NOT in order"
    print(f"third vote: {vote.get('kind')} (version {vote.get('version')}), {state}, epoch {vote.get('epoch')}")
    for part in parts:
        print(f"  {part.get('name')}: {'answers' if part.get('ok') else part.get('error') or 'silent'}")
