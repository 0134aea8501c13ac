"""A program that compiles MIB modules with pysmi: `python -m futago.intake.mib_program`, a task on standard input, the
result on standard output.

MIB texts come from anywhere, so this runs apart from all that matters: with bounds of memory and processor time that it
sets on itself before it reads anything, no files to write, and a caller that ends it at a deadline (mib_compile.py).
"""

from __future__ import annotations

import json
import re
import resource
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec

from futago.intake.mib_names import Module, Node

MEMORY_BYTES_MAX = 1 << 30
CPU_S_MAX = 120
NODES_MAX = 50_000  # of one module
NAME = re.compile(r"[A-Za-z][A-Za-z0-9-]{0,63}\Z")
_WORD = re.compile(r"[A-Za-z0-9_.-]{1,128}\Z")  # vendors name things beyond what SMI allows
_BASE = Path(__file__).parent / "mib_base"
_COMMENT = re.compile(r"--.*?(?:--|$)", re.MULTILINE)
_STRING = re.compile(r'"[^"]*"')
_HEAD = re.compile(r"\b([A-Za-z][A-Za-z0-9-]{0,63})\s*(?:\{[^}]*\}\s*)?DEFINITIONS\b[^:]{0,80}::=\s*BEGIN")
_FROM = re.compile(r"\bFROM\s+([A-Za-z][A-Za-z0-9-]{0,63})")
_OID = re.compile(r"\d+(\.\d+){1,127}\Z")
_CHAIN_MAX = 10  # textual conventions of textual conventions


class Task(msgspec.Struct, frozen=True):
    """What to compile: `files` by their names, with the texts of the modules that are `known` already."""

    files: dict[str, str]
    known: dict[str, str]


class Made(msgspec.Struct, frozen=True):
    """One module that was compiled, and the file that it was in."""

    module: Module
    file: str


class Result(msgspec.Struct, frozen=True):
    """All of it, or why not. `missing`: name of a module -> names of those that import it."""

    made: list[Made] = []
    missing: dict[str, list[str]] = {}
    faults: list[str] = []


def module_names(text: str) -> list[str]:
    """Return the names of the modules in a text."""
    return _HEAD.findall(_plain(text))


def imported(text: str) -> list[str]:
    """Return the names of the modules that a text imports from."""
    return sorted(set(_FROM.findall(_plain(text))))


def _plain(text: str) -> str:
    return _COMMENT.sub(" ", _STRING.sub('""', text))


def compiled(task: Task) -> Result:
    """Compile everything in the files; all of it or nothing."""
    files: dict[str, str] = {}  # module -> its file
    faults: list[str] = []
    for file, text in task.files.items():
        names = module_names(text)
        if not names:
            faults.append(f"{file}: there is no MIB module in it (`NAME DEFINITIONS ::= BEGIN`)")
        for name in names:
            if files.setdefault(name, file) != file:
                faults.append(f"{name} is in {files[name]} and in {file}")
    if faults:
        return Result(faults=faults)
    texts = {**task.known, **{name: task.files[file] for name, file in files.items()}}
    documents, statuses = _run_pysmi(sorted(files), texts)
    missing = {name: _importers(name, texts, statuses) for name, status in statuses.items() if status == "missing"}
    if missing:
        return Result(missing=missing)
    faults += [_complaint(name, status, files) for name, status in statuses.items() if status.startswith("failed")]
    faults += [f"{name}: it was not compiled" for name in files if name not in documents and not faults]
    if faults:
        return Result(faults=faults)
    made = []
    for name, file in files.items():
        needed = [one for one in imported(task.files[file]) if one in texts and one not in module_names(texts[name])]
        made.append(Made(Module(name, needed, list(_nodes(documents[name], documents))), file))
    return Result(made)


def _run_pysmi(wanted: list[str], texts: Mapping[str, str]) -> tuple[dict[str, dict[str, Any]], dict[str, str]]:
    """Return the compiled documents, and what became of each module, by name."""
    from pysmi.codegen.jsondoc import JsonCodeGen
    from pysmi.compiler import MibCompiler
    from pysmi.parser.dialect import smi_v1_relaxed
    from pysmi.parser.smi import parserFactory
    from pysmi.reader.callback import CallbackReader
    from pysmi.writer.callback import CallbackWriter

    documents: dict[str, dict[str, Any]] = {}

    def read(name: str, _: object) -> str:
        if not NAME.match(name):
            return ""
        if name in texts:
            return texts[name]
        base = _BASE / f"{name}.txt"
        return base.read_text(encoding="ascii") if base.is_file() else ""

    def write(name: str, data: str, _: object) -> None:
        documents[name] = json.loads(data)

    compiler = MibCompiler(parserFactory(**smi_v1_relaxed)(), JsonCodeGen(), CallbackWriter(write))
    compiler.add_sources(CallbackReader(read))
    found = compiler.compile(*wanted)
    return documents, {
        name: f"failed {getattr(status, 'error', '')}" if str(status) == "failed" else str(status)
        for name, status in found.items()
    }


