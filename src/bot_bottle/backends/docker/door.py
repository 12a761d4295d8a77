"""The helper that opens the door: a short-lived container in the agent's network namespace, and our side of what is said to it.

Its image holds `guest.c`'s program and nothing else. It may configure that network namespace and nothing more, and it is told
over a socket in a folder that no other container has. What it opens comes back as descriptors; the caller passes them on.
"""

import array
import itertools
import os
import socket
import struct
import time
from collections.abc import Sequence
from contextlib import ExitStack

from bot_bottle.backends.docker import container, programs
from bot_bottle.backends.docker.wire import Engine, EngineRefusal
from bot_bottle.door.model import Listener
from bot_bottle.door.passing import MAX_LISTENERS, send_listeners
from bot_bottle.errors import SandboxError
from bot_bottle.host.spawn import readable
from bot_bottle.plan.model import RunPlan

FOLDER = "door"
"""Below the run's folder; the helper sees it as /door."""
_PATIENCE = 20.0
"""Seconds from the helper's start until it is there; it takes 0.1."""
_STEPS = {1: "raise lo", 2: "make every address local", 3: "open a listener", 4: "hand over to process 1",
          5: "find a network namespace that has no network"}  # fmt: skip


class Helper:
    """One helper container: `name` is its own. `close` is to follow, whatever happened."""

    def __init__(self, engine: Engine, name: str, folder: str) -> None:
        self._engine = engine
        self.name = name
        self._opened = ExitStack()
        self._sock: socket.socket | None = None
        os.makedirs(folder, exist_ok=True)
        os.chmod(folder, 0o711)  # noqa: S103 - the helper is user 0 without the right to pass over modes
        self._path = os.path.join(folder, "s")
        self._server = socket.socket(socket.AF_UNIX)
        self._opened.callback(self._shut)
        self._bind(folder)

    def _bind(self, folder: str) -> None:
        # By a short way round: a socket's path has 107 bytes at most, and folders can be deep.
        descriptor = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            self._server.bind(f"/proc/self/fd/{descriptor}/s")
        finally:
            os.close(descriptor)
        os.chmod(self._path, 0o666)  # noqa: S103 - the run's folder above it is the operator's alone
        self._server.listen(1)

    def _shut(self) -> None:
        self._server.close()
        if os.path.lexists(self._path):
            os.unlink(self._path)

    def start(self) -> None:
        """Starts the container, which was made, and waits until it is there. Raises SandboxError, HostError."""
        self._engine.call("POST", f"/containers/{self.name}/start", what="start the door's helper")
        self.wait()

    def wait(self) -> None:
        """Waits until the container, which somebody has started, is there. Raises SandboxError."""
        self._server.settimeout(_PATIENCE)
        try:
            self._sock, _ = self._server.accept()
        except OSError as error:
            raise SandboxError("The door's helper did not come", details=str(error)) from error
        self._opened.callback(self._sock.close)
        self._shut()

    def hand_over(self, sock: socket.socket) -> None:
        """Has it hand `sock` to process 1 of the agent's container. Raises SandboxError."""
        self._say(struct.pack("=I", 0), [sock.fileno()])

    def open(self, listeners: Sequence[Listener], channel: socket.socket) -> None:
        """Opens `listeners` inside and passes them over `channel`; then the helper ends. Raises SandboxError."""
        if not 0 < len(listeners) <= MAX_LISTENERS:
            raise SandboxError(
                "The bottle's door could not be opened", details=f"{len(listeners)} listeners at once"
            )
        self._say(struct.pack("=I", len(listeners)) + b"".join(map(_spoken, listeners)))
        opened = self._hear(len(listeners))
        try:
            send_listeners(channel, opened)
        except OSError as error:
            raise SandboxError("The bottle's door could not be opened", details=str(error)) from error
        finally:
            for sock in opened:
                sock.close()

    def trouble(self) -> str:
        """What it said went wrong; empty when it said nothing."""
        try:
            return _words(self._sock.recv(16)) if self._sock and readable(self._sock.fileno(), 0) else ""
        except OSError:
            return ""

    def close(self) -> None:
        """Ends it. Idempotent."""
        self._opened.close()

    def _say(self, words: bytes, descriptors: Sequence[int] = ()) -> None:
        rights = (
            [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))] if descriptors else []
        )
        if self._sock is None:
            raise SandboxError("The door's helper is not there")
        try:
            self._sock.sendmsg([words], rights, socket.MSG_NOSIGNAL)
        except OSError as error:
            raise SandboxError("The door's helper went away", details=self.trouble() or str(error)) from error

    def _hear(self, count: int) -> list[socket.socket]:
        assert self._sock
        brief = "The bottle's door could not be opened"
        if not readable(self._sock.fileno(), _PATIENCE):
            raise SandboxError(brief, details="the helper does not answer")
        room = socket.CMSG_SPACE(MAX_LISTENERS * array.array("i").itemsize)
        try:
            said, ancillary, _, _ = self._sock.recvmsg(16, room, socket.MSG_CMSG_CLOEXEC)
        except OSError as error:
            raise SandboxError(brief, details=f"the helper went away: {error}") from error
        numbers = array.array("i")
        for level, kind, data in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                numbers.frombytes(data[: len(data) - len(data) % numbers.itemsize])
        sockets = [socket.socket(fileno=number) for number in numbers]
        if said != b"door" or len(sockets) != count:
            for sock in sockets:
                sock.close()
            raise SandboxError(brief, details=_words(said))
        return sockets


