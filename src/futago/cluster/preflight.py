"""What is looked at before a member is brought back: room, disks, clocks, versions, networks, power devices, votes.

Lives here: the judgement on two reports, pure. Must not live here: collecting them (recovery.py). The idea: a pilot's
walk around the aeroplane. What only makes the flight uncomfortable is said (`warn`); what would end it in the air
keeps it on the ground (`bad`), with the one thing that a person has to repair.

Only what cannot work is bad. A wrong clock or a dead power device must not keep a pair from being whole again.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum

import msgspec

from futago.cluster.pgwatch import FREE_BYTES_MIN
from futago.cluster.rungs import SPARE_BYTES, Choice, Own, Rung, Source, megabytes
from futago.cluster.volume import Look

CLOCK_S_MAX = 1.0  # certificates and schedules bear more; a person should know of more
SYSTEM_BYTES_MIN = 64 << 20  # for logs, views, journals of messages


class Grade(StrEnum):
    """How a check went."""

    OK = "ok"
    WARN = "warn"
    BAD = "bad"


class Check(msgspec.Struct, frozen=True):
    """One thing that was looked at. `repair` says what a person must do; empty when nothing."""

    name: str
    member: str
    grade: Grade
    text: str
    repair: str = ""


class Report(msgspec.Struct, frozen=True):
    """What one member says of itself for a recovery.

    `source` is there on the serving primary, `own` elsewhere. `utc` is its wall clock, seconds since 1970.
    """

    member: str
    version: str
    utc: float
    pg: str  # PgState
    pg_version: int = 0  # of the programs that are installed
    data_bytes: int = 0  # what its data directory takes up
    volume: Look = Look()
    system_free: int = 0
    maintenance: bool = False
    own: Own | None = None
    source: Source | None = None


def checks(
    back: Report, source: Report, *, choice: Choice, clock_s: float | None, clock_error_s: float = 0.0
) -> tuple[Check, ...]:
    """Judge two reports.

    Args:
        back: of the member that comes back. source: of the one that serves.
        choice: the rung that will be tried last, which needs most.
        clock_s: how much the other's clock is ahead; None when not measured. clock_error_s: how unsure that is.
    """
    return tuple((*_versions(back, source), *_room(back, source, choice), *_clock(back, clock_s, clock_error_s)))


def _versions(back: Report, source: Report) -> Iterator[Check]:
    if back.pg_version and source.pg_version and back.pg_version != source.pg_version:
        text = f"PostgreSQL {back.pg_version} here, {source.pg_version} on {source.member}"
        repair = f"Install PostgreSQL {source.pg_version} on {back.member}."
        yield Check("database version", back.member, Grade.BAD, text, repair)
    if back.version != source.version:
        text = f"futago {back.version}, {source.version} on {source.member}"
        yield Check("version", back.member, Grade.WARN, text, "Install the same version on both members.")
    else:
        yield Check("version", back.member, Grade.OK, f"futago {back.version} on both members")


def _room(back: Report, source: Report, choice: Choice) -> Iterator[Check]:
    look = back.volume
    if look.problem:
        repair = f"Repair and mount the data volume of {back.member}; an empty file system will do."
        yield Check("data volume", back.member, Grade.BAD, look.problem, repair)
    else:
        yield _copy_room(back, choice)
    if look.suspect:
        yield Check("disk", back.member, Grade.WARN, f"it failed before: {look.suspect}; the copy will be read back")
    if back.system_free and back.system_free < SYSTEM_BYTES_MIN:
        text = f"the system disk has {megabytes(back.system_free)} left"
        yield Check("system disk", back.member, Grade.WARN, text, f"Make room on the system disk of {back.member}.")
    left = source.volume.free + source.volume.reserve
    if source.volume.total and left < FREE_BYTES_MIN:
        text = f"{megabytes(left)} left on the data volume"
        repair = f"Make room on the data volume of {source.member}."
        yield Check("room", source.member, Grade.BAD, text, repair)
    elif source.volume.total and left < SPARE_BYTES:
        yield Check("room", source.member, Grade.WARN, f"{megabytes(left)} left on the data volume", "Make room soon.")
    else:
        yield Check("room", source.member, Grade.OK, f"{megabytes(left)} free on the data volume")


def _copy_room(back: Report, choice: Choice) -> Check:
    """Room for what the rung brings: a copy beside the old data, or at least in their place."""
    look = back.volume
    free = look.free + (look.reserve if look.free < FREE_BYTES_MIN else 0)
    if choice.rung in (Rung.FOLLOW, Rung.REWIND):
        needed, could_free = FREE_BYTES_MIN, 0
    else:
        needed, could_free = choice.bytes_max + SPARE_BYTES, back.data_bytes
    if free >= needed:
        return Check("room", back.member, Grade.OK, f"{megabytes(free)} free, {megabytes(needed)} needed")
    if free + could_free >= needed:
        text = f"{megabytes(free)} free, {megabytes(needed)} needed: the old data are deleted before the copy is made"
        return Check("room", back.member, Grade.WARN, text)
    text = f"{megabytes(free)} free, {megabytes(needed)} needed"
    missing = megabytes(needed - free - could_free + (1 << 20))
    repair = f"Make {missing} of room on the data volume of {back.member}, or give it a larger one."
    return Check("room", back.member, Grade.BAD, text, repair)


def _clock(back: Report, clock_s: float | None, error_s: float) -> Iterator[Check]:
    if clock_s is None:
        return
    surely = max(0.0, abs(clock_s) - error_s)
    text = f"the members' clocks differ by {abs(clock_s):.1f} s (± {error_s:.1f} s)"
    if surely > CLOCK_S_MAX:
        yield Check("clock", back.member, Grade.WARN, text, "Let both members follow the same time servers.")
    else:
        yield Check("clock", back.member, Grade.OK, text)


def blocking(found: tuple[Check, ...]) -> Check | None:
    """Return the first check that keeps a recovery from beginning; None if nothing does."""
    return next((c for c in found if c.grade is Grade.BAD), None)
