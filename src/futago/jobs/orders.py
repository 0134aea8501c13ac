"""What an agent is asked to do for a run: the order that follows from the plan and the session's variables. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date

from msgspec.structs import replace

from futago.jobs.parameters import filled
from futago.jobs.plan import Command, FileCheck, Unit
from futago.link.orders import Order, script_command

_WATCH = {
    "created": 'until [ -e "$FUTAGO_PATH" ]; do sleep "$FUTAGO_EVERY"; done',
    "deleted": 'while [ -e "$FUTAGO_PATH" ]; do sleep "$FUTAGO_EVERY"; done',
    "changed": (
        'look() { stat -c "%i %s %y" -- "$FUTAGO_PATH" 2>/dev/null; }; before=$(look);'
        ' while [ "$(look)" = "$before" ]; do sleep "$FUTAGO_EVERY"; done'
    ),
}


def order_of(
    unit: Unit,
    *,
    run_id: str,
    session_id: int,
    net_name: str,
    variables: Mapping[str, str],
    business_date: date | None,
    epoch: int,
) -> Order:
    """Return the order of a run. The job finds the session's variables in its environment; its own `env` goes before
    them.
    """
    dated = {"FUTAGO_BUSINESS_DATE": business_date.isoformat()} if business_date else {}
    common = Order(
        run_id=run_id, epoch=epoch, command="", job=unit.name, net=net_name, session_id=session_id
    )  # fmt: skip
    match unit.work:
        case Command() as work:
            return _command(common, work, {**variables, **dated, **work.env})
        case FileCheck() as work:
            env = {"FUTAGO_PATH": filled(work.path, variables), "FUTAGO_EVERY": f"{work.interval_s:g}"}
            return replace(common, command=_WATCH[work.event], env=env, timeout_s=work.timeout_s)
    raise AssertionError(f"{unit.name} is nothing for an agent")


def _command(common: Order, work: Command, env: dict[str, str]) -> Order:
    return replace(
        common,
        command=script_command(work.script, work.command) if work.script else work.command,
        script=work.script,
        user=work.user,
        env=env,
        timeout_s=work.timeout_s,
        stop_command=work.stop_command,
        stop_signal=work.stop_signal,
        stop_grace_s=work.stop_grace_s,
    )
