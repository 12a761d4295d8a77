"""What stands in for the keeper where the engine is: process 1 of a container of ours, told what to do over its standard input.

Descriptors can't leave the engine's kernel. So the deputy has them: the door's listeners, the line to process 1 of the agent's
container, the pipes of what runs in there. It starts the bundle and the supervise server, which face the agent, as processes of
their own, and believes them nothing: it carries their lines and looks into none of them. It ends with its standard input, and
the container with it. What is said over that stream, both ways, is `mux`'s; the other side is `attached.py` and `far.py`.
"""

import base64
import contextlib
import errno
import fcntl
import os
import pty
import select
import signal
import socket
import struct
import subprocess
import sys
import termios
from collections.abc import Callable, Mapping
from typing import Any, NoReturn

from bot_bottle.backends import guest, seccomp
from bot_bottle.backends.base import Stdio
from bot_bottle.backends.docker.door import Helper
from bot_bottle.backends.guest import Line, Process
from bot_bottle.backends.mux import Descriptors, Mux
from bot_bottle.door.model import Listener
from bot_bottle.door.passing import receive_listeners
from bot_bottle.errors import BotBottleError
from bot_bottle.plan.model import Command, File

DOOR = "/door"
"""The folder in which the door's helper finds the deputy; a volume that only the two have."""
_PATIENCE = 20.0
_SUPERVISE = (
    "import sys; sys.path[:0] = sys.argv[3:]; from bot_bottle.bundle.supervise import main;"
    " main.serve(*map(int, sys.argv[1:3]))"
)
Answer = Mapping[str, Any]


def main() -> NoReturn:
    """Does what it is told until its input ends."""
    code = 70
    try:
        os.set_blocking(0, False)
        os.set_blocking(1, False)
        _Deputy().run()
        code = 0
    finally:
        os._exit(code)


class _Coming(Helper):
    """The door's helper, which the keeper starts when this has made the place where it comes to."""

    def __init__(self) -> None:
        super().__init__(None, "", DOOR)  # type: ignore[arg-type]  # it starts nothing itself

    def expect(self) -> None:
        """Waits until it is there. Raises SandboxError."""
        if self._sock is None:
            self.wait()


