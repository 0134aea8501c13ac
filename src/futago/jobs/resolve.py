"""A definition with everything that it refers to written out: what one session is going to do. Pure.

A reference becomes the net, or the job, that it names; a command for a scope becomes a net with a job for each host.
What stands at the reference itself (conditions, holds, delays) stays there.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import Any

REFERENCES_DEEP_MAX = 8
_OF_EACH_HOST = (
    "command", "script", "arguments", "user", "env", "timeout", "exit_codes", "sets", "stop", "retry", "queue",
)  # fmt: skip
Spec = Mapping[str, Any]


def needed(spec: Spec) -> tuple[set[str], set[str]]:
    """Return the nets and the scopes that a definition refers to."""
    nets: set[str] = set()
    scopes: set[str] = set()
    for job in _all_jobs(spec):
        if job.get("net"):
            nets.add(job["net"])
        if job.get("job"):
            nets.add(job["job"].partition("/")[0])
        if job.get("scope"):
            scopes.add(job["scope"])
    return nets, scopes


def resolve(spec: Spec, nets: Mapping[str, Spec], scopes: Mapping[str, list[str]]) -> dict[str, Any]:
    """Return the definition without references.

    Args:
        nets: every net that is referred to, directly or not.
        scopes: the hosts of every scope; the first is the best choice for a job that runs on any one.

    Raises:
        ValueError: with a sentence: a net refers to itself, what is named does not exist, a scope has no hosts.
    """
    seen = (str(spec["name"]),)
    return {**spec, "jobs": [_job(job, nets, scopes, seen) for job in spec["jobs"]]}


def _all_jobs(spec: Spec) -> Iterator[Spec]:
    queue = list(spec.get("jobs") or [])
    while queue:
        job = queue.pop()
        yield job
        queue.extend(job.get("jobs") or [])


def _job(job: Spec, nets: Mapping[str, Spec], scopes: Mapping[str, list[str]], seen: tuple[str, ...]) -> dict[str, Any]:
    if job.get("jobs"):
        return {**job, "jobs": [_job(inner, nets, scopes, seen) for inner in job["jobs"]]}
    if job.get("net"):
        net = _net(job["net"], job, nets, seen)
        inner = [_job(j, nets, scopes, (*seen, job["net"])) for j in net["jobs"]]
        taken = {key: net[key] for key in ("exclusive", "queue", "priority", "owner") if key in net}
        return {**taken, **_without(job, "net"), "jobs": inner}
    if job.get("job"):
        name, _, path = job["job"].partition("/")
        found = _found(_net(name, job, nets, seen), path)
        body = _job(_without(found, "after", "name"), nets, scopes, (*seen, name))
        return {**body, **_without(job, "job")}
    if job.get("scope"):
        return _on_scope(job, scopes)
    return dict(job)


def _net(name: str, job: Spec, nets: Mapping[str, Spec], seen: tuple[str, ...]) -> Spec:
    if name in seen:
        raise ValueError(f"Job nets refer to each other in a circle: {' -> '.join((*seen, name))}.")
    if len(seen) > REFERENCES_DEEP_MAX:
        raise ValueError(f"References are nested {REFERENCES_DEEP_MAX} deep at most: {' -> '.join((*seen, name))}.")
    if name not in nets:
        raise ValueError(f"Job `{job['name']}` refers to job net `{name}`, which does not exist.")
    return nets[name]


def _found(net: Spec, path: str) -> Spec:
    inside: Spec = net
    for part in path.split("/"):
        found = next((j for j in inside.get("jobs") or [] if j["name"] == part), None)
        if found is None:
            raise ValueError(f"Job net `{net['name']}` has no job `{path}`.")
        inside = found
    return inside


def _on_scope(job: Spec, scopes: Mapping[str, list[str]]) -> dict[str, Any]:
    """Return a command for a scope as a net of commands for hosts; `any`: as one command."""
    hosts = scopes.get(job["scope"], [])
    if not hosts:
        raise ValueError(f"Job `{job['name']}`: scope `{job['scope']}` has no hosts.")
    how = job.get("run_on") or "all"
    if how == "any":
        return {**_without(job, "scope", "run_on"), "host": hosts[0]}
    each = {key: job[key] for key in _OF_EACH_HOST if key in job}
    jobs: list[dict[str, Any]] = [{"name": host, "host": host, **each} for host in sorted(hosts)]
    if how == "in-turn":
        for before, one in pairwise(jobs):
            one["after"] = [{"job": before["name"], "end": ["abnormal"]}]
    kept = _without(job, "scope", "run_on", *_OF_EACH_HOST)
    return {**kept, "jobs": jobs, "judge": "best" if how == "in-turn" else "worst"}


def _without(spec: Spec, *keys: str) -> dict[str, Any]:
    return {key: value for key, value in spec.items() if key not in keys}
