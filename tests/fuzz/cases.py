"""Hostile input of every kind, from a seed: built by grammar out of what has broken such readers before, then damaged."""

import random
import struct
from collections.abc import Callable

from tests.bundle.hellos import records, vector

Make = Callable[[random.Random], bytes]

METHODS = (
    b"GET",
    b"POST",
    b"GET",
    b"POST",
    b"PUT",
    b"HEAD",
    b"OPTIONS",
    b"CONNECT",
    b"get",
    b"GE T",
    b"PRI",
    b"TRACE",
    b"",
)
_HOSTS = (
    b"ok.test", b"ok.test", b"ok.test", b"ok.test", b"OK.test.", b"evil.test", b"ok.test@evil.test", b"evil.test:80@ok.test",
    b"ok.test:80", b"ok.test:8080", b"ok.test.evil.test", b"127.0.0.1", b"0x7f.1", b"[::1]", b"169.254.169.254", b"localhost",
    b"ok.test\0.evil.test", b"ok%2etest", b"ok.test,evil.test", b"", b" ", b"xn--ok-test", b"ok\xe3\x80\x82test",
    b"ok.test#@evil.test", b"ok.test\\.evil.test", b"ok.test\tevil.test", b"2130706433", b"host.docker.internal",
)  # fmt: skip
PATHS = (
    b"/a/x", b"/a/x", b"/a/x?q=1", b"/a/", b"/a", b"/b", b"/a/../b", b"/a/%2e%2e/b", b"/a/..%2fb", b"/a/%2e%2e%2fb",
    b"/a\\..\\b", b"/a/..;/b", b"/a/.;x/../b", b"/a//..//..//b", b"/a/%252e%252e/b", b"//evil.test/a/x", b"/a/x#y", b"*",
    b"/%61/x", b"/a/\xc0\xae", b"/a/..%5cb", b"/a/%00/../b", b"/a/x/../../b", b"/./a/x", b"/A/x", b"/a/x;/../../b",
    b"/a/%c0%ae%c0%ae/b", b"/a/\x7f", b"/a/..",
)  # fmt: skip
_VERSIONS = (
    b"HTTP/1.0",
    b"HTTP/2.0",
    b"HTTP/1.2",
    b"http/1.1",
    b"HTTP/1.1 ",
    b"HTTP/01.1",
    b"",
)
_FIELDS = (
    b"Content-Length: 5", b"Content-Length: 5", b"Content-Length: 0", b"Content-Length: 6", b"Content-Length: +5",
    b"Content-Length: -1", b"Content-Length: 0x5", b"Content-Length: 5, 5", b"Content-Length: 5 5", b"Content-Length: 1_0",
    b"Content-Length : 5", b"Content_Length: 5", b"Content-Length:\x0b5", b"content-length: 00005",
    b"Content-Length: 5\r\n 6", b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked", b"Transfer-Encoding: Chunked",
    b"Transfer-Encoding:\x0bchunked", b"Transfer-Encoding: xchunked", b"Transfer-Encoding: chunked, identity",
    b"Transfer-Encoding: identity, chunked", b"Transfer-Encoding : chunked", b"Transfer-Encoding:\r\n chunked",
    b"Transfer-Encoding: \"chunked\"", b"Transfer-Encoding: chunked;a", b"Transfer-Encoding: gzip",
    b"Transfer_Encoding: chunked", b"X: y\rTransfer-Encoding: chunked", b"X: y\nTransfer-Encoding: chunked",
    b"TE: trailers, chunked", b"Trailer: Content-Length", b"Expect: 100-continue", b"Expect: 200-ok", b"Upgrade: h2c",
    b"Upgrade: websocket", b"Connection: Upgrade, HTTP2-Settings", b"HTTP2-Settings: AAMAAABkAAQAAP__", b"Connection: close",
    b"Connection: keep-alive", b"Connection: Content-Length", b"Connection: Transfer-Encoding", b"Connection: Host",
    b"Host: evil.test", b"Host:", b"Host : evil.test", b"X-HTTP-Method-Override: DELETE", b"X-Original-URL: /b",
    b"X-Rewrite-URL: /b", b"X-Forwarded-Host: evil.test", b"Accept: */*", b": empty", b" folded", b"\tfolded", b"No colon",
    b"X: \0", b"X: \x7f", b"X: \xff", b"Content-Encoding: gzip", b"Range: bytes=0-", b"\xff: x", b"A\0: b",
    b"Proxy-Connection: keep-alive", b"Proxy-Authorization: Basic eDp5", b"Forwarded: host=evil.test",
)  # fmt: skip
_ENDS = (b"\r\n",) * 24 + (b"\n", b"\r", b"\n\r", b"\r\r\n", b" \r\n")
_BODIES = (
    b"hello", b"hello", b"", b"5\r\nhello\r\n0\r\n\r\n", b"5\r\nhello\r\n0\r\n\r\n", b"0\r\n\r\n",
    b"5;x=y\r\nhello\r\n0\r\n\r\n", b"5 \r\nhello\r\n0\r\n\r\n", b"0x5\r\nhello\r\n0\r\n\r\n", b"+5\r\nhello\r\n0\r\n\r\n",
    b"00000000000000005\r\nhello\r\n0\r\n\r\n", b"fffffffffffffffff\r\nhello\r\n0\r\n\r\n", b"5\nhello\n0\n\n",
    b"5\r\nhello!\r\n0\r\n\r\n", b"5\r\nhello0\r\n\r\n", b"0\r\nX: y\r\n\r\n",
    b"0\r\nHost: evil.test\r\nContent-Length: 9\r\n\r\n", b"0\r\n", b"5\r\nhel", b"-1\r\n\r\n", b"1" * 9000 + b"\r\n",
    b"0\r\n" + b"X: y\r\n" * 40,
)  # fmt: skip
SMUGGLED = b"DELETE /b HTTP/1.1\r\nHost: evil.test\r\nContent-Length: 0\r\n\r\n"
TOKENS = (
    *_FIELDS, *_BODIES, *PATHS, *_HOSTS, b"\r\n", b"\r\n\r\n", b"\n", b"\r", b"\0", b" ", b"\t", b":", b"0\r\n\r\n",
    b"HTTP/1.1", SMUGGLED,
)  # fmt: skip


