"""The simulator made quick: the same source, compiled by mypyc in a folder of its own, proved to tell the same stories, and then run for long.

    python tests/sim/compiled.py build/simulator --check 300
    PYTHONPATH=build/simulator python -m futago simulate --seeds 2000000 --jobs 2

`make simulate-long SEEDS=2000000 JOBS=2` does both. Nothing that is installed is ever compiled: production runs what is in src.

Lives here: how the copy is made. A compiler of Python cares for things that an interpreter does not, so the copy is rewritten, mechanically, in three
places, and mypy checks it again: dataclasses get a plain constructor (and no slots, which compiled classes always have; that nobody assigns to a
frozen one is what mypy proved on the source); a `once` becomes a property that keeps its answer in an attribute; constants are declared Final. Must not
live here: any change of what is decided. The proof is `check`: for each of many seeds, what the source and the compiled copy tell, count and
draw must be the same to the last byte.
"""

from __future__ import annotations

import argparse
import ast
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

SOURCE = Path(__file__).parents[2] / "src"
ROOMS = ("sim", "cluster/model", "cluster/rules")
FILES = (
    "cluster/decide",
    "cluster/hearing",
    "cluster/situation",
    "cluster/word",
    "register/acceptor",
    "register/ballot",
)
INTERPRETED = ("abstract", "exhaustive", "hunt", "replay", "__init__")  # of sim: not on the way of a schedule
FIRST = 50_000  # seeds for the check
DIGESTS = "import sys; from futago.sim.hunt import digest; [print(digest(s)) for s in range(*map(int, sys.argv[1:]))]"
SETUP = """
from mypyc.build import mypycify
from setuptools import setup

flags = ["--ignore-missing-imports", "--follow-imports=silent", "--no-warn-unused-ignores"]
setup(name="simulator", packages=[], ext_modules=mypycify([*flags, *{files}], opt_level="{level}"))
"""

Edit = tuple[int, int, list[str]]  # first and last line that are replaced, counted from 1, and by what


def compiled_files() -> list[str]:
    """Return the files that are compiled, relative to the source's root."""
    found = [p for room in ROOMS for p in sorted((SOURCE / "futago" / room).glob("*.py"))]
    rooms = [p for p in found if p.parent.name != "sim" or p.stem not in INTERPRETED]
    return [str(p.relative_to(SOURCE)) for p in rooms] + [f"futago/{name}.py" for name in FILES]


# --- rewriting ---


def rewritten(text: str) -> str:
    """Return a file's text as the compiler wants it."""
    lines, tree = text.splitlines(), ast.parse(text)
    edits = list(_constants(tree, lines))
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef):
            edits += [*_dataclass(node, text, lines), *_kept(node, text, lines)]
    for first, last, new in sorted(edits, reverse=True):
        lines[first - 1 : last] = new
    return "\n".join(lines) + "\n"


def _constants(tree: ast.Module, lines: list[str]) -> Iterator[Edit]:
    """Constants of a module are Final, so that the compiler may put their values where they are used."""
    is_used = False
    for node in tree.body:
        if isinstance(node, ast.Assign) and len(node.targets) == 1:
            target, value_at = node.targets[0], ": Final"
        elif isinstance(node, ast.AnnAssign) and node.annotation.end_lineno == node.lineno:
            target, value_at = node.target, ""
        else:
            continue
        if not isinstance(target, ast.Name) or not target.id.isupper():
            continue
        line, end = lines[node.lineno - 1], target.end_col_offset or 0
        if value_at:
            new = line[:end] + value_at + line[end:]
        else:
            a = node.annotation  # type: ignore[union-attr]
            new = f"{line[: a.col_offset]}Final[{line[a.col_offset : a.end_col_offset]}]{line[a.end_col_offset :]}"
        yield node.lineno, node.lineno, [new]
        is_used = True
    future = next((n for n in tree.body if isinstance(n, ast.ImportFrom) and n.module == "__future__"), None)
    if is_used and future is not None:
        yield future.lineno, future.lineno, [lines[future.lineno - 1], "from typing import Final"]


