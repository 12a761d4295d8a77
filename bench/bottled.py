"""A real bundle to be measured, forked by a keeper that has imported little else, as in a bottle; and figures of one."""

import contextlib
import json
import os
import pickle
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import memory
from bot_bottle.bundle.model import BundleConfig, Injection
from bot_bottle.door.inside import open_listeners
from bot_bottle.door.model import STANDARD
from bot_bottle.door.passing import send_listeners
from bot_bottle.policy.model import EgressPolicy
from load import leave_network
from measure import NotMeasured
from place import Place

_BOTTLE = """---
backend: namespace
egress:
  routes:
    - {host: api.example.org, credential: key, methods: [GET, POST], paths: ["/**"]}
  secrets: {on_match: block}
credentials:
  key: {from: {file: "~/key"}, header: x-key}
---
"""
_AGENT = '---\nprovider: command\nbottle: opened\ncommand: ["sleep", "3600"]\n---\nNothing to do.\n'
_QUIET_SECONDS = 3.0
"""After which a bundle that has just started has given back what it does not need."""


class Bundle(NamedTuple):
    """`authority` is a file with the certificate of its authority."""

    pid: int
    authority: str

    def cpu(self) -> float:
        """Seconds of a processor that it has used."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def forget_peak(self) -> None:
        """From now on VmHWM is the most since now (proc(5), clear_refs)."""
        Path(f"/proc/{self.pid}/clear_refs").write_text("5")

    def memory(self, field: str) -> int:
        """KiB, as /proc/PID/status says."""
        lines = Path(f"/proc/{self.pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith(field + ":"))


def idle_mib(place: Place) -> float:
    """The proportional set size of the bundle of a bottle that opens TLS, puts a credential in and searches for secrets."""
    (place.home / "key").write_text("k3f9" * 10)
    (place.home / "key").chmod(0o600)
    for folder, text in (("bottles", _BOTTLE), ("agents", _AGENT)):
        (place.home / f".bot-bottle/{folder}/opened.md").write_text(text)
    runs: list[str] = []
    try:
        for _ in range(
            2
        ):  # the first one is started while its files are checked, which is more to carry along
            before = memory.kept_by(f"HOME={place.home}")
            runs.append(place.ask("start", "opened", "--headless", "--detach", "--quiet").split()[-1])
        time.sleep(_QUIET_SECONDS)
        found = [pid for pid in memory.kept_by(f"HOME={place.home}") - before if _is_bundle(pid)]
        if len(found) != 1:
            raise NotMeasured(f"the bundle was not found: {found}")
        return memory.pss_kib(set(found)) / 1024
    finally:
        if runs:
            place.ask("stop", "--now", *runs)


def _is_bundle(pid: int) -> bool:
    """Whether it is confined like one and is our program."""
    status = Path(f"/proc/{pid}/status").read_text()
    return "Name:\tbot-bottle" in status and "Seccomp:\t2" in status


def opens_door(door: socket.socket) -> Callable[[], None]:
    """What a process does that stands in the bottle's place: it gives its listeners to who holds the other end of `door`."""

    def enter() -> None:
        leave_network()
        listeners = open_listeners(STANDARD)
        send_listeners(door, listeners)
        for sock in listeners:
            sock.close()

    return enter


@contextlib.contextmanager
def started(
    policy: EgressPolicy,
    credentials: Mapping[str, Injection],
    folder: Path,
    trusted: str,
    door: socket.socket,
) -> Iterator[Bundle]:
    """A bundle that gets its listeners through `door`, and trusts upstreams by the file `trusted`."""
    line, theirs = socket.socketpair()
    passed = (door.fileno(), theirs.fileno())
    plain = {name: item.document() for name, item in credentials.items()}
    keeper = subprocess.Popen(
        [sys.executable, __file__, *map(str, passed)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, pass_fds=passed,
        env={"PATH": os.defpath, "SSL_CERT_FILE": trusted, "PYTHONPATH": os.pathsep.join(sys.path)},
    )  # fmt: skip
    theirs.close()
    with line, keeper:
        try:
            assert keeper.stdin
            assert keeper.stdout
            keeper.stdin.write(pickle.dumps((policy, plain)))
            keeper.stdin.close()
            pid = int(keeper.stdout.readline())
            yield Bundle(pid, _ready(line, folder))
        finally:
            keeper.kill()


def _ready(line: socket.socket, folder: Path) -> str:
    authority = folder / "authority.pem"
    for said in map(json.loads, line.makefile("r")):
        if "authority" in said:
            authority.write_text(said["authority"])
        if "failed" in said:
            raise RuntimeError(said["failed"])
        if "ready" in said:
            return str(authority)
    raise RuntimeError("the bundle ended")


def _keep(door: socket.socket, line: socket.socket) -> None:
    """The keeper's process."""
    from bot_bottle.bundle import main

    policy, plain = pickle.load(sys.stdin.buffer)
    keeper = os.getpid()
    pid = os.fork()
    if not pid:
        made: dict[str, Any] = {name: Injection.from_document(item) for name, item in plain.items()}
        config = BundleConfig(
            run="bench",
            keeper=keeper,
            policy=policy,
            listeners=STANDARD,
            uid=65534,
            gid=65534,
            credentials=made,
        )
        main.serve(config, door=door, keeper=line)
    sys.stdout.write(f"{pid}\n")
    sys.stdout.flush()
    os.waitpid(pid, 0)


if __name__ == "__main__":
    _keep(*(socket.socket(fileno=int(number)) for number in sys.argv[1:3]))
