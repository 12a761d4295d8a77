"""A plain HTTP server on the host's loopback: where a test's route leads to."""

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Self


class Upstream(ThreadingHTTPServer):
    """While it is entered it answers every request with `says`; `hosts` are those asked for, `posted` the bodies that came.

    It listens on `address`, one of the host's.
    """

    def __init__(self, says: bytes = b"yes", *, address: str = "127.0.0.1") -> None:
        super().__init__((address, 0), _Handler)
        self.says = says
        self.hosts: list[str] = []
        self.posted: list[bytes] = []

    @property
    def where(self) -> str:
        return f"{self.server_address[0]}:{self.server_address[1]}"

    def __enter__(self) -> Self:
        threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self.server_close()


class _Handler(BaseHTTPRequestHandler):
    server: Upstream

    def do_GET(self) -> None:
        self.server.hosts.append(self.headers["host"])
        self.send_response(200)
        self.send_header("content-length", str(len(self.server.says)))
        self.end_headers()
        self.wfile.write(self.server.says)

    def do_POST(self) -> None:
        self.server.posted.append(self.rfile.read(int(self.headers["content-length"])))
        self.do_GET()

    def log_message(self, *_: object) -> None:
        """Nothing."""
