"""HTTP for git, and for git alone: which remote and which service is asked for; `backend` has git answer it.

What can't be served is answered in git's own words where git has some (`ERR`), so that the agent reads why.
"""

import base64
import re
import socket
import threading
import time
from collections.abc import Mapping
from typing import Any, NamedTuple

import h11

from bot_bottle.bundle.gitgate import backend, pushes
from bot_bottle.bundle.gitgate.line import Line, LineEnded

CONNECTIONS = 32
_LARGEST_SIGNED = 1 << 20
PUSHES = 4
"""At once; what comes beyond waits."""
_PATIENCE = 300.0
"""Seconds that an agent may take to send or read anything at all."""
_PATH = re.compile(
    r"/([a-z0-9-]{1,40})\.git(?:\.git)?/{0,2}(info/refs|git-upload-pack|git-receive-pack|info/lfs/.*)"
)
_SERVICE = re.compile(r"(?:.*&)?service=(git-upload-pack|git-receive-pack)(?:&.*)?")
_LFS = (
    '{"message": "The git gate does not carry LFS objects. Commit the file itself, or ask the operator."}\n'
)


class Asked(NamedTuple):
    """What a request is for. `service` is git's name of it; `first` whether it is the advertisement that begins it."""

    remote: str
    service: str
    first: bool


class Front:
    """Serves until nobody has been there for `idle` seconds."""

    def __init__(
        self, listener: socket.socket, courier: Line, remotes: Mapping[str, Mapping[str, Any]], *, idle: float
    ) -> None:
        self._listener = listener
        self._courier = courier
        self._remotes = remotes
        self._idle = idle
        self._room = threading.Semaphore(CONNECTIONS)
        self._pushing = threading.Semaphore(PUSHES)
        self._busy = 0
        self._counting = threading.Lock()

    def serve(self) -> None:
        self._listener.settimeout(1.0)
        left_at = time.monotonic()
        while self._busy or time.monotonic() - left_at < self._idle:
            if self._busy:
                left_at = time.monotonic()
            try:
                sock, _ = self._listener.accept()
            except TimeoutError:
                continue
            except OSError:
                return
            self._room.acquire()
            with self._counting:
                self._busy += 1
            left_at = time.monotonic()
            threading.Thread(target=self._connection, args=(sock,), daemon=True).start()

    def _connection(self, sock: socket.socket) -> None:
        try:
            with sock:
                sock.settimeout(_PATIENCE)
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                channel = backend.Channel(sock)
                while (request := channel.request()) is not None:
                    self._request(channel, request)
                    if not channel.again():
                        return
        except (OSError, h11.ProtocolError, LineEnded, ValueError):
            return  # the client, or what would answer it, went away: nobody is left to tell
        finally:
            with self._counting:
                self._busy -= 1
            self._room.release()

    def _request(self, channel: backend.Channel, request: h11.Request) -> None:
        target = request.target.decode("ascii", "replace")
        path, _, query = target.partition("?")
        if path == "/.sign" and request.method == b"POST":
            self._sign(channel)
            return
        match = _PATH.fullmatch(path)
        if match is None or match[1] not in self._remotes:
            channel.refuse(404, f"bot-bottle: no remote of this bottle is served at {path[:200]}\n")
            return
        remote, what = match[1], match[2]
        if what.startswith("info/lfs"):
            channel.refuse(501, _LFS, kind="application/vnd.git-lfs+json")
            return
        asked = self._asked(remote, what, request.method, query)
        if asked is None:
            channel.refuse(403, "bot-bottle: only git's smart protocol is served\n")
        elif asked.first:
            self._advertise(channel, request, asked)
        elif asked.service == "git-upload-pack":
            backend.run(channel, request, backend.fetching(asked.remote))
        else:
            with self._pushing:
                push = pushes.Push(asked.remote, self._courier, self._remotes[asked.remote]["max_push"])
                with push:
                    backend.run(channel, request, push.call())

    def _sign(self, channel: backend.Channel) -> None:
        """A commit or tag, answered with its signature; the key is the courier's."""
        content = bytearray()
        for data in channel.body():
            content += data
            if len(content) > _LARGEST_SIGNED:
                channel.refuse(413, "bot-bottle: larger than any commit has to be\n")
                return
        answer = self._courier.ask({"do": "sign", "content": base64.b64encode(content).decode()})
        if answer.get("ok") is True:
            channel.answer(str(answer["signature"]))
        else:
            channel.refuse(403, f"bot-bottle: not signed: {answer.get('why')}\n")

    def _asked(self, remote: str, what: str, method: bytes, query: str) -> Asked | None:
        if what == "info/refs":
            match = _SERVICE.fullmatch(query)
            return Asked(remote, match[1], first=True) if match and method == b"GET" else None
        return Asked(remote, what, first=False) if method == b"POST" else None

    def _advertise(self, channel: backend.Channel, request: h11.Request, asked: Asked) -> None:
        """The upstream is asked first, every time: what is served is what it has, or nothing."""
        answer = self._courier.ask({"do": "refresh", "remote": asked.remote, "service": asked.service})
        if answer.get("ok") is not True:
            channel.say_error(asked.service, str(answer.get("why")))
        elif asked.service == "git-upload-pack":
            backend.run(channel, request, backend.fetching(asked.remote, first=True))
        else:
            backend.run(channel, request, backend.fetching(asked.remote, first=True, push=True))
