"""A bottle that bubblewrap holds, as the process that created it sees it."""

import contextlib
import signal
import socket
from collections.abc import Sequence
from contextlib import ExitStack

from bot_bottle.backends.base import Stdio
from bot_bottle.backends.namespace import enter
from bot_bottle.door.model import Listener
from bot_bottle.errors import SandboxError
from bot_bottle.host.spawn import Child, ChildFailed, readable
from bot_bottle.plan.model import Command

_GONE = "The bottle has ended"
_PATIENCE = 10.0
"""Seconds that the kernel may take to end everything in a bottle."""


class NamespaceBottle:
    """See `backends.base.Bottle`. `owned` closes and removes everything that was made for it, in the right order."""

    agent: Child

    def __init__(self, way: enter.Way, owned: ExitStack) -> None:
        self._way = way
        self._owned = owned
        self._running: list[Child] = []
        self._destroyed = False
        self._going: socket.socket | None = None

    def hold_agent(self, command: Command, stdio: Stdio) -> None:
        """Starts the agent, held back until `release`. Raises SandboxError."""
        waiting, self._going = socket.socketpair()
        self._owned.callback(self._going.close)
        with waiting:
            self.agent = self._start(command, stdio, held_by=waiting.fileno())

    def open_door(self, listeners: Sequence[Listener], channel: socket.socket) -> None:
        self._must_run()
        try:
            enter.open_door(self._way, listeners, channel)
        except ChildFailed as failed:
            raise SandboxError("The bottle's door could not be opened", details=failed.said) from failed

    def spawn(self, command: Command, stdio: Stdio) -> Child:
        self._must_run()
        self._running = [child for child in self._running if child is self.agent or child.poll() is None]
        return self._start(command, stdio)

    def release(self) -> None:
        self._must_run()
        assert self._going is not None
        with contextlib.suppress(
            BrokenPipeError, ConnectionResetError
        ):  # released before, or ended while it was held
            self._going.send(b"g", socket.MSG_NOSIGNAL)

    def destroy(self) -> None:
        if self._destroyed:
            return
        self._destroyed = True
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._way.holder, signal.SIGKILL)
        # The namespace only ends once its last process is reaped, and these are this process's children.
        for child in self._running:
            child.wait()
            child.close()
        readable(self._way.holder, _PATIENCE)
        self._owned.close()

    def _start(self, command: Command, stdio: Stdio, *, held_by: int | None = None) -> Child:
        try:
            child = enter.start(self._way, command, stdio, held_by=held_by)
        except ChildFailed as failed:
            if self._ended():
                raise SandboxError(_GONE, details=failed.said) from failed
            details = f"{failed.what}: {failed.said}"
            raise SandboxError("A process could not be started in the bottle", details=details) from failed
        self._running.append(child)
        return child

    def _ended(self) -> bool:
        return self._destroyed or readable(self._way.holder, 0)

    def _must_run(self) -> None:
        if self._ended():
            raise SandboxError(_GONE)
