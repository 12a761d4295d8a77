"""A bottle that bubblewrap holds, as the process that created it sees it."""

import contextlib
import signal
import socket
from collections.abc import Sequence
from contextlib import ExitStack

from bot_bottle.backends.base import Stdio
from bot_bottle.backends.namespace import enter, held
from bot_bottle.door.model import Hatch, Listener
from bot_bottle.errors import SandboxError
from bot_bottle.host.spawn import Child, ChildFailed, readable
from bot_bottle.plan.model import Command, File

_GONE = "The bottle has ended"
_PATIENCE = 10.0
"""Seconds that the kernel may take to end everything in a bottle."""


class NamespaceBottle:
    """See `backends.base.Bottle`. `owned` closes and removes everything that was made for it, in the right order."""

    def __init__(self, way: enter.Way, owned: ExitStack) -> None:
        self._way = way
        self._owned = owned
        self._running: list[Child] = []
        self._destroyed = False
        self._arriving: enter.Start | None = None
        self._agent: Child | None = None
        self._line: socket.socket
        self._held = True

    def hold_agent(self, command: Command, stdio: Stdio) -> None:
        """Sends the agent in, where it is held back until `release`; whoever needs it to be there first waits for that."""
        waiting, self._line = socket.socketpair()
        self._owned.callback(self._line.close)
        with waiting:
            self._arriving = enter.Start(self._way, command, stdio, held_by=waiting.fileno())

    @property
    def agent(self) -> Child:
        """See `backends.base.Bottle`. Raises SandboxError when it could not be confined."""
        if self._arriving:
            arriving, self._arriving = self._arriving, None
            self._agent = self._arrived(arriving)
        if self._agent is None:
            raise SandboxError(_GONE)
        return self._agent

    def open_door(self, listeners: Sequence[Listener], channel: socket.socket | Hatch) -> None:
        self._must_run()
        if isinstance(channel, Hatch):
            raise SandboxError("This bottle's listeners come to the keeper")
        try:
            enter.open_door(self._way, listeners, channel)
        except ChildFailed as failed:
            raise SandboxError("The bottle's door could not be opened", details=failed.said) from failed

    def spawn(self, command: Command, stdio: Stdio) -> Child:
        self._must_run()
        self._running = [child for child in self._running if child is self._agent or child.poll() is None]
        return self._arrived(enter.Start(self._way, command, stdio))

    def write_files(self, files: Sequence[File]) -> None:
        self._must_run()
        if not self._held:
            from bot_bottle.backends import copying

            copying.write_files(self, files)
            return
        try:
            problem = held.send_files(self._line, files, _PATIENCE)
        except OSError as error:
            _ = self.agent  # why it is not there, if that is the reason
            raise SandboxError("The bottle's files can't be written", details=str(error)) from error
        if problem:
            raise SandboxError("The bottle's files can't be written", details=problem)

    def release(self) -> None:
        self._must_run()
        _ = self.agent  # confined by now, or this raises
        self._held = False
        held.let_go(self._line)

    def destroy(self) -> None:
        if self._destroyed:
            return
        self._destroyed = True
        if self._arriving:
            with contextlib.suppress(SandboxError):
                _ = self.agent  # so that it is known, and can be waited for
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._way.holder, signal.SIGKILL)
        # The namespace only ends once its last process is reaped, and these are this process's children.
        for child in self._running:
            child.wait()
            child.close()
        readable(self._way.holder, _PATIENCE)
        self._owned.close()

    def _arrived(self, start: enter.Start) -> Child:
        try:
            child = start.finish()
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
