"""The founding of a pair on its first member: an empty database, and the first view. Used by `futago init`, never
later.

Lives here: what has to exist before the first controller starts. The server is not started for it: PostgreSQL's
single-user mode makes the roles, so that no port and no gate is open even for a moment. A founding that was
interrupted is done again from the start; one that was completed is never touched.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence

from futago.cluster import pgconf, slots
from futago.cluster.model import Epoch, MemberName, View
from futago.cluster.pgconf import Layout
from futago.runtime.faults import OperatorFault, Refused
from futago.runtime.process import AS_POSTGRES, ENVIRONMENT
from futago.setup import files, paths
from futago.setup.settings import Settings

INITDB_S_MAX = 120


def found(settings: Settings, layout: Layout | None = None) -> None:
    """Make the database and the first view: this member, alone.

    Raises:
        OperatorFault: there is a database or a view already.
        Refused: a tool failed.
    """
    layout = layout or Layout()
    found_database(layout)
    if paths.VIEW_SLOTS.exists() and _has_view():
        raise OperatorFault(
            f"{paths.VIEW_SLOTS} holds a view: this machine is a member already.",
            hint="Use `futago status`.",
            code="init.member",
        )
    me = MemberName(settings.me)
    slots.create(paths.VIEW_SLOTS, slots.Record(view=View(Epoch(1), me, frozenset({me})), stopped_epoch=1))


def found_database(layout: Layout) -> None:
    """Make an empty database with the pair's roles. Raises as `found`."""
    if (layout.data / "PG_VERSION").exists() and not layout.unfinished.exists():
        raise OperatorFault(
            f"{layout.data} holds a database already.",
            hint="If it is not needed, remove it and try again.",
            code="init.database",
        )
    files.directory(layout.volume, mode=0o755)
    files.write(layout.unfinished, "", mode=0o600)
    shutil.rmtree(layout.data, ignore_errors=True)
    files.directory(layout.data, mode=0o700, owner=files.DATABASE)
    initdb = [str(layout.bin / "initdb"), "-D", str(layout.data), "-U", "postgres", "-E", "UTF8"]
    _tool([*initdb, "--locale=C.UTF-8", "--data-checksums", "--auth=reject", "--no-instructions"])
    single = [str(layout.bin / "postgres"), "--single", "-D", str(layout.data), "-j", "postgres"]
    _tool(single, stdin=pgconf.FOUND_SQL.replace(";\n", ";\n\n"))
    layout.unfinished.unlink()
    files.sync_directory(layout.volume)


def _has_view() -> bool:
    return slots.newest(paths.VIEW_SLOTS.read_bytes())[0].view is not None


def _tool(command: Sequence[str], *, stdin: str = "") -> None:
    try:
        done = subprocess.run(
            [*AS_POSTGRES, *command],
            input=stdin,
            capture_output=True,
            text=True,
            timeout=INITDB_S_MAX,
            check=False,
            env=ENVIRONMENT,
            cwd="/",
        )
    except (OSError, subprocess.TimeoutExpired) as e:
        raise Refused(f"{command[0]}: {e}") from e
    errors = [x for x in done.stderr.splitlines() if "ERROR:" in x or "FATAL:" in x or "error:" in x]
    if done.returncode != 0 or errors:
        raise Refused(f"{command[0]} failed: {(errors or done.stderr.strip().splitlines() or ['no message'])[-1]}")
