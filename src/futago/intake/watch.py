"""The messages that both members receive, as they come: for people who look on. Reads the journals, changes nothing.

Each message is shown once though both members have it: the same merge as the engine's, but of the present only and kept
in memory. So it works on either member, whatever its role and the database do.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path

import msgspec

from futago.intake import options
from futago.intake.addresses import address_text
from futago.intake.journal import folders, tail
from futago.intake.merge import LATE, RECENT, Merger
from futago.intake.mib_names import MibNames
from futago.intake.model import Mark, Protocol, Record
from futago.intake.normalise import copies_of
from futago.intake.options import Snmp
from futago.intake.reader import JournalReader
from futago.intake.telling import tell
from futago.intake.traps import TrapCounters, TrapReader
from futago.runtime.unreadable import UNREADABLE
from futago.setup import paths
from futago.setup.settings import Settings

TAIL_BYTES = 1 << 20  # of each journal, to begin with
SOME_BYTES = 256 << 10  # of one read, where not everything need be seen
WAITING_MAX = 50_000  # copies that wait for their twin; of more, some are shown twice
_ALL = 1 << 62


@dataclass(frozen=True, slots=True)
class Shown:
    """One message. `member`: whose journal had it first. `at_ns`: wall time of receipt."""

    at_ns: int
    member: str
    source: str
    protocol: Protocol
    text: str


class Watch:
    """Follows both journals of this machine.

    Args:
        journals: member -> its journal here; one may be missing yet.
        snmp: communities and users, to read traps.
        names: of MIB modules.
    """

    def __init__(self, journals: dict[str, Path], snmp: Snmp, names: MibNames | None = None) -> None:
        self._traps = TrapReader(snmp, TrapCounters())
        self._traps.names = names or MibNames()
        members = [*journals, ""]
        self._merger = Merger((members[0], members[1]), limits={RECENT: WAITING_MAX, LATE: WAITING_MAX})
        self._journals = journals
        self._readers = {member: JournalReader(root, _recent(root)) for member, root in journals.items()}

    def poll(self) -> list[Shown]:
        """Return what is new, in the order of receipt; the first time what the journals end with."""
        found: list[Shown] = []
        for member, reader in self._readers.items():
            while (read := reader.read()) is not None:
                found += self._shown(member, read.incarnation.zero_ns, read.records)
        return sorted(found, key=lambda shown: shown.at_ns)

    def poll_some(self, reads_max: int) -> tuple[list[Shown], int]:
        """As `poll`, but of each journal no more than some reads; what is left is skipped. Returns the messages and
        how many were skipped, about.
        """
        found: list[Shown] = []
        is_behind = False
        for member, reader in self._readers.items():
            for _ in range(reads_max):
                read = reader.read(bytes_max=SOME_BYTES)
                if read is None:
                    break
                found += self._shown(member, read.incarnation.zero_ns, read.records)
                is_behind = is_behind or len(read.raw) > SOME_BYTES // 2
        skipped = self.skip() if is_behind else 0
        return sorted(found, key=lambda shown: shown.at_ns), skipped

    def skip(self) -> int:
        """Go to the end of the journals; return how many records of one of them were passed over."""
        passed = [0]
        for member, root in self._journals.items():
            before = self._readers[member].positions
            self._readers[member].close()
            after = _recent(root, is_end=True)
            self._readers[member] = JournalReader(root, after)
            passed += [last - before[i] for i, last in after.items() if i in before and last != _ALL != before[i]]
        return max(passed)

    def close(self) -> None:
        """Give the files back."""
        for reader in self._readers.values():
            reader.close()

    def _shown(self, member: str, zero_ns: int, records: list[Record]) -> list[Shown]:
        timelines, merger = self._merger.timelines, self._merger
        for record in records:
            if record.protocol == Protocol.CONTROL:
                with contextlib.suppress(*UNREADABLE):
                    mark = msgspec.msgpack.decode(record.data, type=Mark)
                    timelines.learn(member, zero_ns, merger.other(member), mark)
        messages = [record for record in records if record.protocol not in (Protocol.CONTROL, Protocol.NOTICE)]
        shift_ns, ahead_ns = timelines.shift(member, zero_ns), timelines.wall_ahead(member, zero_ns)
        effects = merger.feed(member, copies_of(messages, shift_ns=shift_ns, trap_content=self._traps.content))
        if records:
            merger.pass_time(member, records[-1].time_ns - shift_ns)
        return [self._line(member, messages[place], ahead_ns) for place in effects]

    def _line(self, member: str, record: Record, ahead_ns: int) -> Shown:
        text = tell(record, self._traps).text
        at_ns = record.time_ns + ahead_ns
        return Shown(at_ns, member, address_text(record.source), Protocol(record.protocol), text)


def of_this_member(known: Settings, names: MibNames | None = None) -> Watch:
    """Return what follows the journals of this machine. Raises OperatorFault, OSError."""
    journals = {known.me: paths.JOURNAL_OWN}
    if known.peer is not None:
        journals[known.peer.name] = paths.JOURNAL_PEER
    return Watch(journals, options.load().snmp, names)


def _recent(root: Path, *, is_end: bool = False) -> dict[str, int]:
    """Return positions a little before the end of a journal, or at its end."""
    after: dict[str, int] = {folder.id: _ALL for folder in folders(root)}
    incarnation, records = tail(root, bytes_max=TAIL_BYTES)
    if incarnation:
        after[incarnation] = (records[-1].sequence if is_end else records[0].sequence - 1) if records else 0
    return after
