"""Area `docker`: a whole run, many at once, and a command in a running bottle, beside bare Docker with the very same image.

The yardstick's container has no network either, which is its fastest; the door, the bundle, the copy of the workspace and its
diff are ours alone.
"""

import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import memory
from bot_bottle.backends.docker import images
from bot_bottle.plan.model import ImageSpec
from measure import NO_GOAL, Figure, NotMeasured, Program, figure, in_turn, median
from place import ROOT, Place

sys.path.append(str(ROOT / "tests"))

AREA = "docker"
AT_ONCE = 10
_START = ("start", "true", "--headless", "--quiet", "--bottle", "docker")


def measure(place: Place, runs: int, progress: Callable[[str], None]) -> Iterator[Figure]:
    """Everything about bottles that a container holds."""
    from support import engine

    with engine.used():
        if why_not := engine.missing():
            raise NotMeasured(why_not)
        if shutil.which("docker") is None:
            raise NotMeasured("the docker command, which is the yardstick, is not installed")
        spec = ImageSpec(args=(("BASE", engine.BASE),))
        bottle = f"---\nbackend: docker\nimage: {{args: {{BASE: '{engine.BASE}'}}}}\n---\n"
        (Path(place.home) / ".bot-bottle/bottles/docker.md").write_text(bottle)
        progress("building the image")
        place.ask(*_START)
        connected = engine.engine()
        try:
            image = images.ensure(spec, images.access(connected), progress).id
        finally:
            connected.client.close()
        yield from _whole_run(place, image, runs, progress)
        yield from _at_once(place, image, max(3, runs // 3), progress)
        yield from _command(place, image, runs, progress)
        yield from _memory(place, progress)


def _docker(place: Place, name: str, *words: str) -> Program:
    return place.program(name, "docker", *words)


def _whole_run(place: Place, image: str, runs: int, progress: Callable[[str], None]) -> Iterator[Figure]:
    bare = _docker(place, "docker run", "run", "--rm", "--network", "none", image, "true")
    times = in_turn([place.bot_bottle("bottle", *_START), bare], runs=runs, progress=progress)
    ours, theirs = median(times["bottle"]), median(times["docker run"])
    yield figure(
        AREA,
        "start --headless, true, to its end",
        ours,
        "ms",
        yardstick="docker run --rm IMAGE true",
        yardstick_value=theirs,
        goal="at most 2 x",
        ok=ours <= 2 * theirs,
    )


def _at_once(place: Place, image: str, rounds: int, progress: Callable[[str], None]) -> Iterator[Figure]:
    """From before the first is started until the last is gone, beside one by itself; and what bare Docker makes of as many."""
    one, many, bare = [], [], []
    program = place.bot_bottle("bottle", *_START)
    theirs = _docker(place, "docker run", "run", "--rm", "--network", "none", image, "true")
    for number in range(rounds):
        progress(f"{AT_ONCE} at once: {number}/{rounds}")
        one.append(_together([program]))
        many.append(_together([program] * AT_ONCE))
        bare.append(_together([theirs] * AT_ONCE))
    ours, alone = statistics.median(many), statistics.median(one)
    yield figure(
        AREA,
        f"{AT_ONCE} started together, to the last's end",
        ours,
        "ms",
        yardstick="one by itself",
        yardstick_value=alone,
        goal="at most 5 x",
        ok=ours <= 5 * alone,
    )
    yield figure(
        AREA,
        f"{AT_ONCE} started together, to the last's end",
        ours,
        "ms",
        yardstick=f"{AT_ONCE} x docker run together",
        yardstick_value=statistics.median(bare),
        goal=NO_GOAL,
        ok=True,
    )


def _together(programs: Sequence[Program]) -> float:
    """Milliseconds until all of them have ended; NotMeasured when one fails."""
    before = time.perf_counter()
    running = [
        subprocess.Popen(
            list(one.argv), env=dict(one.env), cwd=one.cwd, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        for one in programs
    ]  # fmt: skip
    told = [one.communicate()[1] for one in running]
    taken = time.perf_counter() - before
    for one, said in zip(running, told, strict=True):
        if one.returncode:
            raise NotMeasured(f"one of {len(running)} failed: {said.decode(errors='replace')[-500:]}")
    return taken * 1000


def _command(place: Place, image: str, runs: int, progress: Callable[[str], None]) -> Iterator[Figure]:
    """`exec` in a bottle that runs, beside `docker exec` in a container that runs."""
    ours = place.ask("start", "sleeper", "--headless", "--detach", "--quiet", "--bottle", "docker").split()[
        -1
    ]
    name = f"bot-bottle-bench-{os.getpid()}"
    try:
        _must(
            _docker(
                place,
                "",
                "run",
                "--rm",
                "--detach",
                "--network",
                "none",
                "--name",
                name,
                image,
                "sleep",
                "3600",
            )
        )
        programs = [
            place.bot_bottle("exec", "exec", ours, "--", "true"),
            _docker(place, "docker exec", "exec", name, "true"),
        ]
        times = in_turn(programs, runs=runs, progress=progress)
    finally:
        subprocess.run(["docker", "rm", "--force", name], env=place.env, capture_output=True, check=False)
        place.ask("stop", "--now", ours)
    taken, theirs = median(times["exec"]), median(times["docker exec"])
    yield figure(
        AREA,
        "exec RUN true",
        taken,
        "ms",
        yardstick="docker exec CONTAINER true",
        yardstick_value=theirs,
        goal="at most 1.3 x",
        ok=taken <= 1.3 * theirs,
    )


def _must(program: Program) -> None:
    done = subprocess.run(
        list(program.argv), env=dict(program.env), capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise NotMeasured(f"{' '.join(program.argv)}: {done.stderr.strip()}")


def _memory(place: Place, progress: Callable[[str], None]) -> Iterator[Figure]:
    """Keeper, bundle and process 1: what a further bottle adds outside its agent and outside the engine."""
    progress("memory of further bottles")
    added = median(memory.further_bottles(place, 3, "--bottle", "docker"))
    yield figure(
        AREA,
        "memory of a further bottle (PSS)",
        added,
        "MiB",
        goal="at most 20 MiB",
        ok=added <= 20,
    )
