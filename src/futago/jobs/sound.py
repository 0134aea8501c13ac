"""Whether a net makes sense as a whole: names, conditions, circles. Pure.

The shape of each job has been checked before (definitions.py). A complaint goes with the field that it is about, so
that whoever shows it can name the line.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from futago.jobs.condition_definitions import After, Variable, absolute, leaves
from futago.jobs.model import ROOT, JobName

if TYPE_CHECKING:
    from futago.jobs.definitions import JobDefinition, JobNet

DEPTH_MAX = 9
Path = tuple[str | int, ...]
Complaint = tuple[Path, str]
_START = "^"  # marks the beginning of a unit; without it, its end


@dataclass(slots=True)
class _Known:
    """All units by path: the definition, where it stands, the net around it."""

    jobs: dict[JobName, JobDefinition] = field(default_factory=dict)
    places: dict[JobName, Path] = field(default_factory=dict)
    parents: dict[JobName, JobName] = field(default_factory=dict)

    def is_hidden(self, name: JobName) -> bool:
        """Whether the path leads into a reference or a scope, whose content is not known here."""
        parts = name.split("/")
        heads = (JobName("/".join(parts[:n])) for n in range(1, len(parts)))
        return any(head in self.jobs and self.jobs[head].is_opaque for head in heads)


def complaints(net: JobNet, *, jobs_max: int) -> Iterator[Complaint]:
    """Yield what makes no sense in a net."""
    known = _Known()
    yield from _collect(net.jobs, ROOT, ("jobs",), known)
    if len(known.jobs) > jobs_max:
        yield ("jobs",), f"a net has {jobs_max} jobs at most, nested ones included"
    wrong = [*_names(known), *_branches(net, known), *_variables(net, known)]
    yield from wrong
    if not wrong:
        circle = find_circle(_waits(net, known))
        if circle:
            shown = _readable(circle)
            place = known.places.get(JobName(shown[0]), ("jobs",))
            yield place, f"jobs wait for each other in a circle: {' -> '.join(shown)}"


def _collect(jobs: list[JobDefinition], net: JobName, place: Path, known: _Known) -> Iterator[Complaint]:
    for i, job in enumerate(jobs):
        name, where = absolute(job.name, net), (*place, i)
        if name in known.jobs:
            yield (*where, "name"), f"two jobs are named `{name}`"
            continue
        known.jobs[name], known.places[name], known.parents[name] = job, where, net
        if len(where) // 2 > DEPTH_MAX:
            yield where, f"nets are nested {DEPTH_MAX} deep at most"
        elif job.jobs is not None:
            yield from _collect(job.jobs, name, (*where, "jobs"), known)


def _names(known: _Known) -> Iterator[Complaint]:
    """Yield conditions on what is not there, or can never be met."""
    for name, job in known.jobs.items():
        for where, leaf in leaves(job.after, ("after",)):
            if isinstance(leaf, After):
                text = _wrong_name(name, job, leaf, known)
                if text:
                    yield (*known.places[name], *where), text


def _wrong_name(name: JobName, job: JobDefinition, leaf: After, known: _Known) -> str:
    wanted = absolute(leaf.job, known.parents[name])
    if wanted not in known.jobs:
        if known.is_hidden(wanted):
            return ""
        siblings = [n.rpartition("/")[2] for n, around in known.parents.items() if around == known.parents[name]]
        near = difflib.get_close_matches(leaf.job, [*siblings, *(f"/{n}" for n in known.jobs)], n=1)
        hint = f"; did you mean `{near[0]}`?" if near else ""
        return f"job `{job.name}` is after `{leaf.job}`, which is not a job of this net{hint}"
    if name.startswith(f"{wanted}/"):
        return f"job `{job.name}` is after `{leaf.job}`, which it is a part of"
    other = known.jobs[wanted]
    if leaf.value is not None and (other.jobs is not None or other.is_opaque or other.wait):
        return f"job `{job.name}` is after an end value of `{leaf.job}`, which has none: write `end`"
    return ""


def _branches(net: JobNet, known: _Known) -> Iterator[Complaint]:
    nets: list[tuple[JobName, Path, Any]] = [(ROOT, (), net.exclusive)]
    nets += [(name, known.places[name], job.exclusive) for name, job in known.jobs.items() if job.exclusive]
    for name, place, groups in nets:
        for i, group in enumerate(groups):
            for branch in group:
                if absolute(branch, name) not in known.jobs:
                    yield (*place, "exclusive", i), f"`exclusive` names `{branch}`, which is not a job of this net"
            for branch in group[1:]:
                job = known.jobs.get(absolute(branch, name))
                if job is not None and job.if_unmet is not None:
                    yield known.places[absolute(branch, name)], f"job `{branch}` is a branch: not taken, it is not run"
            if len(set(group)) < len(group):
                yield (*place, "exclusive", i), "`exclusive` names a job twice"


def _variables(net: JobNet, known: _Known) -> Iterator[Complaint]:
    if any(job.is_opaque for job in known.jobs.values()):
        return  # what is referred to may set them
    there = {*net.parameters, *(variable for job in known.jobs.values() for variable in job.sets)}
    for name, job in known.jobs.items():
        for where, leaf in leaves(job.after, ("after",)):
            if isinstance(leaf, Variable) and leaf.variable not in there:
                text = (
                    f"job `{job.name}` is after variable `{leaf.variable}`, which is no parameter and which no job sets"
                )
                yield (*known.places[name], *where), text


def _waits(net: JobNet, known: _Known) -> dict[str, list[str]]:
    """Return what each beginning and each end waits for."""
    waits: dict[str, list[str]] = {}
    for name, job in known.jobs.items():
        parent = known.parents[name]
        first = waits[_START + name] = [_START + parent] if parent else []
        waits[name] = [_START + name]
        for _, leaf in leaves(job.after):
            wanted = absolute(leaf.job, parent) if isinstance(leaf, After) else None
            if wanted in known.jobs:
                first.append(str(wanted))
        groups = known.jobs[parent].exclusive if parent else net.exclusive
        for group in groups:
            if job.name in group:
                first += [_START + absolute(other, parent) for other in group[: group.index(job.name)]]
    for name, parent in known.parents.items():
        if parent:
            waits[parent].append(name)
    return waits


def _readable(circle: list[str]) -> list[str]:
    """Return the circle as names: a beginning after its own end says nothing new."""
    shown: list[str] = []
    for node in circle:
        name = node.removeprefix(_START)
        if not (node.startswith(_START) and shown and shown[-1] == name):
            shown.append(name)
    return shown


def find_circle(waits_for: dict[str, list[str]]) -> list[str]:
    """Return one circle as a path whose last name is its first, in the order of waiting; empty if there is none.

    Walked with a stack of our own: a chain of ten thousand jobs is deeper than Python's.
    """
    done: set[str] = set()
    for root in waits_for:
        path: list[str] = []
        on_path: dict[str, int] = {}
        stack: list[tuple[str, Iterator[str]]] = []
        name: str | None = root
        while name is not None or stack:
            if name is not None and name not in done:
                if name in on_path:
                    return [*path[on_path[name] :], name]
                on_path[name] = len(path)
                path.append(name)
                stack.append((name, iter(waits_for[name])))
            if not stack:
                break
            top, rest = stack[-1]
            name = next(rest, None)
            if name is None:
                stack.pop()
                path.pop()
                del on_path[top]
                done.add(top)
    return []