def _dataclass(node: ast.ClassDef, text: str, lines: list[str]) -> Iterator[Edit]:
    """A dataclass with simple defaults gets a constructor that can be compiled."""
    found = [d for d in node.decorator_list if isinstance(d, ast.Call) and ast.unparse(d.func) == "dataclass"]
    if not found:
        return
    fields = [n for n in node.body if isinstance(n, ast.AnnAssign)]
    is_frozen = any(k.arg == "frozen" for k in found[0].keywords)
    is_simple = not any(f.value is not None and "field(" in ast.unparse(f.value) for f in fields)
    own = [n for n in node.body if isinstance(n, ast.FunctionDef) and n.name in ("__init__", "__post_init__")]
    options = ["unsafe_hash=True"] if is_frozen else []
    if fields and is_simple and not own:
        options.append("init=False")
        arguments, moves = [], []
        for f in fields:
            name, kind = ast.unparse(f.target), " ".join((ast.get_source_segment(text, f.annotation) or "").split())
            arguments.append(f"{name}: {kind}" + ("" if f.value is None else f" = {ast.unparse(f.value)}"))
            moves.append(f"        self.{name} = {name}")
            comment = lines[(f.end_lineno or 0) - 1][f.end_col_offset :]
            new = [f"    {name}: {kind}{comment}"]
            if f is fields[-1]:
                new += ["", f"    def __init__(self, {', '.join(arguments)}) -> None:", *moves, ""]
            yield f.lineno, f.end_lineno or f.lineno, new
    yield found[0].lineno, found[0].end_lineno or 0, [f"@dataclass({', '.join(options)})"]


def _kept(node: ast.ClassDef, text: str, lines: list[str]) -> Iterator[Edit]:
    """A `once` becomes a property, an attribute that keeps the answer, and the method that finds it out."""
    methods = [n for n in node.body if isinstance(n, ast.FunctionDef)]
    kept = []
    for m in methods:
        mark = next((d for d in m.decorator_list if isinstance(d, ast.Name) and d.id == "once"), None)
        if mark is None:
            continue
        kind = ast.get_source_segment(text, m.returns) if m.returns is not None else None
        assert kind is not None and "None" not in kind, f"{m.name}: None says that it is not known yet"
        kept.append(f"        self._kept_{m.name}: {kind} | None = None")
        new = ["    @property", f"    def {m.name}(self) -> {kind}:", f"        kept = self._kept_{m.name}"]
        new += ["        if kept is None:", f"            kept = self._kept_{m.name} = self._find_{m.name}()"]
        yield mark.lineno, m.lineno, [*new, "        return kept", "", f"    def _find_{m.name}(self) -> {kind}:"]
    if kept:
        start = next(m for m in methods if m.name == "__init__").body[0].lineno
        yield start, start, [*kept, lines[start - 1]]


# --- building and proving ---


def copy(target: Path) -> None:
    """Put a rewritten copy of the source into a folder, which is emptied."""
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(SOURCE / "futago", target / "futago", ignore=shutil.ignore_patterns("__pycache__"))
    for name in compiled_files():
        (target / name).write_text(rewritten((SOURCE / name).read_text()))


def build(target: Path, level: str) -> None:
    """Compile the copy where it is. Raises CalledProcessError if mypy or the C compiler says no."""
    (target / "setup.py").write_text(SETUP.format(files=compiled_files(), level=level))
    with (target / "build.log").open("wb") as log:
        command = [sys.executable, "setup.py", "build_ext", "--inplace"]
        subprocess.run(command, cwd=target, env=_environment(target), stdout=log, stderr=log, check=True)


def check(target: Path, seeds: int) -> None:
    """Raise AssertionError unless source and copy give the same digest for each seed."""
    one, other = (digests(root, FIRST, seeds) for root in (SOURCE, target))
    differ = [FIRST + i for i, (a, b) in enumerate(zip(one, other, strict=True)) if a != b]
    assert len(one) == seeds and not differ, f"the copy tells another story of the seeds {differ[:10]}"


def digests(root: Path, first: int, seeds: int) -> list[str]:
    """What `futago.sim.hunt.digest` says of some seeds, by the simulator below a folder."""
    command = [sys.executable, "-c", DIGESTS, str(first), str(first + seeds)]
    told = subprocess.run(command, cwd=root, env=_environment(root), capture_output=True, text=True, check=True)
    return told.stdout.split()


def _environment(root: Path) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(root.resolve())}


def main() -> None:
    """Make the copy, compile it, prove it."""
    arguments = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    arguments.add_argument("target", type=Path, help="a folder for the copy; it is emptied")
    arguments.add_argument("--check", type=int, default=100, metavar="SEEDS", help="compare so many seeds [100]")
    arguments.add_argument("--level", default="1", help="how hard the C compiler tries, 0 to 3 [1]")
    given = arguments.parse_args()
    copy(given.target)
    build(given.target, given.level)
    check(given.target, given.check)
    print(f"{given.target}: {given.check} seeds tell the same story, compiled and interpreted")


if __name__ == "__main__":
    main()
