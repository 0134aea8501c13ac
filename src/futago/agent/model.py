"""The nouns of a run on its host, and the one judgement that must never be wrong: what became of it.

Pure: `judge` reads what was observed on the disk and in the process table. A run is a directory:

    runs/<id>/order.json   the order, durable before anything else happens
    runs/<id>/started      made by the shim, exclusively, before the command: who makes it, owns the run
    runs/<id>/output       standard output and error of the command
    runs/<id>/exit         made beforehand (a full disk must not lose it), filled by the shim with the exit code
    runs/<id>/timed-out    made by the agent before it ends a run whose time is over
    runs/<id>/verdict.json the agent's own word, where no exit code can come any more
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

import msgspec

from futago.link.orders import Order, Outcome

REFUSED_MARK = b"refused\n"  # in `started`: the agent itself took the run, so no shim ever will
EXIT_BYTES = 16
EXIT_BLANK = b" " * (EXIT_BYTES - 1) + b"\n"


class Record(msgspec.Struct, frozen=True):
    """order.json: the order, and in which boot of the host it was taken."""

    order: Order
    boot: str
    taken: float


class OwnVerdict(msgspec.Struct, frozen=True):
    """verdict.json: how a run ended that has no exit code."""

    outcome: Outcome
    detail: str
    ended: float


@dataclass(frozen=True, slots=True)
class Keeper:
    """The shim's process. The start time (clock ticks since boot) tells it from a later process with the same
    number.
    """

    pid: int
    start_ticks: int


class Mark(Enum):
    """What the file `started` says."""

    ABSENT = "absent"
    BLANK = "blank"  # made, and not filled yet
    KEEPER = "keeper"  # a shim has it
    REFUSED = "refused"  # the agent has it


@dataclass(frozen=True, slots=True)
class Observed:
    """What is known of one run. `is_alive`: its shim runs now; to be observed before `exit_code`, so that an end in
    between is not missed.
    """

    is_same_boot: bool
    mark: Mark
    is_alive: bool
    exit_code: int | None
    has_verdict: bool = False


class Verdict(Enum):
    """What the agent has to do about a run."""

    ENDED = "ended"  # the exit code, or the agent's own word, is there
    RUNNING = "running"  # wait for its shim
    START = "start"  # it certainly has not started
    LOOK_AGAIN = "look-again"  # a shim has just taken it
    REBOOTED = "rebooted"  # unknown: the host went down; whether it had started, or ended, left no trace
    KILLED = "killed"  # unknown: its shim ended without leaving the exit code
    REFUSED = "refused"  # the agent took it to refuse it, and did not get to say why


def judge(seen: Observed) -> Verdict:
    """Return what to do about a run. First match decides; nothing is ever started on a doubt."""
    rules = (
        (seen.exit_code is not None or seen.has_verdict, Verdict.ENDED),
        (
            not seen.is_same_boot,
            Verdict.REBOOTED,
        ),  # `started` may have been lost with the unsynced pages: no proof that it did not start
        (seen.mark is Mark.ABSENT, Verdict.START),
        (seen.mark is Mark.REFUSED, Verdict.REFUSED),
        (seen.mark is Mark.BLANK, Verdict.LOOK_AGAIN),
        (seen.is_alive, Verdict.RUNNING),
    )
    return next((verdict for matches, verdict in rules if matches), Verdict.KILLED)


def parse_stat(line: bytes) -> tuple[Keeper, str, int] | None:
    """Return (process, state letter, session id) from a line of /proc/<pid>/stat; None if it is not one.

    Source: proc(5): fields 1 pid, 2 (name), 3 state, 6 session, 22 starttime. The name may hold spaces and brackets.
    """
    head, _, rest = line.rpartition(b")")
    fields = rest.split()
    try:
        pid = int(head.split(b" ", 1)[0])
        return Keeper(pid=pid, start_ticks=int(fields[19])), fields[0].decode("ascii"), int(fields[3])
    except (ValueError, IndexError, UnicodeDecodeError):
        return None


def parse_mark(content: bytes | None) -> tuple[Mark, Keeper | None]:
    """Return what the content of `started` (None: no such file) says."""
    if content is None:
        return Mark.ABSENT, None
    if content == REFUSED_MARK:
        return Mark.REFUSED, None
    parsed = parse_stat(content) if content.endswith(b"\n") else None
    return (Mark.BLANK, None) if parsed is None else (Mark.KEEPER, parsed[0])


def parse_exit(content: bytes | None) -> int | None:
    """Return the exit code that the shim wrote; None if the file is missing, blank or torn."""
    words = (content or b"").split()
    if len(words) != 2 or words[1] != b"end" or not words[0].isdigit():
        return None
    return int(words[0])
