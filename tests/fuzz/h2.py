"""HTTP/2 connections from a seed, and what came of them: the product serves one in memory, and `hyperframe` and `hpack`, which it
does not use for that, read what its upstream got."""

import asyncio
import random
import struct
from typing import Any, NamedTuple

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import RequestReceived, StreamEnded
from h2.exceptions import ProtocolError
from hpack import Decoder, Encoder
from hyperframe.frame import ContinuationFrame, DataFrame, Frame, HeadersFrame

from tests.fuzz import cases

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
Fields = list[tuple[bytes, bytes]]
_FLAGS = {"end stream": 1, "ack": 1, "end head": 4, "padded": 8, "priority": 32}
_AUTHORITIES = (
    *((b"ok.test",) * 16),
    b"OK.test:443",
    b"evil.test",
    b"ok.test@evil.test",
    b"ok.test:444",
    b"127.0.0.1",
    b"",
)
_MORE: Fields = [
    (b"host", b"ok.test"), (b"host", b"evil.test"), (b"content-length", b"5"), (b"content-length", b"0"),
    (b"content-length", b"5, 5"), (b"transfer-encoding", b"chunked"), (b"connection", b"close"), (b"te", b"trailers"),
    (b"te", b"gzip"), (b"Upper", b"x"), (b"x-http-method-override", b"DELETE"), (b"x-original-url", b"/b"),
    (b"x", b"a\r\nhost: evil.test"), (b"x", b"a\0b"), (b"x y", b"1"), (b"x", b" lead"), (b":path", b"/b"), (b":method", b"PUT"),
    (b":protocol", b"websocket"), (b"content-type", b"application/grpc"), (b"x-key", b"PLACEHOLDER-0000"),
    (b"x-key", b"mine"), (b"cookie", b"a=1"), (b"content-encoding", b"gzip"), (b"expect", b"100-continue"), (b"", b"x"),
]  # fmt: skip


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return struct.pack("!I", len(payload))[1:] + bytes((kind, flags)) + struct.pack("!I", stream) + payload


def _head(rng: random.Random) -> Fields:
    fields: Fields = [
        (b":method", rng.choice((b"GET", b"POST")) if rng.random() < 0.8 else rng.choice(cases.METHODS)),
        (b":scheme", rng.choice((b"https",) * 30 + (b"http", b"ftp", b""))),
        (b":authority", rng.choice(_AUTHORITIES)),
        (b":path", rng.choice((b"/a/x",) * len(cases.PATHS) + cases.PATHS)),
    ]
    if rng.random() < 0.05:
        fields.pop(rng.randrange(4))
    for _ in range(rng.choice((0, 0, 0, 0, 1, 2))):
        fields.insert(rng.choice((len(fields),) * 8 + (0, 2)), rng.choice(_MORE))
    return fields


def _request(rng: random.Random, encoder: Encoder, stream: int) -> list[bytes]:
    """The frames of one request, mostly in the order in which they should come."""
    block = encoder.encode(_head(rng), huffman=rng.random() < 0.5)
    ends = rng.random() < 0.5
    first = _FLAGS["end stream"] if ends else 0
    if rng.random() < 0.2 and len(block) > 2:
        cut = rng.randrange(1, len(block))
        made = [frame(1, first, stream, block[:cut]), frame(9, _FLAGS["end head"], stream, block[cut:])]
    else:
        made = [frame(1, first | _FLAGS["end head"], stream, block)]
    if not ends:
        body = rng.choice((b"hello", b"hello", b"", b"hell", b"hello!", b"\0" * 5000, cases.SMUGGLED))
        made += [frame(0, 0, stream, body[:2]), frame(0, 1, stream, body[2:])] if rng.random() < 0.5 else [
            frame(0, 1, stream, body)
        ]  # fmt: skip
    if rng.random() < 0.08:
        made.append(frame(1, 5, stream, encoder.encode([rng.choice(_MORE)])))
    return made


