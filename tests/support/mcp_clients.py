"""Clients of the supervise server: the SDK's own, in either era of the protocol, and plain HTTP for what no client would send."""

import json
import socket
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import httpx2
from mcp.client.client import Client
from mcp.client.streamable_http import streamable_http_client

from support.supervised import DEADLINE, Supervised

ERAS = ("legacy", "auto")
"""The handshake of 2025, and the calls without one of 2026."""
MODERN = "2026-07-28"


@asynccontextmanager
async def connected(server: Supervised, era: str = "auto", token: str | None = None) -> AsyncIterator[Client]:
    headers = {"authorization": f"Bearer {server.token if token is None else token}"}
    timeout = httpx2.Timeout(DEADLINE)
    async with httpx2.AsyncClient(headers=headers, timeout=timeout) as http:
        async with Client(streamable_http_client(server.url, http_client=http), mode=era) as client:
            yield client


def body(method: str, params: Mapping[str, Any] | None = None, number: int = 1) -> bytes:
    return json.dumps(
        {"jsonrpc": "2.0", "id": number, "method": method, "params": dict(params or {})}
    ).encode()


def call(tool: str, arguments: Mapping[str, Any]) -> bytes:
    return body("tools/call", {"name": tool, "arguments": dict(arguments), "_meta": {"progressToken": 7}})


ASK = call("pipelock-block", {"hosts": ["api.example.org"], "reason": "to read it"})


def head(
    server: Supervised,
    *,
    method: str = "POST",
    path: str = "/mcp",
    length: int | None = 0,
    **headers: str | None,
) -> bytes:
    """A request's head; a header that is None is left out, `_` in a name stands for `-`."""
    given: dict[str, str | None] = {
        "host": f"127.0.0.1:{server.port}",
        "authorization": f"Bearer {server.token}",
        "content_type": "application/json",
        "accept": "application/json, text/event-stream",
        "mcp_protocol_version": "2025-11-25",
        "content_length": None if length is None else str(length),
        **headers,
    }
    lines = [f"{name.replace('_', '-')}: {value}" for name, value in given.items() if value is not None]
    return "\r\n".join([f"{method} {path} HTTP/1.1", *lines, "", ""]).encode()


def connect(server: Supervised) -> socket.socket:
    return socket.create_connection(("127.0.0.1", server.port), DEADLINE)


def post(server: Supervised, content: bytes = ASK, **headers: str | None) -> socket.socket:
    """A connection on which `content` was posted."""
    sock = connect(server)
    sock.sendall(head(server, length=len(content), **headers) + content)
    return sock


def status(sock: socket.socket) -> int:
    """The status of the answer; 0 when the connection is ended without one."""
    heard = b""
    while b"\r\n" not in heard:
        try:
            data = sock.recv(4096)
        except ConnectionError:
            data = b""
        if not data:
            return 0
        heard += data
    return int(heard.split(b" ", 2)[1])


def read_until(sock: socket.socket, wanted: Callable[[bytes], bool] = lambda heard: False) -> bytes:
    """What comes until it is as wanted, or the connection ends."""
    heard = b""
    while not wanted(heard):
        try:
            data = sock.recv(65536)
        except ConnectionError:
            break
        if not data:
            break
        heard += data
    return heard
