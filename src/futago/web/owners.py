"""Owner roles: whose job nets and runs somebody may see, start and operate on.

The access role says what kind of thing an account may do, the owner role of a net or a job on whose. A schedule and a
trigger are the net's that they start. What has no owner is everybody's. A refusal is an answer with 403, and a line of the audit trail.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from http import HTTPStatus
from typing import TypeVar

from futago.access import store as rows
from futago.access.model import Principal
from futago.inventory.definitions import Definable
from futago.inventory.model import Kind
from futago.jobs.store import net_owner
from futago.store.commit import Connection, Store
from futago.web.faults import HttpFault, not_found

T = TypeVar("T")
_NOT_OF = """
SELECT n.net_name FROM job_net n LEFT JOIN job_unit u ON u.unit_name = n.spec->>'unit'
 WHERE coalesce(nullif(n.spec->>'owner', ''), u.spec->>'owner', '') <> ALL(%s::text[])
"""
_JOB = """
SELECT s.owner_role, (SELECT owner_role FROM job_run r WHERE r.session_id = s.session_id AND r.job_name = %s LIMIT 1)
  FROM job_session s WHERE s.session_id = %s
"""


class NotOwner(HttpFault):
    """Somebody has no part in the owner role of what is asked for."""

    def __init__(self, who: Principal, what: str, owner: str) -> None:
        super().__init__(
            HTTPStatus.FORBIDDEN,
            f"{what} belongs to owner role `{owner}`, in which {who.account} has no part.",
            hint="Ask an administrator for that owner role (`futago account set --owner`).",
            code="access.owner",
        )
        self.subject, self.owner = what, owner


async def check_net(conn: Connection, who: Principal, net: str) -> None:
    """See that this is a net that `who` has a part in; one that does not exist is nobody's.

    Raises:
        NotOwner: it is another's.
    """
    owner = await net_owner(conn, net)
    if owner and not who.has_part_in(owner):
        raise NotOwner(who, f"Job net `{net}`", owner)


async def check_run(conn: Connection, who: Principal, session_id: int, job: str = "") -> None:
    """See that this is a run, and a job of it, that `who` has a part in.

    Raises:
        NotOwner: it is another's.
        HttpFault: 404, there is no such run.
    """
    row = await (await conn.execute(_JOB, (job, session_id))).fetchone()
    if row is None:
        raise not_found(f"There is no run {session_id}.")
    if not who.has_part_in(row[0]):
        raise NotOwner(who, f"Run {session_id}", row[0])
    if job and row[1] and not who.has_part_in(row[1]):
        raise NotOwner(who, f"Job `{job}` of run {session_id}", row[1])


async def audited(
    store: Store, who: Principal, action: str, work: Callable[[Connection], Awaitable[T]], *, name: str
) -> T:
    """Commit `work`; if it finds that `who` is no owner, that goes into the audit trail.

    Raises:
        NotOwner: nothing was done.
    """
    try:
        return await store.commit(work, name=name)
    except NotOwner as e:
        deed = rows.Deed(f"{action}.refused", e.subject, {"owner": e.owner})
        await store.commit(lambda conn: rows.record(conn, who, deed), name="web.refused")
        raise


async def hidden_nets(conn: Connection, who: Principal) -> frozenset[str]:
    """Return the nets that `who` has no part in: neither they nor their schedules and triggers are shown."""
    if who.only_owners is None:
        return frozenset()
    rows_of = await conn.execute(_NOT_OF, (["", *who.only_owners],))
    return frozenset(str(name) for (name,) in await rows_of.fetchall())


async def visible(
    conn: Connection, who: Principal, found: Sequence[tuple[Kind, Definable]]
) -> list[tuple[Kind, Definable]]:
    """Return the definitions without units, calendars, queues, nets, and their schedules and triggers, that `who` has no
    part in.
    """
    hidden = await hidden_nets(conn, who)

    def is_visible(kind: Kind, one: Definable) -> bool:
        match kind:
            case Kind.JOB_UNIT | Kind.CALENDAR | Kind.JOB_QUEUE:
                return who.has_part_in(getattr(one, "owner", ""))
            case Kind.JOB_NET:
                return one.name not in hidden
            case _:
                return getattr(one, "job_net", "") not in hidden

    return [(kind, one) for kind, one in found if is_visible(kind, one)]
