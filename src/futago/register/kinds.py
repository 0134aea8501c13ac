"""Which register the settings name, and what a kind is asked before it is seated.

A kind is a row here, its settings a row in setup/thirdvote.py.
"""

from __future__ import annotations

import asyncio
import secrets
import ssl
from dataclasses import dataclass
from pathlib import Path

import msgspec

from futago.register import jury as jury_room
from futago.register.cell import Cell, CellRegister
from futago.register.compare import Seat
from futago.register.etcd import EtcdCell
from futago.register.http import HttpPlace
from futago.register.memory import Memory
from futago.register.model import Value
from futago.register.objectstore import ObjectCell
from futago.register.port import Health, Register
from futago.register.sigv4 import Key
from futago.runtime.faults import Refused
from futago.runtime.log import Log
from futago.setup import thirdvote
from futago.setup.settings import Settings
from futago.setup.thirdvote import ETCD, JURY, OBJECTSTORE, WITNESS, ThirdVote

PROVE_S_MAX = 5.0
READ_S = {ETCD: 1.0, OBJECTSTORE: 2.0}
PUT_S = {ETCD: 1.5, OBJECTSTORE: 3.0}


def register_of(settings: Settings, *, context: ssl.SSLContext, memory: Memory, log: Log) -> Register | None:
    """Return the register that the settings name; None if none is seated.

    Args:
        context: of this member, for jurors.

    Raises:
        Refused: a file that the settings name cannot be used.
    """
    kind = thirdvote.kind_of(settings.third_vote, authority=settings.pair.authority)
    if kind in (JURY, WITNESS):
        if not settings.jurors:
            return None
        return jury_room.jury_of(settings, kind=kind, context=context, memory=memory, log=log)
    if kind in (ETCD, OBJECTSTORE) and settings.third_vote.seat:
        return cell_register(settings, kind, memory=memory)
    return None


def cell_register(settings: Settings, kind: str, *, memory: Memory) -> CellRegister:
    """Return the register in one cell. Raises Refused as `register_of` does."""
    vote = settings.third_vote
    return CellRegister(
        cell_of(vote, pair_id=settings.pair.id, kind=kind),
        kind=kind,
        seat=Seat(settings.pair.id, vote.seat, settings.roster),
        me=settings.me,
        memory=memory,
        read_s=READ_S[kind],
        put_s=PUT_S[kind],
    )


def cell_of(vote: ThirdVote, *, pair_id: str, kind: str) -> Cell:
    """Return the cell that the settings name; nothing is asked yet. Raises Refused."""
    context = _https(vote)
    secret = _secret(vote.password_file)
    if kind == ETCD:
        key = f"{vote.prefix}/{pair_id}/view"
        return EtcdCell(vote.endpoints, key=key, context=context, user=vote.user, password=secret)
    place = HttpPlace(vote.endpoints[0], context=context)
    name = f"{vote.prefix}/{pair_id}/view.json"
    return ObjectCell(place, bucket=vote.bucket, name=name, key=Key(vote.user, secret, vote.region))


class Unusable:
    """A register that the settings name and that cannot be used, as when a file is missing: it answers nothing.

    Args:
        why: in words.
    """

    def __init__(self, kind: str, *, version: int, why: str) -> None:
        self._kind, self._version, self._why = kind, version, why

    @property
    def kind(self) -> str:
        return self._kind

    @property
    def version(self) -> int:
        return self._version

    async def run(self) -> None:
        await asyncio.Event().wait()

    async def read(self) -> Value | None:
        raise Refused(self._why)

    async def put(self, value: Value) -> tuple[bool, Value | None]:
        raise Refused(self._why)

    async def seat(self, value: Value) -> tuple[bool, Value | None]:
        raise Refused(self._why)

    def retire(self) -> bool:
        return True

    def health(self, now: int) -> list[Health]:
        return [Health(self._kind, False, self._why)]

    def heard_at(self) -> int:
        return 0


def usable_or_not(settings: Settings, *, context: ssl.SSLContext, memory: Memory, log: Log) -> Register | None:
    """As `register_of`; what cannot be used is a register that answers nothing."""
    try:
        return register_of(settings, context=context, memory=memory, log=log)
    except Refused as e:
        log.error("vote.unusable", error=str(e))
        return Unusable(settings.third_vote.kind, version=settings.roster, why=str(e))


@dataclass(frozen=True, slots=True)
class Candidate:
    """What is to be seated, asked and found able. `highest`: the highest roster version that it has seen."""

    draft: Settings
    highest: int


async def examine(draft: Settings, *, context: ssl.SSLContext, log: Log) -> Candidate:
    """Ask what the draft names whether it can hold the vote; fill in the identities that are learned thereby.

    Raises:
        Refused: it cannot, or does not answer.
    """
    kind = thirdvote.kind_of(draft.third_vote, authority=draft.pair.authority)
    if kind in (JURY, WITNESS):
        return await _examine_jury(draft, context=context)
    if kind not in (ETCD, OBJECTSTORE):
        return Candidate(draft, 0)
    vote = msgspec.structs.replace(draft.third_vote, seat=secrets.token_hex(8))
    draft = msgspec.structs.replace(draft, third_vote=vote, jurors=[])
    register = cell_register(draft, kind, memory=Memory())
    cell = cell_of(vote, pair_id=draft.pair.id, kind=kind)
    try:
        if isinstance(cell, ObjectCell):
            async with asyncio.timeout(PROVE_S_MAX):
                await cell.prove(deadline_s=PROVE_S_MAX / 2)
        found = await register.peek()
    except TimeoutError as e:
        raise Refused("it does not answer in time") from e
    finally:
        cell.close()
        register.close()
    if found.is_strange or (found.record is not None and found.record.pair_id != draft.pair.id):
        raise Refused("there is something else in its place; name another prefix")
    return Candidate(draft, 0 if found.record is None else found.record.value.roster)


async def _examine_jury(draft: Settings, *, context: ssl.SSLContext) -> Candidate:
    answers = [await jury_room.identify(j, pair_id=draft.pair.id, context=context) for j in draft.jurors]
    if len({a.acceptor_id for a in answers}) != len(answers):
        raise Refused("two of the jurors are the same")
    pairs = zip(draft.jurors, answers, strict=True)
    seated = [msgspec.structs.replace(j, acceptor=a.acceptor_id) for j, a in pairs]
    return Candidate(msgspec.structs.replace(draft, jurors=seated), max(a.roster for a in answers))


def _https(vote: ThirdVote) -> ssl.SSLContext | None:
    """Return the context for https: the authority named, or the system's; our certificate, if there is one."""
    if not any(url.startswith("https://") for url in vote.endpoints):
        return None
    try:
        context = ssl.create_default_context(cafile=vote.ca_file or None)
        if vote.cert_file:
            context.load_cert_chain(vote.cert_file, vote.key_file)
    except OSError as e:
        raise Refused(f"the certificates for the third vote cannot be used: {e}") from e
    return context


def _secret(file: str) -> str:
    try:
        return Path(file).read_text(encoding="utf-8").strip() if file else ""
    except (OSError, UnicodeDecodeError) as e:
        raise Refused(f"the third vote's password file cannot be read: {e}") from e
