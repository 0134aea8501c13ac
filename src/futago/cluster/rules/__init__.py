"""The rule table: every situation of one member, what it does then, and why. Data, read from the top: the first row
that matches decides.

A section is chosen by what this member's own disk says it is (SECTIONS); inside it the rows are tried in order, and
the last one of each section matches always and only waits. Ids are stable, never reused, and appear in logs, status,
docs and tests. T1 to T9 are the transitions of docs/internals/cluster.md:

    T1 solo by W   T2 takeover by W   T3 solo by the peer's promise   T4 handing over   T5 adding the peer   T6
    learning T7 restart alone (by W)   T8 meeting after both booted   T9 forced by an operator

Rules of order that the rows keep: a durable write is alone in its decision, and effects come after its fact; waiting
for the peer ends only after the view that allows it is durable; a view that names both members is written only after
waiting was proved (T5.barrier).

    F1 solo by the fence   F2 takeover by the fence: instead of T1, T2 and T7 where the fence device is the third vote

One room for each standing: forced, learning (no view, or an older one), paired, solo, standby, rejoin. Beside them:
row (what a rule is), deeds (what rows do), vote (the rows that ask W), fencing (the rows by which a shot decides).
X1 was a rule once.
"""

from __future__ import annotations

from futago.cluster.model import OpKind
from futago.cluster.rules.forced import FORCE_ROWS
from futago.cluster.rules.learning import LEARN_ROWS, MEMORY_ROWS
from futago.cluster.rules.paired import PAIRED_ROWS
from futago.cluster.rules.rejoin import REJOIN_ROWS
from futago.cluster.rules.row import Actions, Row, Section, always
from futago.cluster.rules.solo import SOLO_ROWS
from futago.cluster.rules.standby import STANDBY_ROWS

__all__ = ["SECTIONS", "Actions", "Row", "Section"]

SECTIONS: tuple[Section, ...] = (
    Section(
        "operator forces",
        lambda s: s.f.op.kind is OpKind.FORCE_PRIMARY and not (s.is_primary and s.is_alone),
        FORCE_ROWS,
    ),
    Section("no view", lambda s: s.dv is None, MEMORY_ROWS),
    Section("newer view known", lambda s: s.knows_newer, LEARN_ROWS),
    Section("primary, paired", lambda s: s.is_primary and not s.is_alone, PAIRED_ROWS),
    Section("primary, solo", lambda s: s.is_primary, SOLO_ROWS),
    Section("standby, paired", lambda s: s.in_sync, STANDBY_ROWS),
    Section("not in the view", always, REJOIN_ROWS),
)
