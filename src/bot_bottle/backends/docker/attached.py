"""A container's attached stream, and the process here that carries what goes over it: its end is the container's.

The keeper does other things than carrying bytes, so a process of its own does that (`carrier.py`).
"""

import array
import contextlib
import json
import os
import signal
import socket
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

from bot_bottle.backends.docker.carrier import CODE, HEAD, KILLED, Carrier, Hijacked
from bot_bottle.backends.docker.wire import Engine
from bot_bottle.errors import SandboxError
from bot_bottle.host import spawn

ANSWER_WITHIN = 30.0
"""Seconds for the deputy to do something that takes it a moment; far away, on a busy machine."""


class End(NamedTuple):
    """A descriptor of ours that is carried over a channel: what is read from it, what comes is written to it, or both."""

    channel: int
    descriptor: int
    reads: bool = True
    writes: bool = True


class Attached:
    """The keeper's end."""

    def __init__(self, engine: Engine, name: str) -> None:
        """Attaches to the container `name`, which was made and not started. Raises HostError, SandboxError."""
        self._sock, rest = _attach(engine, name)
        self._asked = 0
        self._heard = b""
        self._codes: dict[int, int] = {}
        self._over = ""
        self._channels = 0
        self._line, theirs = socket.socketpair()
        try:
            with theirs:
                stream = Hijacked(self._sock, rest)
                carrier = Carrier(stream, theirs)
                self._pid, report = spawn.fork(
                    lambda _: carrier.run(), keep=(theirs.fileno(), self._sock.fileno())
                )
                os.close(report)
        finally:
            socket.socket.close(self._sock)  # the carrier has it; nothing is said over TLS that it has ended

    def channel(self) -> int:
        """A number that none has yet."""
        self._channels += 1
        return self._channels

    def ask(
        self, order: dict[str, Any], ends: Sequence[End] = (), *, report: socket.socket | None = None,
        within: float = ANSWER_WITHIN,
    ) -> dict[str, Any]:  # fmt: skip
        """What the deputy answers to `order`. `ends` are carried from now on; the caller still closes its own.

        On `report`, the code of the process that the order starts is said when it has ended. Raises SandboxError.
        """
        self._asked += 1
        number = self._asked
        self.tell({**order, "id": number}, ends, report=report)
        deadline = time.monotonic() + within
        while True:
            message = self._next(deadline, str(order.get("do")))
            if message.get("re") == number:
                if "trouble" in message:
                    raise SandboxError(str(message["trouble"]), details=str(message.get("details", "")))
                return message

    def tell(
        self, order: dict[str, Any], ends: Sequence[End] = (), *, report: socket.socket | None = None
    ) -> None:  # fmt: skip
        """Like `ask`, and does not wait for an answer. Raises SandboxError when the carrier is gone."""
        text = json.dumps(
            {"order": order, "ends": [list(end) for end in ends], "reports": report is not None}
        ).encode()
        given = [end.descriptor for end in ends] + ([report.fileno()] if report else [])
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", given))] if given else []
        data = HEAD.pack(len(text)) + text
        try:
            sent = self._line.sendmsg([data], rights, socket.MSG_NOSIGNAL)
            self._line.sendall(data[sent:])
        except OSError as error:
            raise self._gone() from error

    def code(self, channel: int, *, within: float) -> int | None:
        """The exit code of the process behind `channel`, once it has ended; None when that takes longer, or nobody knows."""
        deadline = time.monotonic() + within
        while channel not in self._codes:
            try:
                self._next(deadline, "end")
            except SandboxError:
                return None
        return self._codes[channel]

    def ended(self) -> bool:
        """Whether the stream has ended, and so the container."""
        with contextlib.suppress(SandboxError, BlockingIOError):
            while not self._over and spawn.readable(self._line.fileno(), 0):
                self._next(time.monotonic(), "")
        return bool(self._over)

    def close(self) -> None:
        """Ends the carrier, and with it the container. Idempotent."""
        if self._pid:
            pid, self._pid = self._pid, 0
            self._line.close()
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            self._over = self._over or "closed"

    def _next(self, deadline: float, what: str) -> dict[str, Any]:
        while b"\n" not in self._heard:
            if self._over or self._line.fileno() < 0:
                raise self._gone()
            if not spawn.readable(self._line.fileno(), max(0.0, deadline - time.monotonic())):
                raise SandboxError(
                    "The bundle's container does not answer", details=f"it was asked to {what}"
                )
            try:
                data = self._line.recv(65536)
            except OSError:
                data = b""
            if not data:
                self._over = self._over or "it ended"
                raise self._gone()
            self._heard += data
        line, _, self._heard = self._heard.partition(b"\n")
        message: dict[str, Any] = json.loads(line)
        if "gone" in message:
            self._codes[message["gone"]] = message["code"]
        if "over" in message:
            self._over = message["over"] or "it ended"
        return message

    def _gone(self) -> SandboxError:
        return SandboxError("The bundle's container has ended", details=self._over)


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


class Process:
    """A process inside, by the socket on which the carrier says how it ended. Keeps `backends.base.Process`."""

    def __init__(self, attached: Attached, number: int, report: socket.socket) -> None:
        self._attached = attached
        self._number = number
        self._report = report.detach()
        self._code: int | None = None

    def __del__(self) -> None:
        with contextlib.suppress(OSError):
            os.close(self._report)

    def fileno(self) -> int:
        return self._report

    def poll(self) -> int | None:
        return self.wait(0)

    def wait(self, timeout: float | None = None) -> int | None:
        if self._code is None and spawn.readable(self._report, timeout):
            try:
                said = os.read(self._report, CODE.size)
            except OSError:
                said = b""
            self._code = CODE.unpack(said)[0] if len(said) == CODE.size else KILLED
        return self._code

    def signal(self, number: int) -> None:
        if self.poll() is None:
            with contextlib.suppress(SandboxError):
                self._attached.tell({"do": "signal", "number": self._number, "signal": number})

    def give_up(self, code: int) -> None:
        """It never ran, and never will."""
        self._code = code if self._code is None else self._code
