"""DNS messages: a bounded parser for one question, and the answers to it. Pure; every input gives an answer or none.

What stands behind the question (EDNS, padding, a smuggled payload) is not read at all.
"""

from bot_bottle.typed import NamedTuple

MAX_QUERY = 4096
HEADER = 12
NO_ERROR, FORMAT_ERROR, NAME_ERROR, NOT_IMPLEMENTED, REFUSED = 0, 1, 3, 4, 5
TYPE_A, CLASS_IN = 1, 1
TTL = 60
_MAX_NAME = 255
_RESPONSE, _RECURSION_DESIRED, _RECURSION_AVAILABLE = 0x8000, 0x0100, 0x0080
_OPCODE = 0x7800


class Question(NamedTuple):
    """`raw` is the question section as it came, so that the answer repeats it letter by letter (0x20 and all)."""

    name: bytes
    kind: int
    network: int
    raw: bytes


class Malformed(Exception):
    """No question could be read; `code` answers it, None means that it deserves no answer."""

    def __init__(self, code: int | None) -> None:
        super().__init__(code)
        self.code = code


def read_question(query: bytes) -> Question:
    """The one question of `query`. Raises Malformed."""
    if len(query) < HEADER or len(query) > MAX_QUERY:
        raise Malformed(None)
    flags = int.from_bytes(query[2:4], "big")
    if flags & _RESPONSE:  # answering an answer is how two servers are set on each other
        raise Malformed(None)
    if flags & _OPCODE:
        raise Malformed(NOT_IMPLEMENTED)
    if int.from_bytes(query[4:6], "big") != 1:
        raise Malformed(FORMAT_ERROR)
    labels, end = _labels(query)
    if end + 4 > len(query):
        raise Malformed(FORMAT_ERROR)
    kind, network = (
        int.from_bytes(query[end : end + 2], "big"),
        int.from_bytes(query[end + 2 : end + 4], "big"),
    )
    return Question(b".".join(labels), kind, network, query[HEADER : end + 4])


def _labels(query: bytes) -> tuple[list[bytes], int]:
    """The labels of the name behind the header, and where it ends. Compression is refused: nothing stands before it."""
    at = HEADER
    labels: list[bytes] = []
    while True:
        if at >= len(query) or at - HEADER >= _MAX_NAME:
            raise Malformed(FORMAT_ERROR)
        size = query[at]
        if not size:
            return labels, at + 1
        label = query[at + 1 : at + 1 + size]
        if size > 63 or len(label) < size or b"." in label:
            raise Malformed(FORMAT_ERROR)
        labels.append(label)
        at += 1 + size


def answer(query: bytes, code: int, question: Question | None = None, address: bytes | None = None) -> bytes:
    """The answer to `query` (at least a header long): `code`, its question, and an A record when there is an address."""
    asked = int.from_bytes(query[2:4], "big")
    flags = _RESPONSE | _RECURSION_AVAILABLE | asked & (_RECURSION_DESIRED | _OPCODE) | code
    counts = (int(question is not None), int(address is not None), 0, 0)
    header = query[:2] + flags.to_bytes(2, "big") + b"".join(count.to_bytes(2, "big") for count in counts)
    record = b""
    if address is not None:
        record = b"\xc0\x0c\0\x01\0\x01" + TTL.to_bytes(4, "big") + b"\0\x04" + address
    return header + (question.raw if question else b"") + record
