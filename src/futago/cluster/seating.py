"""Changing the third vote: another jury, another kind, none. A change of view, made by the member that serves.

Lives here: the order of the steps, on this member and at the other one. Must not live here: what a kind of register is
(futago/register), and what people type (setup/vote.py). The idea: a change of locks. The old key stops working before
the new one is cut, so that there is no moment at which two doors are open.

    examine the new one          nothing is changed if it cannot hold the vote
    retire the old one           it is told, as its newest value, that a higher version is seated: from then on it
                                 refuses everybody who still uses it
    tell the new one             who serves, under that version
    write the settings           here, then at the other member, which otherwise takes them up when it comes back

Where a majority of the old one is gone for good, it cannot be told. Then both members give it up, first the other one,
then this one, each durably: two votes of three. Only when neither asks it any more is the new one told. The same is done
before the pair leaves `authority = "fence"`.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import ssl
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec

from futago.cluster.control import Message, OperatorRefused, PeerLine, Say
from futago.cluster.facts import Board
from futago.cluster.model import FenceOutcome, View
from futago.register import kinds
from futago.register.ballot import value_of
from futago.register.memory import Memory
from futago.register.port import OLD_ROSTER, Register
from futago.runtime.clock import now_at
from futago.runtime.faults import OperatorFault, Refused, Unknown, WorldFault
from futago.runtime.log import Log
from futago.runtime.worker import Worker
from futago.setup import files, paths, thirdvote
from futago.setup import settings as settings_room
from futago.setup.settings import Juror, Settings
from futago.setup.thirdvote import JURY, NONE, ThirdVote

SEAT_S_MAX = 60.0
SETTINGS_S_MAX = 5.0
PEER_S_MAX = 8.0
CONNECT_S = 0.3  # the new jury's connections are made meanwhile; the proposal asks again where one was late
AGAIN = "Run the same command again."
PREFIX = "vote-"  # how the names of the third vote's files below /etc/futago/secrets begin


class Vote(msgspec.Struct, frozen=True):
    """What both members must agree on about the third vote, as it goes from one to the other. `held`: what its files
    hold, by their paths.
    """

    roster: int
    authority: str
    jurors: list[Juror]
    third_vote: ThirdVote
    held: dict[str, str] = {}


class Seating:
    """Carries out `futago vote set` and `futago jury set`, and takes up what the other member has seated.

    Args:
        settings: returns the present ones.
        register: returns the register in use.
        reload: takes up changed settings.
        renew: makes the register in use anew, after a retirement that came to nothing.
        where: the settings file; this machine's own if not given.
    """

    def __init__(
        self,
        *,
        board: Board,
        peer: PeerLine,
        system: Worker,
        context: ssl.SSLContext,
        settings: Callable[[], Settings],
        register: Callable[[], Register | None],
        reload: Callable[[], Awaitable[None]],
        renew: Callable[[], None],
        log: Log,
        where: Path | None = None,
    ) -> None:
        self._where = where or paths.SETTINGS
        self._board, self._peer, self._system, self._context = board, peer, system, context
        self._read_settings, self._register = settings, register
        self._reload, self._renew, self._log = reload, renew, log
        self._lock = asyncio.Lock()

    @property
    def _settings(self) -> Settings:
        return self._read_settings()

    # --- seating ----------------------------------------------------------------------------------------------------

    async def seat(self, request: Message, say: Say) -> Message:
        """Seat what the request names. Raises OperatorFault, Refused or Unknown."""
        async with self._lock:
            view = self._board.read_durable().view
            if view is None or view.primary != self._settings.me:
                return await self._relay(request, say)
            draft = await self._draft(request)
            try:
                return await self._seat(draft, view, say)
            finally:
                await self._on_disk(self._sweep)

    async def _seat(self, draft: Settings, view: View, say: Say) -> Message:
        kind = _kind(draft)
        if kind != NONE:
            await say(f"asking {_names(draft)} whether it can hold the third vote")
        draft, highest = await self._examined(draft)
        draft = msgspec.structs.replace(draft, roster=max(self._settings.roster, highest) + 1)
        if self._settings.pair.authority != draft.pair.authority:
            self._require_paired(view)
        if self._settings.pair.authority == "fence":
            if draft.pair.authority != "fence":
                draft = await self._give_up(draft, say)
        elif not await self._retire(draft.roster, view, say):
            draft = await self._give_up(draft, say)
        if kind != NONE:
            await say("telling the new one who serves")
            await self._tell_new(draft)
        await self._write(draft)
        await self._tell_peer(draft, say)
        self._log.event("vote.seated", kind=kind, roster=draft.roster)
        if kind == NONE:
            return {"ok": True, "text": "There is no third vote now; the power devices decide."}
        return {"ok": True, "text": f"The third vote is now {_names(draft)}."}

    async def _relay(self, request: Message, say: Say) -> Message:
        if request.get("is_relayed"):
            raise OperatorFault("Nobody serves now.", hint="See futago status.", code="jury.primary")
        fields = {key: value for key, value in request.items() if key != "op"}
        try:
            return await self._peer.ask("vote", deadline_s=SEAT_S_MAX, say=say, **{**fields, "is_relayed": True})
        except OperatorRefused as e:
            raise OperatorFault(str(e), hint=e.hint, code="jury.refused") from e

    async def _draft(self, request: Message) -> Settings:
        """Return the settings that are asked for, their files written. Raises OperatorFault."""
        own, kind = self._settings, str(request.get("kind") or JURY)
        try:
            jurors = msgspec.convert(request.get("jurors", []), list[Juror])
            vote = msgspec.convert({**request.get("vote", {}), "kind": kind}, ThirdVote)
            held = msgspec.convert(request.get("held", {}), dict[str, str])
        except (msgspec.ValidationError, TypeError) as e:
            raise OperatorFault(f"The third vote asked for cannot be understood: {e}.", code="jury.request") from e
        if kind in thirdvote.SIZES and len(jurors) not in thirdvote.SIZES[kind]:
            sizes = " or ".join(str(n) for n in thirdvote.SIZES[kind])
            raise OperatorFault(f"A {kind} has {sizes} jurors, not {len(jurors)}.", hint=AGAIN, code="jury.size")
        vote, content = _placed(vote, held)
        authority = "fence" if kind == NONE else "register"
        if wrong := thirdvote.problem(vote, authority=authority, jurors=len(jurors)):
            raise OperatorFault(f"{wrong[:1].upper()}{wrong[1:]}.", hint="Nothing was changed.", code="jury.request")
        await self._keep_files(content)
        pair = msgspec.structs.replace(own.pair, authority=authority)
        return msgspec.structs.replace(own, pair=pair, jurors=jurors, third_vote=vote)

    async def _examined(self, draft: Settings) -> tuple[Settings, int]:
        try:
            found = await kinds.examine(draft, context=self._context, log=self._log)
        except Refused as e:
            raise OperatorFault(
                f"It cannot hold the third vote: {e}.",
                hint="Nothing was changed; see that it runs and can be reached from here.",
                code="jury.silent",
            ) from e
        return found.draft, found.highest

    async def _retire(self, version: int, view: View, say: Say) -> bool:
        """Tell the old one that a higher version is seated; return False if it does not answer, so that both members
        must give it up. Raises OperatorFault.
        """
        old = self._register()
        if old is None:
            return True
        await say("telling the old one that it is replaced")
        try:
            is_ours, held = await old.put(value_of(view, roster=version))
        except Refused as e:
            return OLD_ROSTER in str(e)  # an earlier attempt got this far
        except Unknown as e:
            raise OperatorFault(f"The old third vote is not sure: {e}.", hint=AGAIN, code="jury.old") from e
        if not is_ours and (held is None or held.roster < version):
            raise OperatorFault("The view has just changed.", hint=AGAIN, code="jury.moved")
        # that it answered until now promises nothing any more: the pair is not protected before the new one answers
        self._board.put_register(contact_at=None, read_at=None)
        return True

    async def _tell_new(self, draft: Settings) -> None:
        view = self._board.read_durable().view
        assert view is not None
        new = kinds.register_of(draft, context=self._context, memory=Memory(), log=self._log)
        assert new is not None
        carrier = asyncio.create_task(new.run())
        try:
            await asyncio.sleep(CONNECT_S)
            is_ours, _held = await new.seat(value_of(view, roster=draft.roster))
        except WorldFault as e:
            raise OperatorFault(f"The new third vote does not answer: {e}.", hint=AGAIN, code="jury.silent") from e
        finally:
            carrier.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await carrier
        if not is_ours:
            raise OperatorFault("The new third vote knows a newer view.", hint=AGAIN, code="jury.moved")

    def _require_paired(self, view: View) -> None:
        """Who decides may change only while nobody has to."""
        heard_at = self._board.read_peer().heard_at
        is_heard = heard_at is not None and now_at() - heard_at < self._board.cfg.t_det
        if self._settings.peer is not None and (view.is_solo or not is_heard):
            raise OperatorFault(
                "Who decides, a third vote or the power devices, can be changed only while the pair is complete.",
                hint="Run futago recover first.",
                code="vote.authority",
            )

    # --- giving up an old one that does not answer ------------------------------------------------------------------

    async def _give_up(self, draft: Settings, say: Say) -> Settings:
        """Have both members use no third vote at all, durably, the other one first; return the draft with the version
        that comes after that.
        """
        own = self._settings
        await say("what decided until now cannot be told; both members give it up")
        pair = msgspec.structs.replace(own.pair, authority="register")
        none = msgspec.structs.replace(own, pair=pair, jurors=[], third_vote=ThirdVote(), roster=draft.roster)
        if own.peer is not None:
            try:
                await self._peer.ask("give-up", deadline_s=PEER_S_MAX, vote=msgspec.to_builtins(_vote(none)))
            except (WorldFault, OperatorRefused) as e:
                raise OperatorFault(
                    f"{self._settings.peer.name if self._settings.peer else 'The other member'} cannot agree to give "
                    f"up what decides now: {e}.",
                    hint="Bring it back (futago recover), or a majority of the old third vote; then run it again.",
                    code="jury.old",
                ) from e
        await self._take_up(_vote(none), gives_up=True)
        return msgspec.structs.replace(draft, roster=draft.roster + 1)

    def _let_go(self) -> None:
        """Ask the register in use nothing any more, and believe nothing that it says from now on. Raises Refused."""
        durable, known, old = self._board.read_durable(), self._board.register.view, self._register()
        epoch = 0 if durable.view is None else durable.view.epoch
        is_shooting = self._board.fence.outcome is FenceOutcome.PENDING
        if durable.is_writing or is_shooting or (known is not None and known.epoch > epoch):
            raise Refused("a change of view is under way")
        if old is not None and not old.retire():
            self._renew()
            raise Refused("a question to the third vote is under way")

    # --- settings, here and at the other member ---------------------------------------------------------------------

    async def answer(self, request: Message) -> Message:
        """Answer the other member: `settings` and `give-up` tell us something, `roster` asks. Raises Refused."""
        match request.get("op"):
            case "roster":
                return {"ok": True, "vote": msgspec.to_builtins(await self._with_files(self._settings))}
            case "give-up":
                await self._take_up(_told(request), gives_up=True)
            case _:
                await self._take_up(_told(request))
        return {"ok": True}

    async def fetch(self) -> None:
        """Take up what the other member has seated while this one was away. Raises Refused or Unknown."""
        answer = await self._peer.ask("roster", deadline_s=SETTINGS_S_MAX)
        await self._take_up(_told(answer))
        self._log.event("vote.taken-up", roster=self._settings.roster)

    async def _take_up(self, vote: Vote, *, gives_up: bool = False) -> None:
        own = self._settings
        if vote.roster <= own.roster:
            return
        if gives_up:
            self._let_go()
        is_taken = False
        try:
            await self._keep_files(vote.held)
            pair = msgspec.structs.replace(own.pair, authority=vote.authority)
            changed = msgspec.structs.replace(
                own, pair=pair, jurors=vote.jurors, roster=vote.roster, third_vote=vote.third_vote
            )
            await self._write(changed)
            is_taken = True
        finally:
            if not is_taken:  # whatever the reason: also the asker's line may have closed, which cancels us
                self._renew()
        if not gives_up:  # else the files of what comes next are there already
            await self._on_disk(self._sweep)

    async def _tell_peer(self, draft: Settings, say: Say) -> None:
        if self._settings.peer is None:
            return
        try:
            vote = msgspec.to_builtins(await self._with_files(draft))
            await self._peer.ask("settings", deadline_s=SETTINGS_S_MAX, vote=vote)
        except (WorldFault, OperatorRefused) as e:
            await say(f"the other member takes it up when it is back ({e})")

    async def _with_files(self, own: Settings) -> Vote:
        def read() -> dict[str, str]:
            return {where: Path(where).read_text(encoding="utf-8") for where in own.third_vote.files.values()}

        try:
            held = await self._system.do(read, deadline_s=SETTINGS_S_MAX)
        except (OSError, UnicodeDecodeError) as e:
            raise Refused(f"a file of the third vote cannot be read: {e}") from e
        return msgspec.structs.replace(_vote(own), held=held)

    async def _keep_files(self, held: dict[str, str]) -> None:
        """Write the third vote's files; only where such files lie, whatever the other end says."""
        for where in held:
            path = Path(where)
            if path.parent != paths.SECRETS or not path.name.startswith(PREFIX):
                raise Refused(f"{where} is no place for a file of the third vote")

        def put() -> None:
            for where, content in held.items():
                files.write(Path(where), content, mode=0o600)

        await self._on_disk(put)

    async def _write(self, changed: Settings) -> None:
        def put() -> None:
            with files.lock():
                present = settings_room.load(self._where)
                pair = msgspec.structs.replace(present.pair, authority=changed.pair.authority)
                merged = msgspec.structs.replace(
                    present,
                    pair=pair,
                    jurors=changed.jurors,
                    roster=changed.roster,
                    third_vote=changed.third_vote,
                )
                text = settings_room.dump(merged)
                settings_room.parse(text, where=self._where)  # nothing is written that could not be read again
                files.write(self._where, text, mode=0o644)

        await self._on_disk(put)
        await self._reload()

    async def _on_disk(self, work: Callable[[], None]) -> None:
        try:
            await self._system.do(work, deadline_s=SETTINGS_S_MAX)
        except OSError as e:
            raise Refused(f"the third vote's settings cannot be written: {e}") from e

    def _sweep(self) -> None:
        """Remove files of third votes that the settings do not name any more."""
        named = set(self._settings.third_vote.files.values())
        for path in paths.SECRETS.glob(f"{PREFIX}*"):
            if str(path) not in named:
                path.unlink(missing_ok=True)


