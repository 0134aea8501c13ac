"""SNMP notifications as the engine takes them: who may send, what two copies have in common, the text that patterns see.

Pure but for what it remembers of senders' clocks. Nothing is raised, whatever the bytes: what cannot be read or is not
let through still is a message, with a text that says so and nothing of the content.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from futago.intake import snmp
from futago.intake.mib_names import MibNames, Named
from futago.intake.model import Record
from futago.intake.options import Snmp
from futago.intake.snmp import Opened
from futago.intake.usm import Doubt, Doubtful, Message, Security, SenderTimes, parse
from futago.runtime.faults import Corrupt

SHOWN_BYTES_MAX = 256
LOOKED_MAX = 4096
LOOKED_BYTES_MAX = 8 << 20  # of datagrams; what was opened of them is about as much again
_DOUBTS = {
    Doubt.LEVEL: "its security level is not its user's",
    Doubt.TIME: "its sender's clock says that it is old: a repetition",
    Doubt.USER: "its user is not known",
    Doubt.ENGINE: "it is of another engine",
    Doubt.DIGEST: "it is not authenticated: a wrong password, or forged",
    Doubt.DECRYPTION: "it cannot be decrypted",
}


class Notification(NamedTuple):
    """A record that was looked into: `opened`, or why not. `message`: the envelope if it is of v3."""

    opened: Opened | None
    why: str = ""
    is_refused: bool = False
    message: Message | None = None


class TrapText(NamedTuple):
    """The line that patterns see, and the names in it if MIB modules know any."""

    text: str
    named: Named | None = None


@dataclass(slots=True)
class TrapCounters:
    """What was not taken as it was meant."""

    malformed: int = 0
    refused: int = 0  # of unknown communities and users, or repeated by others


class TrapReader:
    """Reads records of the SNMP port.

    Args:
        options: communities and users.
        counters: counted in.
    """

    def __init__(self, options: Snmp, counters: TrapCounters) -> None:
        self._communities = None if options.communities is None else {c.encode() for c in options.communities}
        self._security = Security(options.users)
        self._times = SenderTimes()
        self._looked: dict[bytes, Notification] = {}  # between the merge and the effect, of the same datagram
        self._contents: dict[bytes, bytes] = {}
        self._looked_bytes = 0
        self._counters = counters
        self.names = MibNames()  # of the MIB modules that were loaded

    def look(self, data: bytes) -> Notification:
        """Return a datagram looked into, but for the time window."""
        known = self._looked.get(data)
        if known is None:
            self._looked_bytes += len(data)
            if len(self._looked) >= LOOKED_MAX or self._looked_bytes > LOOKED_BYTES_MAX:
                self._looked.clear()
                self._contents.clear()
                self._looked_bytes = len(data)
            known = self._looked[data] = self._look(data)
        return known

    def _look(self, data: bytes) -> Notification:
        try:
            if snmp.is_v3(data):
                message = parse(data)
                return Notification(self._security.open_message(message), message=message)
            opened = snmp.open_plain(data)
        except Corrupt as e:
            return Notification(None, str(e))
        except Doubtful as e:
            return Notification(None, _DOUBTS[e.doubt], True)
        if self._communities is not None and opened.sender not in self._communities:
            return Notification(opened, "its community is not known", True)
        return Notification(opened)

    def content(self, data: bytes) -> bytes:
        """Return what two copies of a notification have in common; all of what cannot be read."""
        known = self._contents.get(data)
        if known is None:
            notification = self.look(data)  # it may forget, so only then
            known = self._contents[data] = self._content(data, notification)
        return known

    @staticmethod
    def _content(data: bytes, notification: Notification) -> bytes:
        try:
            return data if notification.opened is None else snmp.content(notification.opened)
        except Corrupt:
            return data

    def text(self, record: Record) -> str:
        """Return the line that patterns see of a message that takes effect."""
        return self.read(record).text

    def read(self, record: Record) -> TrapText:
        """Return the line that patterns see of a message that takes effect: numbers, and behind them what MIB modules
        have names for, so that patterns on numbers go on to match when a module is loaded.
        """
        found = self.look(record.data)
        if found.is_refused or (found.message is not None and not self._is_fresh(found.message, record)):
            self._counters.refused += 1
            return TrapText(f"refused: {found.why or _DOUBTS[Doubt.TIME]}")
        try:
            if found.opened is None:
                raise Corrupt(found.why)
            if not self.names:
                return TrapText(snmp.text_opened(found.opened))
            trap = snmp.decode_opened(found.opened)
        except Corrupt as e:
            self._counters.malformed += 1
            return TrapText(f"undecodable: {e}: 0x{record.data[:SHOWN_BYTES_MAX].hex()}")
        named = self.names.named(trap.trap_oid, trap.varbinds)
        return TrapText(f"{trap.text} {named.text}" if named is not None else trap.text, named)

    def _is_fresh(self, message: Message, record: Record) -> bool:
        """Return whether a v3 message is of its sender's present; only what is authenticated says when it is of."""
        return not message.code or self._times.is_fresh(message, record.time_ns)
