"""mitmproxy as a yardstick: the latest that runs on this Python, pinned, in an environment of its own below build/."""

import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from measure import NotMeasured
from place import ROOT

VERSION = "12.3.1" if sys.version_info >= (3, 12) else "11.0.2"
PLACE = ROOT / "build" / "mitmproxy" / VERSION
_DEADLINE = 60.0
NOTHING_OPENED = ("--ignore-hosts", ".*")


def program() -> Path:
    """Where it is; installed first when it is not there yet. Raises NotMeasured."""
    found = PLACE / "bin" / "mitmdump"
    if not found.exists():
        pip = [PLACE / "bin" / "python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        for argv in ([sys.executable, "-m", "venv", "--clear", PLACE], [*pip, f"mitmproxy=={VERSION}"]):
            done = subprocess.run(argv, capture_output=True, text=True, check=False)
            if done.returncode:
                raise NotMeasured(f"mitmproxy {VERSION} can't be installed: {done.stderr.strip()[-500:]}")
    return found


def opening(authority: str) -> tuple[str, ...]:
    """Opens TLS, streams every body, verifies upstreams by `authority`, and puts a credential in."""
    options = ("stream_large_bodies=1", f"ssl_verify_upstream_trusted_ca={authority}")
    settings = [word for option in options for word in ("--set", option)]
    return (*settings, "--modify-headers", "/~q/authorization/Bearer " + "k" * 40)


@contextlib.contextmanager
def started(folder: Path, *words: str) -> Iterator[tuple[int, Path]]:
    """A running one: the port that it listens on, and its authority's certificate."""
    folder.mkdir()
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    argv = [program(), "--quiet", "--listen-host", "127.0.0.1", "--listen-port", str(port)]
    argv += ["--set", f"confdir={folder}", "--set", "flow_detail=0", *words]
    env = {"PATH": os.defpath, "HOME": str(folder), "LC_ALL": "C.UTF-8"}
    with open(folder / "said", "wb") as said:
        process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=said, stderr=said, env=env)
    try:
        _wait_for(port, process, folder)
        yield port, folder / "mitmproxy-ca-cert.pem"
    finally:
        process.terminate()
        process.wait()


def _wait_for(port: int, process: "subprocess.Popen[bytes]", folder: Path) -> None:
    deadline = time.monotonic() + _DEADLINE
    while process.poll() is None and time.monotonic() < deadline:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise NotMeasured(
        f"mitmproxy did not start: {(folder / 'said').read_text(errors='replace').strip()[-500:]}"
    )