def damaged(rng: random.Random, data: bytes, *, tokens: tuple[bytes, ...] = TOKENS) -> bytes:
    """`data` with something put in, taken out, changed, cut or said twice; often with nothing of it."""
    message = bytearray(data)
    for _ in range(rng.choice((0, 0, 0, 1, 1, 3))):
        at = rng.randint(0, len(message))
        end = min(len(message), at + rng.choice((1, 1, 2, 8, 40)))
        kind = rng.randrange(6)
        if kind == 0:
            message[at:at] = rng.choice(tokens)
        elif kind == 1:
            del message[at:end]
        elif kind == 2:
            message[at:end] = rng.randbytes(end - at)
        elif kind == 3 and at < len(message):
            message[at] ^= 1 << rng.randrange(8)
        elif kind == 4:
            message[at:at] = message[at:end]
        else:
            message[at:end] = rng.choice(tokens)
    return bytes(message)


def one_request(rng: random.Random, *, absolute: bool) -> bytes:
    """A head and what may be its body; most are wrong in one way only, so that much of them is looked at."""
    host = b"ok.test" if rng.random() < 0.85 else rng.choice(_HOSTS)
    path = b"/a/x" if rng.random() < 0.6 else rng.choice(PATHS)
    method = rng.choice(METHODS[:2]) if rng.random() < 0.8 else rng.choice(METHODS)
    target = b"http://" + (host if rng.random() < 0.95 else rng.choice(_HOSTS)) + path if absolute else path
    if method == b"CONNECT" and rng.random() < 0.8:
        target = host + rng.choice((b":80", b":443", b"", b":0", b":65536"))
    lines = [b" ".join((method, target, b"HTTP/1.1" if rng.random() < 0.9 else rng.choice(_VERSIONS)))]
    if rng.random() < 0.95:
        lines.append(b"Host: " + host)
    for _ in range(rng.choice((0, 1, 1, 1, 2))):
        lines.insert(rng.randint(1, len(lines)), rng.choice(_FIELDS))
    clean = rng.random() < 0.9
    head = b"".join(line + (b"\r\n" if clean else rng.choice(_ENDS)) for line in lines)
    return head + (b"\r\n" if clean else rng.choice(_ENDS)) + rng.choice(_BODIES)


