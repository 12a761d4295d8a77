"""What is fuzzed, each with an oracle of its own: bytes in, nothing out, AssertionError when something is not as it should be.

A connection of the agent's is served by the product's own code, from the first byte to the upstream's; only the sockets are
memory. What the upstream got is then read a second time by `lenient`, and by OpenSSL where it is a hello.
"""

import asyncio
import ssl
from collections.abc import Callable
from typing import Any, NamedTuple

from websockets.exceptions import ProtocolError
from websockets.frames import Frame
from websockets.streams import StreamReader

from bot_bottle.bundle.egress.asking import Asking
from bot_bottle.bundle.egress.context import Context, Tls
from bot_bottle.bundle.egress.credentials import Credentials
from bot_bottle.bundle.egress.dial import Dialer
from bot_bottle.bundle.egress.dns import HEADER
from bot_bottle.bundle.egress.grants import Grants
from bot_bottle.bundle.egress.guarding import Guarding
from bot_bottle.bundle.egress.hello import BadHello, read_hello
from bot_bottle.bundle.egress.http import HttpConnection
from bot_bottle.bundle.egress.http2.serve import serve_h2
from bot_bottle.bundle.egress.live import Live
from bot_bottle.bundle.egress.names import Names
from bot_bottle.bundle.egress.resolver import answer_query
from bot_bottle.bundle.egress.target import Authority, Entry
from bot_bottle.bundle.egress.websocket.frames import BadFrame, FrameReader, written
from bot_bottle.bundle.egress.wire import Wire
from bot_bottle.bundle.model import BundleLimits, Injection
from bot_bottle.bundle.record import Record
from bot_bottle.policy.egress import Wanted
from bot_bottle.policy.model import EgressPolicy, Route, SecretsPolicy, Upstream
from bot_bottle.secret import Secret
from tests.fuzz import cases, h2, lenient
from tests.fuzz.lenient import Seen

HOST = b"ok.test"
SECRET = b"s3cret-Value-0123456789"
METHODS = ("GET", "POST")
OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
LIMITS = BundleLimits(head_bytes=8192, headers=50)
_TO = Upstream("127.0.0.1", 443, tls=True, server_name="ok.test")
_RULES: dict[str, Any] = {"methods": METHODS, "paths": ("/a/**",)}
POLICY = EgressPolicy(
    routes=(
        Route("ok.test", 80, "http", upstream=_TO, **_RULES),
        Route("ok.test", 443, "https", upstream=_TO, credential="key", **_RULES),
        Route("*.wild.test", 443, "https"),
    ),
    secrets=SecretsPolicy(limit=4096),
)
INNER = Entry("tls", fixed=Authority("ok.test", 443), protocol="https")
PROXY = Entry("proxy")


class _NeverReady:
    """Memory has everything at once: whoever waits for more waits for nothing."""

    def readable(self) -> "asyncio.Future[None]":
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        future.set_exception(ConnectionResetError("nothing more comes"))
        return future

    writable = readable

    def forget(self) -> None:
        pass


class Memory:
    """A transport that keeps what it is sent. Its other side says `data`: at once, or as an upstream that `answers` with it to the
    first request and properly to all others."""

    drained = False

    def __init__(
        self, data: bytes, *, answers: bool = False, then_ends: bool = True, piece: int = 1 << 20
    ) -> None:
        self.ready: Any = _NeverReady()
        self.got = bytearray()
        self._data = data
        self._answers = answers
        self._there = b"" if answers else data
        self._ends = then_ends
        self._piece = piece
        self.closed = False

    def receive(self, limit: int) -> bytes | None:
        part, self._there = self._there[: min(limit, self._piece)], self._there[min(limit, self._piece) :]
        return part or (b"" if self._ends else None)

    def send(self, data: bytes) -> bool:
        self.got += data
        if self._answers and b" HTTP/1." in data[:4096]:
            self._there, self._data = self._there + self._data, OK
        return True

    def flush(self) -> bool:
        return True

    def end(self) -> None:
        self._there, self._ends = b"", True

    def discard(self) -> bool:
        return True

    def close(self) -> None:
        self.closed = True

    abort = close


