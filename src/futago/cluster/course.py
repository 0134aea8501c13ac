"""A small pair in which things take their usual time: how a situation goes on, decided by the production `decide`.

Lives here: two members' facts, what their orders do to them and to each other, and the clock that connects them. Must
not live here: any rule. The idea: a sand table. The officers are the real ones, the terrain is simple. It is not the
simulator (futago.sim), which looks for mistakes with every quirk and chance there is; here everything goes as it
usually does, so that the answer is what an operator may expect. Pure and deterministic.

Times are those measured on two cores (docs/internals/cluster.md); a replay of a backlog, a crash recovery and the boot
of a machine are not played.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

from futago.cluster.decide import decide
from futago.cluster.model import (
    Action,
    AskPower,
    At,
    Cas,
    CasRegister,
    Decision,
    Enforce,
    Epoch,
    Facts,
    Fence,
    FenceOff,
    FenceOn,
    FenceOutcome,
    Gate,
    HoldAddress,
    KillPg,
    Link,
    Lsn,
    MemberName,
    NoteMet,
    PersistIntent,
    PersistStopped,
    PersistView,
    PgState,
    Promote,
    ReadRegister,
    SetGate,
    SetWants,
    StartPg,
    StopPg,
    View,
)
from futago.cluster.word import word

MS = 1_000_000
S = 1_000 * MS
TAKES: dict[type[object], int] = {
    PersistView: 5 * MS,
    PersistIntent: 5 * MS,
    PersistStopped: 5 * MS,
    ReadRegister: 15 * MS,
    CasRegister: 30 * MS,
    Promote: 150 * MS,
    StopPg: 230 * MS,
    KillPg: 50 * MS,
    StartPg: 800 * MS,
    SetGate: 20 * MS,
    HoldAddress: 5 * MS,
    FenceOff: 2 * S,
    FenceOn: 1 * S,
    AskPower: 300 * MS,
    NoteMet: 1 * MS,
}
UNENFORCE = 140 * MS
ENFORCE = 20 * MS
UNANSWERED = 2 * S  # after this a register or a device that does not answer is given up
QUIET = 15 * S  # the course has ended when nothing has changed for so long
HARD_STOP = 120 * S


@dataclass(frozen=True, slots=True)
class Turn:
    """A member's rule changed."""

    at: int
    member: MemberName
    rule: str
    text: str
    command: str


@dataclass(slots=True)
class Side:
    """One member, its surroundings and what it is doing."""

    facts: Facts
    is_up: bool = True
    dead_until: int = 0  # its controller is being started again until then
    has_third_vote: bool = True  # it reaches W
    has_device: bool = True  # the other member's fence device answers it
    has_clients: bool = True  # clients reach it
    has_system_disk: bool = True
    has_data_disk: bool = True
    can_be_killed: bool = True  # a database whose disk hangs is not
    under_way: dict[str, tuple[int, Action]] = field(default_factory=dict)
    decision: Decision | None = None
    rule: str = ""

    @property
    def name(self) -> MemberName:
        return self.facts.cfg.me

    def put(self, **changes: object) -> None:
        self.facts = replace(self.facts, **changes)  # type: ignore[arg-type]

    def put_pg(self, **changes: object) -> None:
        self.put(pg=replace(self.facts.pg, **changes))  # type: ignore[arg-type]

    def put_fence(self, **changes: object) -> None:
        self.put(fence=replace(self.facts.fence, **changes))  # type: ignore[arg-type]


