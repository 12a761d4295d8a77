"""Area `start`: what a person waits for, and what a further bottle costs."""

import sys
from collections.abc import Callable, Iterator

import memory
import srt
from measure import Figure, NotMeasured, figure, in_turn, median
from place import Place

AREA = "start"
BARE = ("bwrap", "--unshare-all", "--ro-bind", "/", "/", "--proc", "/proc", "--dev", "/dev", "true")
START = ("start", "true", "--headless", "--quiet")


def commands(place: Place, runs: int, progress: Callable[[str], None]) -> Iterator[Figure]:
    """`--help` and `list` against the same interpreter doing nothing."""
    place.ask(*START)  # so that there is a record to list
    programs = [
        place.bot_bottle("--help", "--help"),
        place.program("python", sys.executable, "-c", "pass"),
        place.bot_bottle("list", "list"),
    ]
    times = in_turn(programs, runs=runs, progress=progress)
    bare = median(times["python"])
    for name in ("--help", "list"):
        ours = median(times[name])
        yield figure(
            AREA,
            f"bot-bottle {name}",
            ours,
            "ms",
            yardstick="python -c pass",
            yardstick_value=bare,
            goal="at most 2.5 x",
            ok=ours <= 2.5 * bare,
        )


def whole_run(place: Place, runs: int, progress: Callable[[str], None]) -> Iterator[Figure]:
    """A whole headless run of `true`, against bare bubblewrap and against srt, all three in turn."""
    programs = [place.bot_bottle("start", *START), place.program("bwrap", *BARE)]
    why_not = ""
    try:
        programs.append(srt.program(place))
    except NotMeasured as error:
        why_not = str(error)
    times = in_turn(programs, runs=runs, progress=progress)
    ours, bare = median(times["start"]), median(times["bwrap"])
    yield figure(
        AREA,
        "start --headless, true",
        ours,
        "ms",
        yardstick="bwrap ... true",
        yardstick_value=bare,
        goal="at most 150 ms more",
        ok=ours <= bare + 150,
    )
    if why_not:
        raise NotMeasured(why_not)
    theirs = median(times["srt"])
    yield figure(
        AREA,
        "start --headless, true",
        ours,
        "ms",
        yardstick="srt -- true",
        yardstick_value=theirs,
        goal="at most 0.5 x",
        ok=ours <= 0.5 * theirs,
    )


def further_bottle(place: Place, runs: int, progress: Callable[[str], None]) -> Iterator[Figure]:
    """The memory of one more bottle outside its agent."""
    progress(f"memory of {runs} further bottles")
    added = median(memory.further_bottles(place, runs))
    yield figure(
        AREA,
        "memory of a further bottle (PSS)",
        added,
        "MiB",
        yardstick="bwrap alone",
        yardstick_value=memory.bubblewrap_alone(),
        goal="at most 20 MiB",
        ok=added <= 20,
    )
