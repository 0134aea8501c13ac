"""A file on its way from one host to another: the steps that a manager asks of the two agents, and their answers.

    manager                       agent (of the source, or of the target)
      FileStep(open) -------------->   a helper process, as the file's user
      <------------------ FileAnswer   how much is there; of the target: or that all has been done before
      FileStep(read | write) ------>   one piece; an empty one: go on reading what is there, for the digest
      FileStep(finish) ------------>   source: the digest of all; target: verify, sync, rename
      FileStep(abandon) ----------->   target: remove what is not finished
      FileStep(list) -------------->   the plain files of a directory whose names match

Steps of one end follow each other: the next is sent when the last was answered. Nothing here does anything.
"""

from __future__ import annotations

from enum import Enum

import msgspec

PIECE_BYTES_MAX = 512 * 1024  # of a file, in one step
CATCH_UP_BYTES_MAX = 64 << 20  # read for the digest in one step
STEP_S = 60.0  # an end answers a step within this time, or is asked anew
PATH_CHARS_MAX = 1000
PATTERN_CHARS_MAX = 1000
LIST_FILES_MAX = 2000  # in one answer
LIST_BYTES_MAX = 1 << 20  # of their names


class Deed(Enum):
    """What a step asks for."""

    OPEN = "open"
    READ = "read"
    WRITE = "write"
    FINISH = "finish"
    ABANDON = "abandon"
    PUBLISH = "publish"  # said by an agent to its own helper only, once it has noted the run
    LIST = "list"  # to be asked of agents only that say `lists_files`


class Trouble(Enum):
    """Why a step was not done."""

    NONE = ""
    REFUSED = "refused"  # it will not be done: no such file, no right to it, no space
    AGAIN = "again"  # not now, or not by this manager: open again
    TORN = "torn"  # what is there is not what was sent, or the source has changed: from the beginning


class FileStep(msgspec.Struct, frozen=True, tag="file-step"):
    """Do this for the run's file at one end. `path`, `user` (empty: the agent's own) and `mode` go with OPEN; `size` and
    `digest` (SHA-256, hex) with FINISH of a target. LIST: of the directory `path` the files that match `pattern` (`wrong_pattern`).
    `base` goes with OPEN of a target: the directories below it that `path` names are made if they are not there.
    """

    run_id: str
    deed: Deed
    is_source: bool
    ticket: int = 0
    epoch: int = 0
    path: str = ""
    user: str = ""
    mode: int = 0o640
    offset: int = 0
    data: bytes = b""
    size: int = 0
    digest: str = ""
    pattern: str = ""
    base: str = ""


class Listed(msgspec.Struct, frozen=True, array_like=True):
    """A plain file that was found: its name below the directory that was asked for, inode, bytes, and nanoseconds since 1970."""

    name: str
    inode: int
    size: int
    mtime_ns: int


class FileAnswer(msgspec.Struct, frozen=True, tag="file-answer"):
    """What came of a step. `size`: of the file at this end now; `offset`: how much of it the digest covers. `is_done`: the
    target's file is in its place, and will stay so through a power cut.
    """

    run_id: str
    ticket: int = 0
    trouble: Trouble = Trouble.NONE
    fault: str = ""
    offset: int = 0
    size: int = 0
    data: bytes = b""
    digest: str = ""
    is_done: bool = False
    listed: list[Listed] = []


def wrong_path(path: str) -> str:
    """Return what is wrong with a path that is to be read or written; empty: nothing."""
    if not path.startswith("/") or len(path) > PATH_CHARS_MAX:
        return f"`{path[:100]}` is not an absolute path of at most {PATH_CHARS_MAX} characters"
    if any(ord(c) < 32 or ord(c) == 127 for c in path):
        return "a path holds no control characters"
    parts = path.split("/")[1:]
    if any(part in ("", ".", "..") for part in parts):
        return f"`{path[:100]}` holds `..`, `.`, or an empty name"
    return ""


def wrong_pattern(pattern: str) -> str:
    """Return what is wrong with a pattern of names; empty: nothing.

    `*`, `?` and `[a-z]` are as in a shell, in each part between slashes; a part `**` is any number of directories, also none.
    """
    if not 0 < len(pattern) <= PATTERN_CHARS_MAX:
        return f"a pattern has 1 to {PATTERN_CHARS_MAX} characters"
    if any(ord(c) < 32 or ord(c) == 127 for c in pattern):
        return "a pattern holds no control characters"
    parts = pattern.split("/")
    if any(part in ("", ".", "..") for part in parts):
        return f"`{pattern}` holds `..`, `.`, or an empty name; it is a pattern below the directory"
    if parts[-1] == "**" or parts.count("**") > 1:
        return f"`{pattern}`: `**` stands once, and before the pattern of the file's name, such as `**/*.csv`"
    return ""