class Course:
    """The two members from `now` on.

    Args:
        sides: one or two members; a peer that is not among them is not there at all.
        now: the instant of the failure, on a clock that both are taken to share.
        register: W's view, None if there is no W.
    """

    def __init__(self, sides: tuple[Side, ...], *, now: int, register: View | None) -> None:
        self.sides, self.began, self.now, self.register = sides, now, now, register
        self.links: dict[str, bool] = {"service": True, "heartbeat": True}
        self.turns: list[Turn] = []
        self.gaps: list[list[int]] = []  # when commits stopped, and when they went on
        self.later: list[tuple[int, Callable[[], None]]] = []  # what happens by itself: instants and changes
        self._beat_at = now
        self._moved_at = now

    # --- the clock ---

    def run(self, *, at_most: int = HARD_STOP) -> None:
        """Play until nothing changes any more."""
        ends = self.now + at_most
        while self.now < ends and self.now - self._moved_at < QUIET:
            self._happen()
            self._finish()
            if self.now >= self._beat_at:
                self._beat()
            self._stream()
            for side in self._living():
                self._decide(side)
            self._note_flow()
            self.now = max(self.now + MS, min(self._due(), ends))

    def _happen(self) -> None:
        due = [change for at, change in self.later if at <= self.now]
        self.later = [x for x in self.later if x[0] > self.now]
        for change in due:
            change()

    def _living(self) -> Iterator[Side]:
        return (s for s in self.sides if s.is_up and self.now >= s.dead_until)

    def _due(self) -> int:
        due = [self._beat_at, *(at for at, _ in self.later)]
        for side in self._living():
            due += [at for at, _ in side.under_way.values()]
            if side.decision is not None:
                due.append(side.decision.wake_at)
        return min(due)

    def other(self, side: Side) -> Side | None:
        """The other member, if it is there."""
        return next((s for s in self.sides if s is not side), None)

    # --- what members hear ---

    @property
    def is_connected(self) -> bool:
        return any(self.links.values())

    def _beat(self) -> None:
        self._beat_at = self.now + self.sides[0].facts.cfg.h
        for side in self._living():
            self._hear(side)

    def _hear(self, side: Side) -> None:
        other = self.other(side)
        if other is None or not self.is_connected or not other.is_up or self.now < other.dead_until:
            return
        before, said, now = side.facts.peer, replace(word(other.facts), boot="-"), At(self.now)
        is_new = before.heartbeat is None or before.heartbeat.wants != said.wants
        links = tuple(Link(n, now, now) if self.links.get(n, True) else Link(n) for n in self.links)
        is_unfit = not (said.is_fit and said.is_able)
        peer = replace(
            before,
            heartbeat=said,
            heard_at=now,
            links=links,
            unfit_since=(before.unfit_since or now) if is_unfit else None,
            wants_since=None if said.wants is None else now if is_new else before.wants_since,
        )
        side.put(peer=peer)

    def _stream(self) -> None:
        """The stream between the databases, and how long the primary has waited for it. Somebody is always writing."""
        for side in self.sides:
            pg, other = side.facts.pg, self.other(side)
            if pg.state is not PgState.PRIMARY or not side.is_up:
                continue
            streams = other is not None and self._follows(other, side)
            is_confirmed = streams and other is not None and other.has_data_disk
            since = None if is_confirmed or not (pg.enforced or streams) else pg.unconfirmed_since or At(self.now)
            flush = pg.flush if is_confirmed else pg.peer_flush
            side.put_pg(peer_is_streaming=streams, peer_flush=flush, unconfirmed_since=since)
            if other is not None:
                other.put_pg(is_streaming=streams and other.facts.pg.state is PgState.STANDBY)
        for side in self.sides:
            other = self.other(side)
            if other is not None and not side.facts.address_held and side.has_clients:
                side.put(address_answers=other.is_up and other.has_clients and other.facts.address_held is True)
            if side.facts.pg.state is PgState.STANDBY and (other is None or not self._follows(side, other)):
                side.put_pg(is_streaming=False)

    def _follows(self, standby: Side, primary: Side) -> bool:
        a, b = standby.facts.pg, primary.facts.pg
        is_running = a.state is PgState.STANDBY and b.state is PgState.PRIMARY
        return is_running and standby.is_up and primary.is_up and self.is_connected and a.timeline == b.timeline

    # --- what members do ---

    def _decide(self, side: Side) -> None:
        before = word(side.facts)
        side.decision = decision = decide(side.facts, self.now)
        if decision.rule != side.rule:
            side.rule, self._moved_at = decision.rule, self.now
            self.turns.append(Turn(self.now - self.began, side.name, decision.rule, decision.reason, decision.command))
        for action in decision.actions:
            self._begin(side, action)
        other = self.other(side)
        if word(side.facts) != before and other in list(self._living()) and other is not None:
            self._hear(other)

    def _begin(self, side: Side, action: Action) -> None:
        if isinstance(action, SetWants):
            if side.facts.wants != action.wants:
                side.put(wants=action.wants, wants_since=At(self.now))
            return
        takes = TAKES.get(type(action))
        if isinstance(action, Enforce):
            takes = ENFORCE if action.on else UNENFORCE
        if takes is None:  # the return of the other member is not played
            return
        key = _key(action)
        if key in side.under_way:
            return
        if isinstance(action, ReadRegister | CasRegister) and not side.has_third_vote:
            takes = UNANSWERED
        side.under_way[key] = (self.now + takes, action)
        self._mark_begun(side, action)

    def _mark_begun(self, side: Side, action: Action) -> None:
        now = At(self.now)
        match action:
            case PersistView() | PersistIntent():
                side.put(durable=replace(side.facts.durable, is_writing=True))
            case ReadRegister():
                side.put(register=replace(side.facts.register, is_pending=True, asked_at=now))
            case CasRegister(view=view):
                side.put(register=replace(side.facts.register, cas=Cas.PENDING, cas_epoch=view.epoch))
            case FenceOff(epoch=epoch):
                side.put(fence=Fence(is_configured=True, outcome=FenceOutcome.PENDING, epoch=epoch))
            case AskPower():
                side.put_fence(is_asking=True, asked_at=now)
            case StopPg():
                side.put_pg(state=PgState.STOPPING)
            case StartPg():
                side.put_pg(state=PgState.STARTING)
            case SetGate():
                side.put(gate=Gate.UNKNOWN)

    def _finish(self) -> None:
        for side in self._living():
            for key, (at, action) in list(side.under_way.items()):
                if at <= self.now:
                    del side.under_way[key]
                    self._end(side, action, at)

    def _end(self, side: Side, action: Action, at: int) -> None:
        match action:
            case PersistView() | PersistIntent() | PersistStopped():
                self._written(side, action)
            case ReadRegister() | CasRegister():
                self._answered(side, action, At(at - TAKES[type(action)]))
            case FenceOff() | FenceOn() | AskPower():
                self._powered(side, action)
            case SetGate(open=is_open):
                side.put(gate=Gate.OPEN if is_open else Gate.CLOSED)
            case HoldAddress(hold=is_held):
                side.put(address_held=is_held)
            case NoteMet(epoch=epoch):
                side.put(met_epoch=epoch)
            case _:
                self._database(side, action)

    def _written(self, side: Side, action: PersistView | PersistIntent | PersistStopped) -> None:
        durable = side.facts.durable
        if not side.has_system_disk:
            side.put(durable=replace(durable, is_able=False, is_writing=False))
            return
        match action:
            case PersistView(view=view, stopped=stopped):
                is_won = view.primary == side.name and view.is_solo and not stopped
                intent = Epoch(0) if durable.intent <= view.epoch else durable.intent
                stopped_epoch = view.epoch if stopped else durable.stopped_epoch
                after = replace(durable, view=view, intent=intent, stopped_epoch=stopped_epoch, is_writing=False)
                side.put(durable=after, won_at=At(self.now) if is_won else None)
            case PersistIntent(epoch=epoch):
                side.put(durable=replace(durable, intent=epoch, is_writing=False))
            case PersistStopped(epoch=epoch):
                side.put(durable=replace(durable, stopped_epoch=epoch))

    def _answered(self, side: Side, action: ReadRegister | CasRegister, began: At) -> None:
        register, has_answer = side.facts.register, side.has_third_vote
        if isinstance(action, ReadRegister):
            known = replace(register, view=self.register, read_at=began, contact_at=began) if has_answer else register
            side.put(register=replace(known, is_pending=False))
            return
        view, outcome = action.view, Cas.UNKNOWN
        if has_answer:
            is_ours = self.register is None or self.register.epoch < view.epoch or self.register == view
            outcome = Cas.DONE if is_ours else Cas.REFUSED
            self.register = view if is_ours else self.register
            register = replace(register, view=self.register, contact_at=began)
        side.put(register=replace(register, cas=outcome, cas_epoch=view.epoch, cas_at=At(self.now)))

    def _powered(self, side: Side, action: FenceOff | FenceOn | AskPower) -> None:
        other, now = self.other(side), At(self.now)
        match action:
            case FenceOff() if side.has_device:
                if other is not None:
                    other.is_up = False
                side.put_fence(outcome=FenceOutcome.OFF, at=now)
            case FenceOff():
                side.put_fence(outcome=FenceOutcome.UNKNOWN, at=now)
            case FenceOn():
                side.put_fence(is_powered_on_again=True)
            case AskPower():
                asked_at = side.facts.fence.asked_at
                has_power = (other is not None and other.is_up) if side.has_device else None
                power_at = asked_at if side.has_device else side.facts.fence.power_at
                side.put_fence(is_asking=False, has_power=has_power, power_at=power_at)

    def _database(self, side: Side, action: Action) -> None:
        pg = side.facts.pg
        match action:
            case Enforce(on=is_on) if pg.state is PgState.PRIMARY:
                side.put_pg(enforced=is_on)
            case Promote() if pg.state is PgState.STANDBY:
                primary = {"state": PgState.PRIMARY, "enforced": False, "has_standby_signal": False}
                side.put_pg(**primary, timeline=pg.timeline + 1, start_lsn=pg.flush, is_streaming=False)
            case StopPg() | KillPg() if side.can_be_killed:
                side.put_pg(state=PgState.STOPPED, enforced=None, is_streaming=False)
            case StopPg() | KillPg():
                side.put_pg(state=PgState.HUNG)
            case StartPg(as_standby=as_standby, enforced=enforced):
                if not side.has_data_disk:
                    side.put_pg(state=PgState.DIED)
                elif as_standby:
                    side.put_pg(state=PgState.STANDBY, has_standby_signal=True)
                else:
                    start = Lsn(max(1, pg.flush))
                    side.put_pg(state=PgState.PRIMARY, enforced=enforced, start_lsn=start, flush=start)

    # --- what clients see ---

    def _note_flow(self) -> None:
        is_flowing = self.serving() is not None
        if not is_flowing and (not self.gaps or self.gaps[-1][1]):
            self.gaps.append([self.now, 0])
            self._moved_at = self.now
        elif is_flowing and self.gaps and not self.gaps[-1][1]:
            self.gaps[-1][1] = self.now
            self._moved_at = self.now

    def serving(self) -> Side | None:
        """The member at which a commit would be acknowledged now, None if there is none."""
        return next((s for s in self.sides if self._acknowledges(s)), None)

    def _acknowledges(self, side: Side) -> bool:
        f, other = side.facts, self.other(side)
        is_open = side.is_up and f.gate is Gate.OPEN and f.address_held is True and side.has_clients
        if not is_open or f.pg.state is not PgState.PRIMARY or not side.has_data_disk or not f.manager_ok:
            return False
        return f.pg.enforced is False or (other is not None and self._follows(other, side) and other.has_data_disk)

    @property
    def pause(self) -> int | None:
        """How long in all no commit was acknowledged; None if that has not ended."""
        if any(not end for _, end in self.gaps):
            return None
        return sum(end - start for start, end in self.gaps)


_KEYS: dict[type[object], str] = {
    PersistView: "disk",
    PersistIntent: "disk",
    PersistStopped: "disk",
    StartPg: "database",
    StopPg: "database",
    KillPg: "database",
    Promote: "database",
}


def _key(action: Action) -> str:
    return _KEYS.get(type(action), type(action).__name__)
