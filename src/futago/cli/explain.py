"""`futago explain`: why the pair is in its state, what a rule means, what would happen if something failed now.

Lives here: fetching this member's facts from its controller and printing the answers. Must not live here: any answer;
they are played through by the production rules (cluster/explain.py), in this process, not in the controller's.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer

from futago.cli.controller_line import AsJson, ask
from futago.runtime.faults import OperatorFault, Unknown
from futago.runtime.unreadable import UNREADABLE

if TYPE_CHECKING:
    from futago.cluster.model import Facts

FACTS_S_MAX = 5.0


def explain(
    rule: Annotated[str, typer.Argument(help="A rule's id, as `futago status` shows it; empty: the present one.")] = "",
    if_: Annotated[
        str, typer.Option("--if", help="What would happen if this failed now; `all` answers for every failure.")
    ] = "",
    as_json: AsJson = False,
) -> None:
    """Explain why the pair is in its state, what a rule means, or what would happen if something failed now.

    Without arguments: why the pair is as it is, in sentences, with the rule that decided and what ends it. With a
    rule's id: what that rule means. With --if: what the rules would do if this failed at this instant, step by step,
    with the time that writes would pause. Nothing is changed, on any member.

    Exit codes: 0 answered · 1 no controller answers · 2 there is no such rule or failure.
    """
    if rule:
        _explain_rule(rule)
    elif if_:
        _explain_failure(if_, as_json=as_json)
    else:
        _explain_state(as_json=as_json)


def _explain_rule(rule: str) -> None:
    from futago.cluster.rules import SECTIONS

    known = {row.id: row for section in SECTIONS for row in section.rows}
    if rule not in known:
        raise OperatorFault(
            f"There is no rule `{rule}`.", hint=f"Rules are: {', '.join(sorted(known))}.", code="cli.rule"
        )
    row = known[rule]
    print(f"{rule}: {row.why.format(me='this member', peer='the other member', epoch='the view')}")
    if row.waits_for:
        print(f"This lasts until: {row.waits_for}.")
    if row.command:
        print(f"The command for this is `{row.command}`.")


def _explain_state(*, as_json: bool) -> None:
    from futago.cluster import explain as room

    facts, now = _facts()
    sentences = room.why(facts, now)
    if as_json:
        print(json.dumps({"why": sentences}, ensure_ascii=False))
        return
    for sentence in sentences:
        print(sentence)


def _explain_failure(name: str, *, as_json: bool) -> None:
    from futago.cluster import explain as room

    known = {f.value: f for f in room.Failure}
    if name != "all" and name not in known:
        hint = f"There are: {', '.join(known)}, or all."
        raise OperatorFault(f"`{name}` is not a failure that can be asked about.", hint=hint, code="cli.failure")
    facts, now = _facts()
    answers = room.what_ifs(facts, now) if name == "all" else (room.what_if(facts, now, known[name]),)
    if as_json:
        print(msgspec.json.encode({"answers": answers}).decode())
        return
    for number, answer in enumerate(answers):
        if number:
            print()
        print(f"{answer.title}  [{answer.failure.value}]")
        for sentence in answer.sentences:
            if sentence != answer.title:
                print(f"  {sentence}")
        for step in answer.steps:
            print(f"  {step.at_ms / 1000:7.2f} s  {step.member}  {step.rule}: {step.text}")
        if answer.command:
            print(f"  What resolves it: {answer.command}")


def _facts() -> tuple[Facts, int]:
    from futago.cluster import explain as room

    answer = ask({"op": "facts"}, deadline_s=FACTS_S_MAX)
    try:
        return room.unpack(str(answer["facts"]).encode())
    except (KeyError, *UNREADABLE) as e:
        raise Unknown(f"the controller's facts cannot be read: {e}") from e
