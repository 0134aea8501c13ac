"""Starting job nets, for the API and for the page alike: which nets somebody may start, with what, and the start itself.

Lives here: the start under a key and its audit line, and a net's parameters as fields of a form. Must not live here: what
a value may be (jobs/parameters.py), and how a field is shown.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from psycopg.rows import class_row
from pydantic import ValidationError

from futago.access import store as rows
from futago.access.model import Principal
from futago.jobs.parameters import Parameter, check_value
from futago.jobs.sessions import Opened, key_of_start, open_session
from futago.jobs.store import fetch
from futago.runtime.faults import OperatorFault
from futago.store.commit import Connection
from futago.web.job_model import Started
from futago.web.owners import audited, check_net
from futago.web.rooms import Rooms

NETS_SHOWN = 100


async def start(
    rooms: Rooms,
    who: Principal,
    net: str,
    parameters: Mapping[str, str],
    *,
    by: Literal["api", "page"],
    key: str | None,
) -> Started:
    """Start a net. With a key, of that way and that person, a repetition never starts a second run.

    The audit line is written for a repetition, too: only what writes is answered after the standby has it.

    Raises:
        OperatorFault: there is no such net, it is another owner's, or a parameter is wrong (`jobs.parameter`).
    """

    async def work(conn: Connection) -> Opened:
        await check_net(conn, who, net)
        trigger_key = key_of_start(by, who.account, net, key=key) if key else None
        opened = await open_session(
            conn, net, trigger=f"{by} {who.account}", trigger_key=trigger_key, parameters=parameters
        )
        deed = rows.Deed(
            "job-net.run", net, {"session_id": opened.session_id, "parameters": ", ".join(sorted(parameters))}
        )
        await rows.record(conn, who, deed)
        return opened

    opened = await audited(rooms.serving.require().store, who, "job-net.run", work, name="web.start_run")
    return Started(session_id=opened.session_id, repeated=not opened.is_new)


@dataclass(frozen=True, slots=True)
class NetRow:
    """A net that may be started. `owner`: its owner role or its unit's; empty: everybody's."""

    net_name: str
    owner: str


_NETS = """
SELECT net_name, owner FROM
 (SELECT n.net_name, coalesce(nullif(n.spec->>'owner', ''), u.spec->>'owner', '') AS owner
    FROM job_net n LEFT JOIN job_unit u ON u.unit_name = n.spec->>'unit'
   WHERE position(lower(%(text)s) IN lower(n.net_name)) > 0) x
 WHERE %(owners)s::text[] IS NULL OR owner = ANY(%(owners)s) ORDER BY net_name LIMIT %(limit)s
"""


async def nets(conn: Connection, who: Principal, text: str) -> list[NetRow]:
    """Return the nets with a text in their name that `who` has a part in, by name: at most NETS_SHOWN and one more."""
    owners = None if who.only_owners is None else ["", *who.only_owners]
    cursor = conn.cursor(row_factory=class_row(NetRow))
    await cursor.execute(_NETS, {"text": text, "owners": owners, "limit": NETS_SHOWN + 1})
    return await cursor.fetchall()


async def parameters_of(conn: Connection, net: str) -> dict[str, Parameter] | None:
    """Return the parameters of a net as it is defined now; None: there is no such net.

    Raises:
        OperatorFault: another version of the program wrote a definition that is unreadable here.
    """
    found = await fetch(conn, "SELECT coalesce(spec->'parameters', '{}') FROM job_net WHERE net_name = %s", net)
    if not found:
        return None
    try:
        return {str(name): Parameter.model_validate(spec) for name, spec in found[0][0].items()}
    except ValidationError as e:
        raise OperatorFault(
            f"The parameters of job net `{net}` cannot be read: {e.errors(include_url=False)[0]['msg']}.",
            hint="Correct the definition and apply it again.",
            code="jobs.refused",
        ) from e


# --- a form of it (pure) ----------------------------------------------------------------------------------------------


_TRIMMED = ("integer", "number", "date")


@dataclass(frozen=True, slots=True)
class Field:
    """One parameter in a form. `value`: what stands in it. `fault`: what is wrong with that, a sentence; empty: nothing."""

    name: str
    parameter: Parameter
    value: str
    fault: str = ""

    @property
    def is_required(self) -> bool:
        """Return whether the net cannot be started without it."""
        return self.parameter.default is None

    @property
    def has_lines(self) -> bool:
        """Return whether the value is a text of several lines."""
        return self.parameter.type == "text" and "\n" in self.value


def given_of(parameters: Mapping[str, Parameter], said: Mapping[str, str]) -> dict[str, str]:
    """Return what a form gives. A field without anything in it gives nothing, except that of a text which has a default:
    that was shown and has been emptied. Browsers end lines with CR LF; a value has LF.
    """
    given: dict[str, str] = {}
    for name, value in said.items():
        parameter = parameters.get(name)
        kind = parameter.type if parameter is not None else ""
        if value or (kind == "text" and parameter is not None and parameter.default is not None):
            given[name] = value.strip() if kind in _TRIMMED else value.replace("\r\n", "\n")
    return given


def empty_form(parameters: Mapping[str, Parameter]) -> list[Field]:
    """Return the fields of a form that nobody has filled in: the defaults stand in it."""
    return [Field(name, parameter, parameter.default or "") for name, parameter in parameters.items()]


def judged_form(parameters: Mapping[str, Parameter], given: Mapping[str, str]) -> list[Field]:
    """Return the fields with what was given, and beside each what is wrong with it."""
    return [
        Field(name, parameter, given.get(name, parameter.default or ""), _fault(parameter, given.get(name)))
        for name, parameter in parameters.items()
    ]


def _fault(parameter: Parameter, value: str | None) -> str:
    if value is None:
        return "a value is needed" if parameter.default is None else ""
    try:
        check_value(parameter, value)
    except ValueError as e:
        return str(e)
    return ""
