"""The engine that is meant, as `wire.Engine` speaks to it: over its socket here, by TLS, or through ssh."""

import contextlib
import os
import socket
from collections.abc import Mapping

from bot_bottle.backends.docker import endpoint
from bot_bottle.backends.docker.wire import PATIENCE, Engine
from bot_bottle.errors import HostError
from bot_bottle.host import files, paths
from bot_bottle.typed import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bot_bottle.backends.docker.ssh import Dialer

_TLS_PORT, _PLAIN_PORT = 2376, 2375


def engine_at(meant: endpoint.Endpoint, environ: Mapping[str, str], *, folder: str = "") -> Engine:
    """Nothing is connected yet. `folder` is of the caller's own, for what is shared by connections.

    Raises HostError when it can't be spoken to at all.
    """
    if meant.scheme == "unix":
        return Engine(meant.host.removeprefix("unix://"))
    if meant.scheme == "tcp":
        return _OverTcp(meant)
    from bot_bottle.backends.docker import ssh

    return _OverSsh(meant, ssh.Dialer(ssh.read(meant.host), environ, folder=folder))


def is_local(engine: Engine) -> bool:
    """Whether it runs on this kernel: a unix socket can lead into a virtual machine, too. Raises HostError.

    An engine starts two programs to say its version, so the answer is remembered for the socket: another has another inode, or
    another time. One that was wrong would fail to hand over what it can't, and let nothing through.
    """
    if type(engine) is not Engine:
        return False
    mark, path = _mark(engine.path), os.path.join(paths.cache_root(), "engine")
    with contextlib.suppress(OSError, ValueError):
        if mark and files.read(path).decode() == mark:
            return True
    found: Any = engine.call("GET", "/version", what="say its version")
    local = isinstance(found, Mapping) and found.get("KernelVersion") == os.uname().release
    if local and mark:
        with contextlib.suppress(OSError):
            os.makedirs(paths.cache_root(), mode=0o700, exist_ok=True)
            files.write(path, mark.encode())
    return local


def _mark(path: str) -> str:
    """What tells this socket, since this start of the machine, from any other; empty where that can't be told."""
    try:
        found = os.stat(path)
        boot = files.read("/proc/sys/kernel/random/boot_id").decode().strip()
    except OSError:
        return ""
    return f"{boot} {path} {found.st_dev} {found.st_ino} {found.st_ctime_ns}"


class _OverTcp(Engine):
    def __init__(self, meant: endpoint.Endpoint) -> None:
        super().__init__(meant.host)
        host, _, port = meant.host.removeprefix("tcp://").rstrip("/").rpartition(":")
        if not host:
            host, port = port, ""
        if port and not port.isdigit():
            raise HostError(f"{meant.host!r} is no Docker host", resolution="It is tcp://HOST:PORT.")
        self._host = host.strip("[]")
        self._port = int(port or (_TLS_PORT if meant.tls else _PLAIN_PORT))
        self._meant = meant

    def dial(self) -> socket.socket:
        try:
            sock = socket.create_connection((self._host, self._port), timeout=PATIENCE)
            return self._wrapped(sock, self._meant.tls) if self._meant.tls else sock
        except OSError as error:
            raise self.trouble(error) from error

    def _wrapped(self, sock: socket.socket, tls: endpoint.Tls) -> socket.socket:
        import ssl  # 15 ms, and only here

        try:
            context = ssl.create_default_context(cafile=tls.ca if os.path.isfile(tls.ca) else None)
            if not tls.verify:
                context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
            if os.path.isfile(tls.cert):
                context.load_cert_chain(tls.cert, tls.key)
            return context.wrap_socket(sock, server_hostname=self._host)
        except BaseException:
            sock.close()
            raise

    def trouble(self, error: OSError) -> HostError:
        silent = isinstance(error, TimeoutError)
        return HostError(
            f"The engine at {self.path} does not answer" if silent else f"No engine answers at {self.path}",
            details=f"{error}\nIt was chosen by {self._meant.source}.",
            resolution="See whether it runs there, and whether DOCKER_TLS_VERIFY and DOCKER_CERT_PATH are right.",
        )


class _OverSsh(Engine):
    def __init__(self, meant: endpoint.Endpoint, dialer: "Dialer") -> None:
        super().__init__(meant.host)
        self._meant = meant
        self._dialer = dialer

    def dial(self) -> socket.socket:
        try:
            sock = self._dialer.dial()
        except OSError as error:
            raise self.trouble(error) from error
        sock.settimeout(PATIENCE)
        return sock

    def trouble(self, error: OSError) -> HostError:
        from bot_bottle.backends.docker.engine import ssh_trouble

        said = self._dialer.said()
        return ssh_trouble(self._meant, said or str(error))

    def close(self) -> None:
        self._dialer.close()
