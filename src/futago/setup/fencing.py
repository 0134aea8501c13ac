"""The fence devices as an operator writes them at set-up, and a first question to them. Switching power is the
controller's business.

A device is one word, DRIVER://[USER@]ADDRESS[/PATH][?NAME=VALUE&...]; several `--fence` are levels, in order. A device
with a user has a password, from the `--fence-password-file` at the same place among those; it goes into a file that
only root can read, never through a command line or the environment of a long-lived program.
"""

from __future__ import annotations

import asyncio
import difflib
import os
import re
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

import msgspec

from futago.cluster.fence.agent import find
from futago.cluster.fence.kinds import open_device
from futago.runtime.faults import OperatorFault, Refused, WorldFault
from futago.setup.fences import DEFAULT_DEADLINE_S, LEVELS_MAX, SHAPES, FenceDevice, problem
from futago.setup.files import fence_password_file, read_secret

EXAMPLES = {
    "ipmi": "ipmi://admin@192.0.2.201",
    "redfish": "redfish://admin@192.0.2.201",
    "agent": "agent://admin@192.0.2.201/fence_ipmilan?lanplus=1",
    "aws": "aws://AKIAEXAMPLE@i-0123456789abcdef0?region=eu-central-1&deadline=120",
    "command": "command://192.0.2.201/usr/local/sbin/switch-power",
}
PATH_IS = {"redfish": "options.system", "agent": "program", "command": "program"}
"""What the path of the word means, by driver: `program`, or `options.NAME`. Drivers that are not named take none."""


@dataclass(frozen=True, slots=True)
class FencePlan:
    """A member's fence devices in order, and the password to each (empty where it has none), before they have their own
    files.
    """

    devices: tuple[FenceDevice, ...] = ()
    passwords: tuple[str, ...] = ()


def parse_fences(urls: Sequence[str], password_files: Sequence[Path], *, member: str) -> FencePlan:
    """Return the devices that the words name, with the passwords from the files, for `member`.

    Args:
        urls: one word a device; the single word `none` for no device at all, which must be said, since it costs the
            pair its force.
        password_files: one for each device that has a user, in the same order.

    Raises:
        OperatorFault: an unknown driver, a part missing or too many, or no usable password.
    """
    if list(urls) == ["none"]:
        if password_files:
            raise OperatorFault("--fence-password-file has no meaning with --fence none.", code="fence.password")
        return FencePlan()
    if not 1 <= len(urls) <= LEVELS_MAX:
        raise OperatorFault(
            f"--fence: {len(urls)} devices; a member has 1 to {LEVELS_MAX}.",
            hint="Name one after the other, the first to be tried first; or `none` alone.",
            code="fence.address",
        )
    devices = [parse_device(url, member=member, level=i) for i, url in enumerate(urls, start=1)]
    return FencePlan(tuple(devices), tuple(_passwords(devices, list(password_files))))


def _passwords(devices: Sequence[FenceDevice], files: list[Path]) -> list[str]:
    wanting = [d for d in devices if d.password_file]
    if len(wanting) != len(files):
        each = ", ".join(f"{d.driver} {d.place}" for d in wanting)
        raise OperatorFault(
            f"--fence needs --fence-password-file {len(wanting)} times ({each}), not {len(files)} times."
            if wanting
            else "--fence-password-file has no meaning for a device without a user.",
            hint="Give one for each device with a user, in the same order.",
            code="fence.password",
        )
    queue = iter(files)
    return [read_secret(next(queue), option="--fence-password-file") if d.password_file else "" for d in devices]


