"""The Docker engine of the tests: one that answers, or Debian's dockerd, started here when we are root and ended afterwards.

All workers of a run, and all runs of this checkout, share one; whoever ends last ends it, and only if it was started here. What
it keeps lies in `build/docker`, so that the base image is imported once.
"""

import contextlib
import fcntl
import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import IO, Any

from bot_bottle.backends.docker import endpoint
from bot_bottle.backends.docker.engine import Engine, connect
from bot_bottle.errors import HostError

ROOT = Path(__file__).resolve().parents[2]
_FOUND = importlib.util.spec_from_file_location("base_image", ROOT / "tools" / "base_image.py")
assert _FOUND is not None
assert _FOUND.loader is not None
base_image: Any = importlib.util.module_from_spec(_FOUND)
_FOUND.loader.exec_module(base_image)

FOLDER: Path = base_image.FOLDER
BASE: str = base_image.TAG
PID_FILE = FOLDER / "dockerd.pid"
LOG = FOLDER / "dockerd.log"
LABEL = "bot-bottle-tests"
STARTS_WITHIN = 60.0
ENDS_WITHIN = 30.0
SBIN = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"])
WITHOUT_NETWORK = ("--bridge=none", "--iptables=false", "--ip6tables=false")


@cache
def missing() -> str:
    """Why there is no engine with the base image here; empty when there is one. Starts one when it may."""
    try:
        FOLDER.mkdir(parents=True, exist_ok=True)
        with _locked(FOLDER / "lock", fcntl.LOCK_EX), contextlib.closing((made := _answering()).client):
            return without_base(made)
    except HostError as error:
        return error.brief
    except OSError as error:
        return f"the tests' engine can't be kept in build ({error})"


@cache
def possible() -> bool:
    """Whether an engine can be run here, whatever became of it: root may mount, and make control groups and networks.

    That none of the Docker tests ran is said apart from what else did not, then.
    """
    if (
        os.geteuid() != 0
        or shutil.which("dockerd", path=SBIN) is None
        or os.environ.get("BOT_BOTTLE_OFFLINE")
    ):
        return False
    tried = subprocess.run(
        ["unshare", "--net", "--mount", "mount", "-t", "tmpfs", "tmpfs", "/mnt"],
        capture_output=True,
        check=False,
    )
    group = Path(f"/sys/fs/cgroup/{'' if v2() else 'pids/'}bot-bottle-probe-{os.getpid()}")
    try:
        group.mkdir()
        group.rmdir()
    except OSError:
        return False
    return tried.returncode == 0


def v2() -> bool:
    """Whether this machine has the unified hierarchy of control groups."""
    return Path("/sys/fs/cgroup/cgroup.controllers").exists()


def engine() -> Engine:
    """The engine, connected. Only for tests that are marked `docker`."""
    return connect(os.environ)


def _answering() -> Engine:
    """The engine that answers, or that does once it was started. Raises HostError."""
    meant = endpoint.find(os.environ)
    if (
        meant.scheme == "unix"
        and not _listens(meant.host)
        and (why_not := _start(f"no engine at {meant.host}"))
    ):
        raise HostError(why_not)
    return connect(os.environ, timeout=20)


def _listens(host: str) -> bool:
    """Whether somebody accepts at this unix socket; the SDK leaves a socket open when nobody does."""
    with socket.socket(socket.AF_UNIX) as probe, contextlib.suppress(OSError):
        probe.connect(host.removeprefix("unix://"))
        return True
    return False


def _start(seen: str) -> str:
    """Starts dockerd where that is ours to do; answers why it does not run."""
    program = shutil.which("dockerd", path=SBIN)
    if os.environ.get("DOCKER_HOST") or os.geteuid() != 0:
        return seen
    if program is None:
        return "dockerd is not installed"
    tries = [()] if shutil.which("iptables", path=SBIN) else []
    why_not = ""
    for options in (*tries, WITHOUT_NETWORK):
        why_not = dockerd(program, PID_FILE, LOG, "--data-root", str(FOLDER / "data"), *options)
        if not why_not:
            return ""
    return f"dockerd does not start ({why_not})"


