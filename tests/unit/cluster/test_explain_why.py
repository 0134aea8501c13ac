"""Why the pair is as it is, in sentences; and facts as bytes."""

import random
from dataclasses import replace

from test_decide_scenarios import NOW, SERVING, SILENT, beat, heard
from test_decide_scenarios import PAIRED as PAIRED_VIEW
from test_decide_table import NOW as TABLE_NOW
from test_decide_table import any_facts

from futago.cluster.explain import pack, unpack, why
from futago.cluster.model import Register


def test_healthy_pair_says_who_serves_and_on_which_disks_a_write_is() -> None:
    said = why(SERVING, NOW)
    assert said[0] == "m1 serves, and m2 confirms every write. [P7.serve]"
    assert "By view 5, m1 is the primary, and an acknowledged write is on the disk of m1 and m2." in said


def test_blocked_pair_names_what_it_waits_for_and_the_command() -> None:
    said = why(replace(SERVING, peer=heard(beat(PAIRED_VIEW), SILENT), register=Register()), NOW)
    assert "[I1.close]" in said[0]
    assert any("m2 is silent" in x for x in said)


def test_facts_survive_as_bytes() -> None:
    r = random.Random(1)
    for _ in range(200):
        facts = any_facts(r)
        assert unpack(pack(facts, TABLE_NOW)) == (facts, TABLE_NOW)
