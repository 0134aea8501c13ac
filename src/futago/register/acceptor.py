"""One juror's rules: a pure function from what it holds and a request to what it then holds and its answer.

No storage and no network here. The driver (agent/juror.py) must make the new state durable before it sends the reply;
when the state is unchanged (the same object) there is nothing to write. A juror that cannot write answers
`unable(request)` and keeps its old state.
"""

from __future__ import annotations

import msgspec

from futago.register.model import (
    Accept,
    Accepted,
    AcceptorState,
    Held,
    Prepare,
    Promise,
    Query,
    Reject,
    RejectReason,
    Reply,
    Request,
)


def handle(state: AcceptorState, request: Request) -> tuple[AcceptorState, Reply]:
    """Answer one request.

    Args:
        state: what the juror holds, durable.
        request: from an authenticated member of the pair.

    Returns:
        The state that must be durable before the reply leaves (the same object if nothing changed), and the reply.
    """
    refusal = _refuse(state, request)
    if refusal is not None:
        return state, refusal
    match request:
        case Query():
            return state, Held(
                serial=request.serial, promised=state.promised, accepted=state.accepted, value=state.value
            )
        case Prepare():
            after = _see_roster(state, request.to.roster)
            if request.ballot > state.promised:
                after = msgspec.structs.replace(after, promised=request.ballot)
            return after, Promise(
                serial=request.serial, ballot=request.ballot, accepted=state.accepted, value=state.value
            )
        case Accept():
            if request.ballot == state.accepted:  # repeated by the network: already held, under this very ballot
                return state, Accepted(serial=request.serial, ballot=request.ballot)
            after = _see_roster(state, max(request.to.roster, request.value.roster))
            after = msgspec.structs.replace(
                after, promised=request.ballot, accepted=request.ballot, value=request.value
            )
            return after, Accepted(serial=request.serial, ballot=request.ballot)


def unable(request: Request) -> Reject:
    """Return the answer of a juror that cannot write its file."""
    return Reject(serial=request.serial, reason=RejectReason.UNABLE)


def _refuse(state: AcceptorState, request: Request) -> Reject | None:
    to = request.to
    if to.pair_id != state.pair_id:
        return Reject(serial=request.serial, reason=RejectReason.WRONG_PAIR)
    if to.acceptor_id != state.acceptor_id:
        return Reject(serial=request.serial, reason=RejectReason.WRONG_ACCEPTOR)
    if to.roster < state.roster:
        return Reject(serial=request.serial, reason=RejectReason.OLD_ROSTER, roster=state.roster)
    if isinstance(request, Prepare | Accept) and request.ballot < state.promised:
        return Reject(serial=request.serial, reason=RejectReason.BALLOT, promised=state.promised)
    return None


def _see_roster(state: AcceptorState, roster: int) -> AcceptorState:
    return state if roster <= state.roster else msgspec.structs.replace(state, roster=roster)
