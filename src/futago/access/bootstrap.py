"""Give a new pair its first administrator and the API token of the local root user: `python -m
futago.access.bootstrap`.

Run by `futago init` on the primary, as root or as user futago; may be run again at any time. An administrator who is
there keeps the password; the token's row follows the file. Secrets come from files, never from the command line. The
files are read first; then root becomes user futago, as whom the database lets us in.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import pwd
import sys
from dataclasses import dataclass
from pathlib import Path

from futago.access import store as rows
from futago.access.model import AccessRole, Account, AccountName
from futago.access.passwords import hash_password
from futago.access.tokens import hash_secret
from futago.runtime.clock import S, now_at
from futago.runtime.faults import FutagoFault, OperatorFault, WorldFault
from futago.store.commit import CONNINFO, Connection, Store

ADMIN = AccountName("admin")
ROOT_TOKEN_NAME = "local-root"  # noqa: S105  the token's name, not the token
OS_USER = "futago"
WAIT_S = 60.0  # a new primary applies the schema and opens its gate within this time
RETRY_S = 0.2


@dataclass(frozen=True, slots=True)
class Secrets:
    """What the files hold."""

    password: str
    token: str


def read_secrets(password_file: Path, token_file: Path) -> Secrets:
    """Return what the two files hold, without the line end.

    Raises:
        OperatorFault: if a file cannot be read or is empty.
    """
    return Secrets(_read(password_file), _read(token_file))


def _read(path: Path) -> str:
    try:
        text = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as e:
        raise OperatorFault(
            f"{path} cannot be read: {e}.", hint="Name a text file that this user may read.", code="access.file"
        ) from e
    if not text:
        raise OperatorFault(f"{path} is empty.", hint="Put the secret into it, on one line.", code="access.file")
    return text


async def bootstrap(store: Store, secrets: Secrets, *, wait_s: float = WAIT_S) -> bool:
    """Create what is missing; return whether the administrator is new. Waits for the schema and an open gate.

    Raises:
        WorldFault: if the database did not let us do it within `wait_s`.
    """
    admin = Account(ADMIN, hash_password(secrets.password), AccessRole.ADMIN, is_enabled=True)

    async def work(conn: Connection) -> bool:
        is_new = await rows.add_account(conn, admin)
        await rows.put_token(
            conn, token_name=ROOT_TOKEN_NAME, secret_hash=hash_secret(secrets.token), account_name=ADMIN
        )
        return is_new

    give_up_at = now_at() + int(wait_s * S)
    while True:
        try:
            return await store.commit(work, name="access.bootstrap")
        except WorldFault:  # Unknown too: the work is idempotent
            if now_at() > give_up_at:
                raise
        await asyncio.sleep(RETRY_S)


def become_service_user() -> None:
    """Drop root's rights for those of user futago; do nothing for another user, or where there is no user futago."""
    if os.geteuid() != 0:
        return
    try:
        user = pwd.getpwnam(OS_USER)
    except KeyError:
        return
    os.initgroups(OS_USER, user.pw_gid)
    os.setgid(user.pw_gid)
    os.setuid(user.pw_uid)


async def _run(secrets: Secrets, conninfo: str, wait_s: float) -> bool:
    store = await Store.open(conninfo=conninfo, size_max=1, application_name="futago-bootstrap")
    try:
        return await bootstrap(store, secrets, wait_s=wait_s)
    finally:
        await store.close()


def main() -> int:
    """Run the command line; return its exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m futago.access.bootstrap", description="Create the first administrator and root's API token."
    )
    parser.add_argument("--admin-password-file", type=Path, required=True)
    parser.add_argument("--token-file", type=Path, required=True)
    parser.add_argument("--conninfo", default=CONNINFO)
    parser.add_argument("--wait-s", type=float, default=WAIT_S)
    args = parser.parse_args()
    try:
        secrets = read_secrets(args.admin_password_file, args.token_file)
        become_service_user()
        is_new = asyncio.run(_run(secrets, args.conninfo, args.wait_s))
    except OperatorFault as fault:
        sys.stderr.write(f"{fault}\n")
        return 2
    except FutagoFault as fault:
        sys.stderr.write(f"The first administrator could not be created: {fault}\n")
        return 1
    sys.stdout.write(
        f"administrator {ADMIN}: {'created' if is_new else 'already there'}; token {ROOT_TOKEN_NAME}: set\n"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
