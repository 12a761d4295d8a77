"""A container's attached stream, as `backends.attached` carries it: its end is the container's."""

import socket
import ssl
import struct

from bot_bottle.backends.attached import Attached, There
from bot_bottle.backends.docker.wire import Engine
from bot_bottle.errors import SandboxError


def attach(engine: Engine, name: str) -> Attached:
    """Attaches to the container `name`, which was made and not started. Raises HostError, SandboxError."""
    return Attached(_Hijacked(*_attach(engine, name)), There("The bundle's container"))


def _attach(engine: Engine, name: str) -> tuple[socket.socket, bytes]:
    """The hijacked connection, and what came behind its head."""
    sock = engine.dial()
    try:
        sock.sendall(
            f"POST /containers/{name}/attach?stream=1&stdin=1&stdout=1&stderr=1 HTTP/1.1\r\nHost: docker\r\n"
            "Content-Length: 0\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n".encode()
        )
        head = b""
        while b"\r\n\r\n" not in head:
            data = sock.recv(4096)
            if not data or len(head) > 1 << 16:
                raise SandboxError(
                    "The engine did not attach to the bundle's container", details=repr(head[:300])
                )
            head += data
        head, _, rest = head.partition(b"\r\n\r\n")
        if head.split(maxsplit=2)[1:2] not in ([b"101"], [b"200"]):
            said = (head.partition(b"\r\n")[0] + b" " + rest).decode(errors="replace")[:500]
            raise SandboxError("The engine did not attach to the bundle's container", details=said)
    except OSError as error:
        sock.close()
        raise engine.trouble(error) from error
    except BaseException:
        sock.close()
        raise
    return sock, rest


class _Hijacked:
    """The container's standard streams as `mux.Stream`: the engine packs what comes out of it, not what goes in."""

    def __init__(self, sock: socket.socket, rest: bytes) -> None:
        self._sock = sock
        self._packed = rest
        self._left = 0
        self._is_output = True
        self.words = b""
        """The end of what the container said on its standard error."""

    def sources(self) -> tuple[int, int]:
        return self._sock.fileno(), self._sock.fileno()

    def read(self) -> bytes:
        data = self._receive()
        ended = not data
        self._packed += data
        taken = b""
        while self._packed:
            if not self._left:
                if len(self._packed) < 8:
                    break
                kind, self._left = struct.unpack_from(">BxxxL", self._packed)
                self._is_output, self._packed = kind == 1, self._packed[8:]
            part, self._packed = self._packed[: self._left], self._packed[self._left :]
            self._left -= len(part)
            if self._is_output:
                taken += part
            else:
                self.words = (self.words + part)[-2000:]
        if not taken and not ended:
            raise BlockingIOError
        return taken

    def _receive(self) -> bytes:
        try:
            data = self._sock.recv(65536)
            while isinstance(self._sock, ssl.SSLSocket) and self._sock.pending():
                data += self._sock.recv(65536)
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError) as error:
            raise BlockingIOError from error
        except ConnectionError:
            return b""
        return data

    def write(self, data: bytes) -> int:
        try:
            return self._sock.send(data)
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError) as error:
            raise BlockingIOError from error

    def begin(self) -> None:
        self._sock.setblocking(False)

    def give_up(self) -> None:
        socket.socket.close(self._sock)  # nothing is said over TLS that it has ended
