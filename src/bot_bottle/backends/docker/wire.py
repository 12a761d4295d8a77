"""Talking to an engine on this host over its unix socket: one connection for each call, so that nothing stays open.

On the way of `start` and `exec` this takes the Docker SDK's place, whose import alone takes longer than starting a container.
What an engine refuses is an `EngineRefusal`; an engine that is not there or does not answer is a HostError.
"""

import json
import os
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from bot_bottle.errors import BotBottleError, HostError, SandboxError
from bot_bottle.typed import IO, Any, NamedTuple

PATIENCE = 60.0
"""Seconds for an engine's answer; a container is made and started in 0.3."""
_PLAIN = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-~")
_LARGEST_ANSWER = 64 << 20


class Answer(NamedTuple):
    """What an engine said: `body` is JSON where it is that, else bytes."""

    status: int
    body: Any


class EngineRefusal(SandboxError):
    """The engine answered, and did not do it. `status` is HTTP's."""

    def __init__(self, what: str, status: int, said: str) -> None:
        super().__init__(f"The Docker engine did not {what}", details=said)
        self.status = status


class Engine:
    """The engine behind the unix socket `path`."""

    def __init__(self, path: str) -> None:
        self.path = path

    def call(self, method: str, path: str, body: Any = None, /, *, what: str = "do it", **query: str) -> Any:
        """The body of the answer. Raises EngineRefusal, HostError."""
        return self.begin(method, path, body, what=what, **query).finish()

    def begin(
        self, method: str, path: str, body: Any = None, /, *, what: str = "do it", **query: str
    ) -> "Pending":
        """Asks, and leaves the answer for `Pending.finish`. `body` is bytes or an open file (both tar), or becomes JSON.

        Raises HostError.
        """
        is_file = hasattr(body, "fileno")
        kind = "application/x-tar" if is_file or isinstance(body, bytes) else "application/json"
        data = (
            body if isinstance(body, bytes) else b"" if body is None or is_file else json.dumps(body).encode()
        )
        length = os.fstat(body.fileno()).st_size if is_file else len(data)
        asked = "&".join(f"{name}={_quoted(value)}" for name, value in query.items())
        head = f"{method} {path}{'?' if asked else ''}{asked} HTTP/1.0\r\nHost: docker\r\n"
        head += f"Content-Type: {kind}\r\nContent-Length: {length}\r\n\r\n"
        sock = self.dial()
        try:
            sock.sendall(head.encode() + data)
            while is_file and (part := body.read(1 << 18)):
                sock.sendall(part)
        except BrokenPipeError:
            pass  # it answers before it has read everything, and says why
        except OSError as error:
            sock.close()
            raise self.trouble(error) from error
        return Pending(self, sock, what)

    def dial(self) -> socket.socket:
        """A new connection. Raises HostError."""
        sock = socket.socket(socket.AF_UNIX)
        sock.settimeout(PATIENCE)
        try:
            sock.connect(self.path)
        except OSError as error:
            sock.close()
            raise self.trouble(error) from error
        return sock

    def close(self) -> None:
        """Gives up what it is reached by. Idempotent."""

    def trouble(self, error: OSError) -> HostError:
        """What keeps us from the engine, by kind."""
        if isinstance(error, PermissionError):
            return HostError(
                f"The engine at unix://{self.path} refuses this user",
                details=str(error),
                resolution="Join the group that owns its socket (usually `docker`), or use a rootless engine (DOCKER_HOST).",
            )
        silent = isinstance(error, TimeoutError)
        return HostError(
            f"The engine at unix://{self.path} does not answer"
            if silent
            else f"No engine at unix://{self.path}",
            details=f"nothing within {PATIENCE:.0f} s" if silent else str(error),
            resolution="Start (or restart) Docker, or say by DOCKER_HOST or DOCKER_CONTEXT where the engine is.",
        )


