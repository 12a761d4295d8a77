"""The messages of gRPC in a body, so that each can be looked at whole although the body may never end; its refusals."""

from collections.abc import Awaitable, Callable

from bot_bottle.bundle.egress.heads import BadMessage, Headers

Look = Callable[[bytes, bool], Awaitable[bytes]]
"""One whole message (compressed or not) as it may go on. Raises Refusal. Of one longer than the limit, its beginning."""
_PREFIX = 5
_STATUS = {403: 7, 421: 7, 431: 8, 501: 12, 502: 14, 504: 14}
_INTERNAL = 13


class Messages:
    """Holds each message of a stream until it was looked at. One longer than `limit` goes on in pieces, if `look` allows that."""

    def __init__(self, look: Look, limit: int) -> None:
        self._look = look
        self._limit = limit
        self._held = bytearray()
        self._passes = 0

    @property
    def holds(self) -> int:
        """Bytes that wait for the rest of their message."""
        return len(self._held)

    async def feed(self, data: bytes) -> bytes:
        """What may go on now. Raises Refusal, and BadMessage for what are no messages."""
        out = bytearray()
        self._held += data
        while True:
            if self._passes:
                out += self._held[: self._passes]
                taken = min(self._passes, len(self._held))
                self._passes -= taken
                del self._held[:taken]
            if len(self._held) < _PREFIX:
                return bytes(out)
            if self._held[0] > 1:
                raise BadMessage("a malformed gRPC message")
            size = int.from_bytes(self._held[1:_PREFIX], "big")
            if len(self._held) - _PREFIX < min(size, self._limit + 1):
                return bytes(out)
            out += await self._next(size)

    def end(self) -> None:
        """Raises BadMessage when the last message is not whole."""
        if self._held or self._passes:
            raise BadMessage("a gRPC message that breaks off")

    async def _next(self, size: int) -> bytes:
        flag = self._held[0]
        if size > self._limit:
            await self._look(bytes(self._held[_PREFIX : _PREFIX + size]), bool(flag))
            self._passes = _PREFIX + size
            return b""
        message = await self._look(bytes(self._held[_PREFIX : _PREFIX + size]), bool(flag))
        del self._held[: _PREFIX + size]
        return bytes((flag,)) + len(message).to_bytes(4, "big") + message


def refusal(status: int, reason: str, message: str) -> Headers:
    """A whole answer that says no, as gRPC clients read it; its status and message alone are those of a stream that ends so."""
    return [(b":status", b"200"), (b"content-type", b"application/grpc"), *failure(status, reason, message)]


def failure(status: int, reason: str, message: str) -> Headers:
    """The trailers that say no."""
    text = f"bot-bottle: {reason}: {message}"
    quoted = "".join(char if " " <= char <= "~" and char != "%" else _quoted(char) for char in text)
    return [
        (b"grpc-status", b"%d" % _STATUS.get(status, _INTERNAL)),
        (b"grpc-message", quoted.encode("ascii")),
    ]


def _quoted(char: str) -> str:
    return "".join(f"%{byte:02X}" for byte in char.encode())
