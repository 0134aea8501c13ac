"""The plan of a recovery: what is wrong, what will be done about it, what it costs, and what stands in the way.

Lives here: a plan from a status and two reports, pure. Must not live here: asking anybody, or doing anything
(recovery.py, recover.py). The idea: the sheet that a surgeon shows before an operation. It fits onto one screen, it
says what will be cut, and it says "no" where only somebody else can help.
"""

from __future__ import annotations

from typing import Any

import msgspec

from futago.cluster import preflight
from futago.cluster.preflight import Check, Grade, Report
from futago.cluster.rungs import Choice, Rung, choose

Json = dict[str, Any]


class Step(msgspec.Struct, frozen=True):
    """One thing that will be tried. `bytes_max` and `seconds` are expectations, 0 where unknown."""

    what: str  # a rung, or wait, power-on, add
    text: str
    bytes_max: int = 0
    seconds: float = 0.0
    is_destructive: bool = False


class Plan(msgspec.Struct, frozen=True):
    """What `futago recover` would do now.

    `refusal` is empty where it would begin; `repair` is what a person must do, first or beside it.
    """

    is_needed: bool
    wrong: list[str]
    back: str = ""  # the member that is brought back
    source: str = ""  # the member that serves
    steps: list[Step] = []
    checks: list[Check] = []
    refusal: str = ""
    repair: str = ""


_TEXTS = {
    Rung.FOLLOW: "follow the primary's log from where {back} stopped",
    Rung.REWIND: "rewind: undo on {back} what {source} never had, then follow",
    Rung.BASE_BACKUP: "base backup: copy the whole database from {source} in place of what {back} has",
    Rung.EMPTY: "empty disk: copy the whole database from {source}",
}
ADD_TEXT = (
    "make {back} part of the pair: commits wait for it, proved by a commit that waits and a mark that is replayed"
)


def make(
    status: Json, own: Report, peer: Report | None, *, clock_s: float | None = None, clock_error_s: float = 0.0
) -> Plan:
    """Make the plan.

    Args:
        status: of this member's controller. own: its report. peer: the other's; None if it cannot be asked.
        clock_s, clock_error_s: as `preflight.checks`.
    """
    if status["state"] == "paired":
        return Plan(is_needed=False, wrong=list(status["not_protected"]), source=str(status["primary"] or ""))
    members = [m["name"] for m in status["members"]]
    if len(members) < 2:
        return Plan(
            is_needed=True, wrong=[status["reason"]], refusal="no second member has joined yet",
            repair="Run `futago join` on it; `futago token join` on this member prints the line.",
        )  # fmt: skip
    wrong = [status["reason"], *(n for n in status["not_protected"] if n != status["reason"])]
    around = _around(status)
    source = str(status["primary"] or "")
    back = next(m for m in members if m != source) if source else ""
    if peer is None:
        return _silent(status, own, wrong=wrong, checks=around)
    if own.maintenance or peer.maintenance:
        text = "maintenance is on: nothing is switched unasked"
        around.append(Check("maintenance", "pair", Grade.WARN, text, "End it with futago maintenance off."))
    reports = {r.member: r for r in (own, peer)}
    serving, coming = reports.get(source), reports.get(back)
    if serving is None or coming is None or serving.source is None:
        text = f"wait until {source or 'one of the members'} serves, then bring the other back from it"
        return Plan(is_needed=True, wrong=wrong, back=back, source=source, steps=[Step("wait", text)], checks=around)
    return _ladder(wrong, serving, coming, around, clock_s=clock_s, clock_error_s=clock_error_s)


def _ladder(
    wrong: list[str], source: Report, back: Report, around: list[Check], *, clock_s: float | None, clock_error_s: float
) -> Plan:
    words = {"back": back.member, "source": source.member}
    assert source.source is not None
    choices: tuple[Choice, ...] = () if back.own is None else choose(back.own, source.source)
    steps = [_step(c, words) for c in choices] or [Step(Rung.FOLLOW.value, f"{back.member} follows already")]
    needs_most = choices[0] if choices else Choice(Rung.FOLLOW, "", 0, is_destructive=False)
    found = preflight.checks(back, source, choice=needs_most, clock_s=clock_s, clock_error_s=clock_error_s)
    bad = preflight.blocking(found)
    return Plan(
        is_needed=True,
        wrong=wrong,
        back=back.member,
        source=source.member,
        steps=[*steps, Step("add", ADD_TEXT.format(**words), seconds=2)],
        checks=[*found, *around],
        refusal="" if bad is None else f"{bad.member}: {bad.text}",
        repair="" if bad is None else bad.repair,
    )


def _step(choice: Choice, words: dict[str, str]) -> Step:
    text = f"{_TEXTS[choice.rung].format(**words)} ({choice.why})"
    return Step(choice.rung.value, text, choice.bytes_max, round(choice.seconds, 1), choice.is_destructive)


def _silent(status: Json, own: Report, *, wrong: list[str], checks: list[Check]) -> Plan:
    """The other member cannot be asked: power it on if that is possible, and wait for its first word."""
    peer = next(m["name"] for m in status["members"] if m["name"] != own.member)
    primary = str(status["primary"] or "")
    devices = sorted((f for f in status["fences"] if f["member"] == peer), key=lambda f: not f["ok"])
    device = devices[0] if devices else None
    steps: list[Step] = []
    repair = ""
    if device is not None and device["ok"]:
        steps.append(Step("power-on", f"power {peer} on through its {device['driver']} device if it stays silent"))
    else:
        why = "it has no power device" if device is None else "its power device does not answer"
        repair = f"Power {peer} on ({why}), and see that its network works and futago-controller runs there."
    steps.append(Step("wait", f"wait until {peer} speaks; it says then what it has, and the mildest rung is chosen"))
    words = {"back": own.member if primary == peer else peer}
    steps.append(Step("add", ADD_TEXT.format(**words)))
    return Plan(
        is_needed=True, wrong=wrong, back=words["back"], source=primary, steps=steps, checks=checks,
        repair=repair,
    )  # fmt: skip


def _around(status: Json) -> list[Check]:
    """What lies between and beside the members; none of it keeps a recovery from beginning."""
    found = []
    for link in status["links"]:
        grade = Grade.OK if link["up"] else Grade.WARN
        repair = "" if link["up"] else f"Repair the {link['name']} network between the members."
        found.append(Check("network", link["name"], grade, "up" if link["up"] else "down", repair))
    for fence in status["fences"]:
        grade = Grade.OK if fence["ok"] else Grade.WARN
        text = f"power device: {fence['state']}" if fence["ok"] else f"power device: {fence['error'] or 'not tested'}"
        repair = "" if fence["ok"] else "Repair it: until then this member cannot be stopped by force."
        found.append(Check("fence", fence["member"], grade, text, repair))
    vote = status["third_vote"]
    if vote["kind"] != "none":
        text = "answers" if vote["ok"] else "does not answer"
        repair = "" if vote["ok"] else "Bring a majority of it back."
        found.append(Check("third vote", vote["kind"], Grade.OK if vote["ok"] else Grade.WARN, text, repair))
    return found