def connections(rng: random.Random) -> bytes:
    """A client's whole connection: requests on streams new, old, even and closed, between frames that nobody needs."""
    encoder = Encoder()
    if rng.random() < 0.1:
        encoder.header_table_size = 0
    parts = [
        frame(
            4,
            0,
            0,
            rng.choice(
                (b"", b"\0\3\0\0\0\x64", b"\0\4\0\0\xff\xff", b"\0\1\0\0\0\0", b"\0\4\xff\xff\xff\xff")[
                    : 5 if rng.random() < 0.1 else 4
                ]
            ),
        )
    ]
    number = 1
    for _ in range(rng.choice((1, 1, 2, 3, 5))):
        parts += _request(rng, encoder, number)
        number += rng.choice((2,) * 30 + (1, 0, -2, 1 << 20))
        number = max(0, number)
    noise = (
        lambda: frame(6, rng.choice((0, 1)), 0, rng.randbytes(rng.choice((8, 8, 7)))),
        lambda: frame(
            8, 0, rng.choice((0, number)), struct.pack("!I", rng.choice((0, 1, 65535, 0x7FFFFFFF)))
        ),
        lambda: frame(3, 0, rng.choice((1, number)), struct.pack("!I", rng.choice((0, 8, 99)))),
        lambda: frame(7, 0, 0, struct.pack("!II", number, 0) + b"bye"),
        lambda: frame(5, 4, 1, struct.pack("!I", 2) + encoder.encode([(b":path", b"/a/x")])),
        lambda: frame(rng.randrange(256), rng.randrange(256), number, rng.randbytes(rng.randrange(20))),
        lambda: frame(2, 0, number, struct.pack("!IB", rng.choice((0, number)), 1)),
        lambda: frame(0, rng.choice((0, 1, 8)), rng.choice((0, 1, number + 2)), rng.randbytes(9)),
        lambda: frame(9, 4, number, encoder.encode([(b"x", b"y")])),
    )
    for _ in range(rng.choice((0, 0, 0, 1, 2, 4))):
        parts.insert(rng.randrange(1, len(parts) + 1), rng.choice(noise)())
    data = PREFACE + b"".join(parts)
    return (
        data
        if rng.random() < 0.7
        else cases.damaged(rng, data, tokens=(frame(0, 1, 1), frame(3, 0, 1, bytes(4)), b"\0\0\0"))
    )


class Later:
    """Readiness of a transport in memory: whoever waits is woken when something was put there."""

    def __init__(self) -> None:
        self._waiting: list[asyncio.Future[None]] = []

    def readable(self) -> "asyncio.Future[None]":
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(future)
        return future

    writable = readable

    def wake(self) -> None:
        waiting, self._waiting = self._waiting, []
        for future in waiting:
            if not future.done():
                future.set_result(None)

    def forget(self) -> None:
        pass


class Pipe:
    """A transport in memory whose other side is asked when something was sent."""

    drained = False

    def __init__(self, data: bytes = b"", *, piece: int = 1 << 20) -> None:
        self.ready: Any = Later()
        self.got = bytearray()
        self.closed = False
        self._there = data
        self._piece = piece
        self._ends = False

    def put(self, data: bytes) -> None:
        self._there += data
        self.ready.wake()

    def receive(self, limit: int) -> bytes | None:
        size = min(limit, self._piece)
        part, self._there = self._there[:size], self._there[size:]
        return part or (b"" if self._ends else None)

    def send(self, data: bytes) -> bool:
        self.got += data
        return True

    def flush(self) -> bool:
        return True

    def end(self) -> None:
        """Nothing more comes, from this side of it or the other."""
        self._ends = True
        self.ready.wake()

    def discard(self) -> bool:
        return True

    def close(self) -> None:
        self.closed = True
        self.end()

    abort = close

    @property
    def state(self) -> tuple[int, int, bool]:
        return len(self.got), len(self._there), self.closed


class Origin(Pipe):
    """An upstream that answers every request with `ok`, and with what was sent to it in a header."""

    def __init__(self) -> None:
        super().__init__()
        self._h2 = H2Connection(H2Configuration(client_side=False, header_encoding=None))
        self._h2.initiate_connection()
        self._keys: dict[int, bytes] = {}
        self.put(self._h2.data_to_send())

    def send(self, data: bytes) -> bool:
        super().send(data)
        try:
            for event in self._h2.receive_data(data):
                if isinstance(event, RequestReceived):
                    self._keys[event.stream_id] = dict(event.headers).get(b"x-key", b"")
                elif isinstance(event, StreamEnded):
                    head = [(b":status", b"200"), (b"x-was", self._keys[event.stream_id])]
                    self._h2.send_headers(event.stream_id, head)
                    self._h2.send_data(event.stream_id, b"ok", end_stream=True)
        except ProtocolError as error:
            raise AssertionError(f"the upstream got what is no HTTP/2: {error!r}, {data!r}") from error
        self.put(self._h2.data_to_send())
        return True


class Heard(NamedTuple):
    """The heads and the bytes of bodies that a reader finds."""

    heads: list[Fields]
    bodies: bytes


def read(data: bytes) -> Heard:
    """What one side of a connection said, after any preface. Raises what the libraries raise when it is no HTTP/2."""
    data = data.removeprefix(PREFACE)
    decoder, heads, block, bodies = Decoder(), [], b"", b""
    decoder.max_allowed_table_size = 1 << 32  # as large as the other side ever allowed
    while len(data) >= 9:
        part, size = Frame.parse_frame_header(memoryview(data[:9]))
        if len(data) < 9 + size:
            break
        part.parse_body(memoryview(data[9 : 9 + size]))
        data = data[9 + size :]
        if isinstance(part, DataFrame):
            bodies += part.data
        elif isinstance(part, HeadersFrame | ContinuationFrame):
            block += part.data
            if "END_HEADERS" in part.flags:
                heads.append([(bytes(name), bytes(value)) for name, value in decoder.decode(block, raw=True)])
                block = b""
    return Heard(heads, bodies)
