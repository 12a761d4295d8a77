"""The keeper's side of the bundle: forked, watched, told to stop.

The bundle is a fork of the keeper, so it costs few pages and no start of an interpreter. It holds its own bottle's policy
and nothing else; it may write events to the keeper's socket and cannot open the store.

The first thing that a headless start imports, so nothing is imported here that forking one does not need.
"""

import os
import socket
import time

from bot_bottle.errors import SandboxError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any, NoReturn

    from bot_bottle.bundle.model import BundleConfig
    from bot_bottle.door.model import Hatch
    from bot_bottle.events import NewEvent
    from bot_bottle.launch.heard import Room

_KILL = 9  # signal.SIGKILL; that module makes enumerations of all of them first
ORDER_WITHIN = 1.0
"""Seconds for an order to be taken, which waits for nothing unless the bundle reads no more."""
MOST_AUTHORITIES = 1000
"""How often a bundle may change them: a reload may, and time does once a month."""
LAST_WORDS_WITHIN = 5.0
"""Seconds that a bundle has to say its last words in; one that only goes on talking is not heard to the end."""
MOST_LAST_WORDS = 20_000
READY_WITHIN = 15.0
"""Seconds; the bundle is ready within a tenth of one on an idle machine."""


class Sidecar:
    """One bundle process. `door` is where the bottle's listeners are sent; `sock` is where it reports."""

    _kept_room: "Room | None" = None

    def __init__(self, config: "BundleConfig | None" = None) -> None:
        """Forks it. Without a config it imports meanwhile, and waits for `give`."""
        self._blank(config)
        self._begin(os.getpid())

    def _blank(self, config: "BundleConfig | None") -> None:
        self.config = config
        self.facts: Mapping[str, Any] = {}
        self.code: int | None = None
        self.authority = ""
        """The bottle's own certificate authorities in PEM, as the bundle said last; empty until it has made one."""
        self._authorities_heard = 0
        self._buffer = b""
        self._told_to_stop = False

    def _begin(self, parent: int) -> None:
        door, door_inside = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock, keeper_inside = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        door.setblocking(
            False
        )  # passing further listeners to a bundle that takes none must not hold up its keeper
        self.door: socket.socket | Hatch = door
        self.pid = os.fork()
        if self.pid == 0:
            door.close()
            self.sock.close()
            _serve(self.config, parent, door_inside, keeper_inside)
        door_inside.close()
        keeper_inside.close()

    def give(self, config: "BundleConfig") -> None:
        """Gives a bundle that was forked without one its config."""
        import json

        self.config = config
        try:
            self.sock.sendall(json.dumps(config.document()).encode() + b"\n")
        except ConnectionError as error:
            raise self.why_ended() from error

    def why_ended(self) -> SandboxError:
        """What to say of a bundle that has ended before it was ready: its own last words, if there are any."""
        said = ""
        try:
            self.sock.settimeout(ORDER_WITHIN)
            while (messages := self.read()) is not None:
                said = next((str(one["failed"]) for one in messages if one.get("failed")), said)
        except OSError:
            pass  # it says no more
        if said:
            return SandboxError("The bundle refused to serve", details=said)
        return SandboxError("The bundle ended while starting", details=f"exit code {self.reap()}")

    def order(self, message: "Mapping[str, Any]") -> None:
        """Sends a running bundle one line. Raises OSError when it does not take it whole, soon: then it hears no other."""
        import json

        self.sock.settimeout(ORDER_WITHIN)
        try:
            self.sock.sendall(json.dumps(message).encode() + b"\n")
        finally:
            self.sock.setblocking(False)

    def discard(self) -> None:
        """Ends at once a bundle that nobody needs any more. Idempotent."""
        if self.code is None:
            self.kill()
            self.reap()
            self._close()

    def wait_ready(self, fingerprint: str) -> None:
        """Waits until the bundle serves the policy with that fingerprint. Raises SandboxError when it does not."""
        deadline = time.monotonic() + READY_WITHIN
        while not self.facts.get("ready"):
            self.sock.settimeout(max(0.01, deadline - time.monotonic()))
            try:
                messages = self.read()
            except TimeoutError as error:
                raise SandboxError(
                    "The bundle did not become ready", details=f"waited {READY_WITHIN:.0f} s"
                ) from error
            if messages is None:
                raise self.why_ended()
            for message in messages:
                self.facts = message if message.get("ready") or message.get("failed") else self.facts
            if self.facts.get("failed"):
                raise SandboxError("The bundle refused to serve", details=str(self.facts["failed"]))
        if self.facts.get("policy") != fingerprint:
            raise SandboxError(
                "The bundle enforces another policy than the plan's", details=str(self.facts.get("policy"))
            )
        self.sock.setblocking(False)

    def read(self) -> "list[dict[str, Any]] | None":
        """The messages that have arrived; None at the end. The sender is not trusted: what is no message is dropped."""
        try:
            data = self.sock.recv(65536)
        except BlockingIOError:
            return []
        except ConnectionError:
            return None
        if not data:
            return None
        *lines, self._buffer = (self._buffer + data).split(b"\n")
        if len(self._buffer) > 1 << 20:
            return None
        from bot_bottle.launch.heard import parse

        messages = [message for line in lines if (message := parse(line)) is not None]
        for message in messages:
            if (
                isinstance(given := message.get("authority"), str)
                and self._authorities_heard < MOST_AUTHORITIES
            ):
                self.authority = given
                self._authorities_heard += 1
        return messages

    def events(self, run: str, messages: "list[dict[str, Any]]") -> "list[NewEvent]":
        """The events among `messages`, with the run's name from here: a bundle cannot name another."""
        from bot_bottle.events import NewEvent
        from bot_bottle.launch import heard

        told = [found for message in messages if (found := heard.event(message)) is not None]
        return [NewEvent(run, time.time(), kind, data) for kind, data in self._room().take(told)]

    def _room(self) -> "Room":
        if self._kept_room is None:
            from bot_bottle.launch.heard import Room

            self._kept_room = Room(time.monotonic)
        return self._kept_room

    def tell(self, message: "Mapping[str, Any]") -> None:
        """Says something to the bundle that it reads at once. When it does not, it is as good as dead, and found to be so."""
        try:
            self.order(message)
        except OSError:
            return

    def reap(self) -> int | None:
        """Collects the ended process's exit code."""
        if self.code is None:
            _, status = os.waitpid(self.pid, 0)
            self.code = os.waitstatus_to_exitcode(status)
        return self.code

    def has_ended(self) -> bool:
        """Whether it has closed its end of the keeper's socket; what it said before can still be read."""
        import select

        waiting = select.poll()
        waiting.register(self.sock, select.POLLRDHUP)
        return bool(waiting.poll(0))

    def say_stop(self) -> None:
        """Tells the bundle to end, and does not wait for it."""
        if self.code is None and not self._told_to_stop:
            self._told_to_stop = True
            try:
                self.sock.settimeout(2)
                self.sock.sendall(b'{"stop": true}\n')
            except OSError:
                return  # it is gone, or does not listen: `stop` ends it either way

    def stop(self) -> "list[dict[str, Any]]":
        """Ends the bundle and collects it; gives its last messages. Idempotent."""
        last: list[dict[str, Any]] = []
        if self.code is None:
            self.say_stop()
            end = time.monotonic() + LAST_WORDS_WITHIN
            try:
                while (left := end - time.monotonic()) > 0 and len(last) < MOST_LAST_WORDS:
                    self.sock.settimeout(min(left, 2.0))
                    if (messages := self.read()) is None:
                        break
                    last += messages
            except OSError:
                pass  # it is gone or does not listen: the next line ends it either way
            self.kill()
            self.reap()
        self._close()
        return last

    def kill(self) -> None:
        """Ends it at once; `reap` is to follow."""
        os.kill(self.pid, _KILL)

    def _close(self) -> None:
        if isinstance(self.door, socket.socket):
            self.door.close()
        self.sock.close()


def _serve(
    config: "BundleConfig | None", parent: int, door: socket.socket, keeper: socket.socket
) -> "NoReturn":
    """The forked side: never returns, whatever happens."""
    try:
        from bot_bottle.bundle.main import serve, serve_when_told

        if config is None:
            serve_when_told(parent, door=door, keeper=keeper)
        serve(config, door=door, keeper=keeper)
    finally:
        os._exit(70)
