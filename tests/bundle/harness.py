"""A bottle's network without a bottle: a network namespace of the test's own, served by a real bundle.

`Holder` keeps the namespace and makes sockets in it on request, so that a test connects as the agent would. `Bundle` is the
real process, forked by a small keeper of its own (`keeper_process.py`).
"""

import array
import contextlib
import json
import os
import pickle
import select
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from bot_bottle.bundle.model import BundleLimits, Injection, UpstreamProxy
from bot_bottle.door.model import STANDARD, Listener
from bot_bottle.policy.model import EgressPolicy, Route, Upstream
from bot_bottle.secret import Secret

HERE = Path(__file__).parent
SOURCE = HERE.parent.parent / "src"
DEADLINE = 60.0


def in_header(name: str, value: str, *, placeholder: str = "", renewable: bool = False) -> Injection:
    """A credential that goes out as a header."""
    return Injection("header", name, Secret(value), Secret(value), placeholder, renewable)


def until(condition: Callable[[], Any], seconds: float = DEADLINE) -> Any:
    """Waits for `condition` to become true and returns its value."""
    end = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < end, "the condition was never met"
        time.sleep(0.005)
    return value


def environment() -> dict[str, str]:
    return {"PATH": "/usr/bin:/bin:/usr/sbin:/sbin", "PYTHONPATH": str(SOURCE), "LC_ALL": "C.UTF-8"}


class Holder:
    """The namespace; `channel` stays open as long as it is wanted."""

    def __init__(self) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._channel = ours
        self._process = subprocess.Popen(
            [sys.executable, "-S", str(HERE / "holder_process.py"), str(theirs.fileno())],
            pass_fds=[theirs.fileno()],
            env=environment(),
        )
        theirs.close()
        self._channel.settimeout(DEADLINE)
        assert self._channel.recv(100) == b"ready", "no network namespace could be made"

    @property
    def pid(self) -> int:
        return self._process.pid

    def pass_listeners(self, listeners: tuple[Listener, ...], door: socket.socket) -> None:
        self._ask({"listeners": [list(listener) for listener in listeners]}, door.fileno())
        assert self._channel.recv(1000) == b"passed"

    def new_socket(self, kind: int = socket.SOCK_STREAM, family: int = socket.AF_INET) -> socket.socket:
        """A socket of the bottle's network."""
        self._ask({"socket": [int(family), int(kind)]})
        _, ancillary, _, _ = self._channel.recvmsg(10, 64)
        numbers = array.array("i")
        numbers.frombytes(ancillary[0][2])
        made = socket.socket(fileno=numbers[0])
        made.settimeout(DEADLINE)
        return made

    def connect(self, address: str, port: int) -> socket.socket:
        made = self.new_socket()
        try:
            made.connect((address, port))
        except OSError:
            made.close()
            raise
        return made

    def run(self, argv: list[str], *, env: dict[str, str] | None = None, stdin: bytes = b"") -> Any:
        """Runs a program as the agent would, with the bottle's DNS."""
        enter = ["nsenter", "-t", str(self.pid), "-n", "-m"]
        if os.geteuid() != 0:
            enter += ["-U", "--preserve-credentials"]
        return subprocess.run(
            [*enter, shutil.which(argv[0]) or argv[0], *argv[1:]],
            input=stdin,
            capture_output=True,
            env={**environment(), **(env or {})},
            timeout=60,
        )

    def _ask(self, request: dict[str, Any], *passed: int) -> None:
        ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", passed))] if passed else []
        self._channel.sendmsg([json.dumps(request).encode()], ancillary)

    def close(self) -> None:
        self._channel.close()
        self._process.wait(DEADLINE)


