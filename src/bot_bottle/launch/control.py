"""How other commands talk to a running bottle's keeper: frames over a unix socket that only its user can reach.

A client says what it wants in its first frame (`hello`, JSON): `attach`, `stop`, `exec` (with three descriptors as
SCM_RIGHTS), `policy`, `change` or `stats` (each answered by one `done` frame). Frames are a type byte, a length (32 bit,
network order) and that many bytes.
"""

import array
import contextlib
import json
import os
import select
import signal
import socket
import struct
from collections.abc import Iterator

from bot_bottle.errors import NotFoundError, SandboxError
from bot_bottle.launch.folders import CONTROL
from bot_bottle.typed import Any

HELLO, INPUT, RESIZE, LEAVE, OUTPUT, EXIT, ERROR, DONE = b"h", b"i", b"r", b"l", b"o", b"x", b"e", b"d"
HEAD = struct.Struct("!cI")
LARGEST = 1 << 20


def frame(kind: bytes, payload: bytes = b"") -> bytes:
    """One frame on the wire."""
    return HEAD.pack(kind, len(payload)) + payload


def document(kind: bytes, value: Any) -> bytes:
    """One frame that carries JSON."""
    return frame(kind, json.dumps(value).encode())


class Frames:
    """Cuts a byte stream into frames."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[tuple[bytes, bytes]]:
        """The frames that `data` completes. Raises ValueError when one is too large."""
        self._buffer += data
        while len(self._buffer) >= HEAD.size:
            kind, length = HEAD.unpack_from(self._buffer)
            if length > LARGEST:
                raise ValueError("frame too large")
            if len(self._buffer) < HEAD.size + length:
                return
            payload = bytes(self._buffer[HEAD.size : HEAD.size + length])
            del self._buffer[: HEAD.size + length]
            yield kind, payload


@contextlib.contextmanager
def short_path(folder: str, name: str) -> Iterator[str]:
    """A path to a socket in `folder` that fits into sun_path (108 bytes, unix(7)) however deep the folder is."""
    descriptor = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{descriptor}/{name}"
    finally:
        os.close(descriptor)


def listen(run_folder: str, name: str = CONTROL) -> socket.socket:
    """The keeper's socket of that name; only its own user can connect."""
    server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    before = os.umask(0o177)
    try:
        with short_path(run_folder, name) as path:
            server.bind(path)
    finally:
        os.umask(before)
    server.listen(16)
    server.setblocking(False)
    return server


def ask(run_folder: str, hello: dict[str, Any], *, seconds: float) -> dict[str, Any]:
    """What the keeper answers to `hello`. Raises NotFoundError, and SandboxError when it refuses, ends or says nothing."""
    with connect(run_folder, hello) as client:
        client.settimeout(seconds)
        frames = Frames()
        try:
            while data := client.recv(65536):
                for kind, payload in frames.feed(data):
                    if kind == DONE:
                        return dict(json.loads(payload))
                    if kind == ERROR:
                        raise SandboxError(
                            "The bottle's keeper refused", details=json.loads(payload)["brief"]
                        )
                    if kind == EXIT:
                        break
        except TimeoutError as error:
            raise SandboxError(
                "The bottle's keeper does not answer", details=f"waited {seconds:.0f} s"
            ) from error
        except ConnectionError:
            pass
    raise SandboxError("The bottle ended before it answered")


def peer(client: socket.socket) -> tuple[int, int]:
    """The process and the user at the other end, as the kernel knows them (SO_PEERCRED, unix(7))."""
    credentials = client.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    pid, uid, _ = struct.unpack("3i", credentials)
    return pid, uid


def kill_keeper(client: socket.socket) -> None:
    """Kills the process at the other end, by a pidfd: it is the one that made the socket."""
    keeper = os.pidfd_open(peer(client)[0])
    try:
        signal.pidfd_send_signal(keeper, signal.SIGKILL)
        select.select([keeper], [], [], 10)
    finally:
        os.close(keeper)


def connect(run_folder: str, hello: dict[str, Any], descriptors: tuple[int, ...] = ()) -> socket.socket:
    """A connection to the keeper of the run, the hello sent. Raises NotFoundError when nobody keeps it."""
    client = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with short_path(run_folder, CONTROL) as path:
            client.connect(path)
        rights = (
            [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))] if descriptors else []
        )
        client.sendmsg([document(HELLO, hello)], rights)
    except (FileNotFoundError, ConnectionRefusedError, NotADirectoryError) as error:
        client.close()
        raise NotFoundError(
            "That bottle does not run any more", resolution="bot-bottle list --all shows the past."
        ) from error
    except OSError as error:
        client.close()
        raise SandboxError("The bottle's keeper does not answer", details=str(error)) from error
    return client
