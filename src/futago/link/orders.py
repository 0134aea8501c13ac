"""What agents and managers say to each other: tagged messages in the frames of link/frames.py, over mutual TLS on
PORT_AGENT.

Lives here: the messages and their bounds. Must not live here: what either side does about them (agent/session.py,
jobs/hub.py).

    agent                         manager (one on each member)
      Hello ------------------------>
      <------------------------ Welcome(epoch, active)      RoleChanged whenever that changes
      <------------------------ Order(run_id)               only from an active one, of the highest epoch ever seen
      OrderTaken | Refused --------->                       OrderTaken: the run id is on the agent's disk
      RunEnded --------------------->                       again after every change, until
      <------------------------ Committed(run_id)           the result is on the disks of the pair: the agent may forget
      <------------------------ Stop(run_id)                again until it has ended
      <------------------------ ReadOutput(run_id)          somebody looks at what a run writes
      OutputPart ------------------->
      <------------------------ FileStep                    a piece of a file (link/files.py)
      FileAnswer ------------------->
      <------------------------ Ask(run_ids)
      RunsReport ------------------->                       which of them it has, which not
      Beat <------------------------> Beat                  silence longer than SILENCE_S ends the session on both
"""

from __future__ import annotations

import shlex
from enum import Enum

import msgspec

from futago.link.files import FileAnswer, FileStep

BEAT_S = 1.0  # each side says something at least this often
SILENCE_S = 3.5  # three lost beats and a half: the other side is gone or hung
RECONNECT_S_MAX = 1.0  # an agent tries again at least this often
WELCOME_S = 5.0  # from the TCP connection to the end of the greeting, TLS included

OPEN_RUNS_MAX = 20_000  # runs one agent holds at most; an order beyond is refused and comes again
ASK_RUNS_MAX = 1_000  # ids in one Ask: a report then stays below 100 KB
COMMAND_BYTES_MAX = 64 * 1024  # half of what one argument of execve(2) may be
SCRIPT_BYTES_MAX = 1 << 20
STOP_SIGNALS = ("TERM", "INT", "HUP", "QUIT", "USR1", "USR2", "KILL")
STOP_GRACE_S = 10.0  # from the order to end to SIGKILL, where a job does not say
STOP_GRACE_S_MAX = 3600.0
ENV_MAX = 200
ENV_VALUE_BYTES_MAX = 8 * 1024
OUTPUT_KEPT_BYTES_MAX = 1 << 20  # per run on the agent's disk
OUTPUT_TAIL_CHARS_MAX = 16 * 1024  # per run in the manager's database
PART_BYTES_MAX = 64 * 1024  # of a running job's output, in one answer
DETAIL_CHARS_MAX = 500
FRAME_BYTES_MAX = 4 << 20  # the largest honest message is an order with a script and ENV_MAX variables


class Outcome(Enum):
    """How a run came to its end, as far as the host can know."""

    EXITED = "exited"  # the exit code says it; above 128: killed by signal code - 128
    TIMED_OUT = "timed-out"  # the agent ended it when its time was over
    NOT_STARTED = "not-started"  # certainly not started: such as a user that does not exist
    UNKNOWN = "unknown"  # it started, and its end left no trace: the host lost power, or the run's keeper was killed


class RefusalReason(Enum):
    """Why an agent did not take an order."""

    STALE = "stale"  # a higher epoch is known
    INACTIVE = "inactive"  # this session did not declare itself active in that epoch
    FULL = "full"  # OPEN_RUNS_MAX is reached, or the disk is full: send it again later
    FORGOTTEN = "forgotten"  # the result of this run was committed already


class Hello(msgspec.Struct, frozen=True, tag="hello"):
    """The agent's first message. `open_runs`: how many it holds whose result has not been committed."""

    agent: str
    boot: str
    version: str
    epoch: int
    open_runs: int = 0
    carries_files: bool = False  # it understands FileStep
    lists_files: bool = False  # and Deed.LIST


class Welcome(msgspec.Struct, frozen=True, tag="welcome"):
    """The member's answer. `is_active`: it may give orders in `epoch`. `members`: addresses of all members now; empty if
    the member does not say.
    """

    member: str
    epoch: int
    is_active: bool
    members: list[str] = []