class Bundle:
    """A running bundle, and what it told its keeper."""

    def __init__(
        self,
        policy: EgressPolicy,
        holder: Holder | None,
        *,
        listeners: tuple[Listener, ...] = STANDARD,
        limits: BundleLimits | None = None,
        credentials: dict[str, Injection] | None = None,
        env: dict[str, str] | None = None,
        hook: str = "",
        sensitive: tuple[str, ...] = (),
        engine_port: int = 0,
        proxy: UpstreamProxy | None = None,
        authorities: str = "",
        supervised: bool = False,
        spent: tuple[str, ...] = (),
    ) -> None:
        self.line, theirs = socket.socketpair()
        self.door, door = socket.socketpair()
        config = {
            "run": "test",
            "policy": policy,
            "listeners": listeners,
            "uid": 65534,
            "gid": 65534,
            "bottle_file": "test.md",
            "limits": limits or BundleLimits(),
            "sensitive": sensitive,
            "engine_port": engine_port,
            "proxy": proxy.document() if proxy else None,
            "authorities": authorities,
            "supervised": supervised,
            "spent": spent,
        }
        passed = [door.fileno(), theirs.fileno()]
        self.keeper = subprocess.Popen(
            [sys.executable, str(HERE / "keeper_process.py"), *map(str, passed), hook],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            pass_fds=passed,
            env={**environment(), **(env or {})},
        )
        door.close()
        theirs.close()
        plain = {name: item.document() for name, item in (credentials or {}).items()}
        assert self.keeper.stdin
        assert self.keeper.stdout
        self.keeper.stdin.write(pickle.dumps((config, plain)))
        self.keeper.stdin.close()
        self.pid = int(self.keeper.stdout.readline())
        self._heard = b""
        self.messages: list[dict[str, Any]] = []
        if holder is not None:
            holder.pass_listeners(listeners, self.door)
            try:
                self.ready = self.hear(lambda message: "ready" in message or "failed" in message)
                assert "ready" in self.ready, self.ready
            except AssertionError:
                self.close()
                raise

    def hear(self, wanted: Callable[[dict[str, Any]], Any], seconds: float = DEADLINE) -> dict[str, Any]:
        """The first message, heard before or now, that is `wanted`."""
        end = time.monotonic() + seconds
        at = 0
        while True:
            for message in self.messages[at:]:
                if wanted(message):
                    return message
            at = len(self.messages)
            left = end - time.monotonic()
            assert left > 0, f"not heard; only {self.messages}"
            self._listen(left)

    def _listen(self, seconds: float) -> bool:
        """Whether something was said within that time."""
        if not select.select([self.line], [], [], seconds)[0]:
            return False
        data = self.line.recv(65536)
        assert data, f"the bundle is gone; it said {self.messages}"
        *lines, self._heard = (self._heard + data).split(b"\n")
        self.messages += [json.loads(line) for line in lines]
        return True

    def tell(self, message: dict[str, Any]) -> None:
        """Says something to the bundle, as its keeper does."""
        self.line.sendall(json.dumps(message).encode() + b"\n")

    def event(self, kind: str, **data: Any) -> dict[str, Any]:
        """The data of the first event of `kind` that has all of `data`."""

        def fits(message: dict[str, Any]) -> bool:
            return message.get("event") == kind and data.items() <= message["data"].items()

        return self.hear(fits)["data"]

    def events(self, kind: str) -> list[dict[str, Any]]:
        """What was said so far."""
        while self._listen(0):
            pass
        return [message["data"] for message in self.messages if message.get("event") == kind]

    def is_gone(self) -> bool:
        try:
            state = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()[0]
        except (FileNotFoundError, ProcessLookupError):
            return True
        return state in "ZX"

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self.line.close()
        until(self.is_gone)
        with contextlib.suppress(ProcessLookupError):
            self.keeper.send_signal(signal.SIGKILL)
        self.keeper.wait(DEADLINE)
        assert self.keeper.stdout
        self.keeper.stdout.close()
        self.door.close()


@contextlib.contextmanager
def served(policy: EgressPolicy, **options: Any) -> Iterator[tuple[Holder, Bundle]]:
    """A namespace and the bundle that serves it."""
    holder = Holder()
    try:
        bundle = Bundle(policy, holder, **options)
        try:
            yield holder, bundle
        finally:
            bundle.close()
    finally:
        holder.close()


class Server:
    """A TCP server on the host's loopback; `handle` serves one connection in a thread of its own."""

    def __init__(self, handle: Callable[[socket.socket], None]) -> None:
        self._sock = socket.create_server(("127.0.0.1", 0), backlog=256)
        self.port: int = self._sock.getsockname()[1]
        self.accepted = 0
        self._handle = handle
        self._open: set[socket.socket] = set()
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._sock.accept()
            except OSError:
                return
            self.accepted += 1
            self._open.add(connection)
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError), connection:
            self._handle(connection)
        self._open.discard(connection)

    def upstream(self, **more: Any) -> Upstream:
        return Upstream(host="127.0.0.1", port=self.port, **more)

    def http(self, host: str, port: int = 80) -> Route:
        return Route(host=host, port=port, protocol="http", upstream=self.upstream())

    def https(self, host: str, port: int = 443) -> Route:
        return Route(host=host, port=port, protocol="https", upstream=self.upstream())

    def close(self) -> None:
        self._sock.shutdown(socket.SHUT_RDWR)
        self._sock.close()
        for connection in list(self._open):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)


def read_head(sock: socket.socket) -> tuple[bytes, bytes]:
    """A message's head (with its empty line) and what came behind it."""
    data = b""
    while b"\r\n\r\n" not in data:
        part = sock.recv(65536)
        if not part:
            raise ConnectionError(f"the end, after {data!r}")
        data += part
    head, _, rest = data.partition(b"\r\n\r\n")
    return head + b"\r\n\r\n", rest


def read_all(sock: socket.socket) -> bytes:
    parts = []
    while part := sock.recv(65536):
        parts.append(part)
    return b"".join(parts)


def read_response(sock: socket.socket) -> tuple[bytes, bytes]:
    """A response framed by Content-Length: head and body."""
    head, body = read_head(sock)
    length = next(
        int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")
    )
    while len(body) < length:
        part = sock.recv(65536)
        assert part
        body += part
    return head, body
