"""A bottle that a container holds, as the process that created it sees it."""

import os
import socket
from collections.abc import Callable, Sequence
from contextlib import ExitStack

from bot_bottle.backends.base import Stdio
from bot_bottle.backends.docker.door import Helper
from bot_bottle.backends.guest import GONE, Line, Process
from bot_bottle.door.model import Hatch, Listener
from bot_bottle.errors import SandboxError
from bot_bottle.plan.model import Command, File


class DockerBottle:
    """See `backends.base.Bottle`. `owned` removes everything that was made for it, in the right order.

    `helper` is the door's, which is there already; `another` makes a further one.
    """

    def __init__(
        self, line: Line, helper: Helper, another: Callable[[], Helper], owned: ExitStack, agent: Command
    ) -> None:
        self._line = line
        self._helper: Helper | None = helper
        self._another = another
        self._owned = owned
        self._command = agent
        self._destroyed = False
        self._stdio: Stdio | None = None
        self._running: list[Process] = []
        self._report: socket.socket | None
        self.agent, self._report = line.prepare()

    def hold_agent(self, stdio: Stdio) -> None:
        """Keeps what the agent will be started on; it is not there before `release`."""
        kept = [os.dup(descriptor) for descriptor in stdio[:3]]
        self._stdio = Stdio(kept[0], kept[1], kept[2], stdio.tty)

    def open_door(self, listeners: Sequence[Listener], channel: socket.socket | Hatch) -> None:
        self._must_run()
        if isinstance(channel, Hatch):
            raise SandboxError("This bottle's listeners come to the keeper")
        helper, self._helper = self._helper or self._another(), None
        try:
            helper.open(listeners, channel)
        finally:
            helper.close()

    def spawn(self, command: Command, stdio: Stdio) -> Process:
        self._must_run()
        self._running = [process for process in self._running if process.poll() is None]
        process = self._line.spawn(command, stdio)
        self._running.append(process)
        return process

    def write_files(self, files: Sequence[File]) -> None:
        self._must_run()
        self._line.write_files(files)

    def release(self) -> None:
        self._must_run()
        if self._helper:  # nothing that can change the network is there when the agent is
            self._helper.close()
            self._helper = None
        if self._report and self._stdio:
            report, self._report = self._report, None
            try:
                self._line.start(self.agent, report, self._command, self._stdio)
                self.agent.begun()
            finally:
                self._forget_stdio()

    def destroy(self) -> None:
        if self._destroyed:
            return
        self._destroyed = True
        self._line.close()
        if self._helper:
            self._helper.close()
        if self._report:
            self._report.close()
            self._report = None
        self._forget_stdio()
        try:
            self._owned.close()
        finally:
            for process in (*self._running, self.agent):
                process.close()

    def _forget_stdio(self) -> None:
        if self._stdio:
            for descriptor in self._stdio[:3]:
                os.close(descriptor)
        self._stdio = None

    def _must_run(self) -> None:
        if self._destroyed or self._line.ended():
            raise SandboxError(GONE)
