"""What a receiver has to say of itself that people should know: records of its own journal that become events. Pure.

So it is told once, by whichever member is primary, and also later if there was none. Each kind of notice is told at most
once in a while; what came meanwhile is in the next one.
"""

from __future__ import annotations

import msgspec

from futago.runtime.clock import S
from futago.runtime.unreadable import UNREADABLE

EVERY_NS = 60 * S


class Notice(msgspec.Struct, frozen=True):
    """One event that a receiver raises. `priority` as events have it."""

    member: str
    priority: str
    message: str
    detail: dict[str, int | str] = {}


_decode = msgspec.json.Decoder(Notice).decode


def read(data: bytes) -> Notice | None:
    """Return the notice in a record; None if it is none."""
    try:
        return _decode(data)
    except UNREADABLE:
        return None


def damage_met(member: str, journal: str, places: int, *, before: int) -> Notice:
    """Return what to say of damage that was met while a journal was read, on `member`; sound again from record `before`."""
    message = (
        f"The journal of {journal} is damaged on {member}: {places} places were passed over before its record {before}."
        " What the other member has received, too, is taken from there. Look at the disk."
    )
    return Notice(member, "critical", message, {"journal": journal, "places": places, "before": before})


class Notices:
    """Decides what to tell.

    Args:
        member: whose receiver this is.
    """

    def __init__(self, member: str) -> None:
        self._member = member
        self._told_ns: dict[str, int] = {}
        self._drops = 0
        self._refused = 0
        self._damaged = 0
        self._is_congested = False
        self._unbound: tuple[str, ...] = ()

    def damaged(self, places: int) -> Notice:
        """Return what to say of damage that was found in the own journal at the start."""
        message = f"The journal of {self._member} is damaged in {places} places: what was there is passed over."
        return Notice(self._member, "warning", message, {"places": places})

    def look(
        self,
        now_ns: int,
        *,
        drops: int,
        congestion: str | None,
        unbound: tuple[str, ...],
        damaged: int = 0,
        refused: int = 0,
        refusal: str = "",
    ) -> list[Notice]:
        """Return what to tell now.

        Args:
            drops: datagrams that the kernel has dropped, in all.
            congestion: why nothing is taken; None: it is.
            unbound: ports that cannot be served.
            damaged: places of the own journal that were passed over while it was sent to the other member, and that the
                intake here did not tell of.
            refused: connections that found no place, in all; `refusal`: why the last of them did not.
        """
        found: list[Notice] = []
        if drops > self._drops and self._is_due("drops", now_ns):
            count, self._drops = drops - self._drops, drops
            message = f"{self._member} lost {count} datagrams: its buffer was full before they could be recorded."
            found.append(Notice(self._member, "critical", message, {"dropped": count}))
        if refused > self._refused and self._is_due("refused", now_ns):
            count, self._refused = refused - self._refused, refused
            message = f"{self._member} refused {count} connections of senders, the last as {refusal}."
            found.append(Notice(self._member, "warning", message, {"refused": count}))
        if damaged > self._damaged and self._is_due("damaged", now_ns):
            places, self._damaged = damaged - self._damaged, damaged
            message = (
                f"The journal of {self._member} is damaged on its own disk: {places} places were not sent to the other"
                " member. Look at the disk."
            )
            found.append(Notice(self._member, "critical", message, {"places": places}))
        if (congestion is not None) != self._is_congested and (congestion is None or self._is_due("congested", now_ns)):
            self._is_congested = congestion is not None
            found.append(self._flow(congestion))
        if unbound != self._unbound and (not unbound or self._is_due("unbound", now_ns)):
            self._unbound = unbound
            if unbound:
                message = f"{self._member} cannot receive on every port: {'; '.join(unbound)}"[:2000]
                found.append(Notice(self._member, "warning", message))
            else:
                found.append(Notice(self._member, "info", f"{self._member} receives on every port again."))
        return found

    def _flow(self, congestion: str | None) -> Notice:
        if congestion is None:
            return Notice(self._member, "info", f"{self._member} takes messages again.")
        message = (
            f"{self._member} does not take messages: {congestion}. Senders by TCP, TLS and RELP wait,"
            " datagrams are lost when the kernel's buffer is full."
        )
        return Notice(self._member, "critical", message)

    def _is_due(self, kind: str, now_ns: int) -> bool:
        told_ns = self._told_ns.get(kind)
        if told_ns is not None and now_ns - told_ns < EVERY_NS:
            return False
        self._told_ns[kind] = now_ns
        return True
