"""Many patterns at once mean what each means alone in `re`."""

from __future__ import annotations

import re
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from futago.intake import patterns
from futago.intake.patterns import PatternSet
from futago.intake.rules import MessageMonitor, Rule, RuleSet
from futago.runtime.faults import OperatorFault

PATTERNS = [
    r"SEQ=(?P<seq>\S+)",
    r".",
    r"",
    r"(?i)error|fail",
    r"^\d+\b",
    r"a(?=b)",
    r"(?<!x)y",
    r"(\w)\1",
    r"x{,3}z",
    r"日本",
    r"\w+\s\w+$",
    r"[^[:alpha:]]",
    r"(?P<q>['\"]).*?(?P=q)",
    r"a{2,4}b?",
    r"\.\*",
    r"é",
    r"(?s)a.b",
    r"a.b",
    r"\Aab\Z",
    r"[\w.-]+@",
    r"[^\w\s]b",
    r"\D\d\D",
    r"\bab\B",
    r"[]\d]z",
    r"\\w",
    r"(?i)S",
    r"(\w+) (?=\d)",
    r"[^a]é",
    r"a\S*?b|語\W",
    r"(?x) a \w",
    r"(?i)(?P<kind>disk|ké)",
    r"(?i:[a-k]é)|x",
]
WORDS = [
    "SEQ=1",
    "a",
    "b",
    "ab",
    "aab",
    "xy",
    "yy",
    "ERROR",
    "fail",
    "日本",
    "é",
    "12",
    " ",
    "'q'",
    "\n",
    ".*",
    "z",
    "\t",
    "a@b",
    "\\w",
    "ſ",
    "１",
    "DıſK",
    "kÉ",
    "\u212a\xc9",
]
EVERYTHING = PatternSet(PATTERNS)
TEXT = st.lists(st.sampled_from(WORDS) | st.text("abxyz019 .*'\"éÉßñ日本語ァ　", max_size=4), max_size=6).map("".join)


@settings(max_examples=300, deadline=None)
@given(TEXT)
def test_a_set_matches_what_each_pattern_matches_alone(text: str) -> None:
    assert EVERYTHING.match(text) == [i for i, p in enumerate(PATTERNS) if re.search(p, text)]


def test_look_around_and_back_references_are_prefiltered_and_confirmed() -> None:
    assert PATTERNS.index(r"(\w)\1") not in EVERYTHING.slow
    assert EVERYTHING.slow == [PATTERNS.index(r"x{,3}z"), PATTERNS.index(r"[^[:alpha:]]")]


def test_unicode_classes_compile_fast_and_are_found_in_any_text() -> None:
    """With hyperscan's own Unicode tables this set takes a minute."""
    texts = [rf"host{n} \w+\[\d+\]: \S+ failed" for n in range(200)]
    began = time.process_time()
    made = PatternSet(texts)
    assert time.process_time() - began < 5
    assert made.slow == []
    assert made.match("host7 sshd[12]: 接続 failed") == [7]
    assert made.match("host7 プロセス[１２]: login failed") == [7]
    assert made.match("host7 sshd[12]: login failed") == [7]
    assert PatternSet([r"(?i)disk \w+"]).slow == []
    assert made.match("host7 接 続[12]: login failed") == []


def test_without_hyperscan_everything_still_matches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patterns, "hyperscan", None)
    slow = PatternSet(PATTERNS)
    for text in ("SEQ=1 ab", "yy 日本", "", "12 monkeys"):
        assert slow.match(text) == EVERYTHING.match(text)


def test_a_wrong_pattern_is_told() -> None:
    with pytest.raises(OperatorFault, match="regular expression"):
        PatternSet(["fine", "(unclosed"])


def test_an_empty_set_matches_nothing() -> None:
    assert PatternSet([]).match("anything") == []


def test_the_first_pattern_of_a_monitor_decides_and_fills_its_message() -> None:
    first = MessageMonitor(
        "m",
        "syslog",
        "*",
        (Rule("disk (?P<name>sd.)", "critical", "disk {name} {{{text}}}"), Rule("disk", "info", "{text}")),
    )
    second = MessageMonitor("n", "syslog", "web", (Rule("sda", "warning", "{text}"),), ("ops",))
    rules = RuleSet([first, second])
    made = rules.matches("disk sda", host="h", scopes={"web": frozenset({"h"})})
    assert [(m.monitor.name, m.priority, m.message) for m in made] == [
        ("m", "critical", "disk sda {disk sda}"),
        ("n", "warning", "disk sda"),
    ]
    assert [m.priority for m in rules.matches("disk full", host="h", scopes={})] == ["info"]
    assert rules.matches("nothing", host="h", scopes={}) == []


def test_a_message_with_many_braces_fills_only_names() -> None:
    rule = Rule("(?P<a>x)", "info", "{a.__class__}{a}")
    with pytest.raises(OperatorFault):
        RuleSet([MessageMonitor("m", "syslog", "*", (Rule("(", "info", "x"),))])
    made = RuleSet([MessageMonitor("m", "syslog", "*", (rule,))]).matches("x", host="h", scopes={})
    assert made[0].message == "x"