class Pending:
    """A call whose answer was not read yet. `finish` or `drop` is to follow."""

    def __init__(self, engine: Engine, sock: socket.socket, what: str) -> None:
        self._engine = engine
        self._sock = sock
        self._what = what

    def drop(self) -> None:
        """Does not want the answer any more. Idempotent."""
        self._sock.close()

    def finish_within(self, seconds: float) -> bool:
        """Like `finish`, and without patience: whether the answer came in time. Raises EngineRefusal, HostError."""
        self._sock.settimeout(seconds)
        try:
            self.finish()
        except HostError as error:
            if isinstance(error.__cause__, TimeoutError):
                return False
            raise
        return True

    def finish(self) -> Any:
        """The body of the answer. Raises EngineRefusal, HostError."""
        answer = self.answer()
        if answer.status >= 400:
            said = answer.body.get("message", "") if isinstance(answer.body, Mapping) else str(answer.body)
            raise refusal(self._what, answer.status, said)
        return answer.body

    @contextmanager
    def stream(self) -> "Iterator[IO[bytes]]":
        """The body as it comes. Raises EngineRefusal, HostError."""
        with self._sock, self._sock.makefile("rb") as file:
            try:
                status = file.readline().split(maxsplit=2)
                while file.readline() not in (b"\r\n", b""):
                    pass
                if len(status) < 2 or not status[1].isdigit():
                    raise self._engine.trouble(ConnectionResetError("it ended while it answered"))
                if int(status[1]) >= 400:
                    raise refusal(self._what, int(status[1]), file.read(2000).decode(errors="replace"))
                yield file
            except OSError as error:
                raise self._engine.trouble(error) from error

    def answer(self) -> Answer:
        """Whatever the engine said. Raises HostError when it said nothing that can be read."""
        parts: list[bytes] = []
        size = 0
        try:
            with self._sock:
                while part := self._sock.recv(1 << 16):
                    parts.append(part)
                    size += len(part)
                    if size > _LARGEST_ANSWER:
                        raise OSError("the answer is too long")
        except OSError as error:
            raise self._engine.trouble(error) from error
        head, _, data = b"".join(parts).partition(b"\r\n\r\n")
        words = head.split(maxsplit=2)
        if len(words) < 2 or not words[0].startswith(b"HTTP/1.") or not words[1].isdigit():
            raise self._engine.trouble(ConnectionResetError("it ended while it answered"))
        if b"\r\ncontent-type: application/json" in head.lower() and data:
            try:
                return Answer(int(words[1]), json.loads(data))
            except ValueError as error:
                raise self._engine.trouble(ConnectionResetError(f"its answer is cut off: {error}")) from error
        return Answer(int(words[1]), data)


def _quoted(value: str) -> str:
    """As urllib's `quote` does it, whose import takes 6 ms."""
    return "".join(chr(byte) if chr(byte) in _PLAIN else f"%{byte:02X}" for byte in value.encode())


def refusal(what: str, status: int, said: str) -> BotBottleError:
    """The error that an engine's words stand for. Pure."""
    words = said.lower()
    if status == 500 and "is already in use" in words:
        status = 409  # Podman's way of saying so
    if "no space left" in words:
        return HostError(
            "The Docker engine has no space left", details=said, resolution="docker system prune"
        )
    if "no such image" in words and what.startswith("make "):
        return HostError(
            "The bottle's image is gone", details=said, resolution="Start again: it is built or fetched then."
        )
    if "unknown or invalid runtime" in words or "unknown runtime" in words:
        return HostError(
            "The Docker engine does not have the runtime that the bottle's file names", details=said.strip(),
            resolution="Install it there and tell the engine of it, or name another as runtime: bot-bottle doctor lists them.",
        )  # fmt: skip
    if "storage-opt" in words or "storage option" in words:
        return HostError(
            "The Docker engine can't keep resources.disk for an image whose root is written", details=said.strip(),
            resolution="Its data has to lie on XFS with project quotas (pquota); or take resources.disk away.",
        )  # fmt: skip
    if "runtime" in words and ("unknown or invalid" in words or "unknown runtime" in words):
        return HostError(
            "The Docker engine does not have the runtime that the bottle's file names", details=said.strip(),
            resolution="bot-bottle doctor lists those that it has; or take runtime: away.",
        )  # fmt: skip
    return EngineRefusal(what, status, said.strip())
