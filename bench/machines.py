"""Area `smolmachines`: bottles that a microVM holds, beside smolvm itself; in an emulated machine where none boots here.

Under emulation every figure is many times what it would be; ratios to what was measured in the same machine stay meaningful.
"""

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from measure import NO_GOAL, Figure, NotMeasured, figure
from place import ROOT, Place

sys.path.append(str(ROOT / "tools"))

AREA = "smolmachines"
INSIDE = "bench/machines_inside.py"
WITHIN = 1500.0
EMULATED_ROUNDS = 5
GONE = 255
"""ssh's own exit code."""


def measure(_place: Place, runs: int, progress: Callable[[str], None]) -> Iterator[Figure]:
    """Everything about bottles that a microVM holds."""
    import test_vm

    here = test_vm.kvm_works()
    rounds = runs if here else min(runs, EMULATED_ROUNDS)
    progress(f"{rounds} rounds {'here' if here else 'in an emulated machine'}")
    found = _here(rounds) if here else _emulated(rounds)
    where = "" if here else ", emulated"
    allowed = 1.25 * found["bare start"] + 150
    yield figure(
        AREA, f"start --detach{where}", found["start"], "ms", yardstick="smolvm machine start",
        yardstick_value=found["bare start"], goal="at most 1.25 x + 150 ms", ok=found["start"] <= allowed,
    )  # fmt: skip
    yield figure(
        AREA, f"start --headless, true, to its end{where}", found["whole"], "ms",
        yardstick="smolvm create, start, exec, stop, delete", yardstick_value=found["bare whole"], goal=NO_GOAL, ok=True,
    )  # fmt: skip
    yield figure(
        AREA, f"exec true{where}", found["exec"], "ms", yardstick="smolvm machine exec", yardstick_value=found["bare exec"],
        goal="at most 1.15 x", ok=found["exec"] <= 1.15 * found["bare exec"],
    )  # fmt: skip
    for unit, least in (("connections/s", 500), ("MB/s", 200)):
        ours, bare = found[f"relay {unit}"], found[f"bare {unit}"]
        goal = f"at least {least}" if here else "at least 0.5 x"
        yield figure(
            AREA, f"through the relay{where}", ours, unit, yardstick="a bare mounted socket", yardstick_value=bare,
            goal=goal, ok=ours >= (least if here else bare / 2),
        )  # fmt: skip


def _here(rounds: int) -> dict[str, float]:
    try:
        done = subprocess.run(
            [sys.executable, str(ROOT / INSIDE), str(rounds)], stdin=subprocess.DEVNULL, capture_output=True, text=True,
            timeout=WITHIN, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired as error:
        raise NotMeasured(f"not within {WITHIN:.0f} s") from error
    return _read(done.returncode, done.stdout, done.stderr)


def _emulated(rounds: int) -> dict[str, float]:
    import test_vm

    if why_not := test_vm.not_emulated():
        raise NotMeasured(f"no microVM boots here, and none can be emulated: {why_not}")
    if not test_vm.built():
        raise NotMeasured("the emulated machine could not be built")
    with tempfile.TemporaryDirectory(prefix="bot-bottle-bench-") as folder:
        machine = test_vm.Guest("bench", 4, test_vm.bring(Path(folder), "bench"))
        said = (GONE, "", "the emulated machine did not come up")
        for _ in range(2):  # now and then one hangs
            try:
                if machine.up():
                    said = machine.ask(f"python3 {INSIDE} {rounds}", WITHIN)
            finally:
                machine.down()
            if said[0] != GONE:
                break
    return _read(*said)


def _read(code: int, said: str, complaints: str) -> dict[str, float]:
    if code:
        raise NotMeasured(f"it ended with {code}: {complaints.strip()[-1000:]}")
    found: dict[str, float] = json.loads(said.splitlines()[-1])
    return found
