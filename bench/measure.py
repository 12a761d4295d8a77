"""How things are measured here: whole programs, in turn with their yardsticks, medians of many runs."""

import os
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

NO_GOAL = "none, stated only"
"""The goal of a figure that is there to be known; it is always `ok`."""


class NotMeasured(Exception):
    """Why something could not be measured here."""


@dataclass(frozen=True, slots=True)
class Figure:
    """One line of the table. `ratio` is value / yardstick_value; `goal` says in words what `ok` was decided by."""

    area: str
    name: str
    value: float
    unit: str
    yardstick: str
    yardstick_value: float | None
    ratio: float | None
    goal: str
    ok: bool

    def as_json(self) -> dict[str, Any]:
        """The figure as it stands in build/bench.json."""
        return asdict(self)


def figure(
    area: str,
    name: str,
    value: float,
    unit: str,
    *,
    goal: str,
    ok: bool,
    yardstick: str = "",
    yardstick_value: float | None = None,
) -> Figure:
    """A figure, its ratio worked out."""
    ratio = round(value / yardstick_value, 3) if yardstick_value else None
    rounded = None if yardstick_value is None else round(yardstick_value, 2)
    return Figure(area, name, round(value, 2), unit, yardstick, rounded, ratio, goal, ok)


@dataclass(frozen=True, slots=True)
class Program:
    """A command line to be timed, with its whole environment."""

    name: str
    argv: Sequence[str]
    env: Mapping[str, str]
    cwd: str


def milliseconds(program: Program) -> float:
    """How long one run of `program` took, from before it was started until it was gone; NotMeasured when it fails."""
    with tempfile.TemporaryFile() as output:
        silent = [
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
            (os.POSIX_SPAWN_DUP2, output.fileno(), 1),
            (os.POSIX_SPAWN_DUP2, output.fileno(), 2),
        ]
        before_folder = os.getcwd()
        os.chdir(program.cwd)
        try:
            before = time.perf_counter()
            pid = os.posix_spawnp(program.argv[0], list(program.argv), dict(program.env), file_actions=silent)
            _, status = os.waitpid(pid, 0)
            taken = time.perf_counter() - before
        finally:
            os.chdir(before_folder)
        if code := os.waitstatus_to_exitcode(status):
            output.seek(0)
            said = output.read().decode(errors="replace").strip()[-1000:]
            raise NotMeasured(f"{' '.join(program.argv)}: exit code {code}: {said}")
    return taken * 1000


OURS = ("start", "--help", "list", "bottle", "exec")
"""What must not fail, not even once."""


def _patiently(program: Program) -> float:
    """`milliseconds`; a yardstick that fails is asked twice more, since on a busy machine some do now and then."""
    for _ in range(2):
        try:
            return milliseconds(program)
        except NotMeasured:
            if program.name in OURS:
                raise
    return milliseconds(program)


def in_turn(
    programs: Sequence[Program], *, runs: int, progress: Callable[[str], None]
) -> dict[str, list[float]]:
    """`runs` rounds, every program once a round, in the given order; one round before that is not counted."""
    times: dict[str, list[float]] = {program.name: [] for program in programs}
    for number in range(-1, runs):
        progress(f"{programs[0].name}: {max(0, number + 1)}/{runs}")
        for program in programs:
            taken = _patiently(program)
            if number >= 0:
                times[program.name].append(taken)
    return times


def median(values: Sequence[float]) -> float:
    """The middle one."""
    return statistics.median(values)
