"""A proxy for programs that can't be told a bearer token, and that call tools by names of their own: it adds and maps those.

What it says of itself (host and origin with its own port) it says of the server; everything else goes through as it came.
"""

import json
import re
import socket
import threading
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from support.supervised import Supervised

Mapped = Mapping[str, tuple[str, Mapping[str, Any]]]


class TokenProxy:
    """`tools` says which tool is called, and with what, for a name that a program calls."""

    def __init__(self, server: Supervised, tools: Mapped) -> None:
        self._server = server
        self._tools = tools
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}/mcp"
        self._thread = threading.Thread(target=self._accept, daemon=True)

    def __enter__(self) -> "TokenProxy":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(10)

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with client, suppress(OSError, ValueError):
            head, body = _request(client)
            with socket.create_connection(("127.0.0.1", self._server.port)) as server:
                server.sendall(self._rewritten(head, body))
                threading.Thread(target=_until_it_leaves, args=(client, server), daemon=True).start()
                while data := server.recv(65536):
                    client.sendall(data)

    def _rewritten(self, head: bytes, body: bytes) -> bytes:
        ours = re.compile(rb"(127\.0\.0\.1|localhost):%d\b" % self.port)
        lines = [ours.sub(rb"\1:%d" % self._server.port, line) for line in head.split(b"\r\n")]
        body, name = self._mapped(body)
        kept = [
            b"mcp-name: " + name if name and line.lower().startswith(b"mcp-name:") else line
            for line in lines
            if not line.lower().startswith((b"content-length:", b"connection:", b"transfer-encoding:"))
        ]
        token = self._server.token.encode()
        more = [b"authorization: Bearer " + token, b"connection: close", b"content-length: %d" % len(body)]
        return b"\r\n".join([*kept, *more, b"", b""]) + body

    def _mapped(self, body: bytes) -> tuple[bytes, bytes]:
        try:
            message = json.loads(body)
            name, arguments = self._tools[message["params"]["name"]]
        except (ValueError, KeyError, TypeError):
            return body, b""
        message["params"] |= {"name": name, "arguments": dict(arguments)}
        return json.dumps(message).encode(), name.encode()


def _request(client: socket.socket) -> tuple[bytes, bytes]:
    heard = b""
    while b"\r\n\r\n" not in heard:
        data = client.recv(65536)
        if not data:
            raise ValueError("no request")
        heard += data
    head, _, body = heard.partition(b"\r\n\r\n")
    found = re.search(rb"(?i)\r\ncontent-length: *(\d+)", head)
    while len(body) < (int(found[1]) if found else 0):
        body += client.recv(65536)
    return head, body


def _until_it_leaves(client: socket.socket, server: socket.socket) -> None:
    with suppress(OSError):
        client.recv(1)
        server.shutdown(socket.SHUT_RDWR)