class Served(NamedTuple):
    """What came of one connection: what the agent got, what each upstream connection got, the events and their number."""

    agent: bytes
    upstreams: list[bytes]
    events: dict[tuple[str, str], int]
    allowed: int


class _Told:
    def has_room(self) -> bool:
        return True

    def tell(self, message: dict[str, Any]) -> None:
        assert SECRET.decode() not in str(message), "a secret in an event"


class _Dialer(Dialer):
    async def dial(self, route: Route, host: str, port: int) -> Any:
        assert (host, route.host, port) in (("ok.test", "ok.test", 80), ("ok.test", "ok.test", 443)), (
            host,
            port,
        )


async def _context() -> Context:
    loop = asyncio.get_running_loop()
    record = Record(_Told(), clock=loop.time, later=loop.call_later)
    credentials = Credentials(
        {
            "key": Injection(
                "header", "X-Key", Secret(SECRET.decode()), Secret(SECRET.decode()), "PLACEHOLDER-0000"
            )
        }
    )
    told = _Told()
    made = Context(
        grants=Grants(told.tell, spent=(), clock=loop.time), asking=Asking(told.tell, limits=LIMITS, able=False),
        policy=POLICY, credentials=credentials, limits=LIMITS, bottle_file="/b.md", record=record, live=Live(),
        names=Names(POLICY, limit=64), dialer=_Dialer(LIMITS, None), pump=None, selector=None, tls=Tls(None, None),
    )  # type: ignore[arg-type]  # fmt: skip
    made.look.guard = Guarding(lambda: made.policy, credentials, (), record.event)
    return made


async def _serve(data: bytes, entry: Entry, response: bytes, piece: int) -> Served:
    upstreams: list[Memory] = []

    async def originate(_sock: object, name: str, **_: object) -> Memory:
        assert name == "ok.test"
        upstreams.append(
            Memory(response if not upstreams else OK, answers=True, then_ends=False, piece=piece)
        )
        return upstreams[-1]

    context = _shared()
    context.tls = Tls(originate, None)  # type: ignore[arg-type]
    context.record.counts.clear()
    agent = Memory(data, piece=piece)
    await HttpConnection(context, None, entry, Wire(agent, idle=900.0)).run()  # type: ignore[arg-type]
    counts = context.record.counts
    allowed = sum(number for (kind, _), number in counts.items() if kind == "egress.allowed")
    assert agent.closed
    assert all(upstream.closed for upstream in upstreams)
    return Served(bytes(agent.got), [bytes(one.got) for one in upstreams], dict(counts), allowed)


_LOOP: list[asyncio.AbstractEventLoop] = []
_CONTEXT: list[Context] = []


def _shared() -> Context:
    """One for all cases: what takes long to make is what a bundle makes once."""
    if not _CONTEXT:
        _LOOP.append(asyncio.new_event_loop())
        _CONTEXT.append(_LOOP[0].run_until_complete(_context()))
    return _CONTEXT[0]


def serve(data: bytes, entry: Entry, response: bytes = OK, piece: int = 1 << 20) -> Served:
    """Serves a connection on which the agent says `data`, with a first upstream that answers `response`."""
    _shared()
    return _LOOP[0].run_until_complete(_serve(data, entry, response, piece))


def close_loop() -> None:
    """At the end: a loop that is left open is a warning."""
    _CONTEXT.clear()
    while _LOOP:
        _LOOP.pop().close()


def is_allowed(seen: Seen) -> bool:
    """What `POLICY` lets through, said once more without any of its code."""
    return seen.method.decode("latin-1") in METHODS and seen.host == HOST and seen.path.startswith(b"/a")


def check_upstream(stream: bytes) -> int:
    """How many requests a strict reader finds in what one upstream connection got; what any reader finds is allowed."""
    for seen in lenient.requests(stream):
        assert is_allowed(seen), (seen, stream)
    ways = {way: lenient.read(stream, way) for way in lenient.WAYS[:3]}
    assert ways["chunks first"] == ways["first length"] == ways["last length"], stream
    return len(ways["chunks first"])


