"""What a further bottle costs: the proportional set size of everything but the agent, before and after it."""

import os
import subprocess
from itertools import pairwise
from pathlib import Path

from measure import NotMeasured
from place import Place


def parents() -> dict[int, int]:
    """Every process and its parent."""
    found = {}
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            stat = Path("/proc", name, "stat").read_text()
        except OSError:
            continue
        found[int(name)] = int(stat.rpartition(")")[2].split()[1])
    return found


def kept_by(marker: str) -> set[int]:
    """The processes whose environment has `marker`, and all their descendants."""
    tree, found = parents(), set()
    for pid in tree:
        try:
            environment = Path(f"/proc/{pid}/environ").read_bytes()
        except OSError:
            continue
        if marker.encode() in environment:
            found.add(pid)
    while more := {pid for pid, parent in tree.items() if parent in found} - found:
        found |= more
    return found


def is_agent(pid: int) -> bool:
    """Whether it is the `sleep` that stands for the agent."""
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip() == "sleep"
    except OSError:
        return True


def pss_kib(pids: set[int]) -> int:
    """Proportional set size: what is shared with others counts in part."""
    total = 0
    for pid in pids:
        try:
            text = Path(f"/proc/{pid}/smaps_rollup").read_text()
        except ProcessLookupError:
            continue
        except OSError as error:
            raise NotMeasured(f"the memory of process {pid} can't be read: {error}") from error
        total += next((int(line.split()[1]) for line in text.splitlines() if line.startswith("Pss:")), 0)
    return total


def further_bottles(place: Place, count: int, *bottle: str) -> list[float]:
    """MiB that each of `count` bottles added to those that ran before it; one runs beforehand. `bottle` are further options."""
    ids, totals = [], []
    try:
        for _ in range(count + 1):
            ids.append(
                place.ask("start", "sleeper", "--headless", "--detach", "--quiet", *bottle).split()[-1]
            )
            pids = {pid for pid in kept_by(f"HOME={place.home}") if not is_agent(pid)}
            if not pids:
                raise NotMeasured("no process of the bottle was found")
            totals.append(pss_kib(pids) / 1024)
    finally:
        if ids:
            place.ask("stop", "--now", *ids)
    return [after - before for before, after in pairwise(totals)]


def bubblewrap_alone() -> float:
    """MiB of a bare bwrap around the same `sleep`, without the sleep: what no bottle can be below."""
    own = ["--unshare-all", "--die-with-parent", "--ro-bind", "/", "/", "--proc", "/proc", "--dev", "/dev"]
    marker = f"BENCH_BARE={os.getpid()}"
    env = {"PATH": os.defpath, "BENCH_BARE": str(os.getpid())}
    process = subprocess.Popen(["bwrap", *own, "sleep", "3600"], env=env)
    try:
        pids = kept_by(marker)
        while len(pids) < 3 or not any(map(is_agent, pids)):
            if process.poll() is not None:
                raise NotMeasured("bare bwrap does not run here")
            pids = kept_by(marker)
        return pss_kib({pid for pid in pids if not is_agent(pid)}) / 1024
    finally:
        process.kill()
        process.wait()
