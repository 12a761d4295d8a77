"""One request answered by `git http-backend`: the request's body into it, what it says out again, both as they come."""

import os
import queue
import signal
import socket
import subprocess
import threading
from collections.abc import Iterator
from typing import NamedTuple

import h11

from bot_bottle.bundle.gitgate import settings

_BLOCK = 1 << 16
_WAITING = 256
"""Blocks that git may be ahead of the client."""
_LONGEST_HEAD = 1 << 16


class Call(NamedTuple):
    """What `git http-backend` is called for: its environment but for what the request says itself."""

    env: dict[str, str]


def fetching(remote: str, *, first: bool = False, push: bool = False) -> Call:
    """From the mirror. With `first` the advertisement; with `push` that of a push."""
    service = "git-receive-pack" if push else "git-upload-pack"
    more = {
        "GIT_PROJECT_ROOT": settings.PLACE_MIRRORS,
        "PATH_INFO": f"/{remote}.git/" + ("info/refs" if first else service),
        "QUERY_STRING": f"service={service}" if first else "",
    }
    given = settings.receiving(1) if push else settings.SERVING
    return Call(settings.environment(given, {**more, "GIT_HTTP_EXPORT_ALL": "1"}))


class Channel:
    """A client's connection."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=_LONGEST_HEAD)

    def _next(self) -> object:
        while True:
            event = self._http.next_event()
            if event is not h11.NEED_DATA:
                return event
            if self._http.they_are_waiting_for_100_continue:
                self._send(h11.InformationalResponse(status_code=100, headers=[]))
            self._http.receive_data(self.sock.recv(_BLOCK))

    def request(self) -> h11.Request | None:
        """The next request; None at the end."""
        event = self._next()
        return event if isinstance(event, h11.Request) else None

    def body(self) -> Iterator[bytes]:
        """What the client sends, as it comes."""
        while isinstance(event := self._next(), h11.Data):
            yield bytes(event.data)

    def again(self) -> bool:
        """Whether another request may come."""
        if self._http.our_state is not h11.DONE or self._http.their_state is not h11.DONE:
            return False
        self._http.start_next_cycle()
        return True

    def begin(self, status: int, headers: list[tuple[str, str]]) -> None:
        self._send(h11.Response(status_code=status, headers=headers))

    def data(self, data: bytes) -> None:
        self._send(h11.Data(data=data))

    def end(self) -> None:
        self._send(h11.EndOfMessage())

    def _send(self, event: h11.Event) -> None:
        data = self._http.send(event)
        if data:
            self.sock.sendall(data)

    def answer(self, text: str) -> None:
        """The whole answer to a request that was read to its end."""
        content = text.encode()
        self.begin(
            200, [("content-type", "text/plain; charset=utf-8"), ("content-length", str(len(content)))]
        )
        self.data(content)
        self.end()

    def refuse(self, status: int, text: str, kind: str = "text/plain; charset=utf-8") -> None:
        """Answers at once; whatever else the client still sends is not read."""
        content = text.encode()
        self.begin(
            status, [("content-type", kind), ("content-length", str(len(content))), ("connection", "close")]
        )
        self.data(content)
        self.end()

    def say_error(self, service: str, why: str) -> None:
        """As git says it: the client shows `fatal: remote error: WHY`."""
        packets = _packet(f"# service={service}\n") + b"0000" + _packet(f"ERR bot-bottle: {why}\n")
        self.begin(200, [("content-type", f"application/x-{service}-advertisement"), ("cache-control", "no-cache"),
                         ("content-length", str(len(packets)))])  # fmt: skip
        self.data(packets)
        self.end()


def _packet(text: str) -> bytes:
    content = text.encode()[:60000]
    return b"%04x" % (len(content) + 4) + content


def run(channel: Channel, request: h11.Request, call: Call) -> None:
    """Has git answer `request`. Raises OSError, ProtocolError when the client goes away; git is ended then."""
    process = subprocess.Popen(
        ["git", "http-backend"],
        env={**call.env, **_from_request(request)},
        cwd="/",
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    said: queue.Queue[bytes] = queue.Queue(_WAITING)
    done = threading.Event()
    reading = threading.Thread(target=_read, args=(process, said, done), daemon=True)
    reading.start()
    try:
        _feed(channel, process)
        _answer(channel, said)
    finally:
        done.set()
        _end(process)
        reading.join()
        for pipe in (process.stdin, process.stdout):
            assert pipe is not None
            try:
                pipe.close()
            except OSError:
                continue


def _from_request(request: h11.Request) -> dict[str, str]:
    found = {"REQUEST_METHOD": request.method.decode(), "REMOTE_USER": "agent", "REMOTE_ADDR": "127.0.0.1"}
    names = {
        b"content-type": "CONTENT_TYPE",
        b"content-length": "CONTENT_LENGTH",
        b"content-encoding": "HTTP_CONTENT_ENCODING",
        b"git-protocol": "HTTP_GIT_PROTOCOL",
    }
    for name, value in request.headers:
        if name in names:
            found[names[name]] = value.decode("ascii", "replace")
    if "HTTP_GIT_PROTOCOL" in found:
        found["GIT_PROTOCOL"] = found["HTTP_GIT_PROTOCOL"]
    return found


def _feed(channel: Channel, process: "subprocess.Popen[bytes]") -> None:
    assert process.stdin is not None
    takes = True
    for data in channel.body():
        try:
            if takes:
                process.stdin.write(data)
        except (
            OSError
        ):  # it has refused what comes, and says why; the client has to be read to its end to hear it
            takes = False
    try:
        process.stdin.close()
    except OSError:
        return


def _read(process: "subprocess.Popen[bytes]", said: "queue.Queue[bytes]", done: threading.Event) -> None:
    assert process.stdout is not None
    data = b"."
    while data:
        try:
            data = os.read(process.stdout.fileno(), _BLOCK)
        except OSError:
            data = b""
        while not done.is_set():
            try:
                said.put(data, timeout=1.0)
                break
            except queue.Full:
                continue


def _answer(channel: Channel, said: "queue.Queue[bytes]") -> None:
    head = b""
    while b"\r\n\r\n" not in head:
        data = said.get()
        head += data
        if not data or len(head) > _LONGEST_HEAD + _BLOCK:
            channel.refuse(502, "bot-bottle: git ended without an answer\n")
            return
    lines, _, rest = head.partition(b"\r\n\r\n")
    status, headers = 200, []
    for line in lines.split(b"\r\n"):
        name, _, value = line.decode("latin-1").partition(":")
        if name.lower() == "status":
            status = int(value.split()[0])
        else:
            headers.append((name.strip(), value.strip()))
    channel.begin(status, headers)
    while rest or (rest := said.get()):
        channel.data(rest)
        rest = b""
    channel.end()


def _end(process: "subprocess.Popen[bytes]") -> None:
    """It and whatever it started are gone afterwards."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        pass  # all of it has ended
    process.wait()
