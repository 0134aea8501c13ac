"""What would happen if something failed now: the pair as it is, with one thing broken, played through to the end.

Lives here: both members' facts made from one's own, what each failure breaks, and the answer in sentences. Must not
live here: rules (decide.py) and the clock of the play (course.py). The idea: a fire drill on paper. The answer is as
good as what this member knows: of the other one it knows what that one says of itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

from futago.cluster.course import MS, Course, S, Side, Turn
from futago.cluster.explain import Answer, Failure, Outcome, Step
from futago.cluster.model import (
    At,
    Durable,
    Facts,
    Fence,
    Gate,
    Link,
    Lsn,
    MemberName,
    Op,
    Peer,
    Pg,
    PgState,
    Register,
    Rejoin,
    View,
)
from futago.cluster.situation import OUTWARD_MARGIN_NS, Situation

DISK = 500 * MS  # a disk that fails is noticed by the next write of the watchman
MANAGER_RESTART = 2 * S  # its controller has it started again
RESTART = 500 * MS  # systemd starts a controller again, and it loads
LONG_AGO = 600 * S
STEPS_MAX = 12
_NOTHING_LOST = "Nothing that was acknowledged is lost."

_TITLES = {
    Failure.PRIMARY_POWER: "{primary}, the primary, loses its power.",
    Failure.STANDBY_POWER: "{standby} loses its power.",
    Failure.BOTH_POWER: "Both machines lose their power.",
    Failure.PEER_NETWORK: "Every network between the two machines is cut; each of them reaches everybody else.",
    Failure.PRIMARY_NETWORK: "{primary}, the primary, loses all of its networks.",
    Failure.HEARTBEAT_NETWORK: "The heartbeat network fails; the service network is alive.",
    Failure.THIRD_VOTE: "The third vote does not answer any more.",
    Failure.PRIMARY_FENCE: "The fence device of {primary}, the primary, dies.",
    Failure.STANDBY_FENCE: "The fence device of {standby} dies.",
    Failure.POSTGRESQL: "PostgreSQL on {primary}, the primary, dies.",
    Failure.MANAGER: "The manager on {primary}, the primary, does not answer any more.",
    Failure.CONTROLLER: "The controller on {primary}, the primary, dies.",
    Failure.PRIMARY_DISK: "The data volume of {primary}, the primary, takes no more writes.",
    Failure.STANDBY_DISK: "The data volume of {standby} takes no more writes.",
}


# --- the pair as it is ---


def sides_of(facts: Facts, now: int) -> tuple[Side, ...]:
    """Return this member, and the other one as far as it is heard."""
    quiet = replace(facts, op=Op(), wants=None, rejoin=Rejoin())
    own = Side(replace(quiet, register=_settled(quiet.register)))
    s = Situation(facts, now)
    if not facts.cfg.has_peer or not s.talks or s.hb is None:
        return (own,)
    return (own, Side(mirror(facts, now)))


def _settled(register: Register) -> Register:
    return replace(register, is_pending=False)


def mirror(facts: Facts, now: int) -> Facts:
    """Return the other member's facts, from what it says of itself and what is the same for both.

    Taken for granted: it reaches the third vote as we do, has a fence device for us if we have one for it, and has met
    us in this boot if we have met it.
    """
    hb, cfg, pg = facts.peer.heartbeat, facts.cfg, facts.pg
    assert hb is not None
    is_primary = hb.pg is PgState.PRIMARY
    is_paired = hb.view is not None and not hb.view.is_solo
    own_pg = Pg(
        state=hb.pg,
        timeline=hb.timeline,
        flush=hb.flush,
        replay=hb.replay,
        start_lsn=Lsn(1) if is_primary else Lsn(0),
        is_streaming=hb.is_streaming,
        peer_is_streaming=is_primary and pg.is_streaming,
        peer_flush=pg.flush if is_primary else Lsn(0),
        enforced=is_paired if is_primary else None,
        is_disk_ok=hb.is_disk_ok,
        is_suspect=hb.is_suspect,
        has_standby_signal=hb.pg is PgState.STANDBY,
    )
    links = tuple(Link(x.name, At(now), At(now)) for x in facts.peer.links)
    stopped = hb.view.epoch if hb.view is not None else facts.durable.stopped_epoch
    return Facts(
        cfg=replace(cfg, me=cfg.peer, peer=cfg.me),
        durable=Durable(view=hb.view, intent=hb.intent, stopped_epoch=stopped, is_able=hb.is_able),
        peer=Peer(heard_at=At(now), watching_since=At(now - LONG_AGO), links=links),
        register=_settled(facts.register),
        pg=own_pg,
        gate=Gate.OPEN if hb.gate_open else Gate.CLOSED,
        address_held=hb.address_held,
        fence=Fence(is_configured=facts.fence.is_configured, has_power=facts.fence.has_power, power_at=At(now)),
        journals_complete=hb.journals_complete,
        service_ok=hb.service_ok,
        maintenance=hb.maintenance or facts.maintenance,
        started_at=At(now - LONG_AGO),
        met_epoch=facts.met_epoch,
    )


def booted(side: Side, at: int) -> Side:
    """Return a member as it is when it has just booted: its disks, and nothing else."""
    f = side.facts
    pg = replace(Pg(), state=PgState.STOPPED, flush=f.pg.flush, has_standby_signal=f.pg.state is PgState.STANDBY)
    fresh = Facts(
        cfg=f.cfg,
        durable=replace(f.durable, is_writing=False),
        peer=Peer(watching_since=At(at)),
        register=Register(is_configured=f.register.is_configured),
        pg=replace(pg, timeline=f.pg.timeline),
        fence=Fence(is_configured=f.fence.is_configured),
        maintenance=f.maintenance,
        started_at=At(at),
    )
    return Side(fresh, has_third_vote=side.has_third_vote, has_device=side.has_device)


# --- what breaks ---


class _Play:
    """The pair, the roles in it, and the one failure."""

    def __init__(self, facts: Facts, now: int, failure: Failure) -> None:
        self.facts, self.now, self.failure = facts, now, failure
        sides = sides_of(facts, now)
        view = Situation(facts, now).newest
        name = view.primary if view is not None else facts.cfg.me
        self.primary_name = name
        self.standby_name = MemberName(facts.cfg.peer if name == facts.cfg.me else facts.cfg.me)
        self.primary = next((s for s in sides if s.name == name), None)
        self.standby = next((s for s in sides if s.name != name), None)
        self.course = Course(sides, now=now, register=facts.register.view)
        self.was_serving = self.course.serving()
        self.view: View | None = None if self.primary is None else self.primary.facts.durable.view
        self.title = _TITLES[failure].format(primary=name, standby=self.standby_name or "the standby")


def _power(side: Side | None) -> str:
    if side is None or not side.is_up:
        return "It is not heard now, so nothing changes by that."
    side.is_up = False
    return ""


def _disk(p: _Play, side: Side | None) -> str:
    if side is None:
        return "It is not heard now, so nothing changes by that."
    side.has_data_disk = False
    p.course.later.append((p.now + DISK, lambda: side.put_pg(is_disk_ok=False)))
    return ""


def _break_peer_network(p: _Play) -> str:
    if p.standby is None or p.primary is None:
        return "The two do not hear each other already."
    p.course.links = dict.fromkeys(p.course.links, False)
    return ""


def _break_primary_network(p: _Play) -> str:
    if p.primary is None:
        return "It is not heard now, so nothing changes by that."
    p.course.links = dict.fromkeys(p.course.links, False)
    p.primary.has_third_vote = p.primary.has_device = p.primary.has_clients = False
    return ""


def _break_heartbeat(p: _Play) -> str:
    if len(p.facts.peer.links) < 2:
        return "There is no second network between the two."
    p.course.links["heartbeat"] = False
    return ""


def _break_third_vote(p: _Play) -> str:
    if not p.facts.register.is_configured:
        return "There is no third vote besides the members and their fence devices."
    for side in p.course.sides:
        side.has_third_vote = False
    return ""


def _break_device_of(p: _Play, name: MemberName) -> str:
    if not p.facts.fence.is_configured:
        return "No fence device is known for it."
    for side in p.course.sides:
        if side.name != name:
            side.has_device = False
    return ""


def _break_postgres(p: _Play) -> str:
    if p.primary is None:
        return "The primary is not heard now, so nothing changes by that."
    p.primary.put_pg(state=PgState.DIED, enforced=None)
    return ""


def _break_manager(p: _Play) -> str:
    if p.primary is None:
        return "The primary is not heard now, so nothing changes by that."
    side = p.primary
    side.put(manager_ok=False)
    p.course.later.append((p.now + MANAGER_RESTART, lambda: side.put(manager_ok=True)))
    return ""


def _break_controller(p: _Play) -> str:
    """It is started again and adopts what runs; what it knew of others is gone, but for the notes on tmpfs."""
    side = p.primary
    if side is None:
        return "The primary is not heard now, so nothing changes by that."
    back_at = At(p.now + RESTART)
    side.dead_until = back_at
    register = Register(is_configured=side.facts.register.is_configured)
    fence = Fence(is_configured=side.facts.fence.is_configured)
    peer = Peer(watching_since=back_at)
    side.put(peer=peer, register=register, fence=fence, started_at=back_at, contact_before=At(p.now))
    return ""


def _break_both(p: _Play) -> str:
    for side in p.course.sides:
        side.is_up = False
    return ""


_BREAKS: dict[Failure, Callable[[_Play], str]] = {
    Failure.PRIMARY_POWER: lambda p: _power(p.primary),
    Failure.STANDBY_POWER: lambda p: _power(p.standby),
    Failure.BOTH_POWER: _break_both,
    Failure.PEER_NETWORK: _break_peer_network,
    Failure.PRIMARY_NETWORK: _break_primary_network,
    Failure.HEARTBEAT_NETWORK: _break_heartbeat,
    Failure.THIRD_VOTE: _break_third_vote,
    Failure.PRIMARY_FENCE: lambda p: _break_device_of(p, p.primary_name),
    Failure.STANDBY_FENCE: lambda p: _break_device_of(p, p.standby_name),
    Failure.POSTGRESQL: _break_postgres,
    Failure.MANAGER: _break_manager,
    Failure.CONTROLLER: _break_controller,
    Failure.PRIMARY_DISK: lambda p: _disk(p, p.primary),
    Failure.STANDBY_DISK: lambda p: _disk(p, p.standby),
}


# --- the answer ---


def answer(facts: Facts, now: int, failure: Failure) -> Answer:
    """Return what would happen; see explain.what_if."""
    p = _Play(facts, now, failure)
    needs_peer = failure in (Failure.STANDBY_POWER, Failure.STANDBY_DISK, Failure.STANDBY_FENCE, Failure.PEER_NETWORK)
    excuse = "There is no second member." if needs_peer and not facts.cfg.has_peer else _BREAKS[failure](p)
    if excuse:
        return Answer(failure, p.title, Outcome.DOES_NOT_APPLY, _name(p.was_serving), 0, _NOTHING_LOST, (excuse,))
    if failure is Failure.BOTH_POWER:
        return _answer_both(p)
    p.course.run()
    ends = p.course.serving()
    pause = p.course.pause
    outcome = _outcome(p, ends, pause)
    last = _last_turn(p)
    command = last.command if last is not None and outcome is Outcome.STOPS else ""
    steps = tuple(Step(round(t.at / MS), t.member, t.rule, t.text) for t in _story(p))
    return Answer(
        failure=failure,
        title=p.title,
        outcome=outcome,
        serves=_name(ends),
        pause_ms=None if pause is None else round(pause / MS),
        lost=_lost(p, outcome),
        sentences=tuple(_sentences(p, outcome, ends, pause)),
        steps=steps,
        command=command,
    )


def _name(side: Side | None) -> MemberName | None:
    return None if side is None else side.name


def _outcome(p: _Play, ends: Side | None, pause: int | None) -> Outcome:
    if ends is None or pause is None:
        return Outcome.STOPS
    if ends.name != (p.primary_name if p.was_serving is None else p.was_serving.name):
        return Outcome.SWITCHES
    return Outcome.PAUSES if pause else Outcome.GOES_ON


def _story(p: _Play) -> Iterator[Turn]:
    """The turns of the members that still decide; the resting state at the beginning is no news."""
    count = 0
    for turn in p.course.turns:
        if turn.at == 0 and turn.rule in ("P7.serve", "B7.follow", "S9.no-peer", "S10.peer-silent", "S11.serve"):
            continue
        count += 1
        if count <= STEPS_MAX:
            yield turn


def _last_turn(p: _Play) -> Turn | None:
    """The last word of a member that is up; of the one that is blocked, if one is."""
    live = {s.name for s in p.course.sides if s.is_up}
    turns = {t.member: t for t in p.course.turns if t.member in live}
    blocked = [t for t in turns.values() if t.command]
    told = blocked or list(turns.values())
    return told[-1] if told else None


def _sentences(p: _Play, outcome: Outcome, ends: Side | None, pause: int | None) -> Iterator[str]:
    yield p.title
    if p.was_serving is None:
        yield "Nobody serves now, before anything else fails."
    match outcome:
        case Outcome.GOES_ON:
            yield f"{_name(ends)} goes on serving; clients notice nothing."
        case Outcome.PAUSES:
            yield f"Commits wait for about {_seconds(pause)}, then {_name(ends)} goes on."
        case Outcome.SWITCHES:
            yield f"{_name(ends)} takes over: about {_seconds(pause)} from the failure to the next acknowledged write."
        case _ if any(s.decision is not None and s.decision.is_serving and not s.has_clients for s in p.course.sides):
            yield f"{p.primary_name} goes on, but no client reaches it, and nobody else has all data."
        case _:
            last = _last_turn(p)
            yield "Nobody serves until this is mended" + (f": {last.text} [{last.rule}]" if last else ".")
    yield _lost(p, outcome)
    yield from _afterwards(p, outcome, ends)


def _seconds(ns: int | None) -> str:
    return f"{(ns or 0) / S:.1f} s"


def _lost(p: _Play, outcome: Outcome) -> str:
    is_alone = p.view is not None and p.view.is_solo
    if p.failure is Failure.PRIMARY_DISK and is_alone:
        return (
            f"Since view {p.view.epoch if p.view else 0} every write is on the disk of {p.primary_name} only: what was "
            "acknowledged since is lost if that disk cannot be read again."
        )
    return _NOTHING_LOST


def _afterwards(p: _Play, outcome: Outcome, ends: Side | None) -> Iterator[str]:
    cfg, fence = p.facts.cfg, p.facts.fence
    decision = None if ends is None else ends.decision
    view = None if ends is None else ends.facts.durable.view
    if decision is not None and outcome is not Outcome.STOPS and not decision.is_protected:
        if view is not None and view.is_solo and cfg.has_peer:
            yield f"From then on every write is on the disk of {_name(ends)} only, until the other member is back."
        else:
            yield "The pair is whole, but not protected against the next failure:"
            yield from decision.notes
    yield from _without_device(p)
    if p.failure in (Failure.PRIMARY_POWER, Failure.STANDBY_POWER) and cfg.has_peer:
        lost = p.primary_name if p.failure is Failure.PRIMARY_POWER else p.standby_name
        if cfg.recovery == "auto" and cfg.fence_after == "on" and fence.is_configured:
            yield f"{lost} is powered on again through its fence device, if that answers, and comes back by itself."
        elif cfg.recovery == "auto":
            yield f"{lost} comes back by itself when somebody powers it on."
        else:
            yield f"{lost} is brought back by `futago recover`, which the settings leave to an operator."
        if cfg.authority == "fence":
            yield (
                f"If the fence device of {lost} loses its power with it, nobody can tell that {lost} is off: then the pair "
                "is blocked until somebody has looked and runs `futago force-primary`."
            )


def _without_device(p: _Play) -> Iterator[str]:
    """What the loss of a device, or of the third vote, means for the failure after it."""
    cfg = p.facts.cfg
    if p.view is None or p.view.is_solo or p.standby is None:
        return  # there is nobody who could take over
    if p.failure is Failure.THIRD_VOTE and p.was_serving is not None:
        yield "Until it answers again nobody takes over from a silent member; what both members agree on goes on working."
    if p.failure not in (Failure.PRIMARY_FENCE, Failure.STANDBY_FENCE):
        return
    is_primarys = p.failure is Failure.PRIMARY_FENCE
    owner, winner = (p.primary_name, p.standby_name) if is_primarys else (p.standby_name, p.primary_name)
    if cfg.authority == "fence":
        yield f"Until it answers again {winner} cannot go on without {owner}: nothing else proves that {owner} is off."
    elif is_primarys:
        late = (cfg.t_self + OUTWARD_MARGIN_NS) / S
        yield (
            f"If {owner} then fails, {winner} takes over all the same, and acts outward only {late:.1f} s after it has won: "
            f"by then {owner} has stopped itself."
        )
    else:
        yield f"Nothing depends on it as long as {winner} serves; {owner} cannot be powered on from here."


def _answer_both(p: _Play) -> Answer:
    """Nobody serves while both are off; what follows depends on who comes back."""
    sentences = [p.title, "Nobody serves while both are off.", _NOTHING_LOST]
    serves: MemberName | None = None
    command = ""
    at = p.now + 60 * S
    sets = [tuple(p.course.sides), *((s,) for s in p.course.sides if len(p.course.sides) > 1)]
    for chosen in sets:
        course = Course(tuple(booted(s, at) for s in chosen), now=at, register=p.course.register)
        course.run()
        ends = course.serving()
        who = "both come back" if len(chosen) > 1 else f"only {chosen[0].name} comes back"
        if ends is not None:
            first = course.gaps[-1][1] - at if course.gaps else 0
            sentences.append(
                f"If {who}: {ends.name} serves, about {_seconds(first)} after the controllers have started."
            )
            serves = serves or ends.name
        else:
            last = course.turns[-1]
            sentences.append(f"If {who}: {last.text} [{last.rule}]")
            command = command or last.command
    return Answer(p.failure, p.title, Outcome.STOPS, serves, None, _NOTHING_LOST, tuple(sentences), command=command)
