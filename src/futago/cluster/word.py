"""What a member says of itself, to the other one and to its own programs. Pure: a judgement of its own facts, and nothing else."""

from __future__ import annotations

from futago.cluster.model import Facts, Gate, Heartbeat, Lsn, PgState


def is_fit(facts: Facts) -> bool:
    """In its own judgement, could this member serve as primary now?"""
    pg = facts.pg
    is_running = pg.state in (PgState.PRIMARY, PgState.STANDBY)
    has_view = facts.durable.view is not None
    return has_view and facts.durable.is_able and pg.is_disk_well and is_running and not facts.is_leaving


def is_safe_alone(facts: Facts) -> bool:
    """Is what is on this member's disk safe, whatever the other one has?

    Under a durable solo view; until commits wait for the other member again (T5 has begun), and not while another view is
    being written or may have been: that one may count on the other member, and its write may land at any moment, also
    after the database that waited has died.
    """
    view = facts.durable.view
    return view is not None and view.is_solo and facts.pg.enforced is not True and not facts.durable.is_writing


def word(facts: Facts) -> Heartbeat:
    """Return what this member says of itself to the other; the sender fills in its boot and the sequence."""
    pg, durable = facts.pg, facts.durable
    return Heartbeat(
        member=facts.cfg.me,
        boot="",
        seq=0,
        view=durable.view,
        intent=durable.intent,
        is_able=durable.is_able,
        pg=pg.state,
        timeline=pg.timeline,
        flush=Lsn(pg.flush),
        replay=Lsn(pg.replay),
        is_streaming=pg.is_streaming,
        is_disk_ok=pg.is_disk_ok,
        gate_open=facts.gate is not Gate.CLOSED,
        address_held=facts.address_held is not False,
        wants=facts.wants,
        journals_complete=facts.journals_complete,
        is_fit=is_fit(facts),
        service_ok=facts.service_ok,
        maintenance=facts.maintenance,
        is_leaving=facts.is_leaving,
        authority=facts.cfg.authority,
        is_suspect=pg.is_suspect,
        manager_ok=facts.manager_ok,
    )
