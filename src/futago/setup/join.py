"""`futago join`: this machine becomes the second member of an existing pair, or takes its place there again.

The first member is asked who it is before anything is looked at here: its floating IP, version and clock are part of
the checks. Only then this machine's key is shown to it; it writes us into its settings and answers with everything
the two share. From then on our controller climbs the recovery ladder by itself, and this command only watches.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from futago import __version__
from futago.runtime.clock import now_utc
from futago.runtime.faults import OperatorFault, Refused
from futago.setup import authority, checks, control, database, files, install, paths, settings, token
from futago.setup.checks import Place
from futago.setup.conversation import ask, fetch_authority, wait_for
from futago.setup.fences import FenceDevice
from futago.setup.fencing import FencePlan, parse_fences
from futago.setup.install import Say
from futago.setup.model import Hello, HelloAnswer, Join, JoinAnswer
from futago.setup.settings import MemberSettings, Settings
from futago.setup.token import Purpose, Token

PAIRED_S_MAX = 600.0  # an empty database takes seconds; a large one is waited for, and goes on by itself afterwards


@dataclass(frozen=True, slots=True)
class Options:
    """What the operator asked for."""

    token: str
    place: Place
    fence: Sequence[str]
    fence_password_file: Sequence[Path]
    wait_s: float = PAIRED_S_MAX


@dataclass(frozen=True, slots=True)
class First:
    """The member that takes us in: where it answers, its authority, and what it said of itself."""

    address: str
    ca_cert: bytes
    answer: HelloAnswer
    clocks_apart: timedelta


def run(options: Options, *, say: Say) -> control.Status:
    """Make this machine the second member; return the pair's status once it is paired.

    Raises:
        OperatorFault: something must be put right first, or the first member refused; or it takes too long to be
        paired.
    """
    checks.check_root()
    ticket = token.read(options.token)
    fence = parse_fences(options.fence, options.fence_password_file, member=options.place.name)
    is_repeat = _is_repeat(ticket, options.place)
    say(f"asking the first member at {', '.join(ticket.members)}")
    first = find_first(ticket, options.token)
    look(options, fence, first, is_repeat=is_repeat)
    say("all checks passed; asking to be taken in")
    own = take_seat(options, fence, first, ticket)
    start(own, say=say)
    if own.pair.recovery == "manual":
        ask_for_recovery(options.wait_s, say=say)
    status = control.wait_until(lambda s: s.state == "paired", what="Paired", deadline_s=options.wait_s, on_change=say)
    return status


def ask_for_recovery(wait_s: float, *, say: Say) -> None:
    """Have the pair bring this member in: where recovery is left to an operator, whoever runs `join` is that
    operator.
    """
    control.wait_until(lambda s: s.primary is not None, what="The first member", deadline_s=wait_s, on_change=say)
    with contextlib.suppress(Refused):  # whatever becomes of the conversation, the status is waited for
        control.ask("recover", deadline_s=wait_s, on_progress=say)


def _is_repeat(ticket: Token, place: Place) -> bool:
    if not paths.SETTINGS.exists():
        return False
    found = settings.load()
    if found.pair.id != ticket.pair or found.me != place.name:
        raise OperatorFault(
            f"This machine is {found.me} of pair {found.pair.name} already. Nothing has been changed.",
            hint="Use another machine, or remove that installation first.",
            code="join.exists",
        )
    return True


def find_first(ticket: Token, word: str) -> First:
    """Reach the first member on every address of the token; return what it says of itself.

    Raises:
        OperatorFault: one of the networks does not lead to it; it refuses the token; or it is no member of the pair.
    """
    found: list[First] = []
    silent: list[str] = []
    for address in ticket.members:
        try:
            ca = wait_for(fetch_authority(address, ticket))
            hello = Hello(word, Purpose.JOIN.value)
            asked = now_utc()
            answer = wait_for(ask(address, hello, HelloAnswer, ca_cert=ca, pair_id=ticket.pair))
            found.append(First(address, ca, answer, clocks_apart(answer.utc, asked=asked, heard=now_utc())))
        except Refused as e:
            silent.append(str(e))
    if silent:
        raise OperatorFault(
            f"The first member cannot be reached on all of its networks: {'; '.join(silent)}. Nothing has been "
            "changed.",
            hint=f"Both networks must lead to it, with TCP port {paths.PORT_CONTROL} open; is futago-controller "
            "running there?",
            code="join.unreachable",
        )
    return found[0]


def look(options: Options, fence: FencePlan, first: First, *, is_repeat: bool) -> None:
    """Ask this machine, and what the first member said, everything that must be true. Raises OperatorFault."""
    answer = first.answer
    floating = answer.pair.on_subnet
    found = [
        lambda: check_name_free(options.place.name, answer),
        *checks.input_checks(options.place, floating),
        lambda: check_version(answer),
        lambda: check_clock(answer, first.clocks_apart),
        lambda: check_fences_differ(fence, answer),
        *checks.machine_checks(options.place, floating, fence, is_repeat=is_repeat),
    ]
    checks.ask_all(found)


def check_name_free(name: str, answer: HelloAnswer) -> None:
    """The name is not that of the first member."""
    if name == answer.member.name:
        raise OperatorFault(
            f"--member: {name} is the name of the first member.",
            hint="Choose another for this machine.",
            code="join.name",
        )


def check_version(answer: HelloAnswer) -> None:
    """Both members run the same version."""
    if answer.version != __version__:
        raise OperatorFault(
            f"{answer.member.name} runs futago {answer.version}, this machine {__version__}.",
            hint="Install the same version on both machines.",
            code="join.version",
        )


def clocks_apart(said: datetime, *, asked: datetime, heard: datetime) -> timedelta:
    """Return by how much the other's clock surely differs: it was read at some time between question and answer."""
    return max(asked - said, said - heard, timedelta(0))