class _Deputy:
    def __init__(self) -> None:
        self.mux = Mux(Descriptors(0, 1), self.hear)
        self.helper: _Coming | None = None
        self.line: Line | None = None
        self.listener: socket.socket | None = None
        self.knock: socket.socket | None = None
        self.doors: dict[int, socket.socket] = {}
        self.children: dict[int, int] = {}
        self.processes: dict[int, tuple[Process, tuple[int, ...]]] = {}
        self.does: dict[str, Callable[[Mapping[str, Any]], Answer]] = {
            "await": self._await, "hand": self._hand, "listen": self._listen, "leave": self._leave, "bundle": self._bundle,
            "supervise": self._supervise, "knock": self._knock, "shut": self._shut, "end": self._end, "spawn": self._spawn,
            "signal": self._signal, "size": self._size, "write": self._write, "close": self._close,
        }  # fmt: skip
        reader, writer = os.pipe()
        os.set_blocking(reader, False)
        os.set_blocking(writer, False)
        signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        self._woken = reader
        self.mux.watch(reader, self._reap)

    def run(self) -> None:
        self.mux.say({"up": os.getpid()})
        self.mux.run()

    def hear(self, message: Mapping[str, Any]) -> None:
        """One order; it is answered, whatever comes of it."""
        try:
            answer = dict(self.does[message["do"]](message))
        except BotBottleError as error:
            answer = {"trouble": error.brief, "details": error.details}
        except OSError as error:
            answer = {"trouble": error.strerror or str(error), "details": message.get("do", "")}
        if "id" in message:
            self.mux.say({**answer, "re": message["id"]})

    # The door

    def _await(self, _: Mapping[str, Any]) -> Answer:
        self._drop_helper()
        self.helper = _Coming()
        return {}

    def _helper(self) -> _Coming:
        if self.helper is None:
            raise OSError(errno.EINVAL, "no helper is waited for")
        self.helper.expect()
        return self.helper

    def _hand(self, order: Mapping[str, Any]) -> Answer:
        """The line to process 1 of the agent's container, which the helper hands over."""
        helper = self._helper()
        ours, theirs = socket.socketpair()
        line = Line(ours)
        try:
            with theirs:
                helper.hand_over(theirs)
            if not guest.wait_taken_over(ours, _PATIENCE):
                raise OSError(errno.ETIMEDOUT, f"process 1 did not take over {helper.trouble()}")
            line.confine(seccomp.agents_filter(), order["files"])
        except BaseException:
            line.close()
            raise
        self.line = line
        self.mux.watch(ours.fileno(), self._look_at_line)
        return {}

    def _look_at_line(self) -> None:
        if self.line is not None and self.line.ended():
            self._close({})
            self.mux.say({"lost": True})

    def _listen(self, order: Mapping[str, Any]) -> Answer:
        """Opens listeners inside, for a bundle (by its channel) or for the supervise server."""
        listeners = [Listener(*one) for one in order["listeners"]]
        wanted = order["for"]
        helper = self._helper()
        try:
            if wanted:
                helper.open(listeners, self.doors[wanted])
            else:
                ours, theirs = socket.socketpair()
                with ours, theirs:
                    helper.open(listeners, theirs)
                    (self.listener,) = receive_listeners(ours, 1, 0)
                self._look_out()
        finally:
            self._drop_helper()
        return {}

    def _leave(self, _: Mapping[str, Any]) -> Answer:
        self._drop_helper()
        return {}

    def _drop_helper(self) -> None:
        helper, self.helper = self.helper, None
        if helper is not None:
            helper.close()

    # What faces the agent

    def _bundle(self, order: Mapping[str, Any]) -> Answer:
        channel = order["channel"]
        ours, theirs = socket.socketpair()
        door, door_inside = socket.socketpair()
        door.setblocking(False)
        parent = os.getpid()
        pid = os.fork()
        if pid == 0:
            from bot_bottle.bundle.main import serve_when_told

            serve_when_told(parent, door=door_inside, keeper=theirs)
        theirs.close()
        door_inside.close()
        self.doors[channel] = door
        self._carry(channel, ours)
        self.children[pid] = channel
        return {}

    def _supervise(self, order: Mapping[str, Any]) -> Answer:
        """The server, as a program of its own: nothing that went through this process is in its memory."""
        if self.listener is None:
            raise OSError(errno.EBADF, "there is no listener for it")
        self.mux.forget(self.listener.fileno())
        ours, theirs = socket.socketpair()
        given = (self.listener.fileno(), theirs.fileno())
        argv = [
            sys.executable,
            "-I",
            "-S",
            "-B",
            "-c",
            _SUPERVISE,
            *map(str, given),
            *filter(os.path.isabs, sys.path),
        ]
        with theirs:
            server = subprocess.Popen(
                argv, env=dict(os.environ), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL, pass_fds=given, start_new_session=True,
            )  # fmt: skip
        server.returncode = 0  # `_reap` collects it
        self._carry(order["channel"], ours)
        self.children[server.pid] = order["channel"]
        return {}

    def _carry(self, channel: int, sock: socket.socket) -> None:
        sock.setblocking(False)
        self.mux.open(channel, sock.detach())

    def _knock(self, order: Mapping[str, Any]) -> Answer:
        """From now on a byte on the channel says that somebody wants to talk to the supervise server, and it is not there."""
        self.knock, theirs = socket.socketpair()
        self._carry(order["channel"], theirs)
        self._look_out()
        return {}

    def _look_out(self) -> None:
        if self.listener is not None:
            self.mux.watch(self.listener.fileno(), self._somebody_knocks)

    def _somebody_knocks(self) -> None:
        if self.listener is not None:
            self.mux.forget(self.listener.fileno())
        if self.knock is not None:
            self.knock.send(b".")

    def _shut(self, _: Mapping[str, Any]) -> Answer:
        listener, self.listener = self.listener, None
        if listener is not None:
            self.mux.forget(listener.fileno())
            listener.close()
        return {}

    def _end(self, order: Mapping[str, Any]) -> Answer:
        for pid, channel in self.children.items():
            if channel == order["channel"]:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        return {}

    def _reap(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.read(self._woken, 4096)
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if not pid:
                return
            channel = self.children.pop(pid, 0)
            if not channel:
                continue
            self.mux.drain(channel)
            if door := self.doors.pop(channel, None):
                door.close()
            else:
                self._look_out()
            self.mux.close(channel)
            self.mux.say({"gone": channel, "code": os.waitstatus_to_exitcode(status)})

    # What runs in the agent's container

    def _spawn(self, order: Mapping[str, Any]) -> Answer:
        argv, env, cwd = order["argv"], order["env"], order["cwd"]
        command = Command(tuple(argv), tuple((name, value) for name, value in env), cwd)
        line = self._running()
        number, channels = order["number"], tuple(order["channels"])
        with contextlib.ExitStack() as theirs:
            if order["tty"]:
                ours, slave = pty.openpty()
                theirs.callback(os.close, slave)
                _resize(ours, order["size"])
                stdio = Stdio(slave, slave, slave, tty=True)
                ends = [(ours, True, True)]
            else:
                stdio, ends = _pipes(theirs)
            try:
                process = line.spawn(command, stdio)
            except BaseException:
                for descriptor, _, _ in ends:
                    os.close(descriptor)
                raise
        for channel, (descriptor, reads, writes) in zip(channels, ends, strict=True):
            os.set_blocking(descriptor, False)
            self.mux.open(channel, descriptor, reads=reads, writes=writes)
        self.processes[number] = process, channels
        self.mux.watch(process.fileno(), lambda: self._look_at(number))
        return {}

    def _look_at(self, number: int) -> None:
        process, channels = self.processes[number]
        code = process.poll()
        if code is None:
            return
        self.mux.forget(process.fileno())
        del self.processes[number]
        for channel in channels:
            self.mux.drain(channel)
        self.mux.say({"ended": number, "code": code})

    def _signal(self, order: Mapping[str, Any]) -> Answer:
        if found := self.processes.get(order["number"]):
            found[0].signal(order["signal"])
        return {}

    def _size(self, order: Mapping[str, Any]) -> Answer:
        descriptor = self.mux.descriptor(order["channel"])
        if descriptor is not None:
            _resize(descriptor, order["size"])
        return {}

    def _write(self, order: Mapping[str, Any]) -> Answer:
        files = [File(target, base64.b64decode(content), mode) for target, content, mode in order["files"]]
        self._running().write_files(files)
        return {}

    def _running(self) -> Line:
        if self.line is None or self.line.ended():
            raise BotBottleError(guest.GONE)
        return self.line

    def _close(self, _: Mapping[str, Any]) -> Answer:
        """Ends the agent's container."""
        line, self.line = self.line, None
        if line is not None:
            self.mux.forget(line.sock.fileno())
            line.close()
            for process, _channels in list(self.processes.values()):  # all of them have ended with it
                waiting = select.poll()
                waiting.register(process.fileno(), select.POLLIN)
                waiting.poll(2000)
        return {}


def _pipes(theirs: contextlib.ExitStack) -> tuple[Stdio, list[tuple[int, bool, bool]]]:
    """The three streams of a process: its ends, which `theirs` closes, and ours."""
    stdin, to_stdin = os.pipe()
    from_stdout, stdout = os.pipe()
    from_stderr, stderr = os.pipe()
    for descriptor in (stdin, stdout, stderr):
        theirs.callback(os.close, descriptor)
    return Stdio(stdin, stdout, stderr), [
        (to_stdin, False, True),
        (from_stdout, True, False),
        (from_stderr, True, False),
    ]


def _resize(descriptor: int, size: list[int]) -> None:
    if size[0] and size[1]:
        fcntl.ioctl(descriptor, termios.TIOCSWINSZ, struct.pack("HHHH", size[0], size[1], 0, 0))
