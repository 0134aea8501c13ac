"""The pair's first database, and the view that says who serves it. Made once, by `futago init`; every other member
copies it.

A database half made carries the controller's mark `data.unfinished` and is made anew. Once a view is durable, this
member may have served: then nothing here makes a database again, whatever is missing, since an empty one in place of
a lost one would be taken for the truth.
"""

from __future__ import annotations

import shutil
import subprocess

from futago.cluster import pgconf, slots
from futago.cluster.model import Epoch, MemberName, View
from futago.cluster.pgconf import Layout
from futago.runtime.faults import Corrupt, OperatorFault
from futago.runtime.process import AS_POSTGRES, ENVIRONMENT
from futago.setup import files, paths
from futago.setup.settings import Settings

INITDB_S_MAX = 120.0
FOUND_S_MAX = 60.0


def command_line(layout: Layout | None = None) -> str:
    """Return how systemd starts the database: everything else stands in the controller's include file."""
    layout = layout or Layout()
    return f"{layout.bin / 'postgres'} -D {layout.data}"


def create(own: Settings, layout: Layout | None = None) -> None:
    """Make the database with its roles, unless it is there.

    Raises:
        OperatorFault: it was there and is gone; or PostgreSQL's tools failed, in their words.
    """
    layout = layout or Layout()
    has_data = (layout.data / "PG_VERSION").exists() and not layout.unfinished.exists()
    if has_data:
        return
    view = durable_view()
    if view is not None or len(own.members) > 1:
        raise OperatorFault(
            f"{layout.data} holds no database, but this member has been in "
            f"service{f' (epoch {view.epoch})' if view else ''}.",
            hint="Nothing is made in its place. If the other member serves, run `futago recover`.",
            code="init.database-gone",
        )
    files.write(layout.unfinished, "", mode=0o600, owner=files.DATABASE)
    shutil.rmtree(layout.data, ignore_errors=True)
    _initdb(layout)
    _found(layout)
    layout.unfinished.unlink()
    files.sync_directory(layout.volume)


def _initdb(layout: Layout) -> None:
    shape = ["--encoding=UTF8", "--locale=C.UTF-8", "--auth=reject", "--data-checksums", "--no-instructions"]
    command = [str(layout.bin / "initdb"), "-D", str(layout.data), "-U", "postgres", *shape]
    _run(command, "", "The database cannot be made", deadline_s=INITDB_S_MAX)


def _found(layout: Layout) -> None:
    """Make roles and database in single-user mode: nobody can connect meanwhile, and no port is needed."""
    command = [str(layout.bin / "postgres"), "--single", "-D", str(layout.data), "-c", "exit_on_error=on", "postgres"]
    _run(command, pgconf.FOUND_SQL, "The database's roles cannot be made", deadline_s=FOUND_S_MAX)


def _run(command: list[str], text: str, otherwise: str, *, deadline_s: float) -> None:
    """Run one of PostgreSQL's programs as user postgres."""
    try:
        done = subprocess.run(
            [*AS_POSTGRES, *command],
            input=text,
            capture_output=True,
            text=True,
            timeout=deadline_s,
            check=False,
            env=ENVIRONMENT,
            cwd="/",
        )
        said = "" if done.returncode == 0 else (done.stderr.strip() or done.stdout.strip())[-500:] or "no message"
    except subprocess.TimeoutExpired:
        said = f"no end within {deadline_s:g} s"
    except OSError as e:
        said = str(e)
    if said:
        raise OperatorFault(
            f"{otherwise}: {said}", hint="Mend it, then run the same command again.", code="init.database"
        )


def durable_view() -> View | None:
    """Return the view that this member has sworn; None if it never had one. Raises OperatorFault: its file is
    damaged.
    """
    if not paths.VIEW_SLOTS.exists():
        return None
    try:
        record, _ = slots.newest(paths.VIEW_SLOTS.read_bytes())
    except Corrupt as e:
        raise OperatorFault(
            f"{paths.VIEW_SLOTS} is damaged: {e}.",
            hint="If the other member serves, remove that file and run `futago recover` there.",
            code="init.view-damaged",
        ) from e
    return record.view


def first_view(own: Settings) -> None:
    """Swear the first view, this member alone in epoch 1, unless there is one."""
    if durable_view() is None:
        me = MemberName(own.me)
        slots.create(paths.VIEW_SLOTS, slots.Record(view=View(Epoch(1), me, frozenset({me}))))