def _kind(own: Settings) -> str:
    return thirdvote.kind_of(own.third_vote, authority=own.pair.authority)


def _names(own: Settings) -> str:
    kind = _kind(own)
    if own.jurors:
        return ", ".join(j.name for j in own.jurors)
    return f"the {kind} at {', '.join(own.third_vote.endpoints)}" if own.third_vote.endpoints else kind


def _vote(own: Settings) -> Vote:
    return Vote(own.roster, own.pair.authority, own.jurors, own.third_vote)


def _told(message: Message) -> Vote:
    try:
        return msgspec.convert(message.get("vote"), Vote)
    except msgspec.ValidationError as e:
        raise Refused(f"the other member tells of a third vote that cannot be understood: {e}") from e


def _placed(vote: ThirdVote, held: dict[str, str]) -> tuple[ThirdVote, dict[str, str]]:
    """Return the settings naming files of ours, and what is to be in them; `held` is by what it is: password, ca, ..."""
    tag = secrets.token_hex(4)
    places = {what: str(paths.SECRETS / f"{PREFIX}{tag}.{what}") for what in held}
    fields = {f"{what}_file": places.get(what, "") for what in ("password", "ca", "cert", "key")}
    return msgspec.structs.replace(vote, **fields), {places[what]: content for what, content in held.items()}