def further(engine: Engine, asked: dict[str, object], names: container.Names) -> str:
    """Makes another helper's container while the agent runs; its name. Raises EngineRefusal, HostError.

    Its name is one of few, so that a cleanup can wait for it should its keeper be killed just now.
    """
    deadline = time.monotonic() + _PATIENCE
    for number in itertools.cycle(range(1, container.HELPERS)):
        name = names.helper(number)
        try:
            engine.call("POST", "/containers/create", asked, what="make the door's helper", name=name)
        except EngineRefusal as refused:  # an earlier one is still on its way out
            if refused.status != 409 or time.monotonic() > deadline:
                raise
            time.sleep(0.01)
        else:
            return name
    raise AssertionError


def folder_of(plan: RunPlan) -> str:
    """Where a helper finds the keeper."""
    return os.path.join(plan.paths.run, FOLDER)


def another(engine: Engine, plan: RunPlan) -> Helper:
    """Another helper for the same bottle, while the agent runs. Raises SandboxError, HostError."""
    names = container.names(plan)
    helper = Helper(engine, "", folder_of(plan))
    try:
        asked = body(programs.door_image(engine), names.agent, folder_of(plan), names.labels)
        helper.name = further(engine, asked, names)
        helper.start()
    except BaseException:
        helper.close()
        raise
    return helper


def body(image: str, agent: str, folder: str, labels: dict[str, str]) -> dict[str, object]:
    """What the engine is asked to make: it joins the network namespace of the container `agent`."""
    return {
        "Image": image,
        "Entrypoint": [container.GUEST, "door"],
        "User": "0:0",
        "Labels": labels,
        "HostConfig": {
            "NetworkMode": f"container:{agent}",
            "CapDrop": ["ALL"],
            "CapAdd": ["NET_ADMIN", "NET_BIND_SERVICE"],
            "SecurityOpt": ["no-new-privileges"],
            "ReadonlyRootfs": True,
            "AutoRemove": True,
            "PidsLimit": 8,
            "LogConfig": {"Type": "none"},
            "Mounts": [{"Type": "bind", "Source": folder, "Target": "/door", "ReadOnly": True}],
        },
    }


def _spoken(listener: Listener) -> bytes:
    address = socket.inet_aton(listener.address)
    return struct.pack("=I4s", listener.kind == "dns-udp", address) + struct.pack(">HH", listener.port, 0)


def _words(said: bytes) -> str:
    if len(said) == 3 and said[:1] == b"!":
        return f"{_STEPS.get(said[1], 'open the door')}: {os.strerror(said[2])}"
    return "the helper ended" if not said else "the helper's answer can't be read"
