"""Definitions reach the intake: compiled beside it, shared with the other member, and said to be at work."""

from __future__ import annotations

import pytest
from journals import add_monitor, all_rows, execute, settings

from futago.intake import patterns
from futago.intake.automaton import compile_beside
from futago.intake.following import Following
from futago.intake.patterns import Automata, PatternSet, compile_all, digest
from futago.runtime.engine import EngineContext, Outward
from futago.runtime.faults import Corrupt, OperatorFault, Refused
from futago.runtime.log import Log
from futago.store.commit import Store

AT_WORK = "SELECT version = intake_rules_version(), fault FROM intake_rules"
RULE = {"match": r"disk (?P<name>sd\w) full", "priority": "critical", "message": "{name}"}


def following(store: Store) -> Following:
    context = EngineContext(settings=settings(), store=store, epoch=7, outward=Outward(), log=Log())
    return Following(context)


async def ready(one: Following) -> None:
    await one.look()
    if one._compiling is not None:
        await one._compiling
        await one.look()


async def test_what_one_member_compiled_the_other_takes_from_the_row(
    database: str, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    await add_monitor(database, "disks", "syslog", RULE)
    await ready(following(store))
    assert await all_rows(database, "SELECT count(*) FROM intake_automaton") == [(1,)]

    async def never(texts: object, **how: object) -> Automata:
        raise AssertionError("it was compiled again")

    monkeypatch.setattr("futago.intake.following.compile_beside", never)
    other = following(store)
    await ready(other)
    found = other.rules["syslog"].matches("disk sdb full", host="h", scopes={})
    assert [match.message for match in found] == ["sdb"]


async def test_a_row_that_is_not_for_this_machine_is_made_anew(database: str, store: Store) -> None:
    await add_monitor(database, "disks", "syslog", RULE)
    await execute(
        database,
        "INSERT INTO intake_automaton (digest, content) VALUES (%s, %s)",
        digest([RULE["match"]]),
        Automata(patterns.Part([b"x" * 64], [], []), patterns.Part([], [], [])).pack(),
    )
    one = following(store)
    await ready(one)
    assert one.rules["syslog"].matches("disk sdb full", host="h", scopes={})


async def test_a_row_says_when_the_definitions_are_at_work(database: str, store: Store) -> None:
    one = following(store)
    await ready(one)
    assert await all_rows(database, AT_WORK) == [(True, "")]
    await add_monitor(database, "disks", "syslog", RULE)
    assert await all_rows(database, AT_WORK) == [(False, "")]
    await ready(one)
    assert await all_rows(database, AT_WORK) == [(True, "")]
    for change in (
        "INSERT INTO host (host_name, address, is_registered) VALUES ('web1', '10.0.0.1', true)",
        "INSERT INTO scope (scope_name) VALUES ('web')",
        "UPDATE monitor SET version = version + 1",
        "DELETE FROM monitor",
    ):
        await execute(database, change)
        assert await all_rows(database, AT_WORK) == [(False, "")], change
        await ready(one)
        assert await all_rows(database, AT_WORK) == [(True, "")], change
    assert one.inventory.hosts == {"10.0.0.1": "web1"}
    await execute(database, "INSERT INTO host (host_name, is_registered) VALUES ('10.0.0.9', false)")
    assert await all_rows(database, AT_WORK) == [(True, "")]


async def test_a_pattern_that_is_none_is_told_and_the_others_stay_at_work(database: str, store: Store) -> None:
    await add_monitor(database, "disks", "syslog", RULE)
    one = following(store)
    await ready(one)
    await add_monitor(database, "wrong", "syslog", {"match": "(", "priority": "info"})
    await ready(one)
    assert one.rules["syslog"].matches("disk sdb full", host="h", scopes={})
    at_work, fault = (await all_rows(database, AT_WORK))[0]
    assert at_work
    assert "`(` is not a regular expression" in str(fault)


async def test_a_compiler_that_dies_is_refused() -> None:
    with pytest.raises(OperatorFault, match="regular expression"):
        await compile_beside(["fine", "(unclosed"])
    with pytest.raises(Refused):
        await compile_beside([1])  # type: ignore[list-item]


def test_a_digest_is_of_the_patterns_in_their_order() -> None:
    assert digest(["a", "b"]) == digest(["a", "b"]) != digest(["b", "a"])
    assert digest(["ab"]) != digest(["a", "b"])


def test_a_set_that_is_refused_as_a_whole_and_taken_in_parts_becomes_several(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hyperscan bounds what one database may become; which sets meet the bound depends on its version, so it is drawn
    in here: no more than five patterns at once.
    """
    plain, texts = patterns._compiled_database, [rf"w{n}\b.x(?!y)" if n % 3 else rf"w{n}$" for n in range(40)]

    def bounded(chosen: dict[int, str], flags: dict[int, int]) -> object:
        if len(chosen) > 5:
            raise patterns.hyperscan.error("too large")
        return plain(chosen, flags)

    whole = PatternSet(texts)
    monkeypatch.setattr(patterns, "_compiled_database", bounded)
    made = compile_all(texts)
    assert len(made.ascii.databases) >= 8
    assert made.ascii.slow == []
    parted = PatternSet(texts, Automata.unpack(made.pack()))
    for text in ("w7.x w8.x", "w39", "w12 w4 x w1 xy", "日本 w5 x"):
        assert parted.match(text) == whole.match(text)


def test_what_was_stored_and_is_damaged_is_told() -> None:
    with pytest.raises(Corrupt):
        Automata.unpack(b"nonsense")
