"""The pair's first database, and the view that says who serves it. Made once, by `futago init`; every other member
copies it.

A database half made carries the controller's mark `data.unfinished` and is made anew. Once a view is durable, this
member may have served: then nothing here makes a database again, whatever is missing, since an empty one in place of
a lost one would be taken for the truth.
"""

from __future__ import annotations

from futago.cluster import slots
from futago.cluster.found import found_database
from futago.cluster.model import Epoch, MemberName, View
from futago.cluster.pgconf import Layout
from futago.runtime.faults import Corrupt, OperatorFault, Refused
from futago.setup import paths
from futago.setup.settings import Settings


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
    try:
        found_database(layout)
    except Refused as e:
        raise OperatorFault(
            f"The database cannot be made: {e}.", hint="Mend it, then run the same command again.", code="init.database"
        ) from e


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
        slots.create(paths.VIEW_SLOTS, slots.Record(view=View(Epoch(1), me, frozenset({me})), stopped_epoch=1))
