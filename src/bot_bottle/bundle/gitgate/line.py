"""The line between two processes of the gate: one JSON object a line, questions and answers by number. Blocking, for threads.

Neither end believes the other further than it must: a line has a greatest length, and what is no object ends the line.
"""

import json
import queue
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any

LONGEST = 4 << 20
"""Bytes of one line; a push of many refs, or many findings, fit."""


class LineEnded(Exception):
    """The other end is gone."""


class Line:
    """One end. `messages` is read by one thread; `send` and `ask` are any thread's."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(True)
        self._sock = sock
        self._writing = threading.Lock()
        self._asked: dict[int, queue.SimpleQueue[Mapping[str, Any] | None]] = {}
        self._number = 0
        self._ended = False

    def send(self, message: Mapping[str, Any]) -> None:
        """Raises LineEnded."""
        data = json.dumps(message, separators=(",", ":")).encode() + b"\n"
        try:
            with self._writing:
                self._sock.sendall(data)
        except OSError as error:
            raise LineEnded(str(error)) from error

    def ask(
        self, message: Mapping[str, Any], said: Callable[[str], None] = lambda _: None
    ) -> Mapping[str, Any]:
        """The answer to a question; `said` hears what comes before it. Raises LineEnded."""
        answers: queue.SimpleQueue[Mapping[str, Any] | None] = queue.SimpleQueue()
        with self._writing:
            self._number += 1
            number = self._number
            self._asked[number] = answers
            if self._ended:
                raise LineEnded("the line has ended")
        try:
            self.send({**message, "ask": number})
            while (answer := answers.get()) is not None:
                if "said" not in answer:
                    return answer
                said(str(answer["said"]))
        finally:
            self._asked.pop(number, None)
        raise LineEnded("the line has ended")

    def messages(self) -> Iterator[dict[str, Any]]:
        """What comes that is no answer to a question of ours, until the line ends."""
        buffer = b""
        try:
            while data := self._sock.recv(65536):
                *lines, buffer = (buffer + data).split(b"\n")
                for line in lines:
                    message = _parse(line)
                    if message is None:
                        return
                    waiting = (
                        self._asked.get(message["answer"]) if type(message.get("answer")) is int else None
                    )
                    if waiting is not None:
                        waiting.put(message)
                    elif "answer" not in message:
                        yield message
                if len(buffer) > LONGEST:
                    return
        except OSError:
            return
        finally:
            self._end()

    def _end(self) -> None:
        with self._writing:
            self._ended = True
            waiting = list(self._asked.values())
        for one in waiting:
            one.put(None)


def _parse(line: bytes) -> dict[str, Any] | None:
    try:
        message = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return message if isinstance(message, dict) else None
