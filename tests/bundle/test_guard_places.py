"""A value of `sensitive:` in every encoding at every place of a request: the real bundle refuses each, and says where it was."""

import base64
import gzip
import json
import urllib.parse
import zlib
from collections.abc import Callable, Iterator

import brotli
import pytest

from bot_bottle.policy.model import SecretsPolicy
from tests.bundle.conftest import Certificate
from tests.bundle.test_guard import SENSITIVE, Place, bottle, fresh, get, post

VALUE = SENSITIVE.encode()
ENCODINGS: dict[str, Callable[[bytes], bytes]] = {
    "plain": bytes,
    "base64": base64.b64encode,
    "base64 behind other bytes": lambda data: base64.b64encode(b"a:" + data + b" b"),
    "base64 in URLs": lambda data: base64.urlsafe_b64encode(data).rstrip(b"="),
    "hexadecimal": lambda data: data.hex().encode(),
    "percent": lambda data: b"".join(b"%%%02X" % byte for byte in data),
    "percent twice": lambda data: urllib.parse.quote(b"".join(b"%%%02X" % byte for byte in data)).encode(),
    "split": lambda data: b".".join(data[at : at + 3] for at in range(0, len(data), 3)),
    "laced with zero-width signs, escaped": lambda data: b"\\u200b".join(
        data[at : at + 1] for at in range(len(data))
    ),
    "laced with zero-width signs, in percent": lambda data: b"%E2%80%8B".join(
        data[at : at + 1] for at in range(len(data))
    ),
    "backwards": lambda data: data[::-1],
    "base64 of hexadecimal": lambda data: base64.b64encode(data.hex().encode()),
}


def deflated(data: bytes) -> bytes:
    made = zlib.compressobj(wbits=-15)
    return made.compress(data) + made.flush()


CODINGS: dict[str, tuple[str, Callable[[bytes], bytes]]] = {
    "gzip": ("gzip", gzip.compress),
    "deflate": ("deflate", zlib.compress),
    "deflate without its frame": ("deflate", deflated),
    "br": ("br", brotli.compress),
}


def chunked(body: bytes) -> bytes:
    head = b"POST http://plain.test/x HTTP/1.1\r\nHost: plain.test\r\nTransfer-Encoding: chunked\r\n\r\n"
    pieces = [body[at : at + 5] for at in range(0, len(body), 5)]
    return head + b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in (*pieces, b""))


def packed(name: str) -> Callable[[bytes], bytes]:
    coding, pack = CODINGS[name]
    return lambda data: post(pack(b"some text " + data), f"Content-Encoding: {coding}")


PLACES: dict[str, tuple[str, Callable[[bytes], bytes]]] = {
    "path": ("url", lambda data: get(f"/a/{data.decode()}/b")),
    "query": ("url", lambda data: get(f"/a?b=c&d={data.decode()}")),
    "header": ("header x-note", lambda data: get("/", f"X-Note: {data.decode()}")),
    "cookie": ("header cookie", lambda data: get("/", f"Cookie: a=b; c={data.decode()}")),
    "body": ("body", lambda data: post(b"some text " + data)),
    "JSON body": ("body", lambda data: post(json.dumps({"a": [data.decode()]}).encode())),
    "form": ("body", lambda data: post(b"a=b&c=" + urllib.parse.quote_plus(data).encode())),
    "body in small chunks": ("body", chunked),
    **{f"body, {name}": ("body", packed(name)) for name in CODINGS},
}


@pytest.fixture(scope="module")
def made(certificate: Certificate) -> Iterator[Place]:
    yield from bottle(certificate, SecretsPolicy(on_match="block"))


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("place", PLACES)
def test_it_leaves_at_no_place_in_no_encoding(made: Place, place: str, encoding: str) -> None:
    where, put = PLACES[place]
    what = fresh(made).refusal(put(ENCODINGS[encoding](VALUE)), "secret_found")
    assert (what["place"], what["detector"]) == (where, "sensitive value 1")
    assert SENSITIVE not in json.dumps(made.bundle.messages)


LABELS: dict[str, Callable[[bytes], str]] = {
    "plain": bytes.decode,
    "hexadecimal": bytes.hex,
    "base32": lambda data: base64.b32encode(data).rstrip(b"=").decode().lower(),
    "split over labels": lambda data: ".".join(
        data.decode()[at : at + 6].strip("-") for at in range(0, len(data), 6)
    ),
    "hexadecimal, split over labels": lambda data: data.hex()[:20] + "." + data.hex()[20:],
    "backwards": lambda data: data[::-1].decode(),
}


@pytest.mark.parametrize("encoding", LABELS)
def test_it_leaves_in_no_hosts_labels(made: Place, encoding: str) -> None:
    fresh(made).refusal(get("/", host=f"{LABELS[encoding](VALUE)}.wild.test"), "secret_found")
    assert SENSITIVE not in json.dumps(made.bundle.messages)


@pytest.mark.parametrize("place", PLACES)
def test_what_is_no_secret_passes_at_each_place(made: Place, place: str) -> None:
    head, _ = fresh(made).send(PLACES[place][1](b"another-word-of-9-letters"))
    assert head.startswith(b"HTTP/1.1 200 "), head
    assert len(made.api.seen) == 1
