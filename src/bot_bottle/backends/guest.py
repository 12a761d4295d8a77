"""The other side of `guest.c`: the one socket to process 1 of a container that holds an agent, and what is asked over it.

What runs inside has the descriptors that came with the order, and nothing is carried to and fro. The socket is also what the
container lives by: process 1 ends with it, however the keeper ends.
"""

import contextlib
import os
import select
import socket
import struct
import time
from array import array
from collections.abc import Iterator, Sequence

from bot_bottle.backends.base import Stdio
from bot_bottle.errors import HostError, SandboxError
from bot_bottle.host import files
from bot_bottle.host.spawn import readable
from bot_bottle.plan.model import Command, File
from bot_bottle.typed import NamedTuple

GONE = "The bottle has ended"
LARGEST = 4 << 20
"""Bytes of one order: `LARGEST` of guest.c."""
_PATIENCE = 10.0
"""Seconds for an answer of process 1, which can't be held up from inside; it takes 0.001."""
_ORDER = struct.Struct("=4I")
_REPORT = struct.Struct("=2I")
_SPAWN, _WRITE, _SIGNAL, _FILTER = ord("s"), ord("w"), ord("k"), ord("f")
_RUNS, _ENDED = ord("s"), ord("e")
_DEFAULT_PATH = "/usr/local/bin:/usr/bin:/bin"
_KILLED = 128 + 9


class Order(NamedTuple):
    """One order to process 1: `text` follows its head."""

    kind: int
    text: bytes
    number: int = 0
    value: int = 0


class Process:
    """A process inside, by the socket over which process 1 reports on it. Keeps `backends.base.Process`."""

    def __init__(self, line: "Line", number: int, report: socket.socket) -> None:
        self._line = line
        self._number = number
        self._report = report.detach()
        self._code: int | None = None

    def fileno(self) -> int:
        return self._report

    def poll(self) -> int | None:
        return self.wait(0)

    def wait(self, timeout: float | None = None) -> int | None:
        deadline = None if timeout is None else time.monotonic() + timeout
        while self._code is None and self._report >= 0:
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            if not readable(self._report, left):
                break
            self._code = _code(_heard(self._report))
        return self._code

    def signal(self, number: int) -> None:
        if self.poll() is None:
            with contextlib.suppress(SandboxError):
                self._line.send(Order(_SIGNAL, b"", self._number, number))

    def begun(self) -> None:
        """Waits until it runs. Raises SandboxError."""
        if not readable(self._report, _PATIENCE):
            raise SandboxError("The bottle does not answer")
        kind, value = _heard(self._report)
        if kind == 0:
            raise SandboxError(GONE)
        if kind != _RUNS:
            raise SandboxError(
                "A process could not be started in the bottle", details=f"fork: {os.strerror(value)}"
            )

    def close(self) -> None:
        """Gives up the descriptor; what it ended with stays known, and what still ran was killed with the bottle."""
        if self._report >= 0:
            if self.poll() is None:
                self._code = _KILLED
            os.close(self._report)
            self._report = -1

    def __del__(self) -> None:
        self.close()


