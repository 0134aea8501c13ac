"""What the facts mean: the questions that the rules ask, each answered once for one instant.

Pure: no clock, no I/O. A Situation is made from Facts and `now` and thrown away after the decision. The image: Facts
are the instruments, a Situation is what the pilot reads from them, rules/ is the checklist. Who hears whom: hearing.py.
"""

from __future__ import annotations

from futago.cluster.hearing import Hearing
from futago.cluster.model import (
    Cas,
    Epoch,
    Facts,
    FenceOutcome,
    Gate,
    Lsn,
    OpKind,
    PgState,
    View,
)
from futago.cluster.once import once

LAG_BYTES_MAX = (
    16 << 20
)  # a peer this close catches up within a second (38-71 MB/s measured), so enforcing stalls little
OUTWARD_MARGIN_NS = 300_000_000  # for the loser's own steps after T_self: close the gate, drop the address
ASKS = ("solo", "drop")  # what is asked of the peer to be allowed to serve alone
UNCERTAIN = (PgState.STARTING, PgState.STOPPING)
KILLED_NS = 500_000_000  # a process that has not died of a SIGKILL by then waits for a device in the kernel
NOT_RUNNING = (PgState.STOPPED, PgState.DIED, PgState.ABSENT)


def is_same(a: View | None, b: View | None) -> bool:
    """Tell whether two views say the same; the floor may differ between the ways that led to a view."""
    if a is None or b is None:
        return a is b
    return a.epoch == b.epoch and a.primary == b.primary and a.insync == b.insync


