"""A token server as strict as they come: each refresh token is good once, and every use of an old one is seen."""

import json
import select
import socket
import socketserver
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs


class TokenServer:
    """`seen` are the refresh tokens that came; the answers' tokens are numbered. `before` runs before each answer."""

    def __init__(self) -> None:
        self.seen: list[str] = []
        self.bodies: list[str] = []
        self.heads: list[str] = []
        self.number = 0
        self.good = "refresh-0"
        self.lives = 28800
        self.status = 200
        self.before = lambda: None
        self.lock = threading.Lock()
        self.url = ""

    def answer(self, refresh: str) -> tuple[int, dict[str, Any]]:
        with self.lock:
            self.seen.append(refresh)
            if self.status != 200:
                return self.status, {"error": "server_error", "echo": refresh}
            if refresh != self.good:
                return 400, {"error": "invalid_grant", "error_description": f"{refresh} was used"}
            self.number += 1
            self.good = f"refresh-{self.number}"
            return 200, {
                "access_token": f"access-{self.number}",
                "refresh_token": self.good,
                "expires_in": self.lives,
                "token_type": "Bearer",
            }


@contextmanager
def token_server(tls: ssl.SSLContext | None = None) -> Iterator[TokenServer]:
    """Serves on the host's loopback until the block ends."""
    tokens = TokenServer()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"])).decode()
            tokens.bodies.append(body)
            tokens.heads.append(str(self.headers))
            is_json = self.headers["content-type"] == "application/json"
            fields = json.loads(body) if is_json else {k: v[0] for k, v in parse_qs(body).items()}
            tokens.before()
            status, answer = tokens.answer(fields["refresh_token"])
            content = json.dumps(answer).encode()
            self.send_response(status)
            if status == 302:
                self.send_header("location", tokens.url + "/elsewhere")
            self.send_header("content-length", str(len(content)))
            with suppress(OSError):  # who asked may have gone
                self.end_headers()
                self.wfile.write(content)

        def log_message(self, *_: Any) -> None:
            """Nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
        server.handle_error = lambda *_: None
    scheme = "http" if tls is None else "https"
    tokens.url = f"{scheme}://127.0.0.1:{server.server_address[1]}/v1/oauth/token"
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    try:
        yield tokens
    finally:
        server.shutdown()
        server.server_close()


@contextmanager
def connect_proxy() -> Iterator[tuple[str, list[str]]]:
    """A proxy that tunnels to wherever it is asked; its URL, and the heads of what it was asked."""
    asked: list[str] = []

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            lines = []
            while line := self.rfile.readline().decode().strip():
                lines.append(line)
            asked.append("\n".join(lines))
            host, _, port = asked[-1].split()[1].rpartition(":")
            with socket.create_connection((host, int(port))) as there:
                self.wfile.write(b"HTTP/1.1 200 OK\r\n\r\n")
                pair = (self.connection, there)
                while ready := select.select(pair, (), (), 10)[0]:
                    for source in ready:
                        data = source.recv(65536)
                        if not data:
                            return
                        pair[source is pair[0]].sendall(data)

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}", asked
        finally:
            server.shutdown()


def claude_login(access: str = "access-0", refresh: str = "refresh-0", *, lasts: float = 0) -> str:
    """A file as Claude Code writes it, with another program's login beside."""
    login = {
        "accessToken": access,
        "refreshToken": refresh,
        "expiresAt": int((time.time() + lasts) * 1000),
        "scopes": ["user:inference"],
        "subscriptionType": "max",
    }
    return json.dumps({"claudeAiOauth": login, "mcpOAuth": {"other": {"accessToken": "kept"}}})


def tokens_in(file: Path) -> tuple[str, str]:
    """The access and the refresh token in such a file."""
    login = json.loads(file.read_text())["claudeAiOauth"]
    return login["accessToken"], login["refreshToken"]