def _requests(rng: random.Random, *, absolute: bool) -> bytes:
    parts = [one_request(rng, absolute=absolute) for _ in range(rng.choice((1, 1, 2, 3)))]
    data = damaged(rng, b"".join(parts))
    return data + (SMUGGLED if rng.random() < 0.5 else b"")


def proxy_requests(rng: random.Random) -> bytes:
    """What comes on the proxy's own port."""
    return _requests(rng, absolute=rng.random() < 0.95)


def inner_requests(rng: random.Random) -> bytes:
    """What comes inside TLS that was opened."""
    return _requests(rng, absolute=rng.random() < 0.05)


_STATUS = (b"HTTP/1.1 200 OK",) * 6 + (
    b"HTTP/1.1 100 Continue", b"HTTP/1.1 103 Early", b"HTTP/1.1 101 Switching", b"HTTP/1.1 204 No", b"HTTP/1.1 304 Not",
    b"HTTP/1.0 200 OK", b"HTTP/1.1 200", b"HTTP/1.1 099 X", b"HTTP/1.1 999 X", b"HTTP/0.9 200 OK", b"HTTP/1.1 2000 OK",
    b"ICY 200 OK", b"HTTP/1.1 200 O\rK", b"HTTP/1.1  200 OK", b"",
)  # fmt: skip
ANSWERED = b"HTTP/1.1 299 Evil\r\nContent-Length: 4\r\n\r\nevil"
_ANSWERS = (
    b"Set-Cookie: a=b",
    b"Location: https://evil.test/",
    b"Content-Encoding: gzip",
    b"Content-Type: text/plain",
)


def responses(rng: random.Random) -> bytes:
    """What an upstream may answer with."""
    parts = []
    for _ in range(rng.choice((1, 1, 1, 2, 20))):
        lines = [rng.choice(_STATUS)]
        lines += [rng.choice(_FIELDS[:28] + _ANSWERS) for _ in range(rng.choice((0, 1, 1, 2)))]
        clean = rng.random() < 0.7
        parts += [line + (b"\r\n" if clean else rng.choice(_ENDS)) for line in lines]
        parts.append(b"\r\n" + (rng.choice(_BODIES) if rng.random() < 0.9 else b""))
    if rng.random() < 0.3:
        parts.append(ANSWERED)
    return damaged(rng, b"".join(parts))


_NAMES = (
    b"ok.test",
    b"ok.test",
    b"evil.test",
    b"OK.TEST.",
    b"ok.test\0.evil.test",
    b"127.0.0.1",
    b"",
    b"a" * 300,
    b"ok.test\xff",
    b"xn--a.ok.test",
)


def hellos(rng: random.Random) -> bytes:
    """TLS client hellos, whole, cut, in odd records, with extensions twice and lengths that lie."""
    extensions = [
        (10, vector(2, b"\0\x1d\0\x17")),
        (13, vector(2, b"\4\3\x08\4")),
        (43, vector(1, b"\3\4\3\3")),
        (11, b"\1\0"),
    ]
    extensions.append((51, vector(2, b"\0\x1d" + vector(2, bytes(32)))))
    name = rng.choice(_NAMES)
    entry = bytes((rng.choice((0, 0, 0, 0, 1, 255)),)) + vector(2, name)
    extensions.insert(rng.randint(0, len(extensions)), (0, vector(2, entry * rng.choice((1, 1, 1, 1, 2)))))
    for _ in range(rng.choice((0, 0, 1, 2))):
        kind = rng.choice((0, 16, 0xFE0D, 0xFFCE, 41, 42, 0x0A0A, 35, 21, rng.randrange(65536)))
        content = {
            0: vector(2, b"\0" + vector(2, b"evil.test")),
            16: vector(2, vector(1, b"h2") + vector(1, b"http/1.1")),
        }
        extensions.insert(
            rng.randint(0, len(extensions)), (kind, content.get(kind, rng.randbytes(rng.randrange(40))))
        )
    listed = b"".join(struct.pack("!H", kind) + vector(2, data) for kind, data in extensions)
    body = b"\3\3" + rng.randbytes(32) + vector(1, rng.randbytes(rng.choice((0, 32, 32, 33))))
    body += vector(2, b"\x13\1\x13\2\xc0\x2f") + vector(1, b"\0") + vector(2, listed)
    body += rng.choice((b"",) * 8 + (b"\0", rng.randbytes(5)))
    message = bytes((rng.choice((1,) * 12 + (0, 2, 16)),)) + vector(
        3, damaged(rng, body, tokens=(b"\0\0", b"ok.test", b"\xff\xff"))
    )
    data = records(message, rng.choice((1 << 14, 1 << 14, 1 << 14, 100, 7, 1)))
    data = damaged(rng, data, tokens=(b"\x16\3\1\0\0", b"\x16\3\3", b"\x15\3\1\0\2\2\x28", message[:50]))
    return data + rng.choice((b"",) * 6 + (b"\x14\3\3\0\1\1", SMUGGLED))


