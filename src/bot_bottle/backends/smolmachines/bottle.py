"""A bottle that a virtual machine holds, as the process that created it sees it."""

import errno
import os
import socket
from collections.abc import Sequence
from contextlib import ExitStack

from bot_bottle.backends import guest
from bot_bottle.backends.attached import Attached, End, Process
from bot_bottle.backends.base import Stdio
from bot_bottle.backends.guest import GONE
from bot_bottle.backends.smolmachines.deputy import said
from bot_bottle.door.model import Hatch, Listener
from bot_bottle.door.relayed import Relay
from bot_bottle.errors import SandboxError
from bot_bottle.plan.model import Command, File
from bot_bottle.typed import Any

_BEGUN_WITHIN = 60.0
"""Seconds for the deputy to make the agent's place; under emulation it takes one."""


class MachineBottle:
    """See `backends.base.Bottle`. `owned` removes everything that was made for it, in the right order."""

    def __init__(
        self, attached: Attached, relay: Relay, command: Command, stdio: Stdio, owned: ExitStack
    ) -> None:
        self._attached = attached
        self._relay = relay
        self._command = command
        self._owned = owned
        self._numbers = 1
        self._running: list[Process] = []
        self._channels: dict[int, tuple[int, ...]] = {}
        self._channel = 0
        self._released = self._destroyed = False
        kept = [os.dup(descriptor) for descriptor in stdio[:3]]
        self._stdio = Stdio(kept[0], kept[1], kept[2], stdio.tty)
        ours, self._report = socket.socketpair()
        self.agent = Process(attached, 1, ours)

    def open_door(self, listeners: Sequence[Listener], channel: socket.socket | Hatch) -> None:
        self._must_run()
        if isinstance(channel, Hatch):
            raise SandboxError("This bottle's listeners come to the keeper")
        self._relay.open_door(listeners, channel)

    def spawn(self, command: Command, stdio: Stdio) -> Process:
        self._must_run()
        self._numbers += 1
        ours, theirs = socket.socketpair()
        process = Process(self._attached, self._numbers, ours)
        with theirs:
            self._run(self._numbers, command, stdio, theirs)
        self._running = [one for one in self._running if one.poll() is None]
        self._running.append(process)
        return process

    def _run(self, number: int, command: Command, stdio: Stdio, report: socket.socket) -> None:
        text = guest.spoken(command)
        if text is None or len(text) > guest.LARGEST:
            text = guest.spoken(command._replace(argv=(command.argv[0][:4096], ""), env=()), runnable=False)
        take = self._free_channel
        ends = [End(take(), stdio.stdin, writes=stdio.tty)]
        if not stdio.tty:
            ends += [End(take(), one, reads=False) for one in (stdio.stdout, stdio.stderr)]
        order = {
            "do": "spawn", "number": number, "tty": stdio.tty, "channels": [end.channel for end in ends],
            "text": said(text or b""),
        }  # fmt: skip
        self._channels[number] = tuple(end.channel for end in ends)
        answer = self._attached.ask(order, ends, report=report)
        if failed := answer["failed"]:
            if failed == errno.EPIPE:  # process 1 has just ended
                raise SandboxError(GONE)
            raise SandboxError("A process could not be started in the bottle", details=os.strerror(failed))

    def _free_channel(self) -> int:
        """A number that no process that runs has: they are used again, and there are 65,535."""
        live = {process.number for process in (*self._running, self.agent) if process.poll() is None}
        self._channels = {number: taken for number, taken in self._channels.items() if number in live}
        taken = {channel for channels in self._channels.values() for channel in channels}
        self._channel = self._channel % 65535 + 1
        while self._channel in taken:
            self._channel = self._channel % 65535 + 1
        return self._channel

    def write_files(self, files: Sequence[File]) -> None:
        self._must_run()
        for batch in guest.batches(files):
            order = {"do": "write", "text": said(b"".join(map(guest.packed, batch)))}
            answer = self._attached.ask(order)
            if failed := answer["failed"]:
                if failed == errno.EPIPE:
                    raise SandboxError(GONE)
                name = batch[min(answer["more"], len(batch) - 1)].target
                raise SandboxError(
                    "The bottle's files can't be written", details=f"{name}: {os.strerror(failed)}"
                )

    def release(self) -> None:
        self._must_run()
        if self._released:
            return
        self._released = True
        try:
            self._run(1, self._command, self._stdio, self._report)
        finally:
            self._forget_stdio()

    def destroy(self) -> None:
        if self._destroyed:
            return
        self._destroyed = True
        if not self._released:
            self._forget_stdio()
        try:
            self._owned.close()
        finally:
            for process in (*self._running, self.agent):
                process.close()

    def _forget_stdio(self) -> None:
        for descriptor in self._stdio[:3]:
            os.close(descriptor)
        self._report.close()

    def _must_run(self) -> None:
        if self._destroyed or self._attached.ended():
            raise SandboxError(GONE)


def confine(attached: Attached, begin: dict[str, Any], rules: bytes, files: int) -> None:
    """Has the agent's place made (`begin`), and everything in it put under the seccomp program `rules`. Raises SandboxError."""
    answer = attached.ask({"do": "begin", **begin}, within=_BEGUN_WITHIN)
    if failed := answer["failed"]:
        details = f"step {answer['more']}: {os.strerror(failed)}"
        raise SandboxError("The agent's place could not be made in its machine", details=details)
    answer = attached.ask({"do": "filter", "text": said(rules), "value": files})
    if answer["failed"]:
        raise SandboxError("The bottle could not be confined", details=os.strerror(answer["failed"]))