class Line:
    """Our end of the socket to process 1."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self._numbers = 0

    def ended(self) -> bool:
        """Whether process 1, and with it everything in the bottle, has ended."""
        if self.sock.fileno() < 0:
            return True
        try:
            return readable(self.sock.fileno(), 0) and not self.sock.recv(1, socket.MSG_PEEK)
        except OSError:
            return True

    def send(self, order: Order, descriptors: Sequence[int] = ()) -> None:
        """Raises SandboxError when nobody hears it."""
        head = _ORDER.pack(order.kind, len(order.text), order.number, order.value)
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array("i", descriptors))] if descriptors else []
        try:
            self.sock.settimeout(_PATIENCE)
            self.sock.sendmsg([head], rights, socket.MSG_NOSIGNAL)
            self.sock.sendall(order.text)
        except OSError as error:
            raise SandboxError(GONE, details=str(error)) from error

    def confine(self, rules: bytes, files: int) -> None:
        """Puts everything inside under the seccomp program `rules`, with `files` descriptors a process and no core dumps.

        Process 1 ends where it can't. Raises SandboxError.
        """
        self.send(Order(_FILTER, rules, value=files))

    def prepare(self) -> tuple[Process, socket.socket]:
        """A process that has not been asked for yet, and the end of its report that goes along with `start`."""
        ours, theirs = socket.socketpair()
        self._numbers += 1
        return Process(self, self._numbers, ours), theirs

    def start(self, process: Process, report: socket.socket, command: Command, stdio: Stdio) -> None:
        """Has `command` run as `process`, without waiting for it. Closes `report`. Raises SandboxError."""
        text = spoken(command)
        if text is None or len(text) > LARGEST:
            text = spoken(command._replace(argv=(command.argv[0][:4096], ""), env=()), runnable=False)
        assert text is not None
        order = Order(_SPAWN, text, process._number, int(stdio.tty))
        with report:
            self.send(order, (stdio.stdin, stdio.stdout, stdio.stderr, report.fileno()))

    def spawn(self, command: Command, stdio: Stdio) -> Process:
        """Runs `command`. Raises SandboxError."""
        process, report = self.prepare()
        self.start(process, report, command, stdio)
        process.begun()
        return process

    def write_files(self, files: Sequence[File]) -> None:
        """Writes `files` as the agent's user. Raises SandboxError."""
        for batch in batches(files):
            ours, theirs = socket.socketpair()
            with ours:
                with theirs:
                    self.send(Order(_WRITE, b"".join(map(packed, batch))), (theirs.fileno(),))
                if not readable(ours.fileno(), _PATIENCE):
                    raise SandboxError("The bottle's files can't be written", details="it took too long")
                kind, value = _heard(ours.fileno())
            if kind == 0:
                raise SandboxError(GONE if self.ended() else "The bottle's files can't be written")
            if kind != _ENDED:
                details = f"{batch[value & 0xFFFF].target}: {os.strerror(value >> 16)}"
                raise SandboxError("The bottle's files can't be written", details=details)

    def close(self) -> None:
        """Ends process 1 with everything in the bottle. Idempotent."""
        self.sock.close()


def program(machine: str = "") -> bytes:
    """The program that is process 1. Raises HostError where there is none for `machine` (default: this one)."""
    machine = machine or os.uname().machine
    try:
        return files.read(files.beside(__file__, f"guest.{machine}"))
    except FileNotFoundError as error:
        raise HostError(f"There is no process 1 for this machine ({machine})") from error


def spoken(command: Command, *, runnable: bool = True) -> bytes | None:
    """`command` as process 1 reads it; None when a word has a null byte in it."""
    name = command.argv[0]
    path = dict(command.env).get("PATH", _DEFAULT_PATH)
    tried = [name] if "/" in name else [f"{folder or '.'}/{name}" for folder in path.split(":")]
    if not runnable:
        tried = ["/"]  # what can't be run, as that which was asked for
    variables = [f"{key}={value}" for key, value in command.env]
    words = [os.fsencode(word) for word in (command.cwd, *tried, *variables, *command.argv)]
    if any(b"\0" in word for word in words):
        return None
    numbers = struct.pack("=3I", len(tried), len(variables), len(command.argv))
    return numbers + b"".join(word + b"\0" for word in words)


def wait_taken_over(sock: socket.socket, patience: float) -> bool:
    """Whether process 1 has taken the other end of `sock` within `patience` seconds."""
    waiting = select.poll()
    waiting.register(sock, select.POLLIN)
    return bool(waiting.poll(patience * 1000)) and sock.recv(1) == b"+"


def packed(file: File) -> bytes:
    """`file` as process 1 reads it."""
    target = os.fsencode(file.target)
    head = struct.pack("=3I", len(target), file.mode & 0o777, len(file.content))
    return head + target + b"\0" + file.content


def batches(files: Sequence[File]) -> Iterator[list[File]]:
    """`files` in orders that are not too long. Raises SandboxError for one that is."""
    batch: list[File] = []
    size = 0
    for file in files:
        needs = len(packed(file))
        if needs > LARGEST or "\0" in file.target:
            raise SandboxError(
                "The bottle's files can't be written", details=f"{file.target}: too much at once"
            )
        if size + needs > LARGEST or len(batch) == 0xFFFF:
            yield batch
            batch, size = [], 0
        batch.append(file)
        size += needs
    if batch:
        yield batch


def _heard(report: int) -> tuple[int, int]:
    """The next report: its kind and value; (0, 0) when process 1 has ended."""
    try:
        said = os.read(report, _REPORT.size)
    except OSError:
        said = b""
    kind, value = _REPORT.unpack(said) if len(said) == _REPORT.size else (0, 0)
    return kind, value


def _code(report: tuple[int, int]) -> int | None:
    kind, value = report
    if kind == _RUNS:
        return None
    if kind != _ENDED:
        return _KILLED  # with the bottle, or it never began
    code = os.waitstatus_to_exitcode(value)
    return code if code >= 0 else 128 - code