_LABELS = (
    b"ok",
    b"test",
    b"evil",
    b"wild",
    b"OK",
    b"www",
    b"",
    b"a" * 63,
    b"a" * 64,
    b"\xc0\x0c",
    b"xn--a",
    b"1",
    b"o.k",
    b"\0",
    b"localhost",
)


def queries(rng: random.Random) -> bytes:
    """DNS messages; among them names as long as a tunnel would have them, pointers and questions that are answers."""
    labels = rng.choice(((b"ok", b"test"), (b"ok", b"test"), (b"x", b"wild", b"test"), ()))
    labels = labels or tuple(rng.choice(_LABELS) for _ in range(rng.choice((1, 2, 3, 5, 140))))
    if rng.random() < 0.2:
        labels = (rng.randbytes(30).hex().encode(), *labels)
    name = b"".join(bytes((len(label) & 255,)) + label for label in labels) + rng.choice(
        (b"\0",) * 8 + (b"", b"\xc0\x0c", b"\xc0\xff")
    )
    kind = rng.choice((1, 1, 1, 28, 5, 15, 16, 65, 64, 255, 252, rng.randrange(65536)))
    flags = rng.choice((0x0100, 0x0100, 0x0100, 0, 0x8180, 0x2800, 0xFFFF, rng.randrange(65536)))
    counts = rng.choice(((1, 0, 0, 0), (1, 0, 0, 0), (1, 0, 0, 1), (2, 0, 0, 0), (0, 0, 0, 0), (65535,) * 4))
    data = (
        rng.randbytes(2)
        + struct.pack("!5H", flags, *counts)
        + name
        + struct.pack("!HH", kind, rng.choice((1, 1, 1, 3, 255)))
    )
    return damaged(
        rng,
        data + rng.choice((b"", b"", rng.randbytes(30), bytes(5000))),
        tokens=(b"\xc0\x0c", b"\x3f", b"\0", b"\2ok\4test\0"),
    )


def frames(rng: random.Random) -> bytes:
    """A client's WebSocket frames: fragments in and out of order, lengths in the wrong form, control frames that are too long."""
    parts = []
    for _ in range(rng.choice((1, 2, 3, 6))):
        kind = rng.choice((1, 1, 2, 2, 0, 0, 8, 9, 10, 3, 15))
        first = kind | (0x80 if rng.random() < 0.7 else 0) | rng.choice((0,) * 12 + (0x40, 0x20, 0x10))
        size = rng.choice((0, 1, 5, 5, 125, 126, 127, 300, 70_000 if rng.random() < 0.05 else 7))
        form = rng.random()
        if size < 126 and form < 0.9:
            length = bytes((size,))
        elif size < 65536 and form < 0.95:
            length = b"\x7e" + struct.pack("!H", size)
        else:
            length = b"\x7f" + struct.pack("!Q", size if form < 0.99 else 1 << 63)
        length = bytes((length[0] | (0x80 if rng.random() < 0.96 else 0),)) + length[1:]
        data = (
            rng.randbytes(size)
            if kind != 8
            else struct.pack("!H", rng.choice((1000, 1001, 1005, 4000, 5))) + rng.randbytes(size)
        )
        parts.append(bytes((first,)) + length + rng.randbytes(4) + data)
    return damaged(rng, b"".join(parts), tokens=(b"\x89\x80\0\0\0\0", b"\x81\xfe\0\1", b"\x88", b"\0"))
