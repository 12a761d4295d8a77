"""HTTP/2 clients and servers for tests that say what they like: `h2` without its own checks of what it sends."""

import contextlib
import socket
import ssl
from collections.abc import Callable
from typing import Any, NamedTuple

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import (
    ConnectionTerminated,
    DataReceived,
    RequestReceived,
    ResponseReceived,
    StreamEnded,
    StreamReset,
    TrailersReceived,
)
from h2.exceptions import ProtocolError
from hyperframe.frame import GoAwayFrame

Fields = list[tuple[bytes, bytes]]


class Message(NamedTuple):
    headers: dict[bytes, bytes]
    body: bytes
    trailers: dict[bytes, bytes]
    reset: int | None = None

    @property
    def status(self) -> int:
        return int(self.headers.get(b":status", b"0"))


def connection(*, client: bool) -> H2Connection:
    return H2Connection(
        H2Configuration(
            client_side=client,
            header_encoding=None,
            validate_outbound_headers=False,
            normalize_outbound_headers=False,
        )
    )


class Client:
    """Speaks over a connected `sock`; `goaway` is the code with which the other side ended it."""

    def __init__(self, sock: socket.socket, *, window: int | None = None) -> None:
        self.sock = sock
        self.h2 = connection(client=True)
        self.goaway: int | None = None
        self.ended = False
        self.open: dict[int, dict[str, Any]] = {}
        if window is not None:
            self.h2.local_settings.initial_window_size = window
            self.h2.local_settings.acknowledge()
        self.h2.initiate_connection()
        self.flush()

    def flush(self) -> None:
        self.sock.sendall(self.h2.data_to_send())

    def start(
        self, *fields: tuple[str, str], end: bool = True, body: bytes = b"", **changed: str | None
    ) -> int:
        """A request's stream. `changed` replaces (or, with None, leaves out) what it has without."""
        pseudo = {"method": "GET", "scheme": "https", "authority": "ok.test", "path": "/a", **changed}
        headers = [(f":{name}", value) for name, value in pseudo.items() if value is not None]
        number = self.h2.get_next_available_stream_id()
        self.h2.send_headers(number, [*headers, *fields], end_stream=end and not body)
        self.open[number] = {"headers": {}, "body": b"", "trailers": {}, "reset": None, "over": False}
        if body:
            self.h2.send_data(number, body, end_stream=end)
        self.flush()
        return number

    def ask(self, *fields: tuple[str, str], **more: Any) -> Message:
        return self.answer(self.start(*fields, **more))

    def answer(self, number: int) -> Message:
        while not self.open[number]["over"] and self.take():
            pass
        found = dict(self.open[number])
        found.pop("over")
        return Message(**found)

    def take(self) -> bool:
        """Takes what comes next; False at the end."""
        try:
            data = self.sock.recv(65536)
        except (ConnectionError, ssl.SSLError):
            data = b""
        if not data:
            self.ended = True
            return False
        for event in self.h2.receive_data(data):
            self._happened(event)
        with contextlib.suppress(OSError):
            self.flush()
        return True

    def until_the_end(self) -> int | None:
        while self.take():
            pass
        return self.goaway

    def _happened(self, event: Any) -> None:
        if isinstance(event, ConnectionTerminated):
            self.goaway = int(event.error_code)
        stream = self.open.get(getattr(event, "stream_id", 0))
        if stream is None:
            return
        if isinstance(event, ResponseReceived):
            stream["headers"] = dict(event.headers)
        elif isinstance(event, DataReceived):
            stream["body"] += event.data
            self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
        elif isinstance(event, TrailersReceived):
            stream["trailers"] = dict(event.headers)
        elif isinstance(event, StreamEnded):
            stream["over"] = True
        elif isinstance(event, StreamReset):
            stream["over"], stream["reset"] = True, int(event.error_code)


class Asked(NamedTuple):
    headers: Fields
    body: bytes


Reply = Callable[["Serving", int, Asked], None]


class Serving:
    """One connection of a server; `reply` is called when a request has come whole, `begin` when its head has."""

    def __init__(self, sock: ssl.SSLSocket, reply: Reply, begin: Reply | None = None) -> None:
        self.sock = sock
        self.h2 = connection(client=False)
        self._reply = reply
        self._begin = begin
        self.asked: dict[int, Asked] = {}
        self.resets = 0
        self.h2.initiate_connection()
        self.flush()

    def flush(self) -> None:
        self.sock.sendall(self.h2.data_to_send())

    def run(self) -> None:
        with contextlib.suppress(OSError, ProtocolError):
            while data := self.sock.recv(65536):
                for event in self.h2.receive_data(data):
                    self._happened(event)
                self.flush()

    def _happened(self, event: Any) -> None:
        if isinstance(event, RequestReceived):
            self.asked[event.stream_id] = Asked(list(event.headers), b"")
            if self._begin is not None:
                self._begin(self, event.stream_id, self.asked[event.stream_id])
        elif isinstance(event, DataReceived):
            before = self.asked[event.stream_id]
            self.asked[event.stream_id] = before._replace(body=before.body + event.data)
            self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
        elif isinstance(event, StreamEnded):
            self._reply(self, event.stream_id, self.asked[event.stream_id])
        elif isinstance(event, StreamReset):
            self.resets += 1

    def say(
        self, number: int, body: bytes, *fields: tuple[bytes, bytes], trailers: Fields | None = None
    ) -> None:
        """A whole response, whose body fits into the window."""
        self.h2.send_headers(number, [(b":status", b"200"), *fields])
        self.h2.send_data(number, body, end_stream=trailers is None)
        if trailers is not None:
            self.h2.send_headers(number, trailers, end_stream=True)

    def go_away(self, last: int) -> None:
        """Takes no further streams, as servers do that are restarted; goes on with those that there are."""
        self.flush()
        self.sock.sendall(GoAwayFrame(0, last_stream_id=last, error_code=0).serialize())
