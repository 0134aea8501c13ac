"""`futago simulate`: run the pair in a simulated world with seeded faults, or search a small world completely."""

from __future__ import annotations

import json
import sys
from typing import Annotated

import typer

from futago.sim.exhaustive import Bounds, search
from futago.sim.hunt import Tally, hunt, story

SAY_EVERY = 50


def simulate(
    seeds: Annotated[int, typer.Option(help="How many schedules, with seeds one after the other.")] = 100,
    *,
    seed: Annotated[int | None, typer.Option(help="The first seed; alone: run it once and tell its story.")] = None,
    minutes: Annotated[float | None, typer.Option(help="Go on for so long instead of a number of seeds.")] = None,
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
    if exhaustive:
        seconds = 1e9 if minutes is None else minutes * 60
        raise typer.Exit(_search(Bounds(commits, epochs, crashes, turns, seconds=seconds), as_json=as_json))
    if seed is not None and minutes is None and seeds == 100:
        raise typer.Exit(_tell(seed, as_json=as_json))
    raise typer.Exit(_hunt(seed or 0, seeds, None if minutes is None else minutes * 60, as_json=as_json))


def _tell(seed: int, *, as_json: bool) -> int:
    lines = story(seed)
    is_broken = not lines[-1].endswith("every invariant held")
    if as_json:
        print(json.dumps({"seed": seed, "is_broken": is_broken, "story": lines}, ensure_ascii=False))
    else:
        print("\n".join(lines))
    return int(is_broken)


def _hunt(first: int, seeds: int, seconds: float | None, *, as_json: bool) -> int:
    tally = Tally()
    for tally in hunt(first, seeds=seeds, seconds=seconds):
        if tally.schedules % SAY_EVERY == 0 and not as_json:
            print(f"{tally.schedules} schedules, {len(tally.violations)} broken", file=sys.stderr)
    if as_json:
        print(json.dumps(_numbers(first, tally), ensure_ascii=False))
    else:
        _print_hunt(tally)
    return int(bool(tally.violations))


def _numbers(first: int, tally: Tally) -> dict[str, object]:
    broken = [{"seed": r.seed, "violation": r.violation, "core": r.core} for r in tally.violations]
    return {
        "first_seed": first,
        "schedules": tally.schedules,
        "simulated_s": round(tally.simulated_s, 1),
        "faults": tally.faults,
        "acknowledged": tally.acks,
        "schedules_per_s": round(tally.schedules / max(tally.seconds, 0.001), 1),
        "rules": dict(sorted(tally.rules.items())),
        "rules_not_fired": tally.unfired,
        "violations": broken,
    }


def _print_hunt(tally: Tally) -> None:
    for rule, times in sorted(tally.rules.items()):
        print(f"{times:9}  {rule}")
    print(f"not fired: {', '.join(tally.unfired) or 'none'}")
    print(
        f"{tally.schedules} schedules, {tally.simulated_s / 3600:.1f} simulated hours, {tally.faults} faults, "
        f"{tally.acks} commits acknowledged, {tally.schedules / max(tally.seconds, 0.001):.1f} schedules/s"
    )
    for result in tally.violations:
        print(f"BROKEN: seed {result.seed}: {result.violation} (core: {result.core})")
    if tally.violations:
        print(f"\nThe story of seed {tally.violations[0].seed}:")
        print("\n".join(story(tally.violations[0].seed)))


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
