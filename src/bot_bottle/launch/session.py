"""A running bottle from release to end: one loop over the agent, its output, the bundle and the operator."""

import array
import contextlib
import fcntl
import json
import os
import selectors
import signal
import socket
import struct
import termios
import time
from collections.abc import Callable
from functools import partial

from bot_bottle.backends.base import Bottle, Process, Stdio
from bot_bottle.errors import BotBottleError, described
from bot_bottle.launch import control
from bot_bottle.launch.output import Log, Outlet
from bot_bottle.launch.signals import Interrupts
from bot_bottle.plan.model import Command, RunPlan
from bot_bottle.typed import Any, Protocol

OWNER_WITHIN = 15.0
"""Seconds that an owner's terminal has to attach; it takes 0.02. Without one, the agent then runs as a detached one does."""
STOP_STEPS: tuple[tuple[int, float], ...] = ((signal.SIGINT, 3.0), (signal.SIGTERM, 5.0))
"""What the agent is sent when it is to stop, and how many seconds it has then; after the last it is killed."""
LAST_WORDS = 10.0
"""Seconds that a connected terminal has to take the rest of the output when everything is over."""
CLIENT_BACKLOG = 4 << 20
"""Bytes that wait for a slow attached terminal before it is let go."""


OWNER_BACKLOG = 1 << 18
"""Bytes that wait for the owner's terminal before the agent has to wait, too: the owner is never let go."""


MISTAKES = (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError, struct.error, OSError,
            BotBottleError)  # fmt: skip
"""What a client's wish can end in: its own failure, and never the run's."""


class HasFileno(Protocol):
    def fileno(self) -> int: ...