def _requests(data: bytes, entry: Entry) -> None:
    piece = 1 << 20 if len(data) % 3 else 7
    served = serve(data, entry, piece=piece)
    whole = sum(check_upstream(stream) for stream in served.upstreams)
    assert whole <= served.allowed, (whole, served)
    assert ("egress.failed", "internal") not in served.events
    assert SECRET not in served.agent


def proxy(data: bytes) -> None:
    """On the proxy's own port."""
    _requests(data, PROXY)


def inner(data: bytes) -> None:
    """Inside TLS that was opened, with a credential that is put in."""
    _requests(data, INNER)


TWO = b"GET /a/1 HTTP/1.1\r\nHost: ok.test\r\n\r\nGET /a/2 HTTP/1.1\r\nHost: ok.test\r\n\r\n"


def response(data: bytes) -> None:
    """Whatever an upstream answers, the agent gets one response to each of its requests, and can tell which is which."""
    served = serve(TWO, INNER, data)
    assert SECRET not in served.agent
    got = lenient.statuses(served.agent)
    assert len(got) <= 2, served
    assert all(check_upstream(stream) <= 2 for stream in served.upstreams)
    if len(got) == 2:  # then the second is the answer to the second, and not what was left of the first
        assert served.agent.endswith(b"ok"), served
    assert not served.agent or served.agent.startswith(b"HTTP/1.1 "), served


_TLS: list[ssl.SSLContext] = []


def _openssl_name(data: bytes) -> list[str | None]:
    """The names that OpenSSL finds in a hello."""
    if not _TLS:
        _TLS.append(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER))
    named: list[str | None] = []
    _TLS[0].sni_callback = lambda _object, name, _context: named.append(name)
    incoming = ssl.MemoryBIO()
    incoming.write(data)
    try:
        _TLS[0].wrap_bio(incoming, ssl.MemoryBIO(), server_side=True).do_handshake()
    except (ssl.SSLError, ValueError, UnicodeError):
        pass
    return named