def _importers(missing: str, texts: Mapping[str, str], statuses: Mapping[str, str]) -> list[str]:
    return sorted(name for name in statuses if name in texts and missing in imported(texts[name]))


def _complaint(name: str, status: str, files: Mapping[str, str]) -> str:
    what = " ".join(status.removeprefix("failed ").split())[:500]
    place = f"{files[name]}: " if name in files else ""
    return f"{place}{name}: {what or 'it cannot be compiled'}"


def _nodes(document: Mapping[str, Any], documents: Mapping[str, Mapping[str, Any]]) -> Iterator[Node]:
    """Yield the notifications and objects of a module."""
    for count, symbol in enumerate(document.values()):
        if count >= NODES_MAX:
            raise ValueError(f"more than {NODES_MAX} names")
        if not isinstance(symbol, dict) or not _OID.match(str(symbol.get("oid", ""))):
            continue
        oid, name = symbol["oid"], str(symbol.get("name", ""))
        if not _WORD.match(name):
            continue  # what ends up in events is text that a database takes
        if symbol.get("class") == "notificationtype":
            carried = [str(one.get("object", "")) for one in symbol.get("objects", ())]
            objects = [one for one in carried if _WORD.match(one)]
            yield Node(oid, name, is_notification=True, objects=objects)
        elif symbol.get("class") == "objecttype" and "syntax" not in symbol:
            continue  # a table or a row: no notification carries it
        else:
            values, are_bits, hint = _syntax(symbol.get("syntax") or {}, document, documents)
            named = {number: word for number, word in values.items() if _WORD.match(word)}
            yield Node(oid, name, values=named, are_bits=are_bits, hint=hint if hint.isprintable() else "")


def _syntax(
    syntax: Mapping[str, Any], document: Mapping[str, Any], documents: Mapping[str, Mapping[str, Any]]
) -> tuple[dict[int, str], bool, str]:
    """Return names of values, whether they are bits, and the display hint, through textual conventions."""
    hint = ""
    for _ in range(_CHAIN_MAX):
        bits = syntax.get("bits")
        named = bits or syntax.get("constraints", {}).get("enumeration")
        if named:
            return {int(number): str(name) for name, number in named.items()}, bool(bits), hint
        found = _type(str(syntax.get("type", "")), document, documents)
        if found is None:
            break
        hint = hint or str(found[0].get("displayhint", ""))
        syntax, document = found[0].get("type") or {}, found[1]
        if not isinstance(syntax, dict):
            break
    return {}, False, hint


def _type(
    name: str, document: Mapping[str, Any], documents: Mapping[str, Mapping[str, Any]]
) -> tuple[Mapping[str, Any], Mapping[str, Any]] | None:
    """Return a textual convention and the document that defines it."""
    if isinstance(document.get(name), dict) and "oid" not in document[name]:
        return document[name], document
    for module, symbols in document.get("imports", {}).items():
        if module in documents and isinstance(symbols, list) and name in symbols:
            there = documents[module]
            if isinstance(there.get(name), dict) and "oid" not in there[name]:
                return there[name], there
    return None


def confine() -> None:
    """Set this process's bounds."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES_MAX, MEMORY_BYTES_MAX))
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_S_MAX, CPU_S_MAX))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))


def main() -> int:
    """Compile one task."""
    confine()
    task = msgspec.msgpack.decode(sys.stdin.buffer.read(), type=Task)
    try:
        result = compiled(task)
    except RecursionError:
        result = Result(faults=["names refer to each other in a circle, or it is nested too deeply"])
    except MemoryError:
        result = Result(faults=[f"it needs more than {MEMORY_BYTES_MAX >> 20} MiB of memory"])
    except Exception as e:  # noqa: BLE001  pysmi raises whatever a text makes it raise
        result = Result(faults=[f"it cannot be compiled: {type(e).__name__}: {e}"[:500]])
    sys.stdout.buffer.write(msgspec.msgpack.encode(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
