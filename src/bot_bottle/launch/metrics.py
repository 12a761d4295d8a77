"""Figures for Prometheus and a health check, over HTTP on a unix socket that only the run's own user can reach.

Nothing here is on the door. No metric has a label that the agent can fill: hosts stand in the record, not here.
"""

import json
import socket
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from bot_bottle.launch.figures import Figures, document, from_document
from bot_bottle.launch.session import Session
from bot_bottle.launch.wishes import After, Kept, Told

_HEAD_LIMIT = 16 * 1024
_PATIENCE = 5.0
"""Seconds for a request to be there and for its answer to be taken."""
_MOST_CLIENTS = 16
TEXT = "text/plain; version=0.0.4; charset=utf-8"

Sample = tuple[dict[str, str], float]
METRICS = (
    ("bot_bottle_up", "gauge", "Whether the bundle answered."),
    ("bot_bottle_way_out", "gauge", "Whether the door is open: 0 after the bundle died too often."),
    ("bot_bottle_observing", "gauge", "Whether the bottle lets through what its routes do not allow (mode: observe)."),
    ("bot_bottle_policy_routes", "gauge", "Routes of the policy in force."),
    ("bot_bottle_policy_info", "gauge", "The fingerprint of the policy in force, as a label."),
    ("bot_bottle_bundle_restarts_total", "counter", "How often the bundle died and was started again."),
    ("bot_bottle_bundle_uptime_seconds", "gauge", "How long the bundle serves."),
    ("bot_bottle_connections_open", "gauge", "Open connections of the agent's."),
    ("bot_bottle_egress_bytes_total", "counter", "Bytes from the agent (up) and to it (down)."),
    ("bot_bottle_decisions_total", "counter", "Decisions and ends of connections, by kind and reason."),
)  # fmt: skip


def samples(shown: dict[str, Any]) -> Iterator[tuple[str, Sample]]:
    """The samples of one run (`figures.document`)."""
    own = {"run": shown["run"], "agent": shown["agent"], "bottle": shown["bottle"]}
    figures = from_document(shown)
    yield "bot_bottle_up", (own, float(figures is not None))
    yield "bot_bottle_way_out", (own, float(shown["way_out"]))
    yield "bot_bottle_observing", (own, float(shown["mode"] == "observe"))
    yield "bot_bottle_policy_routes", (own, shown["routes"])
    yield "bot_bottle_policy_info", ({**own, "policy": shown["policy"]}, 1.0)
    yield "bot_bottle_bundle_restarts_total", (own, shown["restarts"])
    if figures is not None:
        yield from _of_bundle(own, figures)


def _of_bundle(own: dict[str, str], figures: Figures) -> Iterator[tuple[str, Sample]]:
    yield "bot_bottle_bundle_uptime_seconds", (own, figures.seconds)
    yield "bot_bottle_connections_open", (own, figures.open)
    for direction, count in (("up", figures.up), ("down", figures.down)):
        yield "bot_bottle_egress_bytes_total", ({**own, "direction": direction}, count)
    sums: dict[tuple[str, str], int] = {}
    for each in figures.decisions:
        sums[each.kind, each.reason] = sums.get((each.kind, each.reason), 0) + each.times
    for (kind, reason), count in sorted(sums.items()):
        yield "bot_bottle_decisions_total", ({**own, "kind": kind, "reason": reason}, count)


def render(runs: Sequence[dict[str, Any]]) -> str:
    """All runs in Prometheus's text format."""
    found: dict[str, list[Sample]] = {}
    for shown in runs:
        for name, sample in samples(shown):
            found.setdefault(name, []).append(sample)
    lines = []
    for name, kind, text in METRICS:
        if name in found:
            lines += [f"# HELP {name} {text}", f"# TYPE {name} {kind}"]
            lines += [f"{name}{{{_labels(labels)}}} {_figure(value)}" for labels, value in found[name]]
    return "\n".join([*lines, ""])


def _figure(value: float) -> str:
    """Whole numbers without a point, others with as many digits as tell them apart."""
    return str(int(value)) if value == int(value) else repr(value)


def _labels(labels: dict[str, str]) -> str:
    return ",".join(f'{name}="{_escaped(value)}"' for name, value in labels.items())


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def health(shown: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    """The status and the body that a health check gets."""
    state = "ok" if shown["figures"] is not None else "silent" if shown["way_out"] else "closed"
    kept = {name: shown[name] for name in ("run", "agent", "bottle", "policy", "mode", "way_out", "restarts")}
    return 200 if state == "ok" else 503, {"status": state, **kept}


class Scrapes:
    """Answers what is asked on the socket for metrics, one request a connection."""

    def __init__(self, session: Session, run: Kept, figures: Callable[[Told], None], after: After) -> None:
        self._session = session
        self._run = run
        self._figures = figures
        self._after = after
        self._open: dict[socket.socket, bytearray] = {}

    def accept(self, server: socket.socket) -> None:
        """Takes one connection that waits on `server`."""
        try:
            sock, _ = server.accept()
        except BlockingIOError:
            return
        if len(self._open) >= _MOST_CLIENTS:
            sock.close()
            return
        sock.setblocking(False)
        self._open[sock] = bytearray()
        self._session.watch(sock, lambda: self._hear(sock))
        self._after(_PATIENCE, lambda: self._end(sock))

    def _hear(self, sock: socket.socket) -> None:
        try:
            data = sock.recv(4096)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        heard = self._open[sock]
        heard += data
        if not data or len(heard) > _HEAD_LIMIT:
            self._end(sock)
        elif b"\r\n\r\n" in heard:
            self._session.forget(sock)
            self._figures(lambda found: self._reply(sock, found))

    def _reply(self, sock: socket.socket, found: Figures | None) -> None:
        if sock in self._open:
            try:
                sock.sendall(_response(bytes(self._open[sock]), document(self._run, found)))
            except OSError:
                pass  # it left, or takes nothing: what is said here is far less than a socket's buffer
            self._end(sock)

    def _end(self, sock: socket.socket) -> None:
        if self._open.pop(sock, None) is not None:
            self._session.forget(sock)
            sock.close()


def _response(request: bytes, shown: dict[str, Any]) -> bytes:
    words = request.partition(b"\r\n")[0].split()
    method, target = (words[0], words[1].partition(b"?")[0]) if len(words) == 3 else (b"", b"")
    status, kind, body = 404, TEXT, "There is /metrics and /health.\n"
    if method not in (b"GET", b"HEAD"):
        status, body = 405, "GET only.\n"
    elif target == b"/metrics":
        status, body = 200, render([shown])
    elif target == b"/health":
        status, found = health(shown)
        kind, body = "application/json", json.dumps(found) + "\n"
    phrase = {200: "OK", 404: "Not Found", 405: "Method Not Allowed", 503: "Service Unavailable"}[status]
    content = body.encode()
    head = f"HTTP/1.1 {status} {phrase}\r\nContent-Type: {kind}\r\nContent-Length: {len(content)}\r\nConnection: close\r\n\r\n"
    return head.encode() + (b"" if method == b"HEAD" else content)
