"""The part of area `smolmachines` that runs where a microVM boots: prints what it measured as one line of JSON.

    python bench/machines_inside.py ROUNDS

The yardstick is smolvm itself with the same image, processors, memory and folders, in turn with ours.
"""

import contextlib
import json
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "tests")]

from bot_bottle.backends.smolmachines import program  # noqa: E402
from bot_bottle.backends.smolmachines.arguments import Folder, Machine  # noqa: E402
from bot_bottle.backends.smolmachines.smolvm import Smolvm  # noqa: E402
from bot_bottle.errors import BotBottleError  # noqa: E402
from support.microvms import BOOTS, IMAGE, Place  # noqa: E402
from support.relayed_machines import BARE, RELAYED, World  # noqa: E402

CPUS, MEMORY, DISK = 1, 512, 2
SIZE, COUNT = 16 << 20, 100


class Bare:
    """Machines of smolvm's own making."""

    def __init__(self, folder: Path) -> None:
        self._shown = folder / "shown"
        self._shown.mkdir()
        self.smolvm = Smolvm(program.find(), str(folder / "state"))

    def create(self, name: str) -> None:
        workspace = Folder(str(self._shown), "/workspace", writable=True)
        self.smolvm.create(
            Machine(name, IMAGE, CPUS, MEMORY, DISK, command=("/bin/sleep", "3600"), folders=(workspace,))
        )

    def true(self, name: str) -> None:
        done = self.smolvm.execute(name, ("/bin/true",))
        assert done.code == 0, done.said

    def remove(self, name: str) -> None:
        self.smolvm.stop(name)
        self.smolvm.delete(name)

    @contextlib.contextmanager
    def running(self, name: str) -> Iterator[None]:
        try:
            self.create(name)
            self.smolvm.start(name)
            yield
        finally:
            self.remove(name)


class Times:
    """Milliseconds by name. Under emulation a boot now and then hangs: then that round is done again."""

    def __init__(self) -> None:
        self.all: dict[str, list[float]] = defaultdict(list)

    @contextlib.contextmanager
    def of(self, name: str) -> Iterator[None]:
        before = time.perf_counter()
        yield
        self.all[name].append((time.perf_counter() - before) * 1000)

    def round(self, work: Callable[[], None]) -> None:
        for left in reversed(range(BOOTS)):
            kept = {name: list(values) for name, values in self.all.items()}
            try:
                work()
                break
            except (BotBottleError, AssertionError) as error:
                self.all = defaultdict(list, kept)
                print(f"once more, as this failed: {error}", file=sys.stderr, flush=True)
                if not left:
                    raise


def starts(place: Place, bare: Bare, times: Times) -> None:
    """One round of what is done with a machine that is made for it."""
    try:
        with times.of("bare whole"):
            bare.create("whole")
            with times.of("bare start"):
                bare.smolvm.start("whole")
            bare.true("whole")
            bare.remove("whole")
    except BaseException:
        bare.remove("whole")
        raise
    with times.of("whole"):
        ended = place.run("start", "true", "--headless", "--quiet", "--workspace", "mount")
    assert ended.returncode == 0, ended.stderr
    with times.of("start"):
        began = place.run("start", "sleeper", "--detach", "--json", "--workspace", "mount")
    assert began.returncode == 0, began.stderr
    run = json.loads(began.stdout)["id"]
    stopped = place.run("stop", run)
    assert stopped.returncode == 0, stopped.stderr


def commands(place: Place, bare: Bare, times: Times, rounds: int) -> None:
    """One machine after the other: two at once are more than an emulated host carries."""
    with bare.running("exec"):
        for _ in range(2 * rounds + 1):
            with times.of("bare exec"):
                bare.true("exec")
    run = place.detached("--workspace", "mount", name="sleeper")
    try:
        for _ in range(2 * rounds + 1):
            with times.of("exec"):
                done = place.run("exec", run, "--", "true")
            assert done.returncode == 0, done.stderr
    finally:
        place.run("stop", run)


def relay(folder: Path, rounds: int) -> dict[str, list[float]]:
    """A machine under emulation now and then ends or hangs, with ours or without: then its round is done again in another."""
    found: dict[str, list[float]] = defaultdict(list)
    folder.mkdir()
    left, machines = rounds, 0
    while left:
        machines += 1
        of_its_own = folder / str(machines)
        of_its_own.mkdir()
        world = World(of_its_own, IMAGE)
        try:
            while left:
                for name, value in carried(world).items():
                    found[name].append(value)
                left -= 1
        except (BotBottleError, AssertionError) as error:
            print(f"once more, as this failed: {error}", file=sys.stderr, flush=True)
            if machines == BOOTS:
                raise
        finally:
            world.close()
    return found


def carried(world: World) -> dict[str, float]:
    found = {}
    for name, listener, connect in (("bare", world.bare, BARE), ("relay", world.listeners[1], RELAYED)):
        found[f"{name} MB/s"] = world.megabytes_a_second(listener, connect, SIZE)
        found[f"{name} connections/s"] = world.connections_a_second(listener, connect, COUNT)
    return found


def main() -> None:
    rounds = int(sys.argv[1])
    times = Times()
    with tempfile.TemporaryDirectory(prefix="s") as name:
        folder = Path(name)
        place = Place(folder, IMAGE)
        place.bottle(f"resources: {{cpus: {CPUS}, memory: {MEMORY}MiB}}\n")
        place.agent("true", name="true")
        place.agent("sleep", "3600", name="sleeper")
        bare = Bare(folder)
        try:
            place.start(name="true")  # makes what is made once for an image
            for _ in range(rounds):
                times.round(lambda: starts(place, bare, times))
            times.round(lambda: commands(place, bare, times, rounds))
        finally:
            place.run("cleanup")
        found = {name: statistics.median(values) for name, values in times.all.items()}
        through = relay(folder / "relay", rounds)
    medians = {key: statistics.median(values) for key, values in through.items()}
    print(json.dumps({**found, **medians}), flush=True)


if __name__ == "__main__":
    main()