def hello(data: bytes) -> None:
    """A hello that is taken says to OpenSSL what it says to us; every beginning of it is incomplete or refused."""
    try:
        read = read_hello(data)
    except BadHello:
        return
    if read is None:
        return
    theirs = [name for name in _openssl_name(data) if name is not None]
    assert not theirs or read.server_name is not None, (read, theirs)
    assert all(name.lower() == (read.server_name or "").lower() for name in theirs), (read, theirs)
    for cut in (1, len(data) // 2):
        try:
            assert read_hello(data[:cut]) in (None, read)
        except BadHello:
            raise AssertionError("refused in part and taken whole") from None


def query(data: bytes) -> None:
    """Only names of the policy get an address; an answer repeats the question, and is hardly longer."""
    reply = answer_query(_shared(), data)
    if reply is None:
        return
    assert reply[:2] == data[:2]
    assert reply[2] & 0x80
    assert len(reply) <= len(data) + 16
    if int.from_bytes(reply[6:8], "big"):
        name, at = [], HEADER
        while size := data[at]:
            name.append(data[at + 1 : at + 1 + size].lower())
            at += 1 + size
        if not name[-1]:
            name.pop()
        assert (
            b".".join(name) in (b"ok.test", b"localhost")
            or name[-2:] in ([b"wild", b"test"],)
            or name[-1] == b"localhost"
        ), data
        assert data[at + 1 : at + 5] == b"\0\1\0\1"


def _second_frames(data: bytes) -> tuple[list[tuple[int, bytes]], bool]:
    """The frames that the `websockets` library reads in a client's bytes, and whether it took offence in the end."""
    stream = StreamReader()
    stream.feed_data(data)
    stream.feed_eof()
    found = []
    try:
        while True:
            parser = Frame.parse(stream.read_exact, mask=True)
            try:
                next(parser)
            except StopIteration as end:
                frame = end.value
            found.append((frame.opcode | (0x80 if frame.fin else 0), bytes(frame.data)))
    except (EOFError, StopIteration):
        return found, False
    except (ProtocolError, RuntimeError):
        return found, True


def _messages(frames: list[tuple[int, bytes]]) -> list[tuple[int, bytes]]:
    """Messages and control frames that are whole, each where it ended."""
    done, kind, data = [], 0, b""
    for first, part in frames:
        code = first & 15
        if code >= 8:
            done.append((code, part))
            continue
        kind, data = (kind, data + part) if code == 0 else (code, part)
        if first & 0x80:
            done.append((kind, data))
    return done


def frames(data: bytes) -> None:
    """What is read of a client's frames and written anew says to a second reader what the client's own bytes do."""
    reader = FrameReader(masked=True, deflate=False)
    said, refused = b"", False
    try:
        for at in range(0, len(data), 1000):
            for item in reader.feed(data[at : at + 1000]):
                said += written(item, mask=True)
    except BadFrame:
        refused = True
    ours, offence = _second_frames(said)
    assert not offence, data
    theirs, offended = _second_frames(data)
    whole = _messages(ours)
    assert whole == _messages(theirs)[: len(whole)], data
    assert refused or not offended or len(_messages(theirs)) <= len(whole), data


_STILL = 12
"""Turns of the loop without anything new, after which nothing more comes of what was said."""


async def _serve_h2(data: bytes) -> Served:
    upstreams: list[h2.Origin] = []

    async def originate(_sock: object, name: str, **_: object) -> h2.Origin:
        assert name == "ok.test"
        upstreams.append(h2.Origin())
        return upstreams[-1]

    context = _shared()
    context.tls = Tls(originate, None)  # type: ignore[arg-type]
    context.record.counts.clear()
    agent = h2.Pipe(data, piece=1 << 20 if len(data) % 3 else 7)
    task = asyncio.ensure_future(serve_h2(context, "tls", Wanted("ok.test", 443, "https"), agent))
    before, still = None, 0
    while not task.done() and still < _STILL:
        await asyncio.sleep(0)
        now = (agent.state, *(one.state for one in upstreams))
        before, still = now, still + 1 if now == before else 0
    agent.end()
    await task
    counts = context.record.counts
    allowed = sum(number for (kind, _), number in counts.items() if kind == "egress.allowed")
    assert all(one.closed for one in (agent, *upstreams))
    return Served(bytes(agent.got), [bytes(one.got) for one in upstreams], dict(counts), allowed)


def http2(data: bytes) -> None:
    """HTTP/2 inside TLS that was opened: what the upstream gets was judged, is HTTP/2, and bears the credential."""
    serve_http2(data)


def serve_http2(data: bytes) -> Served:
    """Like `http2`, with what came of it."""
    _shared()
    served = _LOOP[0].run_until_complete(_serve_h2(data))
    requests = 0
    for upstream in served.upstreams:
        for head in h2.read(upstream).heads:
            fields = dict(head)
            if b":method" not in fields:  # trailers
                assert not any(name.startswith(b":") for name, _ in head), head
                continue
            requests += 1
            seen = Seen(fields[b":method"], fields[b":authority"], lenient.plain_path(fields[b":path"]))
            assert is_allowed(seen), (seen, data)
            assert [value for name, value in head if name == b"x-key"] == [SECRET], head
            assert [
                name for name, _ in head if name in (b"host", b"transfer-encoding", b"connection")
            ] == [], head
            assert all(ours.isascii() and not set(ours) & set(b"\r\n\0") for pair in head for ours in pair), (
                head
            )
    assert requests <= served.allowed, (requests, served)
    assert ("egress.failed", "internal") not in served.events, (served, data)
    heard = h2.read(served.agent)
    assert all(SECRET not in value for head in heard.heads for _, value in head), heard
    assert SECRET not in heard.bodies
    return served


class Target(NamedTuple):
    """A check and what makes its input from a seed."""

    check: Callable[[bytes], None]
    make: cases.Make


TARGETS = {
    "requests to the proxy": Target(proxy, cases.proxy_requests),
    "requests inside TLS": Target(inner, cases.inner_requests),
    "responses": Target(response, cases.responses),
    "TLS hellos": Target(hello, cases.hellos),
    "DNS messages": Target(query, cases.queries),
    "WebSocket frames": Target(frames, cases.frames),
    "HTTP/2 connections": Target(http2, h2.connections),
}
