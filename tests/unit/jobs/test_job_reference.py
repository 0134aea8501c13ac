"""The examples of docs/reference: each is accepted, and by the schema that editors are given, too."""

from __future__ import annotations

import re
from pathlib import Path

import jsonschema
import pytest

from futago.inventory.definitions import parse, schema_of
from futago.inventory.document import plain, read
from futago.inventory.model import Kind
from futago.runtime.faults import OperatorFault

DOCS = Path(__file__).parents[3] / "docs/reference"
EXAMPLES = [
    b
    for f in ("jobs.md", "schedules.md", "triggers.md")
    for b in re.findall(r"```yaml\n(.*?)```", (DOCS / f).read_text(), re.S)
]


@pytest.mark.parametrize("text", EXAMPLES)
def test_examples_of_the_reference_are_accepted_by_the_reader_and_by_the_schema(text: str) -> None:
    assert parse(text)
    validator = jsonschema.Draft202012Validator(schema_of())
    for node in read(text):
        validator.validate(plain(node))


def test_schema_of_each_kind_refuses_a_field_that_nobody_knows() -> None:
    for kind in Kind:
        validator = jsonschema.Draft202012Validator(schema_of(kind))
        assert not validator.is_valid({"kind": kind.value, "name": "x", "nobody": 1})
    wrong = {"kind": "JobNet", "name": "n", "jobs": [{"name": "a", "host": "h", "comand": "x"}]}
    assert not jsonschema.Draft202012Validator(schema_of(Kind.JOB_NET)).is_valid(wrong)


def complaint(text: str) -> str:
    with pytest.raises(OperatorFault) as e:
        parse(text)
    return e.value.what


HEAD = "kind: JobNet\nname: n\n"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("jobs:\n  - {name: a, wait: 1s}\n  - {name: b, wait: 1s, after: [{job: a, value: 0}]}", ":5: .*has none: write `end`"),
        ("jobs:\n  - name: x\n    jobs:\n      - {name: y, wait: 1s, after: [/x]}", ":6: .*which it is a part of"),
        ("jobs:\n  - name: x\n    after: [z]\n    jobs: [{name: y, wait: 1s}]\n  - {name: z, wait: 1s, after: [/x/y]}", "in a circle: x"),
        ("exclusive: [[a, c]]\njobs:\n  - {name: a, wait: 1s}", "names `c`, which is not a job"),
        ("exclusive: [[a, b]]\njobs:\n  - {name: a, wait: 1s}\n  - {name: b, wait: 1s, if_unmet: wait}", ":6: .*is a branch"),
        ("jobs:\n  - {name: a, wait: 1s, after: [{variable: X, is: 1}]}", "no parameter and which no job sets"),
        ("jobs:\n  - {name: a, wait: 1s, retry: {count: 1}}", "`retry` belongs to `command`"),
        ("jobs:\n  - {name: a, command: x}", "write where it runs"),
        ("jobs:\n  - {name: a, command: x, wait: 1s}", "not `command` and `wait`"),
        ("jobs:\n  - {name: a, wait: 1s, end_delay: {stop: true}}", "write `at`, `after`"),
        ("parameters: {X: {type: integer, default: a}}\njobs: [{name: a, wait: 1s}]", "is not a whole number"),
    ],
)  # fmt: skip
def test_net_that_makes_no_sense_is_refused_with_its_line(text: str, said: str) -> None:
    assert re.search(said, complaint(HEAD + text), re.S), complaint(HEAD + text)
