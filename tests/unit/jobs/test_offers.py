"""What a person is offered: never less than what would not be refused."""

from __future__ import annotations

from datetime import timedelta

from hypothesis import given, settings
from hypothesis import strategies as st
from random_trees import trees
from test_advance import NOW, S, ended, fresh, play

from futago.jobs.advance import advance, after, refusal
from futago.jobs.model import AT_AGENT, Event, JobState, Operated, Operation, SessionState, Standing, Started, Tree
from futago.jobs.offers import offered, offered_of_run
from futago.jobs.plan import Approval, Command, Net, Pause, SubNet

Op = Operation


def _check(tree: Tree) -> None:
    for name, unit in tree.net.units.items():
        offers = offered(unit.work, tree.standings[name])
        for operation in Operation:
            asked = Operated(operation, name, "admin", JobState.WARNING, 7)
            assert refusal(tree, asked) or operation in offers, (name, operation)
    for operation in Operation:
        is_refused = bool(refusal(tree, Operated(operation, None, "admin")))
        assert is_refused or operation in offered_of_run(tree.state, is_suspended=tree.is_suspended), operation


@settings(max_examples=100, deadline=None)
@given(net=trees(with_approvals=True), data=st.data())
def test_what_would_not_be_refused_is_offered(net: Net, data: st.DataObject) -> None:
    tree = play(fresh(net), Started())
    for _ in range(30):
        _check(tree)
        if tree.state is not SessionState.RUNNING:
            break
        commands = sorted(n for n, u in net.units.items() if isinstance(u.work, Command) and tree.states[n] in AT_AGENT)
        if commands and data.draw(st.booleans()):
            event: Event = ended(data.draw(st.sampled_from(commands)), data.draw(st.sampled_from((0, 1, 77))))
        else:
            name = data.draw(st.one_of(st.none(), st.sampled_from(sorted(net.units))))
            event = Operated(data.draw(st.sampled_from(list(Operation))), name, "admin", JobState.ABNORMAL, 3)
            if refusal(tree, event):
                continue
        tree = after(tree, advance(tree, event, NOW))


def test_what_has_no_meaning_is_not_offered() -> None:
    command = Command("h1", "true")
    assert offered(command, Standing(S.WAITING, is_held=True)) == [Op.RELEASE, Op.SKIP, Op.FORCE, Op.STOP, Op.END]
    assert offered(command, Standing(S.RUNNING)) == [Op.STOP]
    assert offered(command, Standing(S.RUNNING, is_stopping=True)) == [Op.END]
    assert offered(command, Standing(S.NORMAL)) == [Op.END]
    assert offered(Approval(), Standing(S.RUNNING)) == [Op.STOP, Op.END, Op.APPROVE, Op.REJECT]
    assert Op.END in offered(Pause(timedelta(seconds=60)), Standing(S.RUNNING))
    assert offered(SubNet(), Standing(S.RUNNING, is_suspended=True)) == [Op.STOP, Op.RESUME]
    assert offered_of_run(SessionState.RUNNING, is_suspended=False) == [Op.SUSPEND, Op.STOP]
    assert offered_of_run(SessionState.ABNORMAL, is_suspended=False) == []