def parse_device(url: str, *, member: str, level: int) -> FenceDevice:
    """Return the device that one word names. Raises OperatorFault."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as e:
        raise OperatorFault(f"--fence: `{url}` cannot be read: {e}.", hint=_example(""), code="fence.address") from e
    example = _example(parts.scheme)
    if parts.scheme not in SHAPES:
        raise OperatorFault(
            f"--fence: there is no fence driver `{parts.scheme or url}`; there is: {', '.join(sorted(SHAPES))}.",
            hint=example,
            code="fence.driver",
        )
    if parts.password:
        raise OperatorFault(
            "--fence: a password in a command line can be read by everybody on this machine.",
            hint=example,
            code="fence.password",
        )
    user, host = parts.username or "", parts.hostname or ""
    if (host and not re.fullmatch(r"[A-Za-z0-9._:-]+", host)) or (
        user and not re.fullmatch(r"[A-Za-z0-9._@-]{1,64}", user)
    ):
        raise OperatorFault(
            f"--fence: `{url}` holds characters that no address or user has.", hint=example, code="fence.address"
        )
    options = dict(parse_qsl(parts.query, keep_blank_values=True))
    device = FenceDevice(
        driver=parts.scheme,
        address=host,
        user=user,
        password_file=str(fence_password_file(member, level)) if user else "",
        attempts=int(_number(options.pop("attempts", "1"), example)),
        deadline_s=_number(options.pop("deadline", str(DEFAULT_DEADLINE_S)), example),
    )
    if port is not None:
        options.setdefault("port", str(port))
    device = _with_path(msgspec.structs.replace(device, options=options), parts.path, url)
    if parts.fragment or (wrong := problem(device)):
        what = "it has a fragment" if parts.fragment else wrong
        raise OperatorFault(
            f"--fence: `{url}` is not complete or has too much: {what}.", hint=example, code="fence.address"
        )
    return device


def _with_path(device: FenceDevice, path: str, url: str) -> FenceDevice:
    if path in ("", "/"):
        return device
    match PATH_IS.get(device.driver, "").split("."):
        case ["program"]:
            is_name = device.driver == "agent" and path.count("/") == 1  # looked for among the system's programs
            return msgspec.structs.replace(device, program=path[1:] if is_name else path)
        case ["options", name]:
            return msgspec.structs.replace(device, options={name: path, **device.options})
    raise OperatorFault(
        f"--fence: `{url}` is not complete or has too much: a path has no meaning for {device.driver}.",
        hint=_example(device.driver),
        code="fence.address",
    )


def _number(text: str, example: str) -> float:
    try:
        return float(text)
    except ValueError as e:
        raise OperatorFault(f"--fence: `{text}` is not a number.", hint=example, code="fence.address") from e


def _example(driver: str) -> str:
    shown = EXAMPLES.get(driver, EXAMPLES["ipmi"])
    return f"Write it as in {shown}, and the password of a device with a user in a file, --fence-password-file FILE."


def written(device: FenceDevice) -> str:
    """Return the word that names a device, as an operator would write it again."""
    options = dict(device.options)
    path = ""
    match PATH_IS.get(device.driver, "").split("."):
        case ["program"]:
            path = quote(device.program if device.program.startswith("/") else f"/{device.program}")
        case ["options", name]:
            path = quote(options.pop(name, ""))
    if device.attempts != 1:
        options["attempts"] = str(device.attempts)
    if device.deadline_s != DEFAULT_DEADLINE_S:
        options["deadline"] = f"{device.deadline_s:g}"
    host = f"[{device.address}]" if ":" in device.address else device.address
    account = f"{device.user}@" if device.user else ""
    return f"{device.driver}://{account}{host}{path}" + (f"?{urlencode(options)}" if options else "")


def words(devices: Sequence[FenceDevice]) -> str:
    """Return the options of `futago init` and `join` that name these devices; the password files stay to be filled in."""
    if not devices:
        return "--fence none"
    each = (f"--fence '{written(d)}'" + (" --fence-password-file FILE" if d.password_file else "") for d in devices)
    return " ".join(each)


def check_parameters(device: FenceDevice) -> None:
    """A fence agent knows every parameter that it is given: it would ignore a misspelt one and switch something else.

    Raises:
        Refused: it does not know one, or cannot be run.
    """
    program = find(device.program)
    try:
        done = subprocess.run([program, "-o", "metadata"], capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired) as e:
        raise Refused(f"{program} does not describe itself: {e}") from e
    known = re.findall(r"<parameter\s[^>]*name=\"([^\"]+)\"", done.stdout)
    for name in device.options:
        if known and name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            raise Refused(f"{program.name} knows no parameter {name}" + (f"; did you mean {close[0]}" if close else ""))


def power_state(device: FenceDevice, password: str) -> str:
    """Return "on", "off" or "unknown", in the device's own opinion.

    Raises:
        Refused: it does not answer, refuses the user or password, or cannot be understood; or an agent does not know a
            parameter.
    """
    if device.driver == "agent":
        check_parameters(device)
    descriptor, name = tempfile.mkstemp(prefix="futago-fence-")
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as f:
            f.write(password)
        asked = msgspec.structs.replace(device, password_file=name) if device.password_file else device
        return asyncio.run(open_device(asked).power()).value
    except WorldFault as e:
        raise Refused(str(e)) from e
    finally:
        Path(name).unlink()
