"""`futago trigger`: what starts nets beside schedules and people."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import quote

import typer

from futago.cli.remote import AsJson, Ca, Remote, Servers, TokenFile, way
from futago.cli.tables import instant, table
from futago.web.job_model import Triggers, TriggerSecret

trigger_app = typer.Typer(no_args_is_help=True, help="Show triggers, and draw the secrets of their requests.")


@trigger_app.command("list")
def list_triggers(
    servers: Servers = None, token_file: TokenFile = None, ca: Ca = None, as_json: AsJson = False
) -> None:
    """List the triggers: what each waits for, and which net it starts."""
    found = Remote(way(servers, token_file, ca)).get("/triggers", Triggers)
    if as_json:
        print(found.model_dump_json())
        return
    rows = [
        [
            t.trigger_name,
            t.job_net,
            "yes" if t.enabled else "no",
            _what(t.waits_for, t.spec) + (f" ({t.fault})" if t.fault else ""),
            instant(t.watched_since_utc or t.secret_since_utc),
        ]
        for t in found.triggers
    ]
    table(["trigger", "job net", "enabled", "waits for", "secret, or watched, since"], rows)


def _what(waits_for: str, spec: dict[str, object]) -> str:
    event = spec.get("event")
    if isinstance(event, dict):
        return f"event of {event['monitor']}"
    file = spec.get("file")
    if isinstance(file, dict):
        return f"{file.get('when', 'created')} {file['path']} {file.get('files', '')}".rstrip() + f" on {file['host']}"
    return waits_for


@trigger_app.command("secret")
def draw_secret(
    name: Annotated[str, typer.Argument(help="The trigger.")],
    *,
    servers: Servers = None,
    token_file: TokenFile = None,
    ca: Ca = None,
    as_json: AsJson = False,
) -> None:
    """Draw a new secret for the requests of a trigger, and print it, this once.

    The secret before is worth nothing from now on. Whoever has the new one can start this trigger's net, and nothing
    else: send it as `Authorization: Bearer SECRET` with POST to the path that is shown, or sign with it, if the trigger
    wants signed requests (docs/reference/triggers.md). Of one with `signed: github` it is what GitHub asks for as `Secret`.
    """
    drawn = Remote(way(servers, token_file, ca)).post(f"/triggers/{quote(name, safe='')}/secret", TriggerSecret)
    if as_json:
        print(drawn.model_dump_json())
        return
    print(f"path:   {drawn.path}\nsecret: {drawn.secret}")
