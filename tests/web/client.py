"""A client of the page that sends exactly what it is told to, as no browser would."""

import json
import socket
from typing import Any, NamedTuple


class Answer(NamedTuple):
    """What came back; `status` 0 when the connection ended without a word."""

    status: int
    headers: dict[str, list[str]]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    def header(self, name: str) -> str:
        return ", ".join(self.headers.get(name, []))


class Client:
    """Keeps a session's two secrets; every header can be replaced, or left out with None."""

    def __init__(self, port: int, name: str, *, address: str = "127.0.0.1") -> None:
        self.port = port
        self.name = name
        self.address = address
        self.cookie = ""
        self.key = ""

    @property
    def host(self) -> str:
        return f"{self.name}:{self.port}"

    def sign_in(self, link: str) -> Answer:
        """Exchanges the link as the page does."""
        answer = self.post("/session", {"key": link.partition("#key=")[2]})
        if answer.status == 200:
            self.cookie = answer.header("set-cookie").partition(";")[0]
            self.key = answer.json["key"]
        return answer

    def get(self, path: str, **headers: str | None) -> Answer:
        return self.send("GET", path, b"", headers)

    def post(self, path: str, body: Any, **headers: str | None) -> Answer:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        return self.send(
            "POST",
            path,
            data,
            {"origin": f"http://{self.host}", "content_type": "application/json", **headers},
        )

    def send(
        self, method: str, path: str, body: bytes = b"", headers: dict[str, str | None] | None = None
    ) -> Answer:
        return self.raw(self.request(method, path, body, headers))

    def request(
        self, method: str, path: str, body: bytes = b"", headers: dict[str, str | None] | None = None
    ) -> bytes:
        """The bytes of a request; names of headers are written with `_`."""
        wanted: dict[str, str | None] = {"host": self.host, "connection": "close"}
        if self.cookie:
            wanted |= {"cookie": self.cookie, "x_inbox_key": self.key}
        if body or method == "POST":
            wanted["content_length"] = str(len(body))
        wanted |= headers or {}
        head = [f"{method} {path} HTTP/1.1"]
        head += [f"{name.replace('_', '-')}: {value}" for name, value in wanted.items() if value is not None]
        return "\r\n".join([*head, "", ""]).encode() + body

    def connect(self) -> socket.socket:
        return socket.create_connection((self.address, self.port), timeout=60)

    def raw(self, data: bytes) -> Answer:
        """Sends `data` and reads until the other side ends the connection."""
        with self.connect() as connection:
            try:
                connection.sendall(data)
                return parsed(received(connection))
            except (ConnectionResetError, BrokenPipeError):
                return Answer(0, {}, b"")

    def stream(self) -> socket.socket:
        """The feed, as a connection to read from."""
        connection = self.connect()
        connection.sendall(self.request("GET", "/api/events", headers={"connection": "keep-alive"}))
        return connection


def received(connection: socket.socket) -> bytes:
    data = b""
    while more := connection.recv(65536):
        data += more
    return data


def parsed(data: bytes) -> Answer:
    if not data:
        return Answer(0, {}, b"")
    head, _, body = data.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    headers: dict[str, list[str]] = {}
    for line in lines:
        name, _, value = line.partition(": ")
        headers.setdefault(name.lower(), []).append(value)
    return Answer(int(first.split()[1]), headers, body)
