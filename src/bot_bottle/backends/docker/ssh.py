"""An engine on another machine, by the ordinary OpenSSH client: each connection is one `ssh HOST docker system dial-stdio`.

The user's own configuration, agent and known hosts decide how HOST is reached. Nothing is asked: whoever works unattended can't be
asked. The end of a connection that the Docker SDK gets is a real socket, so that everything works with it that works here.
"""

import contextlib
import os
import socket
import subprocess
import time
from collections.abc import Mapping
from typing import Any, NamedTuple
from urllib.parse import unquote, urlsplit

from docker.transport import UnixHTTPAdapter
from urllib3.connection import HTTPConnection
from urllib3.connectionpool import HTTPConnectionPool

from bot_bottle.errors import HostError

CONNECT_WITHIN = 20
"""Seconds for the other machine to answer at all."""
_OPTIONS = (
    "-T", "-o", "BatchMode=yes", "-o", f"ConnectTimeout={CONNECT_WITHIN}", "-o", "ClearAllForwardings=yes",
    "-o", "ForwardAgent=no", "-o", "ForwardX11=no", "-o", "PermitLocalCommand=no", "-o", "EscapeChar=none",
)  # fmt: skip
_SSH_ENVIRONMENT = (
    "PATH",
    "HOME",
    "USER",
    "LOGNAME",
    "SSH_AUTH_SOCK",
    "XDG_RUNTIME_DIR",
    "TMPDIR",
    "KRB5CCNAME",
)
_LONGEST = 2000
_LONGEST_PATH = 85
"""Of a socket that connections share: ssh adds 17 characters while it makes it, and 107 are all that there is room for."""


class Destination(NamedTuple):
    """What `ssh://[USER@]HOST[:PORT][/PATH]` says; `path` is the engine's socket there, empty for Docker's own choice."""

    host: str
    user: str = ""
    port: int = 0
    path: str = ""


def read(url: str) -> Destination:
    """Raises HostError when it is none, or one that would be taken for something else by ssh or a shell."""
    try:
        parts = urlsplit(url)
        found = Destination(
            parts.hostname or "",
            unquote(parts.username or ""),
            parts.port or 0,
            unquote(parts.path.rstrip("/")),
        )
    except ValueError as error:
        raise _no_host(url, str(error)) from error
    if parts.password is not None:
        raise _no_host(url, "it holds a password; use a key")
    if not found.host or parts.query or parts.fragment:
        raise _no_host(url, "it is ssh://[USER@]HOST[:PORT][/SOCKET]")
    for word in (found.host, found.user, found.path):
        if word.startswith("-") or not all(sign.isalnum() or sign in "-_.:@%/" for sign in word):
            raise _no_host(url, f"{word!r} is no plain name")
    return found


def _no_host(url: str, why: str) -> HostError:
    return HostError(f"{url.rpartition('@')[2]!r} is no Docker host", details=why)


def command(to: Destination) -> tuple[str, ...]:
    """The command line of one connection."""
    engine = ("--host", f"unix://{to.path}") if to.path else ()
    user = ("-l", to.user) if to.user else ()
    port = ("-p", str(to.port)) if to.port else ()
    return ("ssh", *_OPTIONS, *user, *port, "--", to.host, "docker", *engine, "system", "dial-stdio")


class Dialer:
    """Makes connections, and remembers the ssh processes that carry them."""

    def __init__(self, to: Destination, environ: Mapping[str, str], *, folder: str = "") -> None:
        """With a `folder` of the caller's own, connections share one that is kept open for them."""
        path = os.path.join(folder, "ssh") if folder else ""
        self._shared = path if 0 < len(path) <= _LONGEST_PATH else ""
        self._command = command(to)
        self._first: socket.socket | None = None
        self._environment = {name: environ[name] for name in _SSH_ENVIRONMENT if name in environ}
        self._running: list[tuple[subprocess.Popen[bytes], int]] = []
        self._said = ""

    def dial(self) -> socket.socket:
        """A connection, as far as anybody can tell before something is said on it. Raises OSError."""
        self._collect()
        if self._shared and self._first is None:
            self._first = self._connected("-o", "ControlMaster=yes", "-o", f"ControlPath={self._shared}")
            self._wait_for_first()
        sharing = ("-o", "ControlMaster=no", "-o", f"ControlPath={self._shared}") if self._shared else ()
        return self._connected(*sharing)

    def _wait_for_first(self) -> None:
        """Until others can share it, or never will."""
        process, _ = self._running[-1]
        deadline = time.monotonic() + CONNECT_WITHIN
        while process.poll() is None and not os.path.exists(self._shared) and time.monotonic() < deadline:
            time.sleep(0.01)

    def _connected(self, *more: str) -> socket.socket:
        ours, theirs = socket.socketpair()
        words = os.memfd_create("ssh")
        try:
            process = subprocess.Popen(
                (self._command[0], *more, *self._command[1:]),
                env=self._environment,
                stdin=theirs.fileno(),
                stdout=theirs.fileno(),
                stderr=words,
                start_new_session=True,
            )
        except BaseException:
            ours.close()
            os.close(words)
            raise
        finally:
            theirs.close()
        self._running.append((process, words))
        return ours

    def said(self) -> str:
        """What the last ssh that failed said."""
        self._collect(patience=1.0)
        return self._said

    def close(self) -> None:
        """Ends every connection. Idempotent."""
        if self._first is not None:
            self._first.close()
            self._first = None
        for process, _ in self._running:
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
        self._collect(patience=5.0)
        for process, words in self._running:
            process.kill()
            process.wait()
            os.close(words)
        self._running = []

    def _collect(self, patience: float = 0.0) -> None:
        left = []
        for process, words in self._running:
            try:
                code = process.wait(patience)
            except subprocess.TimeoutExpired:
                left.append((process, words))
                continue
            if code:
                said = os.pread(words, _LONGEST, max(0, os.fstat(words).st_size - _LONGEST))
                self._said = said.decode(errors="replace").strip() or f"ssh ended with {code}"
            os.close(words)
        self._running = left


class Adapter(UnixHTTPAdapter):  # type: ignore[misc]  # the SDK has no types
    """What the SDK's client sends its requests through."""

    def __init__(self, dialer: Dialer, *, timeout: float, pool_size: int = 10) -> None:
        self.dialer = dialer
        super().__init__("http+unix:///ssh", timeout=timeout, max_pool_size=pool_size)

    def get_connection(self, url: str, proxies: Any = None) -> "_Pool":  # noqa: ARG002 - as requests calls it
        with self.pools.lock:
            if (pool := self.pools.get(url)) is None:
                pool = self.pools[url] = _Pool(self.dialer, self.timeout, self.max_pool_size)
        made: _Pool = pool
        return made

    def close(self) -> None:
        super().close()
        self.pools.clear()
        self.dialer.close()


class _Pool(HTTPConnectionPool):
    def __init__(self, dialer: Dialer, timeout: float, size: int) -> None:
        super().__init__("localhost", timeout=timeout, maxsize=size)
        self._dialer = dialer

    def _new_conn(self) -> "_Connection":
        return _Connection(self._dialer, self.timeout)


class _Connection(HTTPConnection):
    def __init__(self, dialer: Dialer, timeout: Any) -> None:
        super().__init__("localhost", timeout=timeout)
        self._dialer = dialer

    def connect(self) -> None:
        self.sock = self._dialer.dial()
        self.sock.settimeout(CONNECT_WITHIN * 3)
