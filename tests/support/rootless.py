"""A rootless Docker of a test's own: run by an ordinary user who has subordinate ids, its data in a folder of the test's."""

import contextlib
import os
import pwd
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from bot_bottle.backends.docker.engine import connect
from support import engine as engines
from support.waiting import wait_for

SCRIPTS = "/usr/share/docker.io/contrib"
"""Where Debian's package keeps `dockerd-rootless.sh`."""
PROGRAMS = ("dockerd", "dockerd-rootless.sh", "rootlesskit", "newuidmap", "slirp4netns")


class Rootless(NamedTuple):
    """`host` is what DOCKER_HOST says of it; `runtime` is the user's XDG_RUNTIME_DIR."""

    uid: int
    runtime: Path

    @property
    def host(self) -> str:
        return f"unix://{self.runtime}/docker.sock"


def user() -> int:
    """A user with subordinate ids, who is not root; 0 when there is none."""
    with contextlib.suppress(OSError):
        for line in Path("/etc/subuid").read_text().splitlines():
            with contextlib.suppress(KeyError):
                if found := pwd.getpwnam(line.partition(":")[0]).pw_uid:
                    return found
    return 0


def missing() -> str:
    """Why there can be none here; empty when there can."""
    search = os.pathsep.join([SCRIPTS, engines.SBIN])
    lacking = [name for name in PROGRAMS if shutil.which(name, path=search) is None]
    if lacking:
        return f"rootless Docker: not installed: {', '.join(lacking)}"
    if os.geteuid() != 0:
        return "not run as root"
    return "" if user() else "rootless Docker: nobody here has subordinate ids (/etc/subuid)"


@contextlib.contextmanager
def rootless(root: Path) -> Iterator[Rootless]:
    """Runs one below `root`, whose folders are made for its user."""
    uid = user()
    made = Rootless(uid, root / "run")
    for folder in (root, made.runtime, root / "home"):
        folder.mkdir(mode=0o700, exist_ok=True)
        os.chown(folder, uid, uid)
    environment = {
        "HOME": str(root / "home"), "XDG_RUNTIME_DIR": str(made.runtime), "PATH": os.pathsep.join([SCRIPTS, engines.SBIN]),
    }  # fmt: skip
    argv = ["setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups", "dockerd-rootless.sh"]
    with (root / "log").open("wb") as log:
        child = subprocess.Popen(
            [*argv, "--data-root", str(root / "home/data")], env=environment, cwd=root, stdin=subprocess.DEVNULL, stdout=log,
            stderr=log, start_new_session=True,
        )  # fmt: skip
    try:
        wait_for((made.runtime / "docker.sock").exists, "the rootless engine's socket")
        with contextlib.closing((engine := connect({"DOCKER_HOST": made.host})).client):
            assert not engines.without_base(engine)
        yield made
    finally:
        with contextlib.suppress(ProcessLookupError):
            child.send_signal(signal.SIGTERM)
        try:
            child.wait(60)
        except subprocess.TimeoutExpired:
            os.killpg(child.pid, signal.SIGKILL)
            child.wait()
