"""The tunnel as a person would measure it: wrk in a real bottle, through its door, against nginx; beside wrk on the host.

Standard tools at their default settings: nginx with `worker_processes auto` as its packages configure it, TLS, a file of 1 KiB
and keep-alive; wrk with its two threads. In the bottle the connections take the transparent way (DNS, then TLS by its name).
"""

import re
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import nginx
from measure import NotMeasured, median
from place import Place

HOST = "tls.example"
CONNECTIONS = 32
SECONDS = 1
BODY = 1024
_BOTTLE = """---
backend: namespace
egress:
  routes:
    - {{host: {host}, upstream: "127.0.0.1:{port}"}}
---
"""
_AGENT = '---\nprovider: command\nbottle: tunnel\ncommand: ["sleep", "3600"]\n---\nNothing to do.\n'
_SERVER = """
        ssl_certificate {folder}/certificate;
        ssl_certificate_key {folder}/key;
        root {folder}/www;
"""


def measure(place: Place, rounds: int, progress: Callable[[str], None]) -> tuple[float, float]:
    """Requests a second through a bottle's door and directly: medians of `rounds` in turn; one before does not count."""
    wrk = nginx.tool("wrk", "wrk")
    with nginx.started(_server) as port, _bottle(place, port) as run:
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


def _server(folder: Path) -> str:
    """The settings of the one that is measured with; its files are made."""
    (folder / "www").mkdir()
    (folder / "www/index.html").write_bytes(b"x" * BODY)
    key = ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]
    files = ["-keyout", f"{folder}/key", "-out", f"{folder}/certificate", "-subj", f"/CN={HOST}"]
    _said([nginx.tool("openssl", "openssl"), *key, *files])
    return _SERVER.format(folder=folder)