def check_clock(answer: HelloAnswer, apart: timedelta) -> None:
    """The clocks agree: certificates, schedules and the times of messages rest on them."""
    if apart > checks.CLOCKS_APART_MAX:
        raise OperatorFault(
            f"The clocks of {answer.member.name} and this machine are {apart.total_seconds():.1f} s apart.",
            hint="Let both follow the same time servers, such as with chrony or systemd-timesyncd.",
            code="join.clock",
        )


def check_fences_differ(fence: FencePlan, answer: HelloAnswer) -> None:
    """Each member has fence devices of its own, or at least sockets of its own on one."""
    theirs = {_aim(device) for device in answer.member.fence}
    for device in fence.devices:
        if _aim(device) in theirs:
            raise OperatorFault(
                f"--fence names {device.place}, which is the device of {answer.member.name}.",
                hint="Give the device that powers this machine.",
                code="fence.device",
            )


def _aim(device: FenceDevice) -> tuple[str, str, str, frozenset[tuple[str, str]]]:
    """Return what makes two devices the same: where they are, and which machine is meant there."""
    return device.driver, device.address, device.program, frozenset(device.options.items())


def take_seat(options: Options, fence: FencePlan, first: First, ticket: Token) -> Settings:
    """Be taken in, and put down all that the members share. Return this member's settings."""
    key = paths.OWN_KEY.read_bytes() if paths.OWN_KEY.exists() else authority.make_key()
    place = options.place
    request = Join(
        token=options.token,
        csr=authority.make_request(key).decode(),
        version=__version__,
        member=MemberSettings(
            place.name, place.service, place.heartbeat, place.interface, list(fence.devices), place.eni
        ),
        fence_passwords=list(fence.passwords),
    )
    try:
        bundle = wait_for(ask(first.address, request, JoinAnswer, ca_cert=first.ca_cert, pair_id=ticket.pair))
    except Refused as e:
        raise OperatorFault(
            f"The first member did not answer: {e}.",
            hint="It may have taken us in; run the same line again.",
            code="join.unreachable",
        ) from e
    return put_down(bundle, key)


def put_down(bundle: JoinAnswer, key: bytes) -> Settings:
    """Write what the pair shares into this machine's files; the settings first, as the mark."""
    own = settings.parse(bundle.settings, where=paths.SETTINGS)
    install.settings_of_pair(own)
    install.users()
    install.directories()
    files.write(paths.OWN_KEY, key, mode=0o640, owner=files.SHARED)
    files.write(paths.CA_KEY, bundle.ca_key, mode=0o600)
    files.write(paths.CA_CERT, bundle.ca_cert, mode=0o644)
    install.adopt_certificate(bundle.cert.encode(), key)
    files.write(paths.HEARTBEAT_KEY, bytes.fromhex(bundle.heartbeat_key), mode=0o640, owner=files.SHARED)
    files.write(paths.TOKEN_KEY, bytes.fromhex(bundle.token_key), mode=0o600)
    files.write(paths.ADMIN_TOKEN, bundle.admin_token, mode=0o600)
    named = [d.password_file for m in own.members for d in m.fence if d.password_file]
    for where in map(Path, [*named, *own.third_vote.files.values()]):
        files.write(paths.SECRETS / where.name, bundle.fence_passwords.get(where.name, ""), mode=0o600)
    return own


def start(own: Settings, *, say: Say) -> None:
    """Write and start the units. Raises OperatorFault."""
    say(f"writing and starting the units of {own.me}")
    install.member_units(postgres=database.command_line())
    install.start(install.BOOT_UNITS)
