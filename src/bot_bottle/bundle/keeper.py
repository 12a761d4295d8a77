"""The bundle's line to its keeper: JSON, one object a line, over the socket that was there before the agent was.

The bundle lives only as long as this line: when it ends, the process ends at once, and with it the way out.
"""

import asyncio
import json
import os
import socket
from collections.abc import Callable, Mapping

from bot_bottle.errors import StateError, described
from bot_bottle.typed import Any

ROOM = 256 * 1024
"""What may wait for a keeper that does not read; beyond it nothing is taken."""
_LONGEST = 1024 * 1024


def encode(message: Mapping[str, Any]) -> bytes:
    """One line. ASCII only, so that nothing in it can be a control character."""
    return json.dumps(message, separators=(",", ":")).encode() + b"\n"


class Keeper:
    """`hear` gets every object that the keeper sends; what can't be understood is answered with an `error` line."""

    def __init__(self, channel: socket.socket, hear: Callable[[Mapping[str, Any]], None]) -> None:
        self._channel = channel
        self._hear = hear
        self._loop = asyncio.get_running_loop()
        self._waiting = b""
        self._heard = b""
        channel.setblocking(False)
        self._loop.add_reader(channel.fileno(), self._read)

    def has_room(self) -> bool:
        """Whether `tell` may be used for what can also be said later."""
        return len(self._waiting) < ROOM

    def tell(self, message: Mapping[str, Any]) -> bool:
        """Sends one object, in order; whether the keeper will hear it whatever becomes of this process."""
        self._waiting += encode(message)
        self._write()
        return not self._waiting

    def flush(self, seconds: float) -> None:
        """Waits until everything was taken, at most `seconds`; for the end, when the loop does nothing else any more."""
        self._channel.settimeout(seconds)
        try:
            self._channel.sendall(self._waiting)
        except OSError:
            return
        self._waiting = b""

    def _write(self) -> None:
        try:
            sent = self._channel.send(self._waiting)
        except BlockingIOError:
            sent = 0
        except OSError:
            os._exit(0)
        self._waiting = self._waiting[sent:]
        if self._waiting:
            self._loop.add_writer(self._channel.fileno(), self._write)
        else:
            self._loop.remove_writer(self._channel.fileno())

    def _read(self) -> None:
        try:
            data = self._channel.recv(65536)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data or len(self._heard) > _LONGEST:
            os._exit(0)
        *lines, self._heard = (self._heard + data).split(b"\n")
        for line in lines:
            self._understand(line)

    def _understand(self, line: bytes) -> None:
        try:
            message = json.loads(line)
            if not isinstance(message, dict):
                raise StateError("Not an object")
            self._hear(message)
        except (ValueError, RecursionError, StateError) as error:
            self.tell({"error": str(error)})
        except Exception as error:  # noqa: BLE001 - one order's trouble must not lose those that came with it
            self.tell({"error": described(error)})  # its words may be the order's own secret
