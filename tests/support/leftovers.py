"""Finds what a run left behind: processes, mounts, files of the runtime folder, control groups.

Looks for the test's own folder and token only, so that tests running at the same time don't see each other.
"""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path


def read(path: str) -> bytes:
    """A file of /proc; empty when it is gone or not ours to read."""
    try:
        return Path(path).read_bytes()
    except OSError:
        return b""


def links(process: str) -> Iterator[str]:
    """Where a process's working folder, root, program and open files are."""
    with contextlib.suppress(OSError):
        for name in ("cwd", "root", "exe", *(f"fd/{number}" for number in os.listdir(f"{process}/fd"))):
            with contextlib.suppress(OSError):
                yield os.readlink(f"{process}/{name}")


def ours() -> set[int]:
    """This process and those that wait for it."""
    family, pid = set(), os.getpid()
    while pid > 1 and pid not in family:
        family.add(pid)
        pid = int(read(f"/proc/{pid}/stat").rpartition(b")")[2].split()[1] or b"0")
    return family


def processes(folder: str, token: str) -> dict[int, str]:
    """Living processes that carry `token` in their environment, or that have something of `folder` open or mounted."""
    found, family, here = {}, ours(), read("/proc/self/mountinfo")
    for pid in (int(name) for name in os.listdir("/proc") if name.isdigit()):
        process = f"/proc/{pid}"
        if pid in family:
            continue
        mounts = read(f"{process}/mountinfo")
        marks = {
            "environment": token.encode() in read(f"{process}/environ"),
            "command line": folder.encode() in read(f"{process}/cmdline"),
            "mounts": mounts != here and folder.encode() in mounts,
            "open files": any(link.startswith(folder) for link in links(process)),
        }
        if any(marks.values()):
            words = read(f"{process}/cmdline").replace(b"\0", b" ").decode(errors="replace")[:200]
            found[pid] = (
                f"process {pid} ({words.strip()}), by its {', '.join(m for m, seen in marks.items() if seen)}"
            )
    return found


def orphans() -> dict[int, str]:
    """Forks of ours that nobody keeps any more: a bundle has no environment and no file by which it could be found."""
    found = {}
    for pid in (int(name) for name in os.listdir("/proc") if name.isdigit()):
        words = read(f"/proc/{pid}/cmdline").replace(b"\0", b" ")
        parent = read(f"/proc/{pid}/stat").rpartition(b")")[2].split()[1:2]
        forked = b"bot-bottle start" in words and not read(f"/proc/{pid}/environ").strip(b"\0")
        if parent == [b"1"] and (forked or b"bundle.supervise import main" in words):
            found[pid] = f"process {pid} ({words.decode(errors='replace')[:100]}), an orphan"
    return found


def mounts(folder: str) -> list[str]:
    """Mounts of `folder` that the tests' own mount namespace shows."""
    lines = read("/proc/self/mountinfo").decode(errors="replace").splitlines()
    return [f"mount {line}" for line in lines if folder in line]


def runtime_files(home: Path) -> list[str]:
    """Run folders that are still there."""
    places = [home / ".local/state/bot-bottle/run", home / "runtime/bot-bottle"]
    return [
        f"run folder {entry}"
        for place in places
        if place.is_dir()
        for entry in place.iterdir()
        if entry.is_dir()
    ]


def control_groups(names: list[str]) -> list[str]:
    """Control groups whose own name carries the id of one of the test's runs."""
    found = []
    for folder, below, _ in os.walk("/sys/fs/cgroup"):
        found += [f"control group {folder}/{name}" for name in below if any(run in name for run in names)]
    return found


def containers(names: list[str]) -> list[str]:
    """Containers of the test's runs, also those that have ended; and what was mounted for them."""
    from bot_bottle.backends.docker import container, endpoint, stage
    from bot_bottle.backends.docker.wire import Engine

    engine = Engine(endpoint.find(os.environ).host.removeprefix("unix://"))
    found = engine.call("GET", "/containers/json", all="1")
    left = [
        f"container {each['Names'][0]}" for each in found if each["Labels"].get(container.RUN_LABEL) in names
    ]
    return left + [f"mounts {stage.FOLDER}/{run}" for run in names if os.path.isdir(f"{stage.FOLDER}/{run}")]


def run_ids(home: Path) -> list[str]:
    """The runs that ever were here, from the names of their folders."""
    places = [home / ".local/state/bot-bottle/runs", home / ".local/state/bot-bottle/run"]
    return sorted(
        {entry.name for place in places if place.is_dir() for entry in place.iterdir() if entry.is_dir()}
    )
