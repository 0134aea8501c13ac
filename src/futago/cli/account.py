"""`futago account`: who may do what, and on whose objects."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated
from urllib.parse import quote

import typer

from futago.access.model import AccessRole
from futago.cli.remote import AsJson, Ca, Remote, Servers, TokenFile, way
from futago.cli.tables import instant, table
from futago.runtime.faults import OperatorFault
from futago.web.access_model import Accounts, AccountShown, AccountWanted, TokenDrawn, TokenWanted

account_app = typer.Typer(no_args_is_help=True, help="Make and change accounts, their owner roles and API tokens.")
AccountArgument = Annotated[str, typer.Argument(metavar="ACCOUNT", help="The account.")]


@account_app.command("list")
def list_accounts(
    servers: Servers = None, token_file: TokenFile = None, ca: Ca = None, as_json: AsJson = False
) -> None:
    """List the accounts, with their roles, owner roles and tokens."""
    found = Remote(way(servers, token_file, ca)).get("/accounts", Accounts)
    if as_json:
        print(found.model_dump_json())
        return
    rows = [
        [a.account, a.role.value, ", ".join(a.owners), "yes" if a.is_enabled else "no", ", ".join(a.tokens),
         instant(a.created_utc)]
        for a in found.accounts
    ]  # fmt: skip
    table(["account", "role", "owner roles", "enabled", "tokens", "since"], rows)


@account_app.command("set")
def set_account(
    account: AccountArgument,
    *,
    role: Annotated[AccessRole | None, typer.Option(help="What kind of work it is for.")] = None,
    owner: Annotated[
        list[str] | None,
        typer.Option(help="An owner role; may be repeated, and these are all then. `*`: every one; `-`: none."),
    ] = None,
    password_file: Annotated[Path | None, typer.Option(help="File with the new password, on one line.")] = None,
    enable: Annotated[bool | None, typer.Option("--enable/--disable", help="Whether it may log in.")] = None,
    servers: Servers = None,
    token_file: TokenFile = None,
    ca: Ca = None,
    as_json: AsJson = False,
) -> None:
    """Make an account, or change it. What is not named stays as it is; a new one needs --role and --password-file.

    Whoever is disabled, or gets another password, is logged out everywhere.
    """
    owners = None if not owner else [o for o in owner if o != "-"]
    wanted = AccountWanted(
        role=role, owners=owners, is_enabled=enable, password=_read(password_file) if password_file else None
    )
    shown = Remote(way(servers, token_file, ca)).post(f"/accounts/{quote(account, safe='')}", AccountShown, wanted)
    state = "" if shown.is_enabled else ", disabled"
    said = f"{shown.account}: {shown.role.value}, owner roles: {', '.join(shown.owners) or 'none'}{state}"
    print(shown.model_dump_json() if as_json else said)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").strip("\n")
    except (OSError, UnicodeDecodeError) as e:
        raise OperatorFault(f"{path} cannot be read: {e}.", hint="Name a text file.", code="cli.file") from e


@account_app.command("token")
def draw_token(
    account: AccountArgument,
    name: Annotated[str, typer.Argument(help="What the token is called.")],
    *,
    servers: Servers = None,
    token_file: TokenFile = None,
    ca: Ca = None,
    as_json: AsJson = False,
) -> None:
    """Draw an API token and print it, this once. The account's token of that name before is worth nothing then."""
    to = f"/accounts/{quote(account, safe='')}/tokens"
    drawn = Remote(way(servers, token_file, ca)).post(to, TokenDrawn, TokenWanted(name=name))
    print(drawn.model_dump_json() if as_json else drawn.secret)
