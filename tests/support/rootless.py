"""A rootless Docker of a test's own: run by an ordinary user of the test's own, its data in a folder of the test's.

The user has an entry and subordinate ids only in the engine's view of /etc, so that the machine's own files stay as they are.
"""

import contextlib
import os
import shlex
import shutil
import signal
import stat
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
TUN = Path("/dev/net/tun")
"""By which slirp4netns, as that user, gives the engine a network."""
UID = 64_807
_NAME = "bb-rootless"
_FIRST, _MANY = 1 << 30, 1 << 16
"""The subordinate ids: nobody else's, as far as anybody would give some away."""


class Rootless(NamedTuple):
    """`host` is what DOCKER_HOST says of it; `runtime` is the user's XDG_RUNTIME_DIR."""

    uid: int
    runtime: Path

    @property
    def host(self) -> str:
        return f"unix://{self.runtime}/docker.sock"


def missing() -> str:
    """Why there can be none here; empty when there can."""
    search = os.pathsep.join([SCRIPTS, engines.SBIN])
    lacking = [name for name in PROGRAMS if shutil.which(name, path=search) is None]
    if lacking:
        return f"rootless Docker: not installed: {', '.join(lacking)}"
    if not all(Path("/etc", name).exists() for name in ("subuid", "subgid")):
        return "rootless Docker: there is no /etc/subuid"
    return "" if os.geteuid() == 0 else "rootless Docker: only root can have a user for it"


def _entries(folder: Path) -> str:
    """Shell that puts the user into the lists of who enters its mount namespace; `folder` holds them."""
    ids = f"{_NAME}:{_FIRST}:{_MANY}\n"
    rows = {
        "passwd": f"{_NAME}:x:{UID}:{UID}::/:/bin/sh\n", "group": f"{_NAME}:x:{UID}:\n", "subuid": ids, "subgid": ids,
    }  # fmt: skip
    folder.mkdir()
    words = []
    for name, row in rows.items():
        whole = Path("/etc", name)
        (folder / name).write_text((whole.read_text() if whole.exists() else "") + row)
        words.append(f"mount --bind {shlex.quote(str(folder / name))} {whole}")
    if TUN.exists() and not TUN.stat().st_mode & 0o002:  # no udev has opened it to everybody, as it should be
        os.mknod(folder / "tun", stat.S_IFCHR, TUN.stat().st_rdev)
        (folder / "tun").chmod(0o666)
        words.append(f"mount --bind {shlex.quote(str(folder / 'tun'))} {TUN}")
    return " && ".join(words)


@contextlib.contextmanager
def rootless(root: Path) -> Iterator[Rootless]:
    """Runs one below `root`, whose folders are made for its user."""
    made = Rootless(UID, root / "run")
    root.chmod(0o755)
    enter = _entries(root / "etc")
    for folder in (made.runtime, root / "home"):
        folder.mkdir(mode=0o700, exist_ok=True)
        os.chown(folder, UID, UID)
    environment = {
        "HOME": str(root / "home"), "XDG_RUNTIME_DIR": str(made.runtime), "PATH": os.pathsep.join([SCRIPTS, engines.SBIN]),
    }  # fmt: skip
    engine = ["setpriv", f"--reuid={UID}", f"--regid={UID}", "--clear-groups", "dockerd-rootless.sh"]
    engine += ["--data-root", str(root / "home/data")]
    argv = [
        "unshare",
        "--mount",
        "--propagation",
        "private",
        "sh",
        "-c",
        f'{enter} && exec "$@"',
        "sh",
        *engine,
    ]
    with (root / "log").open("wb") as log:
        child = subprocess.Popen(
            argv, env=environment, cwd=root, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
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
