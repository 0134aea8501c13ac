"""The docs carry the table that the code decides by."""

import re
from pathlib import Path

from futago.cluster.rulebook import markdown
from futago.cluster.rules import SECTIONS

PAGE = Path(__file__).resolve().parents[3] / "docs" / "internals" / "cluster.md"


def test_page_carries_the_present_table() -> None:
    text = PAGE.read_text(encoding="utf-8")
    table = text.split("rulebook` -->\n", 1)[1].split("<!-- end of rules -->", 1)[0]
    assert table.strip() == markdown().strip(), "write it anew: python -m futago.cluster.rulebook"


def test_page_names_no_rule_that_does_not_exist() -> None:
    ids = {row.id for section in SECTIONS for row in section.rows}
    named = set(re.findall(r"`([A-Z]\d+[ps]?\.[a-z-]+)`", PAGE.read_text(encoding="utf-8")))
    assert named <= ids
