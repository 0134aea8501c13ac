"""`futago simulate`: run the pair in a simulated world with seeded faults, search a small world completely, or replay a record."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from futago.sim.exhaustive import Bounds, search
from futago.sim.hunt import STORY_LINES_MAX, Tally, every_rule, hunt, story

SAY_EVERY = 1000


def simulate(
    seeds: Annotated[int | None, typer.Option(help="How many schedules, with seeds one after the other. [100]")] = None,
    *,
    seed: Annotated[int | None, typer.Option(help="The first seed; alone: run it once and tell its story.")] = None,
    minutes: Annotated[float | None, typer.Option(help="Go on for so long instead of a number of seeds.")] = None,
    jobs: Annotated[int, typer.Option(min=1, max=64, help="Processes.")] = 1,
    replay: Annotated[
        Path | None, typer.Option(help="Decide again what a controller recorded in this folder or file, and tell it.")
    ] = None,
    exhaustive: Annotated[
        bool, typer.Option("--exhaustive", help="Search every state of a small world instead.")
    ] = False,
    commits: Annotated[int, typer.Option(help="With --exhaustive: commits of clients.")] = 1,
    epochs: Annotated[int, typer.Option(help="With --exhaustive: highest epoch.")] = 4,
    crashes: Annotated[int, typer.Option(help="With --exhaustive: crashes of members or databases.")] = 1,
    turns: Annotated[int, typer.Option(help="With --exhaustive: how often waiting becomes too long.")] = 2,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Run the pair in a simulated world with seeded faults; exit 1 if an invariant breaks, and tell how."""
    if replay is not None:
        from futago.sim.replay import replay_files

        raise typer.Exit(replay_files(replay, as_json=as_json))
    if exhaustive:
        bound_s = 1e9 if minutes is None else minutes * 60
        raise typer.Exit(_search(Bounds(commits, epochs, crashes, turns, seconds=bound_s), as_json=as_json))
    if seed is not None and minutes is None and seeds is None:
        raise typer.Exit(_tell(seed, as_json=as_json))
    seconds = None if minutes is None else minutes * 60
    raise typer.Exit(_hunt(seed or 0, 100 if seeds is None else seeds, seconds, jobs=jobs, as_json=as_json))


def _tell(seed: int, *, as_json: bool) -> int:
    lines = story(seed)
    is_broken = not lines[-1].endswith("every invariant held")
    if as_json:
        print(json.dumps({"seed": seed, "is_broken": is_broken, "story": lines}, ensure_ascii=False))
    else:
        print("\n".join(lines))
    return int(is_broken)


def _hunt(first: int, seeds: int, seconds: float | None, *, jobs: int, as_json: bool) -> int:
    tally, said = Tally(), 0
    for tally in hunt(first, seeds=seeds, seconds=seconds, jobs=jobs):
        if tally.schedules >= said + SAY_EVERY:
            said = tally.schedules
            print(f"{said} schedules, {len(tally.violations)} broken", file=sys.stderr, flush=True)
    tally.play_directed()
    if as_json:
        print(json.dumps(_numbers(first, tally), ensure_ascii=False))
    else:
        _print_hunt(first, tally)
    return int(bool(tally.violations) or not tally.is_covered)


def _numbers(first: int, tally: Tally) -> dict[str, object]:
    broken = [{"seed": r.seed, "violation": r.violation, "core": r.core} for r in tally.violations]
    return {
        "first_seed": first,
        "schedules": tally.schedules,
        "simulated_s": round(tally.simulated_s, 1),
        "faults": tally.faults,
        "acknowledged": tally.acks,
        "messages": tally.messages,
        "schedules_per_s": round(tally.schedules / max(tally.seconds, 0.001), 1),
        "schedules_per_processor_s": round(tally.schedules / max(tally.processor_s, 0.001), 1),
        "kinds": dict(sorted(tally.kinds.items())),
        "rungs": dict(sorted(tally.rungs.items())),
        "rules": dict(sorted(tally.rules.items())),
        "rules_directed": {r: name for r, name in sorted(tally.directed.items()) if r not in tally.rules},
        "rules_not_fired": tally.unfired,
        "violations": broken,
    }


def _print_hunt(first: int, tally: Tally) -> None:
    for rule in every_rule():
        if rule in tally.rules:
            print(f"{tally.rules[rule]:9}  {rule}")
        elif rule in tally.directed:
            print(f"{'':9}  {rule}  in the scenario: {tally.directed[rule]}")
    print("faults: " + ", ".join(f"{kind} {times}" for kind, times in sorted(tally.kinds.items())))
    print("ladder: " + ", ".join(f"{rung} {times}" for rung, times in sorted(tally.rungs.items())))
    print(f"rules that never decided: {', '.join(tally.unfired) or 'none'}")
    print(
        f"{tally.schedules} schedules (seeds {first} to {first + tally.schedules - 1}), "
        f"{tally.simulated_s / 3600:.1f} simulated hours, {tally.faults} faults, "
        f"{tally.acks} commits acknowledged, {tally.messages} messages received; "
        f"{tally.schedules / max(tally.seconds, 0.001):.1f} schedules/s, "
        f"{tally.schedules / max(tally.processor_s, 0.001):.1f} for each second of a processor"
    )
    for result in tally.violations:
        print(f"BROKEN: seed {result.seed}: {result.violation} (core: {result.core})")
    told = next((r.seed for r in tally.violations if r.core != "directed"), None)
    if told is not None:
        print(f"\nThe end of the story of seed {told} (all of it: futago simulate --seed {told}):")
        print("\n".join(story(told)[-STORY_LINES_MAX:]))


def _search(bounds: Bounds, *, as_json: bool) -> int:
    found = search(bounds)
    if as_json:
        numbers = {
            "states": found.states,
            "is_complete": found.is_complete,
            "violation": found.violation,
            "trace": found.trace,
            "paired_again": found.paired_again,
            "rules": sorted(found.rules),
            "seconds": round(found.seconds, 1),
        }
        print(json.dumps(numbers, ensure_ascii=False))
    else:
        end = "all" if found.is_complete else "not all"
        print(f"{found.states} states ({end} within the bounds) in {found.seconds:.1f} s; ", end="")
        print(f"paired again in {found.paired_again}; {found.violation or 'every invariant held'}")
        for step in found.trace:
            print(f"  {step}")
    return int(bool(found.violation))
