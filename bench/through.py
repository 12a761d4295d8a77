"""The tunnel as a person would measure it: wrk in a real bottle, through its door, against nginx; beside wrk on the host.

Standard tools at their default settings: nginx with `worker_processes auto` as its packages configure it, TLS, a file of 1 KiB
and keep-alive; wrk with its two threads. In the bottle the connections take the transparent way (DNS, then TLS by its name).
"""

import os
import re
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from measure import NotMeasured, median
from place import Place

HOST = "tls.example"
CONNECTIONS = 32
SECONDS = 1
BODY = 1024
_SEARCH = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"])
_BOTTLE = """---
backend: namespace
egress:
  routes:
    - {{host: {host}, upstream: "127.0.0.1:{port}"}}
---
"""
_AGENT = '---\nprovider: command\nbottle: tunnel\ncommand: ["sleep", "3600"]\n---\nNothing to do.\n'
_SETTINGS = """
daemon off;
pid {folder}/pid;
error_log {folder}/error.log;
worker_processes auto;
events {{}}
http {{
    access_log {folder}/access.log;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    server {{
        listen 127.0.0.1:{port} ssl;
        ssl_certificate {folder}/certificate;
        ssl_certificate_key {folder}/key;
        root {folder}/www;
    }}
}}
"""


def measure(place: Place, rounds: int, progress: Callable[[str], None]) -> tuple[float, float]:
    """Requests a second through a bottle's door and directly: medians of `rounds` in turn; one before does not count."""
    wrk = _tool("wrk", "wrk")
    with _server() as port, _bottle(place, port) as run:
        argv = [wrk, f"-c{CONNECTIONS}", f"-d{SECONDS}"]
        direct: list[float] = []
        through: list[float] = []
        for number in range(-1, rounds):
            progress(f"tunnel, wrk and nginx: {max(0, number + 1)}/{rounds}")
            found = (
                _rate(place.ask("exec", run, "--", *argv, f"https://{HOST}/")),
                _rate(_said([*argv, f"https://127.0.0.1:{port}/"])),
            )
            if number >= 0:
                through.append(found[0])
                direct.append(found[1])
    return median(through), median(direct)


def _tool(program: str, package: str) -> str:
    """Where the program is; NotMeasured with the package that has it."""
    found = shutil.which(program, path=_SEARCH)
    if found is None:
        raise NotMeasured(f"the tunnel needs {program}: apt-get install {package}")
    return found


def _rate(said: str) -> float:
    """The requests a second in wrk's words; NotMeasured when some failed."""
    found = re.search(r"^Requests/sec:\s*([0-9.]+)", said, re.MULTILINE)
    failed = re.search(r"^\s*(Socket errors|Non-2xx).*", said, re.MULTILINE)
    if failed or not found:
        raise NotMeasured(f"wrk: {failed[0].strip() if failed else said.strip()[-500:]}")
    return float(found[1])


def _said(argv: list[str]) -> str:
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    if done.returncode:
        raise NotMeasured(f"{' '.join(argv)}: exit code {done.returncode}: {done.stderr.strip()[-500:]}")
    return done.stdout


@contextmanager
def _bottle(place: Place, port: int) -> Iterator[str]:
    """A bottle whose one route leads to the server; its run's id."""
    files = {"bottles": _BOTTLE.format(host=HOST, port=port), "agents": _AGENT}
    for folder, text in files.items():
        (place.home / f".bot-bottle/{folder}/tunnel.md").write_text(text)
    run = place.ask("start", "tunnel", "--headless", "--detach", "--quiet").split()[-1]
    try:
        yield run
    finally:
        place.ask("stop", "--now", run)


@contextmanager
def _server() -> Iterator[int]:
    """nginx on a port of its own, in a folder of its own."""
    nginx, openssl = _tool("nginx", "nginx-light"), _tool("openssl", "openssl")
    with (
        tempfile.TemporaryDirectory(prefix="bb-nginx-") as name,
        socket.create_server(("127.0.0.1", 0)) as one,
    ):
        port = one.getsockname()[1]
        one.close()
        folder = Path(name)
        folder.chmod(0o755)  # as root, its workers are somebody else
        (folder / "www").mkdir()
        (folder / "www/index.html").write_bytes(b"x" * BODY)
        (folder / "settings").write_text(_SETTINGS.format(folder=folder, port=port))
        key = ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]
        files = ["-keyout", f"{folder}/key", "-out", f"{folder}/certificate", "-subj", f"/CN={HOST}"]
        _said([openssl, *key, *files])
        with open(folder / "said", "wb") as said:
            argv = [nginx, "-p", name, "-c", f"{folder}/settings", "-e", f"{folder}/error.log"]
            process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=said, stderr=said)
        try:
            _wait_for(port, process, folder)
            yield port
        finally:
            process.terminate()
            process.wait()


def _wait_for(port: int, process: "subprocess.Popen[bytes]", folder: Path) -> None:
    """Until the server takes connections; NotMeasured with its words when it does not come to that."""
    deadline = time.monotonic() + 10
    while process.poll() is None and time.monotonic() < deadline:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            time.sleep(0.02)
        else:
            return
    raise NotMeasured(f"nginx did not start: {(folder / 'said').read_text(errors='replace').strip()[-500:]}")