def dockerd(program: str, pid_file: Path, log: Path, *options: str, host: str = "") -> str:
    """Starts a dockerd of ours that outlives this process; answers why it does not answer, and ended it then.

    Without a bridge it gets a network of its own: it would take the host's bridge away, which may be another engine's.
    """
    environment = {name: value for name, value in os.environ.items() if name.startswith(("SSL_", "LANG"))}
    host = host or "unix:///var/run/docker.sock"
    apart = ["unshare", "--net"] if set(WITHOUT_NETWORK) <= set(options) else []
    argv = [*apart, program, "--pidfile", str(pid_file), "--host", host, *options]
    with log.open("wb") as said:
        child = subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=said, stderr=said, cwd="/", start_new_session=True,
            env={**environment, "PATH": SBIN, "HOME": "/nonexistent"},
        )  # fmt: skip
    deadline = time.monotonic() + STARTS_WITHIN
    while time.monotonic() < deadline and child.poll() is None:
        if _listens(host):
            with contextlib.suppress(HostError):
                connect({"DOCKER_HOST": host}, timeout=STARTS_WITHIN).client.close()
                child.returncode = 0  # it is not waited for: it outlives us
                return ""
        time.sleep(0.05)
    with contextlib.suppress(ProcessLookupError):
        os.kill(child.pid, signal.SIGKILL)
    child.wait()
    lines = log.read_text(errors="replace").strip().splitlines()
    return lines[-1][-300:] if lines else "it said nothing"


def end(pid_file: Path) -> None:
    """Ends the dockerd whose pid is in `pid_file`, if it is one; its containers end with it."""
    try:
        pid = int(pid_file.read_text())
        ours = str(pid_file).encode() in Path(f"/proc/{pid}/cmdline").read_bytes()
    except (OSError, ValueError):
        return
    if not ours:
        return
    handle = os.pidfd_open(pid)
    try:
        for number in (signal.SIGCONT, signal.SIGTERM, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(handle, number)
            if number != signal.SIGCONT and _ended(handle):
                return
    finally:
        os.close(handle)


def _ended(handle: int) -> bool:
    import select

    return bool(select.select([handle], [], [], ENDS_WITHIN)[0])


def without_base(engine: Engine) -> str:
    """Puts the base image into the engine, and makes one container of it; why that can't be."""
    from docker.errors import DockerException, ImageNotFound

    try:
        try:
            engine.client.api.inspect_image(BASE)
        except ImageNotFound:
            if why_not := base_image.build():
                return why_not
            name, _, tag = BASE.partition(":")
            with base_image.ARCHIVE.open("rb") as archive:
                engine.client.api.import_image_from_file(
                    archive.name, repository=name, tag=tag, changes=f"LABEL by={LABEL}"
                )
        return _without_containers(engine)
    except (DockerException, OSError) as error:
        return f"the engine can't be used ({error})"


def _without_containers(engine: Engine) -> str:
    from docker.errors import DockerException

    try:
        engine.client.containers.run(
            BASE, ["true"], remove=True, network_mode="none", mem_limit="256m", labels={"by": LABEL}
        )
    except DockerException as error:
        return f"the engine makes no containers ({str(error)[-200:]})"
    return ""


@contextlib.contextmanager
def _locked(path: Path, how: int) -> Iterator[IO[str]]:
    with path.open("w") as lock:
        fcntl.flock(lock, how)
        yield lock


@contextlib.contextmanager
def used() -> Iterator[None]:
    """While the block lasts, the engine is not ended by another run; after it, it is, if nobody else uses it."""
    try:
        FOLDER.mkdir(parents=True, exist_ok=True)
        lock = (FOLDER / "using").open("a")
    except OSError:
        yield  # a checkout of somebody else's: nothing will be started
        return
    with lock:
        fcntl.flock(lock, fcntl.LOCK_SH)
        try:
            yield
        finally:
            with contextlib.suppress(BlockingIOError):
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                end(PID_FILE)