class Client:
    """Another command's connection."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.frames = control.Frames()
        self.wants = ""
        self.owner = False
        self.outgoing = b""
        self.descriptors: list[int] = []
        self.process: Process | None = None


class Session:
    """Keeps one bottle until its agent has ended. `master` is the pseudo-terminal's, or None when there is none."""

    def __init__(
        self, plan: RunPlan, bottle: Bottle, *, log: Log, server: socket.socket, interrupts: Interrupts
    ) -> None:
        self.plan = plan
        self.bottle = bottle
        self.log = log
        self.interrupts = interrupts
        self.selector = selectors.DefaultSelector()
        self.clients: dict[socket.socket, Client] = {}
        self.sources: set[int] = set()
        self.outlets: list[Outlet] = []
        self.ticks: list[Callable[[], float | None]] = []
        self._held_up: dict[int, Outlet | None] = {}
        self.master: int | None = None
        self.stop_reason = ""
        self.keeps = False
        """Whether the bottle is to be kept when its agent has stopped."""
        self.wishes: dict[str, Callable[[Client, dict[str, Any]], None]] = {}
        """What else a client may want, and who answers it, by `reply`."""
        self.failed: Callable[[dict[str, Any]], None] = lambda _: None
        """Told of what was ours to do for a client, and went wrong."""
        self._deadline: float | None = None
        self._steps = list(STOP_STEPS)
        self._watch(interrupts, self._interrupted)
        self._watch(server, lambda: self._accept(server))
        self._watch(bottle.agent, lambda: None)

    def _watch(self, source: Any, act: Callable[[], None]) -> None:
        self.selector.register(source, selectors.EVENT_READ, act)

    def watch(self, source: HasFileno | int, act: Callable[[], None]) -> None:
        """Calls `act` whenever there is something to read from `source`, or it has ended."""
        self._watch(source, act)

    def also(self, tick: Callable[[], float | None]) -> None:
        """Calls `tick` at least as soon as it wishes: it answers in how many seconds, or None."""
        self.ticks.append(tick)

    def forget(self, sock: HasFileno | int) -> None:
        """Watches `sock` no more. Idempotent, also once it is closed."""
        with contextlib.suppress(KeyError, ValueError):
            self.selector.unregister(sock)

    def reply(self, client: Client, answer: dict[str, Any]) -> None:
        """Answers what a client wanted, if it is still there."""
        if client.sock in self.clients:
            self._send(client, control.document(control.DONE, answer))

    def add_output(self, descriptor: int, outlet: Outlet | None) -> None:
        """Relays what the agent prints on `descriptor` (a pipe's or a terminal master's end) to the log and `outlet`."""
        os.set_blocking(descriptor, False)
        self.sources.add(descriptor)
        if outlet:
            self.outlets.append(outlet)
        self._watch(descriptor, lambda: self._output(descriptor, outlet))

    # The loop

    def wait_for_owner(self) -> None:
        """Until the owner's terminal is attached, the agent is to be stopped, or nobody came."""
        deadline = time.monotonic() + OWNER_WITHIN
        while not (self.stop_reason or self._owners()) and (left := deadline - time.monotonic()) > 0:
            self._turn(left)

    def _owners(self) -> list[Client]:
        return [client for client in self.clients.values() if client.owner and client.wants == "attach"]

    def run(self) -> int:
        """Until the agent has ended; its exit code."""
        while (code := self.bottle.agent.poll()) is None:
            self._turn(self._patience())
            if self._deadline is not None and time.monotonic() >= self._deadline:
                self._next_stop_step()
        return code

    def drain(self) -> None:
        """After the bottle is gone: the rest of its output."""
        deadline = time.monotonic() + 5
        while self.sources and time.monotonic() < deadline:
            self._turn(0.1)
        for outlet in self.outlets:
            outlet.flush(timeout=2)

    def dismiss(self, code: int, warnings: list[str]) -> None:
        """After everything is put away: the news for whoever is connected, so that what they see next is the end."""
        for client in list(self.clients.values()):
            client.sock.setblocking(True)
            client.sock.settimeout(LAST_WORDS)
            try:
                client.sock.sendall(
                    client.outgoing + control.document(control.EXIT, {"code": code, "warnings": warnings})
                )
            except OSError:
                pass  # it left; nobody is there to be told
            self._drop(client)
        self.selector.close()

    def _patience(self) -> float | None:
        waits = [wait for tick in self.ticks if (wait := tick()) is not None]
        if self._deadline is not None:
            waits.append(max(0.0, self._deadline - time.monotonic()))
        if any(outlet.pending for outlet in self.outlets):
            waits.append(0.05)
        return min(waits, default=None)

    def _turn(self, timeout: float | None) -> None:
        for outlet in self.outlets:
            outlet.flush()
        for descriptor, own in list(self._held_up.items()):
            if not self._waits_for_a_reader(own):
                del self._held_up[descriptor]
                self._watch(descriptor, partial(self._output, descriptor, own))
        for key, _ in self.selector.select(timeout):
            if key.fd in self.sources or key.fd in self.selector.get_map():
                key.data()

    # Stopping

    def stop(self, reason: str) -> None:
        """Begins to stop the agent in order; again: at once."""
        if self.stop_reason:
            self._steps.clear()
        self.stop_reason = self.stop_reason or reason
        self._next_stop_step()

    def _next_stop_step(self) -> None:
        if not self._steps:
            self._deadline = None
            self.bottle.destroy()
            return
        number, patience = self._steps.pop(0)
        self._deadline = time.monotonic() + patience
        self.bottle.agent.signal(number)

    def _interrupted(self) -> None:
        self.interrupts.drain()
        self.stop("interrupted")

    # The agent's output

    def _output(self, descriptor: int, outlet: Outlet | None) -> None:
        if self._waits_for_a_reader(outlet):
            # Not watched meanwhile: it would be readable all the time, and the loop would never rest.
            self.selector.unregister(descriptor)
            self._held_up[descriptor] = outlet
            return
        try:
            data = os.read(descriptor, 65536)
        except BlockingIOError:
            return
        except OSError:
            data = b""  # EIO: the last process that had the terminal is gone (pty(7))
        if not data:
            self.selector.unregister(descriptor)
            self.sources.discard(descriptor)
            return
        self.log.write(data)
        if outlet:
            outlet.write(data)
        for client in list(self.clients.values()):
            if client.wants == "attach":
                self._send(client, control.frame(control.OUTPUT, data))

    def _waits_for_a_reader(self, outlet: Outlet | None) -> bool:
        """Whether the agent has to wait: nobody reads this process's streams, or the owner's terminal has stood still.

        If an agent ends while its terminal stands still, the kernel throws away what was not read (up to 640 KiB, tty_buffer.c).
        """
        return bool(outlet and outlet.pending) or any(
            len(owner.outgoing) > OWNER_BACKLOG for owner in self._owners()
        )

    # Other commands

    def _accept(self, server: socket.socket) -> None:
        try:
            sock, _ = server.accept()
        except BlockingIOError:
            return
        sock.setblocking(False)
        client = self.clients[sock] = Client(sock)
        self._watch(sock, lambda: self._heard(client))

    def _heard(self, client: Client) -> None:
        try:
            data, rights, _, _ = client.sock.recvmsg(65536, socket.CMSG_SPACE(3 * 4), socket.MSG_CMSG_CLOEXEC)
        except BlockingIOError:
            self._send(client, b"")
            return
        except OSError:
            data, rights = b"", []
        for level, what, content in rights:
            if level == socket.SOL_SOCKET and what == socket.SCM_RIGHTS:
                found = array.array("i")
                found.frombytes(content[: len(content) - len(content) % found.itemsize])
                client.descriptors += found
        try:
            if not data:
                raise ValueError("the client left")
            for kind, payload in client.frames.feed(data):
                self._act(client, kind, payload)
        except MISTAKES as error:
            if data:
                self._send(client, control.document(control.ERROR, {"brief": str(error)}))
            self._drop(client)

    def _act(self, client: Client, kind: bytes, payload: bytes) -> None:
        if kind == control.HELLO:
            hello = json.loads(payload)
            client.wants = hello["want"]
            if client.wants == "stop":
                self.keeps = self.keeps or bool(hello.get("keep"))
                self.stop("stopped")
                if hello.get("now"):
                    self.stop("stopped")
            elif client.wants == "attach":
                client.owner = bool(hello.get("owner"))
                self._resize(hello.get("rows", 0), hello.get("columns", 0))
                if tail := self.log.tail():
                    self._send(client, control.frame(control.OUTPUT, tail))
            elif client.wants == "exec":
                self._execute(client, hello)
            elif client.wants in self.wishes:
                self._answer(client, hello)
        elif kind == control.INPUT and self.master is not None and client.wants == "attach":
            self._type(payload)
        elif kind == control.RESIZE:
            rows, columns = struct.unpack("!HH", payload)
            self._resize(rows, columns)
        elif kind == control.LEAVE:
            client.owner = False

    def _answer(self, client: Client, hello: dict[str, Any]) -> None:
        """A fault of our own in it would pass for a mistake of the client's: it is told of."""
        try:
            self.wishes[client.wants](client, hello)
        except (BotBottleError, OSError):
            raise
        except MISTAKES as error:
            self.failed({"what": client.wants, "why": described(error)})
            raise

    def _type(self, data: bytes) -> None:
        # The terminal's input queue is small and an agent need not read it: what does not fit is dropped, as a tty does.
        try:
            os.write(self.master or 0, data)
        except BlockingIOError:
            return

    def _resize(self, rows: int, columns: int) -> None:
        if self.master is not None and rows and columns:
            fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def _execute(self, client: Client, hello: dict[str, Any]) -> None:
        if len(client.descriptors) != 3:
            raise ValueError("exec needs three descriptors")
        command = Command(
            argv=tuple(str(word) for word in hello["argv"]),
            env=tuple(
                {**dict(self.plan.command.env), **{str(k): str(v) for k, v in hello["env"].items()}}.items()
            ),
            cwd=str(hello["cwd"]),
        )
        stdin, stdout, stderr = client.descriptors
        try:
            process = self.bottle.spawn(command, Stdio(stdin, stdout, stderr, tty=bool(hello["tty"])))
        finally:
            for descriptor in client.descriptors:
                os.close(descriptor)
            client.descriptors = []
        client.process = process
        self._watch(process, lambda: self._executed(client, process))

    def _executed(self, client: Client, process: Process) -> None:
        code = process.poll()
        if code is not None:
            client.process = None
            self.selector.unregister(process)
            self._send(client, control.document(control.EXIT, {"code": code}))

    def _send(self, client: Client, data: bytes) -> None:
        client.outgoing += data
        try:
            while client.outgoing:
                client.outgoing = client.outgoing[client.sock.send(client.outgoing) :]
        except BlockingIOError:
            pass
        except OSError:
            self._drop(client)
            return
        if len(client.outgoing) > CLIENT_BACKLOG:
            self._drop(client)
            return
        if client.sock in self.clients:
            wanted = selectors.EVENT_READ | (selectors.EVENT_WRITE if client.outgoing else 0)
            self.selector.modify(client.sock, wanted, lambda: self._heard(client))

    def _drop(self, client: Client) -> None:
        if self.clients.pop(client.sock, None) is None:
            return
        self.selector.unregister(client.sock)
        client.sock.close()
        for descriptor in client.descriptors:
            os.close(descriptor)
        if client.process is not None:
            client.process.signal(signal.SIGHUP)  # as when a terminal is closed
        if client.owner and client.wants == "attach":
            self.stop("the terminal went away")
