"""A model that plays a script: the APIs of real agent tools, without a model and without a network.

    python -m bot_bottle.testing.model --script FILE --port 0 --log FILE [--tls HOST … --authority FILE] [--key-in VARIABLE]
        [--page PATH=FILE …]

The first line on standard output names the address it listens on. It answers `POST /v1/messages` (Anthropic), `POST
/v1/responses` (OpenAI) and `POST /v1beta/models/NAME:generateContent` (Google), each as a stream of events or as one JSON
document (`testing/dialects.py`), `POST /v1/messages/count_tokens`, `GET /v1/models` and the agents' health checks; anything
else is 404. A `--page` is answered with its file, whoever asks and on whatever host. A request that offers no tools is an
agent's side question (a title, a topic): it is answered with a word and moves nothing.

The log has one JSON line a request: what was asked for, which turn answered. Headers are never logged, so
that no credential can be. A test may say who is admitted by their headers; whoever is not gets a 401, as from the real API.
"""

import argparse
import json
import os
import secrets
import ssl
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from bot_bottle.errors import BotBottleError
from bot_bottle.testing import dialects
from bot_bottle.testing.dialects import Dialect
from bot_bottle.testing.script import Reply, Script, Turn, parse, reply

MOST_BODY = 64 << 20
MOST_CONNECTIONS = 64
_IDLE = 120.0
_SHOWN = 500

Log = Callable[[Mapping[str, Any]], None]
Admit = Callable[[Mapping[str, str]], bool]
"""Whether the sender of a request with these headers (names in lower case) is admitted."""


