#!/usr/bin/env python3
"""Measures bot-bottle against its yardsticks: prints a table and writes build/bench.json.

    make bench [AREA=start|egress|approvals|docker|git|smolmachines] [ARGS=--quick]

Exits 0 when everything that was asked for was measured, whatever the figures; 1 when something could not be measured,
and says why.
"""

import argparse
import json
import os
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import start
import through
from measure import NO_GOAL, Figure, NotMeasured, figure
from place import ROOT, Place

RUNS = 21
QUICK_RUNS = 3
Progress = Callable[[str], None]


def tunnel_part(area: str, place: Place, runs: int, progress: Progress) -> Iterator[Figure]:
    """wrk in a bottle against nginx, beside wrk on the host, in turn."""
    ours, direct = through.measure(place, runs, progress)
    yield figure(
        area,
        "tunnel, 32 connections, wrk and nginx",
        ours,
        "requests/s",
        yardstick="wrk on the host",
        yardstick_value=direct,
        goal="at least 0.6 x",
        ok=ours >= 0.6 * direct,
    )


def lean_tunnel_part(area: str, _place: Place, runs: int, progress: Progress) -> Iterator[Figure]:
    """The harshest case, stated without a goal: two ends that cost next to nothing; and what 1 GiB does to the memory."""
    try:
        from tunnel import measure as measure_tunnel
    except ImportError as error:
        raise NotMeasured(f"the tunnel can't be measured: {error}") from error
    progress(f"tunnel, lean ends: {runs} rounds and 1 GiB")
    try:
        found = measure_tunnel(rounds=runs)
    except (OSError, RuntimeError) as error:
        raise NotMeasured(f"the tunnel could not be measured: {error}") from error
    yield figure(
        area,
        "tunnel, 32 connections, lean ends",
        found["tunnel_requests_per_second"],
        "requests/s",
        yardstick="direct connection",
        yardstick_value=found["direct_requests_per_second"],
        goal=NO_GOAL,
        ok=True,
    )
    grown = (found["bundle_kib_peak"] - found["bundle_kib_before_download"]) / 1024
    name = "growth while 1 GiB went through"
    yield figure(area, name, grown, "MiB", goal="at most 8 MiB", ok=grown <= 8)


def firewall_part(place: Place, runs: int, progress: Progress) -> Iterator[Figure]:
    """Everything else about the firewall; imported here, as what it needs is not for every area."""
    import firewall

    yield from firewall.measure(place, runs, progress)


def approvals_part(place: Place, runs: int, progress: Progress) -> Iterator[Figure]:
    """From an ask to an inbox, and from a yes to the proxy."""
    import approvals

    yield from approvals.measure(place, runs, progress)


def docker_part(place: Place, runs: int, progress: Progress) -> Iterator[Figure]:
    """Bottles that a container holds, beside bare containers of the same image."""
    import containers

    yield from containers.measure(place, runs, progress)


def machines_part(place: Place, runs: int, progress: Progress) -> Iterator[Figure]:
    """Bottles that a microVM holds, beside bare microVMs."""
    import machines

    yield from machines.measure(place, runs, progress)


def git_part(place: Place, runs: int, progress: Progress) -> Iterator[Figure]:
    """The git gate beside plain git."""
    import gitgate

    yield from gitgate.measure(place, runs, progress)


AREAS: dict[str, tuple[Callable[[Place, int, Progress], Iterator[Figure]], ...]] = {
    "start": (
        *(start.commands, start.whole_run, start.further_bottle),
        *(partial(part, "start") for part in (tunnel_part, lean_tunnel_part)),
    ),
    "egress": (*(partial(part, "egress") for part in (tunnel_part, lean_tunnel_part)), firewall_part),
    "approvals": (approvals_part,),
    "docker": (docker_part,),
    "git": (git_part,),
    "smolmachines": (machines_part,),
}


def show_progress(text: str) -> None:
    """One line on stderr that is written over; nothing when nobody watches."""
    if sys.stderr.isatty():
        sys.stderr.write(f"\r\x1b[K{text}")
        sys.stderr.flush()


def table(figures: list[Figure]) -> str:
    """The figures for a person."""
    headers = ("area", "what", "value", "yardstick", "its value", "ratio", "goal", "met")
    rows = [headers]
    for f in figures:
        theirs = "" if f.yardstick_value is None else f"{f.yardstick_value:g} {f.unit}"
        ratio = "" if f.ratio is None else f"{f.ratio:.2f}"
        met = "" if f.goal == NO_GOAL else "yes" if f.ok else "NO"
        rows.append((f.area, f.name, f"{f.value:g} {f.unit}", f.yardstick, theirs, ratio, f.goal, met))
    widths = [max(len(row[column]) for row in rows) for column in range(len(headers))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def measure(areas: list[str], runs: int) -> tuple[list[Figure], list[str]]:
    """The figures of `areas`, and why some could not be measured. A part that two areas share is measured once."""
    figures: list[Figure] = []
    problems: list[str] = []
    done: set[object] = set()
    with Place() as place:
        for area in areas:
            for part in AREAS[area]:
                what = part.func if isinstance(part, partial) else part
                if what in done:
                    continue
                done.add(what)
                try:
                    for found in part(place, runs, show_progress):
                        figures.append(found)
                except NotMeasured as error:
                    problems.append(f"{area}: {error}")
    show_progress("")
    return figures, problems


def main() -> int:
    parser = argparse.ArgumentParser(description="Measures bot-bottle against its yardsticks.")
    parser.add_argument("area", nargs="?", choices=list(AREAS), help="default: all there are")
    parser.add_argument(
        "--quick", action="store_true", help=f"{QUICK_RUNS} runs instead of {RUNS}: only to try it"
    )
    parser.add_argument("--output", type=Path, default=ROOT / "build" / "bench.json")
    options = parser.parse_args()
    runs = QUICK_RUNS if options.quick else RUNS
    figures, problems = measure([options.area] if options.area else list(AREAS), runs)
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps([made.as_json() for made in figures], indent=2) + "\n")
    print(table(figures))
    load = os.getloadavg()[0]
    print(f"\n{runs} runs each, medians; {os.cpu_count()} cores, load {load:.1f}; {options.output}")
    for problem in problems:
        print(f"not measured: {problem}", file=sys.stderr)
    return 1 if problems or not figures else 0


if __name__ == "__main__":
    sys.exit(main())
