"""What people and programs are told: the status, the role line, and the story of the last switch.

Lives here: turning facts into words and figures. Must not live here: judgement; every sentence comes from the
decision. The idea: the face of a clock. It is read by the CLI, the web pages and the tests alike, so its shape is a
contract.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import msgspec

from futago import __version__
from futago.cluster.fence.worker import Tested
from futago.cluster.model import Decision, Facts, FenceOutcome, Gate, PairState, PgState, View
from futago.cluster.pgwire import lsn_text
from futago.cluster.word import is_fit, is_safe_alone
from futago.runtime.clock import MS, S, now_utc
from futago.setup import thirdvote
from futago.setup.settings import Settings

Json = dict[str, Any]
STEPS_WITHIN = 60 * S  # steps later than this belong to something else
OFFER_WITHIN = 10 * S  # who offered the role and sees the other member have it later lost it otherwise
VOTES = ("T1", "T2", "T7p", "T7s", "F1", "F2")  # the rules by which somebody is found missing
STEPS = ("detected", "won", "fenced", "promoted", "gate", "address", "outward")


class Step(msgspec.Struct, frozen=True):
    """One step of a switch; `ms` counts from the last sign of life of the lost member, or from the request."""

    name: str
    ms: float


class Switch(msgspec.Struct):
    """The last change of who serves, or with whom."""

    kind: str
    epoch: int
    from_member: str = msgspec.field(name="from")
    to: str = ""
    utc: str = ""
    steps: list[Step] = []


@dataclass(slots=True)
class SwitchLog:
    """Watches facts go by and notes when each step of a switch was reached.

    Args:
        keep: called with the switch whenever it has grown, to write it down.
    """

    keep: Callable[[Switch], None]
    last: Switch | None = None
    _view: View | None = None
    _base: int = 0
    _detected_at: int = 0
    _offered_at: int = 0  # the peer offered the role
    _gave_at: int = 0  # this member offered it
    _reached: set[str] = field(default_factory=set)

    def note(self, facts: Facts, decision: Decision, now: int) -> None:
        """Look at one turn."""
        view = facts.durable.view
        if decision.rule.partition(".")[0] in VOTES and not self._detected_at:
            self._detected_at = now
            self._base = facts.peer.heard_at or now
        hb = facts.peer.heartbeat
        if hb is not None and hb.wants is not None and hb.wants.kind == "handover" and facts.peer.wants_since:
            self._offered_at = facts.peer.wants_since
        if facts.wants is not None and facts.wants.kind == "handover":
            self._gave_at = now  # it is over before the new view is here: the other member wins that
        if view is not None and view != self._view:
            self._begin(self._view, view, facts, now)
            self._view, self._detected_at = view, 0
        if self.last is not None and view is not None and self.last.epoch == view.epoch:
            self._advance(facts, decision, now)

    def _begin(self, before: View | None, after: View, facts: Facts, now: int) -> None:
        if before is None or not after.is_solo:
            return  # the first look, or the peer was added: the story of the last switch stays to be read
        me = facts.cfg.me
        if before.primary == after.primary:
            kind = "solo"
        elif (after.primary == me and (facts.won_at is not None or self._has_shot(facts))) or (
            after.primary != me and not (self._gave_at and now - self._gave_at < OFFER_WITHIN)
        ):
            kind = "failover"
        else:
            kind = "switchover"
            offered = self._offered_at if now - self._offered_at < STEPS_WITHIN else 0
            self._base = offered or facts.wants_since or facts.op.since or now
        if not self._detected_at and kind == "solo":
            self._base = facts.wants_since or now
        self._reached = set()
        self.last = Switch(kind, after.epoch, before.primary, after.primary, now_utc().isoformat())
        if after.primary == me:
            has_voted = kind != "switchover" and self._detected_at
            self._step("detected", self._detected_at if has_voted else self._base)
            self._step("won", now)
        self.keep(self.last)

    def _has_shot(self, facts: Facts) -> bool:
        """Was the view won by the fence, which needs nobody's consent and leaves no other trace?"""
        return facts.cfg.authority == "fence" and bool(self._detected_at)

    def _advance(self, facts: Facts, decision: Decision, now: int) -> None:
        if self.last is None or self.last.to != facts.cfg.me or now - self._base > STEPS_WITHIN:
            return
        fence = facts.fence
        reached = {
            "fenced": fence.outcome is FenceOutcome.OFF and fence.epoch == self.last.epoch,
            "promoted": facts.pg.state is PgState.PRIMARY,
            "gate": facts.gate is Gate.OPEN,
            "address": facts.address_held is True,
            "outward": decision.may_act_outward,
        }
        fresh = [name for name, is_so in reached.items() if is_so and name not in self._reached]
        for name in fresh:
            self._step(name, now)
        if fresh:
            self.keep(self.last)

    def _step(self, name: str, at: int) -> None:
        assert self.last is not None
        self._reached.add(name)
        self.last.steps.append(Step(name, round((at - self._base) / MS, 1)))


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What the status shows besides facts."""

    settings: Settings
    boot: str
    peer_program: str
    tested: dict[str, Tested]
    jurors: Sequence[tuple[str, bool, str]]
    journals: Json
    recovery: Json
    last_switch: Switch | None
    conflict: str
    address_error: str = ""
    disk_suspect: str = ""


def status(facts: Facts, decision: Decision, around: Surroundings, now: int) -> Json:
    """Return the status object."""
    view = facts.durable.view
    notes = list(decision.notes)
    if around.conflict:
        ip = around.settings.pair.floating_ip.partition("/")[0]
        notes.append(f"Another machine ({around.conflict}) answers for the floating IP {ip}: take it away from there.")
    if around.address_error:
        notes.append(f"The floating IP is not in order on {facts.cfg.me}: {around.address_error}.")
    notes += _fence_notes(around, now)
    if around.disk_suspect:
        notes.append(f"The data disk of {facts.cfg.me} said: {around.disk_suspect}.")
    return {
        "pair": around.settings.pair.name,
        "state": decision.state.value,
        "protected": decision.is_protected and not notes,
        "primary": None if view is None else view.primary,
        "epoch": 0 if view is None else view.epoch,
        "reason": decision.reason,
        "rule": decision.rule,
        "command": decision.command,
        "not_protected": notes,
        "members": _members(facts, decision, around, now),
        "links": [_link(x.name, x.rx_at, x.echo_at, facts, now) for x in facts.peer.links],
        "fences": [_fence(t, now) for t in around.tested.values()],
        "third_vote": _third_vote(facts, around, now),
        "journals": {
            "complete": facts.journals_complete,
            "own": around.journals.get("own", {}),
            "peer": around.journals.get("peer_copy", {}),
            "troubles": _journal_troubles(around.journals),
        },
        "last_switch": None if around.last_switch is None else msgspec.to_builtins(around.last_switch),
        "recovery": around.recovery,
        "maintenance": _is_maintained(facts),
        "utc": now_utc().isoformat(timespec="milliseconds"),
    }


def _journal_troubles(said: dict[str, Any]) -> list[str]:
    """Return what keeps the receiver here from its work, and what it found damaged, for people."""
    damaged, unbound = said.get("damaged") or 0, said.get("unbound") or []
    troubles = [f"{damaged} damaged {'place' if damaged == 1 else 'places'} on this disk"] if damaged else []
    troubles += ["the disk is full"] if said.get("full") else []
    troubles += [str(said["fault"])] if said.get("fault") else []
    troubles += [f"not served: {one}" for one in unbound]
    return troubles + ([f"intake.toml: {said['options_fault']}"] if said.get("options_fault") else [])


def _is_maintained(facts: Facts) -> bool:
    hb = facts.peer.heartbeat
    return facts.maintenance or (hb is not None and hb.maintenance)


def _members(facts: Facts, decision: Decision, around: Surroundings, now: int) -> list[Json]:
    rows = [_own_member(facts, decision, around)]
    if around.settings.peer is not None:
        rows.append(_peer_member(facts, around, now))
    return rows


def _own_member(facts: Facts, decision: Decision, around: Surroundings) -> Json:
    pg, hb = facts.pg, facts.peer.heartbeat
    lag = 0
    if pg.state is PgState.STANDBY and hb is not None:
        lag = max(0, hb.flush - pg.replay)
    return {
        "name": facts.cfg.me,
        "role": role_word(facts, decision),
        "reachable": True,
        "pg": pg.state.value,
        "timeline": pg.timeline,
        "flush_lsn": lsn_text(pg.flush),
        "replay_lag_bytes": lag,
        "gate": "open" if facts.gate is Gate.OPEN else "closed",
        "address": facts.address_held is True and around.settings.pair.has_address,
        "fit": is_fit(facts),
        "able": facts.durable.is_able,
        "boot": around.boot,
        "version": __version__,
    }


def _peer_member(facts: Facts, around: Surroundings, now: int) -> Json:
    hb, peer, view = facts.peer.heartbeat, facts.peer, facts.durable.view
    is_fresh = peer.heard_at is not None and now - peer.heard_at < facts.cfg.t_det and not peer.said_bye
    row: Json = {"name": facts.cfg.peer, "role": "unknown", "reachable": is_fresh, "pg": "unknown", "timeline": 0}
    row |= {"flush_lsn": "0/0", "replay_lag_bytes": 0, "gate": "closed", "address": False, "fit": False, "able": False}
    row |= {"boot": "", "version": around.peer_program}
    if hb is None or not is_fresh:
        return row
    newest = hb.view if hb.view is not None and (view is None or hb.view.epoch >= view.epoch) else view
    role = "none" if newest is None else "primary" if newest.primary == facts.cfg.peer else "standby"
    lag = max(0, facts.pg.flush - hb.replay) if hb.pg is PgState.STANDBY else 0
    return row | {
        "role": role,
        "pg": hb.pg.value,
        "timeline": hb.timeline,
        "flush_lsn": lsn_text(hb.flush),
        "replay_lag_bytes": lag,
        "gate": "open" if hb.gate_open else "closed",
        "address": hb.address_held and around.settings.pair.has_address,
        "fit": hb.is_fit,
        "able": hb.is_able,
        "boot": hb.boot,
    }


def _link(name: str, rx_at: int | None, echo_at: int | None, facts: Facts, now: int) -> Json:
    limit = facts.cfg.t_det
    is_up = rx_at is not None and echo_at is not None and now - rx_at < limit and now - echo_at < limit
    return {"name": name, "up": is_up, "last_heard_ms": None if rx_at is None else round((now - rx_at) / MS)}


def _fence(tested: Tested, now: int) -> Json:
    age = None if tested.at is None else round((now - tested.at) / S, 1)
    row = asdict(tested)
    return {
        "member": row["member"],
        "driver": row["driver"],
        "level": row["level"],
        "device": row["place"],
        "state": tested.state.value,
        "tested_ago_s": age,
        "ok": tested.is_fresh(now),
        "error": row["error"],
    }


def _fence_notes(around: Surroundings, now: int) -> list[str]:
    tested = [t for t in around.tested.values() if t.level]
    stoppable = {t.member for t in tested if t.is_fresh(now)}  # one device that works is enough
    return [
        f"The fence device of {t.member} cannot be used ({t.error or 'not tested yet'}): it could not be stopped by force."
        for t in tested
        if t.member not in stoppable
    ] + [
        f"The watchdog of {t.member} is not armed: {t.error}."
        for t in around.tested.values()
        if not t.level and t.error
    ]


def _third_vote(facts: Facts, around: Surroundings, now: int) -> Json:
    w, view = facts.register, facts.durable.view
    own = around.settings
    if not w.is_configured:
        return {"kind": "none", "version": own.roster, "ok": False, "epoch": 0, "knows_view": False, "jurors": []}
    is_fresh = w.contact_at is not None and now - w.contact_at < 5 * S
    knows = w.view is not None and view is not None and w.view.epoch >= view.epoch
    return {
        "kind": thirdvote.kind_of(own.third_vote, authority=own.pair.authority),
        "version": own.roster,
        "ok": is_fresh,
        "epoch": 0 if w.view is None else w.view.epoch,
        "knows_view": knows,
        "jurors": [{"name": name, "ok": ok, "error": error} for name, ok, error in around.jurors],
    }


def role_word(facts: Facts, decision: Decision) -> str:
    """Return this member's role: primary, standby or none."""
    view = facts.durable.view
    if view is None:
        return "none"
    if view.primary == facts.cfg.me:
        return "none" if decision.state is PairState.BLOCKED and not decision.is_serving else "primary"
    return "standby" if decision.state is not PairState.BLOCKED else "none"


def role_line(facts: Facts, decision: Decision, turn: int = 0) -> Json:
    """Return the line of the role stream. The gate counts as open only while the decision is to serve.

    `solo` says that what is safe here is safe (`is_safe_alone`): it ends before the other member is counted on again.
    `turn` tells that from an earlier time; the receiver says it back.
    """
    view = facts.durable.view
    is_open = facts.gate is Gate.OPEN and decision.is_serving
    return {
        "role": role_word(facts, decision),
        "epoch": 0 if view is None else view.epoch,
        "solo": is_safe_alone(facts),
        "turn": turn,
        "gate": "open" if is_open else "closed",
        "outward": decision.may_act_outward,
        "primary": None if view is None else view.primary,
        "view": None if view is None else {"epoch": view.epoch, "primary": view.primary, "insync": sorted(view.insync)},
    }