class _RequestError(Exception):
    """The client's request can't be answered; `status` says why."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


class _Server(ThreadingHTTPServer):
    """At most MOST_CONNECTIONS at once, a thread each; one more is closed."""

    daemon_threads = True

    def __init__(
        self,
        address: tuple[str, int],
        scripts: Sequence[Script],
        log: Log,
        *,
        admit: Admit | None,
        tls: ssl.SSLContext | None,
        pages: Mapping[str, bytes],
    ) -> None:
        super().__init__(address, _Handler)
        self.pages = pages
        self.scripts = scripts
        self.log = log
        self.admit = admit
        if tls is not None:  # the handshake is the connection's own thread's
            self.socket = tls.wrap_socket(self.socket, server_side=True, do_handshake_on_connect=False)
        self.free = threading.Semaphore(MOST_CONNECTIONS)

    def process_request(self, request: Any, client_address: Any) -> None:
        if self.free.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self.free.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is no event."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = _IDLE
    server: _Server

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing goes to standard error; the log is the record."""

    def do_HEAD(self) -> None:
        self._note({})
        self._json(200, {})

    def do_GET(self) -> None:
        if page := self.server.pages.get(self._route):
            self._note({"page": len(page)})
            self._head(200, "application/json", ("content-length", str(len(page))))
            self.wfile.write(page)
            return
        if not self._admitted():
            return
        self._note({})
        if self._route == "/v1/models":
            self._json(200, {"data": [], "has_more": False})
        elif self._route in ("/", "/healthz", "/api/hello"):
            self._json(200, {"ok": True})
        else:
            self._json(404, _error("not_found_error", self._route))

    def do_POST(self) -> None:
        try:
            body = self._body()
            if not self._admitted():
                return
            request = _object(body)
            if found := dialects.spoken_at(self._route):
                self._converse(found, request)
            elif self._route == "/v1/messages/count_tokens":
                self._note({})
                self._json(200, {"input_tokens": len(body) // 4})
            else:
                self._note({"bytes": len(body)})
                self._json(404, _error("not_found_error", self._route))
        except _RequestError as error:
            self.close_connection = True
            self._note({"refused": str(error)})
            self._json(error.status, _error("invalid_request_error", str(error)))

    def _admitted(self) -> bool:
        """Answers with 401 whoever is not."""
        admit = self.server.admit
        if admit is None or admit({name.lower(): value for name, value in self.headers.items()}):
            return True
        self._note({"refused": "401"})
        self._json(401, _error("authentication_error", "invalid credentials"))
        return False

    @property
    def _route(self) -> str:
        """The path without its query; a proxy may send the whole URL."""
        path = self.path.partition("?")[0]
        return "/" + path.split("/", 3)[3] if path.startswith("http://") and path.count("/") > 2 else path

    def _body(self) -> bytes:
        """The request's body, whole. Raises _RequestError when it is larger than MOST_BODY or framed
        wrongly."""
        if "chunked" in self.headers.get("transfer-encoding", "").lower():
            return b"".join(self._chunks())
        length = self.headers.get("content-length") or "0"
        if not length.isdecimal():
            raise _RequestError(400, "no such Content-Length")
        if int(length) > MOST_BODY:
            raise _RequestError(413, "the body is too large")
        return self.rfile.read(int(length))

    def _chunks(self) -> Iterator[bytes]:
        left = MOST_BODY
        while True:
            try:
                size = int(self.rfile.readline(64).partition(b";")[0], 16)
            except ValueError:
                raise _RequestError(400, "a chunk has no size") from None
            left -= size
            if size < 0 or left < 0:
                raise _RequestError(413, "the body is too large")
            yield self.rfile.read(size)
            self.rfile.readline(64)
            if size == 0:
                return

    def _converse(self, found: Dialect, request: Mapping[str, Any]) -> None:
        try:
            tools, messages = found.tools(request), found.messages(request)
            side = Reply(Turn(label="side", text=found.side(request)), "")
            answer = reply(self.server.scripts, messages, tools) if tools else side
        except (AttributeError, TypeError, KeyError, ValueError) as error:
            raise _RequestError(400, "these are no messages") from error
        turn = answer.turn
        streamed = bool(request.get("stream")) or self._route.endswith(":streamGenerateContent")
        self._note(
            {
                "model": str(request.get("model"))[:_SHOWN],
                "stream": streamed,
                "messages": len(messages),
                "tools": len(tools),
                "mcp_tools": [name for name in tools if name.startswith("mcp__")],
                "turn": turn.label,
                "last_result": answer.last_result[:_SHOWN],
                "reply": [call.tool for call in turn.calls] or [(turn.text or "")[:_SHOWN]],
            }
        )
        if turn.delay:
            time.sleep(turn.delay)
        if turn.http_status:
            self._json(turn.http_status, _error("api_error", "the script says so"))
        elif streamed:
            self._stream(found.events(found.document(str(request.get("model")), turn)))
        else:
            self._json(200, found.document(str(request.get("model")), turn))

    def _stream(self, events: Iterator[Mapping[str, Any]]) -> None:
        self._head(200, "text/event-stream", ("transfer-encoding", "chunked"))
        for event in events:
            named = f"event: {event['type']}\n" if "type" in event else ""
            data = f"{named}data: {json.dumps(event)}\n\n".encode()
            self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
            self.wfile.flush()
        self.wfile.write(b"0\r\n\r\n")

    def _json(self, status: int, document: Mapping[str, Any]) -> None:
        data = json.dumps(document).encode()
        self._head(status, "application/json", ("content-length", str(len(data))))
        if self.command != "HEAD":
            self.wfile.write(data)

    def _head(self, status: int, kind: str, framing: tuple[str, str]) -> None:
        self.send_response(status)
        for name, value in (("content-type", kind), framing, ("request-id", f"req_{secrets.token_hex(8)}")):
            self.send_header(name, value)
        self.end_headers()

    def _note(self, more: Mapping[str, Any]) -> None:
        agent = str(self.headers.get("user-agent", ""))[:100]
        known = {
            "at": round(time.time(), 3),
            "method": self.command,
            "path": self._route[:_SHOWN],
            "agent": agent,
        }
        self.server.log({**known, **more})


def _object(body: bytes) -> Mapping[str, Any]:
    try:
        document = json.loads(body or b"{}")
    except ValueError as error:
        raise _RequestError(400, "the body is no JSON") from error
    if not isinstance(document, dict):
        raise _RequestError(400, "the body is no JSON object")
    return document


def _error(kind: str, text: str) -> Mapping[str, Any]:
    return {"type": "error", "error": {"type": kind, "message": text[:_SHOWN]}}


class Serving(NamedTuple):
    """A scripted model that is being served."""

    host: str
    port: int

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.port}"


@contextmanager
def serving(
    scripts: Sequence[Script],
    *,
    log: Path | None = None,
    port: int = 0,
    admit: Admit | None = None,
    tls: ssl.SSLContext | None = None,
    pages: Mapping[str, bytes] = MappingProxyType({}),
) -> Iterator[Serving]:
    """Serves `scripts` on the loopback interface, in threads of this process, until the block ends.

    `port` 0 is any free one; `log` is appended to; with `tls`, it speaks that. Raises OSError when the port is taken or the
    log can't be written. `pages` are answered to everybody, by path.
    """
    lock = threading.Lock()
    lines = log.open("a") if log else None

    def note(entry: Mapping[str, Any]) -> None:
        with lock:
            if lines and not lines.closed:
                lines.write(json.dumps(entry) + "\n")
                lines.flush()

    try:
        with _Server(("127.0.0.1", port), scripts, note, admit=admit, tls=tls, pages=pages) as server:
            thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
            thread.start()
            try:
                yield Serving("127.0.0.1", server.server_address[1])
            finally:
                server.shutdown()
                thread.join()
    finally:
        if lines:
            with lock:
                lines.close()


def main(argv: Sequence[str] | None = None) -> int:
    """Serves one script until it is interrupted."""
    parser = argparse.ArgumentParser(
        prog="python -m bot_bottle.testing.model", description="A model that plays a script."
    )
    parser.add_argument("--script", type=Path, required=True, metavar="FILE")
    parser.add_argument("--port", type=int, default=0, help="0 (the default): any free one")
    parser.add_argument("--log", type=Path, metavar="FILE", help="append a JSON line for each request")
    parser.add_argument(
        "--tls",
        metavar="HOST",
        action="append",
        help="speak TLS, with a certificate for HOST; can be given again",
    )
    parser.add_argument(
        "--page", metavar="PATH=FILE", action="append", default=[], help="answer GET PATH with FILE"
    )
    parser.add_argument("--authority", type=Path, metavar="FILE", help="write there who signed it")
    parser.add_argument(
        "--key-in", metavar="VARIABLE", help="admit only whose x-api-key is that variable's value"
    )
    parser.add_argument("--until-eof", action="store_true", help="stop when standard input ends")
    options = parser.parse_args(argv)
    try:
        scripts = parse(json.loads(options.script.read_text()))
        tls = _certificate(options.tls, options.authority) if options.tls else None
        admit = _only(os.environ.get(options.key_in, "")) if options.key_in else None
        pages = {
            path: Path(file).read_bytes() for path, _, file in (one.partition("=") for one in options.page)
        }
        with serving(
            scripts, log=options.log, port=options.port, tls=tls, admit=admit, pages=pages
        ) as served:
            sys.stdout.write(f"listening on {served.url}\n")
            sys.stdout.flush()
            if options.until_eof:
                sys.stdin.buffer.read()
            else:
                threading.Event().wait()
    except KeyboardInterrupt:
        return 130
    except (BotBottleError, OSError, ValueError) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


def _certificate(hosts: Sequence[str], authority: Path | None) -> ssl.SSLContext:
    """TLS for each of `hosts`, signed by an authority that is made for them; its certificate goes to the file `authority`."""
    from bot_bottle.bundle.egress.authority import Authority

    made = Authority(hosts)
    if authority:
        authority.write_text(made.pem)
    contexts = {host: made.context(host) for host in hosts}

    def choose(sock: ssl.SSLObject, name: str | None, _: ssl.SSLContext) -> None:
        sock.context = contexts.get(name or "", first)

    first = contexts[hosts[0]]
    first.sni_callback = choose
    return first


def _only(key: str) -> Admit:
    """Admits whoever brings `key`; nobody if it is empty."""
    return lambda headers: (
        bool(key) and secrets.compare_digest(headers.get("x-api-key", "").encode(), key.encode())
    )


if __name__ == "__main__":
    sys.exit(main())
