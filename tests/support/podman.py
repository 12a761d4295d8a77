"""A Podman service of a test's own, with everything of it in one folder.

Where root may not raise limits (a container's, often), Podman's default limits can't be set by its runtime; then a small program
stands before that, which takes them out of what is asked for.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bot_bottle.backends.docker.wire import Engine
from support import engine as engines
from support.waiting import wait_for

_MAY_RAISE = 1 << 24
"""CAP_SYS_RESOURCE, capabilities(7)."""
_WITHOUT_LIMITS = """#!{python} -I
import json, os, sys
if "create" in sys.argv and "--bundle" in sys.argv:
    path = sys.argv[sys.argv.index("--bundle") + 1] + "/config.json"
    with open(path) as file:
        config = json.load(file)
    config["process"].pop("rlimits", None)
    with open(path, "w") as file:
        json.dump(config, file)
os.execv({runtime!r}, [{runtime!r}, *sys.argv[1:]])
"""


def missing() -> str:
    """Why there can be none; empty when there can."""
    if os.geteuid() != 0:
        return "no Podman of the test's own: this is not root"
    wanted = [name for name in ("podman", "runc") if not shutil.which(name, path=engines.SBIN)]
    return f"no Podman of the test's own: {' and '.join(wanted)} not installed" if wanted else ""


@contextmanager
def serving(folder: Path, *, storage: str = "overlay") -> Iterator[Engine]:
    """Its service while the block lasts. The folder's path has to be short, and to have `docker` in it: what is mounted below is no
    mount of a test's then."""
    assert "docker" in str(folder)
    path = folder / "s"
    with (
        (folder / "log").open("wb") as said,
        subprocess.Popen(
            [*argv(folder, storage), "system", "service", "--time=0", f"unix://{path}"], stderr=said
        ) as service,
    ):
        try:
            wait_for(path.exists, "Podman's socket")
            yield Engine(str(path))
        finally:
            subprocess.run(
                [*argv(folder, storage), "rm", "--all", "--force"], capture_output=True, check=False
            )
            service.terminate()
            service.wait()
            for line in reversed(Path("/proc/self/mountinfo").read_text().splitlines()):
                if (mounted := line.split()[4]).startswith(f"{folder}/"):  # its storage is one, and may stay
                    subprocess.run(["umount", "--lazy", mounted], check=True)


def argv(folder: Path, storage: str = "overlay") -> list[str]:
    """How it is called, the service or by hand."""
    places = [f"--{name}={folder / name}" for name in ("root", "runroot", "tmpdir")]
    return [
        "podman",
        *places,
        f"--runtime={_runtime(folder)}",
        "--cgroup-manager=cgroupfs",
        f"--storage-driver={storage}",
    ]


def _runtime(folder: Path) -> str:
    """runc, which knows every layout of control groups."""
    runc = str(shutil.which("runc", path=engines.SBIN))
    status = dict(
        line.split(":\t", 1) for line in Path("/proc/self/status").read_text().splitlines() if ":\t" in line
    )
    if int(status["CapEff"], 16) & _MAY_RAISE:
        return runc
    program = folder / "runc"
    program.write_text(_WITHOUT_LIMITS.format(python=sys.executable, runtime=runc))
    program.chmod(0o755)
    return str(program)
