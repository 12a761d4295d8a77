"""A small MCP server on a listener of a bottle's, with a bearer token: what a tool's client must be able to talk to.

It speaks streamable HTTP without sessions, answers a call after `hold` seconds with progress meanwhile, and remembers what came.
"""

import json
import secrets
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from bot_bottle.backends.base import Bottle
from bot_bottle.door.model import Listener
from bot_bottle.door.passing import receive_listeners

PORT = 3129
URL = f"http://127.0.0.1:{PORT}/mcp"
ANSWER = "ANSWERMARK: nothing is allowed"
TOOLS = [
    {
        "name": "policy",
        "description": "What is allowed now.",
        "inputSchema": {"type": "object", "properties": {}},
    },
    {
        "name": "pipelock-block",
        "description": "Asks for a host.",
        "inputSchema": {
            "type": "object",
            "properties": {"hosts": {"type": "array", "items": {"type": "string"}}},
        },
    },
]


class FakeServer(ThreadingHTTPServer):
    """`seen` has (method, whether the token was right) for each message; `beat` is the seconds between two lines of progress."""

    daemon_threads = True

    def __init__(self, listening: socket.socket, token: str, hold: float) -> None:
        super().__init__(("127.0.0.1", 0), _Handler, bind_and_activate=False)
        self.socket.close()
        self.socket = listening
        self.token = token
        self.hold = hold
        self.beat = 0.2
        self.seen: list[tuple[str, bool]] = []

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that went away is no event."""

    def asked(self, method: str) -> int:
        """How often `method` came with the right token."""
        return self.seen.count((method, True))


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: FakeServer

    def log_message(self, format: str, *args: object) -> None:
        """Nothing is said."""

    def do_GET(self) -> None:
        self._answer(405, None)

    do_DELETE = do_GET  # noqa: N815

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        given = self.headers.get("authorization", "")
        right = secrets.compare_digest(given, f"Bearer {self.server.token}")
        message = json.loads(body)
        self.server.seen.append((message.get("method", ""), right))
        if not right or self.path != "/mcp":
            self._answer(401 if not right else 404, {"error": "invalid_token"})
        elif "id" not in message:
            self._answer(202, None)
        elif message["method"] == "tools/call":
            self._call(message)
        else:
            self._answer(200, {"jsonrpc": "2.0", "id": message["id"], **_result(message)})

    def _call(self, message: dict) -> None:
        """As a stream: progress while the answer is held, then the answer."""
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("connection", "close")
        self.end_headers()
        self.close_connection = True
        progress = message["params"].get("_meta", {}).get("progressToken")
        end, count = time.monotonic() + self.server.hold, 0
        while time.monotonic() < end:
            time.sleep(min(self.server.beat, max(0.0, end - time.monotonic())))
            count += 1
            if progress is not None:
                params = {"progressToken": progress, "progress": count}
                self._event({"jsonrpc": "2.0", "method": "notifications/progress", "params": params})
        content = [{"type": "text", "text": ANSWER}]
        self._event({"jsonrpc": "2.0", "id": message["id"], "result": {"content": content, "isError": False}})

    def _event(self, message: dict) -> None:
        self.wfile.write(b"event: message\ndata: " + json.dumps(message).encode() + b"\n\n")
        self.wfile.flush()

    def _answer(self, status: int, document: object) -> None:
        body = b"" if document is None else json.dumps(document).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def _result(message: dict) -> dict:
    method = message["method"]
    if method == "initialize":
        spoken = message["params"].get("protocolVersion", "2025-06-18")
        about = {"protocolVersion": spoken, "capabilities": {"tools": {}}}
        return {
            "result": {**about, "serverInfo": {"name": "supervise", "version": "1"}, "instructions": "Ask."}
        }
    if method == "tools/list":
        return {"result": {"tools": TOOLS}}
    if method == "ping":
        return {"result": {}}
    return {"error": {"code": -32601, "message": f"Method not found: {method}"}}


@contextmanager
def mcp_server(bottle: Bottle, token: str, *, hold: float = 0.0) -> Iterator[FakeServer]:
    """Serves on `bottle`'s 127.0.0.1:3129 until the block ends."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        bottle.open_door([Listener("tcp", "127.0.0.1", PORT)], theirs)
        (listening,) = receive_listeners(ours, 1, 10)
    listening.setblocking(True)
    with FakeServer(listening, token, hold) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
