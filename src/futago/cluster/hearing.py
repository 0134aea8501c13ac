"""Who hears whom: the part of a Situation that is about the other member's voice, W's answers, and time.

Pure, as situation.py. Must not live here: views, the database, what follows. The idea: before anybody asks what was
said, ask when, and whether it can be an echo of what was said long ago.
"""

from __future__ import annotations

from futago.cluster.model import At, Facts, Heartbeat
from futago.cluster.once import once

FRESH_HEARTBEATS = 2  # one may be lost on its way, or be a little late on a busy machine


class Hearing:
    """What one member has heard, understood at one instant."""

    def __init__(self, facts: Facts, now: int) -> None:
        self.f = facts
        self.now = now
        self.cfg = facts.cfg
        self.w = facts.register
        self._hear(facts, now)

    def _hear(self, facts: Facts, now: int) -> None:
        """Who hears whom. After an own standstill or start, silence is counted anew: nobody listened before."""
        peer = facts.peer
        t_det = self.cfg.t_det
        base = peer.watching_since if facts.woke_at is None else max(peer.watching_since, facts.woke_at)
        heard_at = peer.heard_at
        self.watch_from = base if heard_at is None or heard_at < base else heard_at
        self.silence = now - self.watch_from
        self.is_silent = peer.said_bye or self.silence >= t_det
        echo_at = base
        for link in peer.links:
            if link.echo_at is not None and link.echo_at > echo_at:
                echo_at = link.echo_at
        self.unheard = now - echo_at if peer.links else 0
        self.is_deaf = bool(peer.links) and self.unheard >= t_det
        self.is_lost = self.cfg.has_peer and (self.is_silent or self.is_deaf)
        self.hb: Heartbeat | None = peer.heartbeat
        self.talks = (
            not self.is_lost and self.hb is not None and heard_at is not None and heard_at >= (facts.woke_at or 0)
        )

    @once
    def is_peer_fresh(self) -> bool:
        """The newest word of the peer is so young that it surely lived just now."""
        return self.talks and self.now - (self.f.peer.heard_at or 0) <= FRESH_HEARTBEATS * self.cfg.h

    @once
    def decides_by_fence(self) -> bool:
        """The settings make the fence device the third vote."""
        return self.cfg.authority == "fence"

    # --- contact ---

    @once
    def contact_at(self) -> At:
        """Latest instant at which peer or W certainly heard and answered us (proof against buffered packets)."""
        peer = self.f.peer
        contact = max(link.echo_at or 0 for link in peer.links) if peer.links else peer.heard_at or 0
        return At(max(contact, self.w.contact_at or 0))

    @once
    def is_isolated(self) -> bool:
        """No contact to anybody for T_self, or none since we ourselves stood still."""
        if not self.cfg.has_peer:
            return False
        contact = self.contact_at
        is_fresh_from_sleep = self.f.woke_at is not None and contact < self.f.woke_at
        if self.decides_by_fence:  # nobody takes over from a member that runs: it would have been powered off first
            return is_fresh_from_sleep and not self.is_lost
        if is_fresh_from_sleep:
            return True
        return self.now - max(contact, self.contact_base) >= self.cfg.t_self

    @property
    def contact_base(self) -> At:
        """From when on T_self is counted when this controller has had no contact itself."""
        before = self.f.contact_before
        return self.f.started_at if before is None else before

    @once
    def is_w_fresh(self) -> bool:
        """W was read so lately that asking it again before the vote would only cost time."""
        read_at = self.w.read_at
        if read_at is None or not self.w.is_configured:
            return False
        return self.now - read_at <= self.cfg.t_det + self.cfg.h and read_at >= (self.f.woke_at or 0)

    @property
    def has_looked(self) -> bool:
        """A member that just started has read W, or has waited as long as a living peer would need to be heard."""
        f = self.f
        if self.w.is_configured and self.w.read_at is not None and self.w.read_at >= f.started_at:
            return True
        return not self.cfg.has_peer or self.now - f.started_at >= self.cfg.t_det
