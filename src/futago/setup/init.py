"""`futago init`: this machine becomes the first member of a new pair, and serves.

Look, then change, then wait: all checks come first; then every step of install.py in order, each of which leaves
alone what is there; then the controller is watched until it serves. The settings file is written first and marks the
machine, so the same line may be run again at any time: after an interruption it goes on, on a finished member it
changes nothing and prints the lines again.
"""

from __future__ import annotations

import secrets
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import msgspec

from futago.runtime.faults import OperatorFault, Refused
from futago.setup import checks, control, database, files, install, paths, settings
from futago.setup.checks import Place
from futago.setup.fencing import FencePlan, parse_fences
from futago.setup.install import Say
from futago.setup.lines import Lines, lines
from futago.setup.settings import MemberSettings, PairSettings, Settings

SERVES_S_MAX = 90.0
BOOTSTRAP_S_MAX = 90.0


@dataclass(frozen=True, slots=True)
class Options:
    """What the operator asked for, word by word."""

    pair: str
    place: Place
    floating_ips: tuple[str, ...]
    fence: Sequence[str]
    fence_password_file: Sequence[Path]
    admin_password_file: Path
    profile: str = "default"
    recovery: str = "auto"
    fence_after: str = "on"


def run(options: Options, *, say: Say) -> Lines:
    """Make this machine the first member; return the lines for the others.

    Raises:
        OperatorFault: something must be put right first; or a step failed, and the line may be run again.
        Refused, Unknown: the first administrator could not be made.
    """
    checks.check_root()
    fence = check_words(options)
    wanted, is_repeat = adopt(plan(options, fence))
    look(options, fence, is_repeat=is_repeat, say=say)
    say(f"{paths.SETTINGS} is there already; completing what is missing" if is_repeat else "all checks passed")
    apply(wanted, fence, say=say)
    serve(wanted, options.admin_password_file, say=say)
    return lines(wanted)


def check_words(options: Options) -> FencePlan:
    """Check what was written, without asking the machine; return the fence devices. Raises OperatorFault."""
    plans: list[FencePlan] = []

    def fence() -> None:
        plans.append(parse_fences(options.fence, options.fence_password_file, member=options.place.name))

    def pair() -> None:
        settings.check_name(options.pair, what="--pair")

    checks.ask_all(
        [
            pair,
            *checks.input_checks(options.place, options.floating_ips),
            lambda: checks.check_choices(options.profile, options.recovery, options.fence_after),
            fence,
            lambda: checks.check_admin_password(options.admin_password_file),
        ]
    )
    return plans[0]


def plan(options: Options, fence: FencePlan) -> Settings:
    """Return the settings that the options ask for, of a new pair."""
    place = options.place
    return Settings(
        me=place.name,
        pair=PairSettings(
            name=options.pair,
            id=secrets.token_hex(8),
            floating_ip="".join(options.floating_ips[:1]),
            floating_more=list(options.floating_ips[1:]),
            profile=options.profile,
            recovery=options.recovery,
            fence_after=options.fence_after,
        ),
        members=[
            MemberSettings(place.name, place.service, place.heartbeat, place.interface, list(fence.devices), place.eni)
        ],
    )


def adopt(wanted: Settings) -> tuple[Settings, bool]:
    """Return the settings to work with, and whether they were there before.

    Raises:
        OperatorFault: this machine is set up already, otherwise than wanted.
    """
    if not paths.SETTINGS.exists():
        return wanted, False
    found = settings.load()
    differing = _differing(found, wanted)
    if differing:
        said = "; ".join(f"{name} is {was}, not {now}" for name, (was, now) in differing.items())
        raise OperatorFault(
            f"This machine is set up already as {found.me} of pair {found.pair.name}: {said}. Nothing has been "
            "changed.",
            hint=f"Run the line with the same values, or edit {paths.SETTINGS} on both members.",
            code="init.exists",
        )
    return found, True


def _differing(found: Settings, wanted: Settings) -> dict[str, tuple[object, object]]:
    """Return what of a first member's settings differs: name -> (is, should be)."""
    fixed = ("pair", "member", "service", "heartbeat", "interface", "fence", "profile", "recovery")
    moving = ("floating_ip", "floating_more")
    was, now = _flat(found), _flat(wanted)
    return {key: (was[key], now[key]) for key in (*fixed, *moving, "fence_after") if was[key] != now[key]}


def _flat(of: Settings) -> dict[str, object]:
    pair, own = msgspec.structs.asdict(of.pair), msgspec.structs.asdict(of.own)
    return {**pair, **own, "pair": of.pair.name, "member": of.me}


def look(options: Options, fence: FencePlan, *, is_repeat: bool, say: Say) -> None:
    """Ask the machine everything that must be true. Raises OperatorFault."""
    say("checking this machine, its networks and its fence devices")
    found = checks.machine_checks(options.place, options.floating_ips, fence, is_repeat=is_repeat)
    if not is_repeat:
        found += [partial(checks.check_floating_free, options.place, text) for text in options.floating_ips]
    checks.ask_all(found)


def apply(wanted: Settings, fence: FencePlan, *, say: Say) -> None:
    """Put everything into place, as far as it is not there. Raises OperatorFault."""
    say("writing settings, keys and certificates")
    install.settings_of_pair(wanted)
    install.users()
    install.directories()
    install.own_authority(wanted)
    install.own_certificate(wanted)
    install.own_secrets()
    for device, password in zip(fence.devices, fence.passwords, strict=True):
        if device.password_file:
            files.write(Path(device.password_file), password, mode=0o600)
    say("making the database")
    database.create(wanted)
    database.first_view(wanted)
    say("writing and starting the units")
    install.member_units(postgres=database.command_line())
    install.start(install.BOOT_UNITS)


def serve(wanted: Settings, admin_password_file: Path, *, say: Say) -> None:
    """Wait until the pair serves, and make the first administrator if it is this member that does.

    Raises:
        OperatorFault: it does not serve in time; says why.
        Refused: the administrator could not be made.
    """

    def is_serving(found: control.Status) -> bool:
        return found.primary is not None and found.member(found.primary).gate == "open"

    found = control.wait_until(is_serving, what="Serving", deadline_s=SERVES_S_MAX, on_change=say)
    if found.primary != wanted.me:
        return
    say("making the first administrator")
    args = ["--admin-password-file", str(admin_password_file), "--token-file", str(paths.ADMIN_TOKEN)]
    command = [sys.executable, "-m", "futago.access.bootstrap", *args]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=BOOTSTRAP_S_MAX)
    except subprocess.TimeoutExpired as e:
        raise Refused(
            f"The first administrator could not be made within {BOOTSTRAP_S_MAX:g} s; run the line again."
        ) from e
    if done.returncode != 0:
        raise Refused(f"{done.stderr.strip()[-500:]} Run the line again.")
    say(done.stdout.strip())