class Situation(Hearing):
    """One member's facts at one instant, understood."""

    def __init__(self, facts: Facts, now: int) -> None:
        super().__init__(facts, now)
        cfg = self.cfg
        self.pg = facts.pg
        self.dv = dv = facts.durable.view
        self.epoch: int = 0 if dv is None else dv.epoch
        self.is_primary = dv is not None and dv.primary == cfg.me
        self.in_sync = dv is not None and cfg.me in dv.insync
        self.is_alone = dv is not None and len(dv.insync) == 1
        self.newest = self._newest()

    def _newest(self) -> View | None:
        """The newest view of all that this member knows; its own wins a tie."""
        newest = self.dv
        for view in (self.w.view, None if self.hb is None else self.hb.view):
            if view is not None and (newest is None or view.epoch > newest.epoch):
                newest = view
        return newest

    # --- views ---

    @once
    def knows_newer(self) -> bool:
        """Somebody knows a newer view than our disk."""
        return self.newest is not None and self.newest.epoch > self.epoch

    @once
    def is_own_win(self) -> bool:
        """W decided for us in the epoch that we asked for, and nobody knows anything newer."""
        view, intent = self.w.view, self.f.durable.intent
        return (
            view is not None
            and intent != 0
            and view.epoch == intent
            and view.epoch > self.epoch
            and view.primary == self.cfg.me
            and view.insync == frozenset((self.cfg.me,))
            and self.newest is not None
            and self.newest.epoch == view.epoch
        )

    @once
    def peer_names_me(self) -> bool:
        """The peer has written durably that we alone serve: its promise (T3) or its handing over (T4).

        Such a view is one or two epochs on. From further away it would tell us what we ourselves have forgotten.
        """
        hb = self.hb
        return (
            hb is not None
            and hb.view is not None
            and is_same(hb.view, self.newest)
            and 0 < hb.view.epoch - self.epoch <= 2
            and hb.view.primary == self.cfg.me
            and hb.view.insync == frozenset((self.cfg.me,))
        )

    @once
    def is_equal(self) -> bool:
        """The peer's disk holds the same view as ours."""
        return self.hb is not None and self.dv is not None and is_same(self.hb.view, self.dv)

    @once
    def has_intent(self) -> bool:
        """W was asked for an epoch above our view, and the answer is not settled."""
        return self.f.durable.intent > self.epoch

    @once
    def are_intents_clear(self) -> bool:
        """Neither member has an open question to W, or a shot under way that shall decide."""
        is_shooting = self.decides_by_fence and self.f.fence.outcome is FenceOutcome.PENDING
        return not self.has_intent and not is_shooting and self.hb is not None and self.hb.intent <= self.epoch

    @property
    def is_intent_void(self) -> bool:
        """A later put of ours has ended, so what the intent asked for can no longer be stored; or no shot is under way."""
        if self.decides_by_fence:
            return self.f.fence.outcome is not FenceOutcome.PENDING
        return self.w.cas in (Cas.DONE, Cas.REFUSED) and self.w.cas_epoch == self.epoch

    @property
    def target(self) -> Epoch:
        """The epoch to ask W for: the one already asked for, else the next."""
        return self.f.durable.intent if self.has_intent else Epoch(self.epoch + 1)

    # --- own PostgreSQL ---

    @property
    def floor(self) -> Lsn:
        """Our WAL position, as the floor of a view that names us."""
        return Lsn(max(self.pg.flush, self.dv.floor if self.dv is not None else 0))

    @property
    def is_below_floor(self) -> bool:
        """Our data are known to end before the position that the view was made at: an old copy of the disk."""
        return self.dv is not None and 0 < self.pg.flush < self.dv.floor

    @once
    def is_data_usable(self) -> bool:
        """There are data here, they can be written, and they are no old copy."""
        return self.pg.state is not PgState.ABSENT and self.pg.is_disk_ok and not self.is_below_floor

    @once
    def is_data_good(self) -> bool:
        """Our data may decide that we serve alone: no worse than the peer's; or served already, while nobody is heard."""
        return self.is_data_no_worse or (self.is_data_usable and self.pg.state is PgState.PRIMARY and self.is_lost)

    @once
    def is_data_no_worse(self) -> bool:
        """Our data are trusted; or no less than the peer's: its are missing, or not trusted either, or it forgot them."""
        hb = self.hb
        is_no_better_there = (
            self.talks and hb is not None and (hb.is_suspect or hb.pg is PgState.ABSENT or hb.view is None)
        )
        return self.is_data_usable and (not self.pg.is_suspect or is_no_better_there)

    @once
    def is_pg_risky(self) -> bool:
        """PostgreSQL may be acting as a primary although this member is none."""
        state = self.pg.state
        if state is PgState.PRIMARY:
            return True
        return self.is_primary and state in (PgState.HUNG, PgState.STARTING, PgState.STOPPING)

    @once
    def is_quiet(self) -> bool:
        """Gate closed and address gone, both certain."""
        return self.f.gate is Gate.CLOSED and self.f.address_held is False

    # --- the other member ---

    @once
    def has_learned(self) -> bool:
        """The peer's disk holds our view or a newer one: it serves no longer, for it stops before it writes that."""
        return self.hb is not None and self.hb.view is not None and self.hb.view.epoch >= self.epoch

    @once
    def is_peer_fit(self) -> bool:
        """The peer could serve at once. Data that are not trusted, so that it is not fit in its own judgement, will do where
        there are none here.
        """
        hb = self.hb
        if hb is None:
            return False
        is_only_choice = self.pg.state is PgState.ABSENT and hb.is_suspect and hb.is_disk_ok
        return (
            self.talks
            and ((hb.is_fit and hb.is_disk_well) or is_only_choice)
            and hb.is_able
            and hb.pg is PgState.STANDBY
            and not hb.is_leaving
            and (self.dv is None or hb.flush >= self.dv.floor)
        )

    @once
    def is_peer_blank(self) -> bool:
        """The peer talks and has no view: it lost its memory, or is new, and will never vote by itself."""
        unfit = self.f.peer.unfit_since
        return (
            self.talks
            and self.hb is not None
            and self.hb.view is None
            and unfit is not None
            and self.now - unfit >= self.cfg.t_stall
        )

    @once
    def is_peer_in_trouble(self) -> bool:
        """As paired primary: the peer talks, but has kept us from acknowledging for longer than is borne."""
        if not self.talks or self.hb is None:
            return False
        unfit = self.f.peer.unfit_since
        is_unfit = unfit is not None and unfit <= self.now - self.cfg.t_stall and not self._is_peer_only_unable
        return self.hb.is_leaving or self.is_stalled or is_unfit

    @once
    def _is_peer_only_unable(self) -> bool:
        """The peer cannot write its own decisions, so it cannot promise either, but it is well in every other way."""
        hb = self.hb
        is_well = hb is not None and hb.pg is PgState.STANDBY and hb.is_disk_well and hb.view is not None
        return is_well and hb is not None and not hb.is_able

    @once
    def is_peer_unable(self) -> bool:
        """The peer says that it cannot write its own decisions, and has not been well for longer than is borne."""
        unfit = self.f.peer.unfit_since
        return (
            self.talks
            and self.hb is not None
            and not self.hb.is_able
            and unfit is not None
            and self.now - unfit >= self.cfg.t_stall
        )

    @property
    def asks_solo(self) -> bool:
        """We ask the peer to let us serve alone."""
        wants = self.f.wants
        return wants is not None and wants.kind in ASKS and wants.epoch == self.epoch + 1

    @once
    def announces_handover(self) -> bool:
        """We say that we hand over."""
        wants = self.f.wants
        return wants is not None and wants.kind == "handover" and wants.epoch == self.epoch + 2

    @once
    def wants_w_solo(self) -> bool:
        """T1, T7, F1: the primary of a paired view cannot have the peer's vote and needs the third one.

        Without a third vote a peer that only cannot vote, but confirms every write, is left in peace.
        """
        is_unable = self.is_peer_unable and (self.has_third_vote or self.is_stalled)
        return (
            self.is_lost
            or is_unable
            or (self.is_peer_in_trouble and (self.is_unanswered or not self.are_intents_clear))
        )

    @property
    def is_unanswered(self) -> bool:
        """We asked for the promise, and the peer has not given it for longer than is borne."""
        return self.asks_solo and self.now - self.f.wants_since >= self.cfg.t_stall

    @once
    def wants_w_takeover(self) -> bool:
        """T2, T7, F2: the standby of a paired view has reason to serve and needs the third vote."""
        return self.is_takeover_due and not self.is_on_hold

    @once
    def is_takeover_due(self) -> bool:
        """The primary of a paired view is silent, cannot decide, or does not finish handing over."""
        peer = self.f.peer
        if peer.said_bye or self.silence >= self.cfg.t_det + self.cfg.bias:
            return True
        # A primary that does not hear us asks W before we may; if it does not, it hears nobody, and cannot serve.
        # Its silence began up to a heartbeat after ours: two more keep its lead.
        if self.unheard >= self.cfg.t_det + self.cfg.bias + 2 * self.cfg.h and not self.decides_by_fence:
            return True
        if (self.is_peer_unable or self.is_peer_blank) and self.has_third_vote:
            return True
        wants = None if self.hb is None else self.hb.wants
        patience = self.patience_hung if self.is_peer_hung else self.cfg.t_stall
        return (
            wants is not None
            and wants.kind == "handover"
            and wants.epoch > self.epoch
            and peer.wants_since is not None
            and self.now - peer.wants_since >= patience
        )

    @property
    def patience_hung(self) -> int:
        """How long a peer may hang while it hands over: it tells at once that its PostgreSQL is being killed, or does not die
        of that; two heartbeats, since the first of these words may be lost.
        """
        return min(self.cfg.t_stall, KILLED_NS, 2 * self.cfg.h)

    @property
    def is_peer_hung(self) -> bool:
        """The peer says that its PostgreSQL hangs; while it hands over: that it does not die of a SIGKILL."""
        return self.hb is not None and self.hb.pg is PgState.HUNG

    @property
    def may_grant_solo(self) -> bool:
        """T3, as standby: the primary asks to serve alone, our views agree, and nobody has an open question to W."""
        hb = self.hb
        return (
            self.talks
            and hb is not None
            and hb.wants is not None
            and hb.wants.kind == "solo"
            and hb.wants.epoch == self.epoch + 1
            and self.is_equal
            and self.are_intents_clear
        )

    # --- handing over ---

    @property
    def is_pg_failed(self) -> bool:
        """Our PostgreSQL does not serve and was not ordered to stop."""
        pg = self.pg
        return pg.state in (PgState.DIED, PgState.HUNG, PgState.ABSENT) or pg.has_standby_signal

    @property
    def is_soft_trouble(self) -> bool:
        """PostgreSQL serves, but the other member had better take it: it lacks what is broken here, or they would hand it to
        and fro.
        """
        f, hb = self.f, self.hb
        return (
            self.is_told_to_move
            or (not f.manager_ok and hb is not None and hb.manager_ok)
            or (not f.service_ok and hb is not None and hb.service_ok)
        )

    @once
    def is_told_to_move(self) -> bool:
        """An operator wants the other member to serve, or shuts this machine down."""
        return self.f.op.kind is OpKind.SWITCHOVER or self.f.is_leaving

    @once
    def is_on_hold(self) -> bool:
        """An operator is at work on the pair: nothing is switched unasked. The last word of a silent peer counts."""
        return self.f.maintenance or (self.hb is not None and self.hb.maintenance)

    @once
    def has_third_vote(self) -> bool:
        """There is somebody or something that can decide when the peer cannot be asked."""
        return self.f.fence.is_configured if self.decides_by_fence else self.w.is_configured

    @once
    def should_hand_over(self) -> bool:
        """T4: we had better not serve, and the peer can."""
        pg = self.pg
        if not (self.is_peer_fit and self.is_equal and self.are_intents_clear):
            return False
        if self.is_on_hold and not self.is_told_to_move and not self.announces_handover:
            return False
        if self.is_pg_failed or not pg.is_disk_well:
            return True
        if self.announces_handover and pg.state in (PgState.STOPPED, PgState.STOPPING):
            return True
        is_following = self.hb is not None and self.hb.is_streaming and not self.is_peer_in_trouble
        return self.is_soft_trouble and (pg.state is not PgState.PRIMARY or is_following)

    # --- adding the peer ---

    @once
    def is_peer_following(self) -> bool:
        """T5: the peer knows our view, streams from us on our timeline and can write."""
        hb, pg = self.hb, self.pg
        return (
            self.cfg.has_peer
            and self.talks
            and hb is not None
            and self.is_equal
            and self.are_intents_clear
            and hb.pg is PgState.STANDBY
            and hb.is_fit
            and hb.is_streaming
            and hb.timeline == pg.timeline
            and hb.is_able
            and hb.is_disk_well
            and not hb.is_leaving
            and not self.f.is_leaving
            and pg.peer_is_streaming
            and not self.is_stalled
        )

    @property
    def is_stalled(self) -> bool:
        """Something we wrote has been unconfirmed for longer than is borne."""
        since = self.pg.unconfirmed_since
        return since is not None and self.now - since >= self.cfg.t_stall

    @property
    def is_lag_small(self) -> bool:
        """The peer has nearly everything, received and replayed."""
        return self.hb is not None and self.pg.flush - min(self.pg.peer_flush, self.hb.replay) <= LAG_BYTES_MAX

    @property
    def are_journals_complete(self) -> bool:
        """Both members say that the copies of both journals are complete."""
        return self.f.journals_complete and self.hb is not None and self.hb.journals_complete

    @once
    def wants_peer(self) -> bool:
        """T5 should begin, or go on: once enforced, the bounds of its beginning no longer matter."""
        if self.f.gate is not Gate.OPEN or not self.is_peer_following or not self.pg.is_disk_ok:
            return False
        if self.pg.enforced is True:
            return True
        is_shooting = self.f.fence.outcome is FenceOutcome.PENDING
        return self.is_lag_small and self.are_journals_complete and not is_shooting

    # --- serving ---

    @once
    def is_fence_off(self) -> bool:
        """The fence device said that the other member is off, in this epoch."""
        fence = self.f.fence
        return fence.outcome is FenceOutcome.OFF and fence.epoch == self.epoch

    @property
    def outward_at(self) -> int:
        """From when on the loser of a vote must have stopped itself, had nobody else stopped it."""
        base = self.f.started_at if self.f.won_at is None else self.f.won_at
        return base + self.cfg.t_self + OUTWARD_MARGIN_NS

    @once
    def is_other_stopped(self) -> bool:
        """S5: the other member was stopped by force, handed over, knows better, or must have stopped itself."""
        if not self.cfg.has_peer or not self.is_alone:
            return True
        return (
            self.f.durable.stopped_epoch >= self.epoch
            or self.has_learned
            or self.is_fence_off
            or self.now >= self.outward_at
        )

    @property
    def may_open(self) -> bool:
        """I5: solo and not waiting for anybody; or paired, enforced, and the peer has all that we started with."""
        pg = self.pg
        if pg.state is not PgState.PRIMARY:
            return False
        if self.is_alone:
            return pg.enforced is False
        return pg.enforced is True and 0 < pg.start_lsn <= pg.peer_flush

    @once
    def is_serving(self) -> bool:
        """Clients are let in here."""
        if not (self.is_primary and self.pg.state is PgState.PRIMARY and self.f.gate is Gate.OPEN):
            return False
        if self.knows_newer or self.announces_handover:
            return False
        return self.is_alone or (self.pg.enforced is not False and not self.is_isolated)
