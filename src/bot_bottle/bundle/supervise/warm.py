"""Calling the server once in every way before it is confined: what is loaded or made at a first call can't be any more later."""

import asyncio
import json
from collections.abc import Callable, Mapping
from typing import Any

from bot_bottle.bundle.supervise.calls import Calls
from bot_bottle.bundle.supervise.server import PATH, Asked, Holding

_TOKEN = "warm"  # noqa: S105 - of a server that nobody can reach
_PROPOSAL = "p"
_MODERN = "2026-07-28"
_ENVELOPE = {
    "io.modelcontextprotocol/protocolVersion": _MODERN,
    "io.modelcontextprotocol/clientInfo": {"name": "warm", "version": "0"},
    "io.modelcontextprotocol/clientCapabilities": {},
}
_ASK = {"name": "pipelock-block", "arguments": {"hosts": ["example.org"], "reason": "none"}}


async def up(make_app: Callable[..., Any], port: int) -> None:
    """Has a server of its own answer one call of each kind, in each of the protocol's eras."""
    calls = Calls(lambda message: _answer(calls, message))
    app = make_app(Asked(calls, Holding(1.0, 0.001)), token=_TOKEN, port=port)
    async with app.router.lifespan_context(app):
        hello = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": _ENVELOPE_CLIENT}
        for version in ("2025-11-25", _MODERN):
            meta = _ENVELOPE if version == _MODERN else {}
            if version != _MODERN:
                await _post(app, port, version, "initialize", hello)
            await _post(app, port, version, "tools/list", {"_meta": meta})
            for name, arguments in (
                ("pipelock-block", _ASK["arguments"]),
                ("policy", {}),
                ("policy", {"wrong": 1}),
                ("supervise-await", {"proposal": _PROPOSAL}),
            ):
                params = {"name": name, "arguments": arguments, "_meta": {**meta, "progressToken": 1}}
                await _post(app, port, version, "tools/call", params)
            await _post(app, port, version, "none", {"_meta": meta})


_ENVELOPE_CLIENT = _ENVELOPE["io.modelcontextprotocol/clientInfo"]


def _answer(calls: Calls, message: Mapping[str, Any]) -> None:
    """What a keeper would say: at first that it waits, then that it is applied."""
    number = next(iter(message.values()))
    said = {
        "to": number,
        "proposal": _PROPOSAL,
        "present": True,
        "message": "none",
        "added": ["none"],
        "until": 1,
    }
    loop = asyncio.get_running_loop()
    if "policy" in message:
        loop.call_soon(calls.hear, {"to": number, "allowed": [], "refused": [], "grants": [], "open": []})
    elif "leave" not in message:
        loop.call_soon(calls.hear, {**said, "state": "pending"})
        loop.call_later(0.002, calls.hear, {**said, "state": "applied"})


async def _post(app: Any, port: int, version: str, method: str, params: Mapping[str, Any]) -> None:
    body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}).encode()
    headers = {
        "host": f"127.0.0.1:{port}",
        "authorization": f"Bearer {_TOKEN}",
        "content-type": "application/json",
        "accept": "application/json, text/event-stream",
        "mcp-protocol-version": version,
        "mcp-method": method,
        **({"mcp-name": str(params["name"])} if "name" in params else {}),
    }
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "POST",
        "scheme": "http",
        "path": PATH,
        "raw_path": PATH.encode(),
        "query_string": b"",
        "root_path": "",
        "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", port),
        "state": {},
    }
    parts = iter([{"type": "http.request", "body": body, "more_body": False}])
    gone = asyncio.Event()

    async def receive() -> Mapping[str, Any]:
        for part in parts:
            return part
        await gone.wait()
        return {"type": "http.disconnect"}

    async def send(message: Mapping[str, Any]) -> None:
        if message["type"] == "http.response.body" and not message.get("more_body"):
            gone.set()

    await app(scope, receive, send)
