"""Which plain files of a directory have names that match. For helper processes: it reads what its user may read.

Symbolic links are neither followed nor listed, so a listing never leaves the directory that was asked for. What is
there for an instant only (a file that goes while it is looked at) is not there.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase

from futago.link.files import LIST_BYTES_MAX, LIST_FILES_MAX, Listed

ENTRIES_MAX = 100_000  # looked at in one listing
DEEP_MAX = 20  # directories below each other


class TooMany(Exception):
    """There is more than a listing holds."""


def list_files(directory: str, pattern: str) -> list[Listed]:
    """Return the files whose names below `directory` match `pattern` (`wrong_pattern` has nothing against it), by name.

    Raises:
        OSError: the directory cannot be read.
        TooMany: more files match, or more is there to look at, than LIST_FILES_MAX and ENTRIES_MAX.
    """
    found: list[Listed] = []
    looked = length = 0
    for name, entry in _below(directory, "", pattern.split("/"), 0):
        looked += 1
        if looked > ENTRIES_MAX:
            raise TooMany(f"there are more than {ENTRIES_MAX} entries to look at")
        if entry is None:
            continue
        with contextlib.suppress(FileNotFoundError):
            status = entry.stat(follow_symlinks=False)
            if stat.S_ISREG(status.st_mode):
                length += len(os.fsencode(name))
                found.append(Listed(_text(name), status.st_ino, status.st_size, status.st_mtime_ns))
        if len(found) > LIST_FILES_MAX or length > LIST_BYTES_MAX:
            raise TooMany(f"more than {LIST_FILES_MAX} files match, or their names are too long together")
    return sorted(found, key=lambda f: f.name)


def _below(
    directory: str, prefix: str, parts: Sequence[str], depth: int
) -> Iterator[tuple[str, os.DirEntry[str] | None]]:
    """Yield every entry that is looked at, those that may be the answer with what they are."""
    part, rest = parts[0], parts[1:]
    with os.scandir(directory) as entries:
        for entry in entries:
            name = prefix + entry.name
            is_one = not rest and fnmatchcase(entry.name, part) and _may_show(entry.name, part)
            yield name, entry if is_one else None
            if part == "**":
                if not entry.name.startswith("."):
                    yield from _inside(entry, name, parts, depth)
            elif rest and fnmatchcase(entry.name, part) and _may_show(entry.name, part):
                yield from _inside(entry, name, rest, depth)
    if part == "**":  # it is no directory, too
        yield from _below(directory, prefix, rest, depth)


def _inside(
    entry: os.DirEntry[str], name: str, parts: Sequence[str], depth: int
) -> Iterator[tuple[str, os.DirEntry[str] | None]]:
    if not entry.is_dir(follow_symlinks=False):
        return
    if depth >= DEEP_MAX:
        raise TooMany(f"directories are more than {DEEP_MAX} deep")
    with contextlib.suppress(FileNotFoundError):
        yield from _below(entry.path, name + "/", parts, depth + 1)


def _may_show(name: str, part: str) -> bool:
    """Hidden names are shown only to a pattern that begins with a dot, as in a shell: what is on its way has such a name."""
    return part.startswith(".") or not name.startswith(".")


def _text(name: str) -> str:
    """Return a name that can be sent.

    Raises:
        TooMany: it is not UTF-8.
    """
    try:
        name.encode()
    except UnicodeEncodeError as e:
        raise TooMany(f"a name is not UTF-8: {ascii(name)[:200]}") from e
    return name
