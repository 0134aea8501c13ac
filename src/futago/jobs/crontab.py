"""Crontab files become job nets and schedules, one of each for a line. Pure: text in, objects and remarks out.

What cron does and Futago says otherwise is a remark with its line: nothing is passed over in silence. A line that cannot
be expressed (`@reboot`, a time that is none) yields no objects.

Source: crontab(5) of Debian's cron: variables hold for the lines below them, `%` is a new line of the command's input,
`@daily` and its kind stand for five fields.
"""

from __future__ import annotations

import re
import shlex
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from futago.jobs import cron

LINES_MAX = 10_000
_VARIABLE = re.compile(r"""\s*(?:"(\w+)"|'(\w+)'|([A-Za-z_]\w*))\s*=\s*(.*?)\s*\Z""")
_NICKNAMES = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}
_ZONES = ("CRON_TZ", "TZ")
_SHELLS = {"", "/bin/sh", "/usr/bin/sh"}


@dataclass(frozen=True, slots=True)
class Remark:
    """Something that a person should know. `is_lost`: the line is not in the result."""

    line: int
    text: str
    is_lost: bool = False


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of the file, and the two objects that it becomes, as plain fields."""

    line: int
    source: str
    net: dict[str, Any]
    schedule: dict[str, Any]


@dataclass(slots=True)
class Imported:
    """What came of a file."""

    entries: list[Entry] = field(default_factory=list)
    remarks: list[Remark] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Origin:
    """Where the file comes from.

    Args:
        host: where the jobs shall run.
        timezone: in which its times are meant, unless it says so itself.
        user: as whom; empty: as the agent itself, or as each line of a system crontab says.
        is_system: the sixth field of each line is a user (/etc/crontab, /etc/cron.d).
        prefix: begins the names of all objects.
    """

    host: str
    timezone: str = "UTC"
    user: str = ""
    is_system: bool = False
    prefix: str = "cron"


def read(text: str, origin: Origin) -> Imported:
    """Return what a crontab file becomes."""
    found = Imported()
    variables: dict[str, str] = {}
    taken: Counter[str] = Counter()
    for number, line in enumerate(text.splitlines()[:LINES_MAX], 1):
        stripped = line.strip()
        if not stripped or stripped.startswith("#"):
            continue
        variable = _VARIABLE.match(line)
        if variable and not stripped.startswith("@"):
            name = next(g for g in variable.groups()[:3] if g)
            variables[name] = _unquoted(variable.group(4))
            found.remarks += _about_variable(number, name, variables[name])
            continue
        try:
            found.entries.append(_entry(number, stripped, variables=variables, origin=origin, taken=taken))
        except ValueError as e:
            found.remarks.append(Remark(number, str(e), is_lost=True))
        else:
            found.remarks += _about_command(number, stripped)
    if len(text.splitlines()) > LINES_MAX:
        found.remarks.append(Remark(LINES_MAX + 1, f"only {LINES_MAX} lines are read", is_lost=True))
    return found


def _entry(number: int, line: str, *, variables: dict[str, str], origin: Origin, taken: Counter[str]) -> Entry:
    """Return what one line becomes.

    Raises:
        ValueError: it cannot be expressed; the message says why.
    """
    when, rest = _split(line.removeprefix("-"))
    user = origin.user
    if origin.is_system:
        named, *more = rest.split(None, 1)
        user, rest = user or named, more[0] if more else ""
    command = rest.strip()
    if not command:
        raise ValueError("there is no command")
    zone = next((variables[z] for z in _ZONES if variables.get(z)), origin.timezone)
    env = {k: v for k, v in variables.items() if k not in {"MAILTO", "MAILFROM", "SHELL", "LOGNAME", *_ZONES}}
    job: dict[str, Any] = {"name": "run", "host": origin.host, "command": _command(command, variables)}
    job |= ({"user": user} if user else {}) | ({"env": env} if env else {})
    name = _name(origin, command, taken)
    net = {"kind": "JobNet", "name": name, "jobs": [job]}
    schedule = {"kind": "Schedule", "name": name, "job_net": name, "cron": when, "timezone": zone}
    return Entry(number, line, net, schedule)


def _split(line: str) -> tuple[str, str]:
    """Return the five fields and what follows them.

    Raises:
        ValueError: it is not a time that a schedule can keep.
    """
    if line.startswith("@"):
        word, *more = line.split(None, 1)
        if word == "@reboot":
            raise ValueError("@reboot: a schedule has no such instant; start it by a unit of the host's init")
        if word not in _NICKNAMES:
            raise ValueError(f"{word} is not known")
        return _NICKNAMES[word], more[0] if more else ""
    parts = line.split(None, cron.FIELDS)
    if len(parts) <= cron.FIELDS:
        raise ValueError("there are fewer than five fields and a command")
    when = " ".join(parts[: cron.FIELDS])
    cron.check(when)
    return when, parts[cron.FIELDS]


def _command(text: str, variables: dict[str, str]) -> str:
    """Return what the job runs: `%` taken apart, under the shell that the file names."""
    parts = [part.replace("\\%", "%") for part in re.split(r"(?<!\\)%", text)]
    command = parts[0].strip()
    shell = variables.get("SHELL", "")
    if shell not in _SHELLS:
        command = f"{shlex.quote(shell)} -c {shlex.quote(command)}"
    if len(parts) == 1:
        return command
    lines = " ".join(shlex.quote(part) for part in parts[1:])
    return f"printf '%s\\n' {lines} | {{\n{command}\n}}"


def _name(origin: Origin, command: str, taken: Counter[str]) -> str:
    """Return a name that says which program runs, and that no other line has."""
    words = [w for w in re.split(r"[\s;&|()<>]+", command) if w and "=" not in w and not w.startswith(("-", "[", "{"))]
    skipped = {"cd", "test", "exec", "nice", "env", "sudo", "command", "root", "sh", "bash", "flock"}
    word = next((w for w in words if w.rsplit("/", 1)[-1] not in skipped and not w.endswith("/")), "job")
    plain = re.sub(r"[^\w.-]+", "-", word.rsplit("/", 1)[-1]).strip("-.") or "job"
    base = f"{origin.prefix}-{origin.host}-{plain}"[:56].rstrip("-.")
    taken[base] += 1
    return base if taken[base] == 1 else f"{base}-{taken[base]}"


def _unquoted(value: str) -> str:
    is_quoted = len(value) >= 2 and value[0] == value[-1] and value[0] in "\"'"
    return value[1:-1] if is_quoted else value


def _about_variable(number: int, name: str, value: str) -> Iterator[Remark]:
    if name == "MAILTO" and value:
        yield Remark(
            number,
            f"MAILTO={value}: define a Notification and name it in `notify`; it tells of bad ends, not of output",
        )
    elif name == "RANDOM_DELAY":
        yield Remark(number, "RANDOM_DELAY is not kept: the jobs start at their times")
    elif name not in ("MAILTO", "SHELL", *_ZONES) and "$" in value:
        yield Remark(number, f"{name}: `$` in a variable is not expanded, as in cron")


def _about_command(number: int, command: str) -> Iterator[Remark]:
    if re.search(r">\s*/dev/null", command):
        yield Remark(number, "its output goes to /dev/null: without that, it would be kept with each run")