class RoleChanged(msgspec.Struct, frozen=True, tag="role"):
    """The member's epoch or activity changed, or the members' addresses."""

    epoch: int
    is_active: bool
    members: list[str] = []


class Order(msgspec.Struct, frozen=True, tag="order"):
    """Run this, at most once. A repeated order (same run_id) is answered with what is known. `timeout_s` 0: none.
    `user` "": the agent's own. `script`: a text that the command finds as the file $FUTAGO_SCRIPT (see `script_command`).
    To end the run, `stop_command` is run beside it, or (empty) its processes get `stop_signal`, one of STOP_SIGNALS;
    `stop_grace_s` later what is left of it gets SIGKILL.
    """

    run_id: str
    epoch: int
    command: str
    job: str = ""
    net: str = ""
    session_id: int = 0
    user: str = ""
    env: dict[str, str] = {}
    timeout_s: float = 0.0
    script: str = ""
    stop_command: str = ""
    stop_signal: str = "TERM"
    stop_grace_s: float = STOP_GRACE_S


class OrderTaken(msgspec.Struct, frozen=True, tag="taken"):
    """The run id is durable on the agent; it will be started, or was."""

    run_id: str


class Refused(msgspec.Struct, frozen=True, tag="refused"):
    """The order was not taken. `epoch`: the highest that the agent knows."""

    run_id: str
    reason: RefusalReason
    epoch: int


class RunEnded(msgspec.Struct, frozen=True, tag="ended"):
    """How a run ended. Times are the host's wall clock, seconds since 1970; 0: not known. `output`: the last
    OUTPUT_TAIL_CHARS_MAX of it.
    """

    run_id: str
    outcome: Outcome
    exit_code: int | None = None
    started: float = 0.0
    ended: float = 0.0
    output: str = ""
    output_bytes: int = 0
    detail: str = ""


class Committed(msgspec.Struct, frozen=True, tag="committed"):
    """The manager has the result on disk: the agent may forget the run."""

    run_id: str


class Stop(msgspec.Struct, frozen=True, tag="stop"):
    """End this run: SIGTERM to its processes, SIGKILL a while later. A run that was never taken is reported absent."""

    run_id: str


class Ask(msgspec.Struct, frozen=True, tag="ask"):
    """Which of these runs do you have? At most ASK_RUNS_MAX. `all_ended`: and tell me every result that you keep."""

    run_ids: list[str]
    all_ended: bool = False


class RunsReport(msgspec.Struct, frozen=True, tag="report"):
    """Answer to Ask: `held` were taken and have not ended, `absent` were never taken. For those that ended, RunEnded
    follows; those that are just being taken are in neither. `stopped`: answer to Stop, never taken; nothing that was
    sent before can start them any more.
    """

    held: list[str]
    absent: list[str]
    stopped: list[str] = []


class ReadOutput(msgspec.Struct, frozen=True, tag="read-output"):
    """Tell me what this run has written from byte `offset` on; at most PART_BYTES_MAX of it. `ticket` comes back with the
    answer.
    """

    run_id: str
    ticket: int
    offset: int = 0


class OutputPart(msgspec.Struct, frozen=True, tag="output-part"):
    """Answer to ReadOutput. `offset`: where `data` begins, beyond the one asked for where the middle was not kept.
    `size`: bytes written so far; -1: no such run here. `is_ended`: nothing will be added.
    """

    run_id: str
    ticket: int
    offset: int
    data: bytes
    size: int
    is_ended: bool


class Beat(msgspec.Struct, frozen=True, tag="beat"):
    """I am alive."""


def script_command(script: str, arguments: str = "") -> str:
    """Return the command that runs the script of an order: by the program that its first line names (`#!`), else by
    /bin/sh.

    Args:
        script: the text.
        arguments: what follows, in the shell's words.
    """
    first = script.split("\n", 1)[0]
    words = first[2:].strip().split(None, 1) if first.startswith("#!") else []
    program = " ".join(shlex.quote(w.strip()) for w in words) if words else "/bin/sh"
    return f'exec {program} "$FUTAGO_SCRIPT" {arguments}'.rstrip()


FromAgent = Hello | OrderTaken | Refused | RunEnded | RunsReport | OutputPart | FileAnswer | Beat
FromManager = Welcome | RoleChanged | Order | Stop | Committed | Ask | ReadOutput | FileStep | Beat
