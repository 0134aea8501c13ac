"""What a folder would look like after a crash at each of the system calls that changed it.

`ShadowDisk` watches the calls that real code makes below one folder and takes two pictures after each: what a killed
program leaves behind (everything that was written), and what the loss of power leaves at worst (contents as of their last
sync, names as of the last sync of their folder). Nothing is replaced: the calls are made.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

Tree = dict[str, bytes | None]  # path below the folder -> content; None: a folder
_CALLS = ("open", "write", "fdatasync", "fsync", "ftruncate", "truncate", "mkdir", "rename", "unlink", "rmdir")


@dataclass(frozen=True)
class Picture:
    """The state after one call. `said`: what had been said to be durable by then."""

    after: str
    killed: Tree
    powerless: Tree
    said: Any


class ShadowDisk:
    """Takes the pictures.

    Args:
        root: the folder.
        said: returns what the code under test says is durable.
    """

    def __init__(self, root: Path, said: Callable[[], Any] = lambda: None) -> None:
        self._root = str(root)
        self.said = said
        self.pictures: list[Picture] = []
        self._contents: dict[int, bytes] = {}  # inode -> what a sync has made durable
        self._names: dict[int, dict[str, int]] = {}  # folder's inode -> names that a sync has made durable
        self._is_looking = False
        for folder, _, files in os.walk(root):  # what is there to begin with has been there for long
            self._sync_folder(Path(folder))
            for name in files:
                self._contents[(Path(folder) / name).stat().st_ino] = (Path(folder) / name).read_bytes()

    def watch(self, patch: pytest.MonkeyPatch) -> None:
        """Begin to watch."""
        for name in _CALLS:
            patch.setattr(os, name, self._watched(name, getattr(os, name)))

    def _watched(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            result = real(*args, **kwargs)
            where = args[0] if not isinstance(args[0], int) else _path_of(args[0])
            changes = name != "open" or bool(args[1] & os.O_CREAT)
            if not self._is_looking and changes and str(where).startswith(self._root):
                self._is_looking = True
                try:
                    self._note(name, args, str(where))
                finally:
                    self._is_looking = False
            return result

        return call

    def _note(self, name: str, args: tuple[Any, ...], where: str) -> None:
        path = Path(where)
        if name in ("fsync", "fdatasync"):
            if path.is_dir():
                self._sync_folder(path)
            else:
                self._contents[path.stat().st_ino] = path.read_bytes()
        below = where[len(self._root) :].lstrip("/")
        self.pictures.append(Picture(f"{name} {below}", self._now(), self._durable(), self.said()))

    def _sync_folder(self, path: Path) -> None:
        self._names[path.stat().st_ino] = {one.name: one.stat().st_ino for one in path.iterdir()}

    def _now(self) -> Tree:
        root = Path(self._root)
        found = sorted(root.rglob("*"))
        return {str(one.relative_to(root)): None if one.is_dir() else one.read_bytes() for one in found}

    def _durable(self) -> Tree:
        made: Tree = {}
        self._add_durable(Path(self._root).stat().st_ino, "", made)
        return made

    def _add_durable(self, folder: int, prefix: str, made: Tree) -> None:
        for name, inode in self._names.get(folder, {}).items():
            path = prefix + name
            if inode in self._names or _is_folder(Path(self._root) / path):
                made[path] = None
                self._add_durable(inode, path + "/", made)
            else:
                made[path] = self._contents.get(inode, b"")


def _path_of(fd: int) -> str:
    try:
        return os.readlink(f"/proc/self/fd/{fd}")
    except OSError:
        return ""


def _is_folder(path: Path) -> bool:
    return path.is_dir()


def lay_out(tree: Tree, root: Path) -> Path:
    """Make a folder that looks so; return it."""
    root.mkdir()
    for name, content in sorted(tree.items()):
        path = root / name
        if content is None:
            path.mkdir()
        else:
            path.write_bytes(content)
    return root
