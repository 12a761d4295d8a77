"""A tunnel through another proxy: CONNECT on a connection that was just opened to it."""

import asyncio
import re
import socket

from bot_bottle.bundle.egress.dial import DialFailed
from bot_bottle.secret import Secret

_MOST = 16 * 1024
_STATUS = re.compile(rb"HTTP/1\.[01] ([0-9]{3})(?: [^\r\n]*)?")


async def connect_through(
    sock: socket.socket, host: str, port: int, authorization: Secret | None, seconds: float
) -> None:
    """Makes `sock`, connected to a proxy, lead to `host` and `port`. Raises DialFailed; `sock` is the caller's to close."""
    try:
        async with asyncio.timeout(seconds):
            status = await _ask(sock, host, port, authorization)
    except TimeoutError as error:
        raise DialFailed("proxy_timeout", "the proxy did not answer in time", timeout=True) from error
    except OSError as error:
        raise DialFailed("proxy_failed", "the proxy broke off") from error
    if not 200 <= status < 300:
        raise DialFailed(
            f"proxy_status_{status}", f"the proxy answered with status {status}", refused=status == 403
        )


async def _ask(sock: socket.socket, host: str, port: int, authorization: Secret | None) -> int:
    loop = asyncio.get_running_loop()
    lines = [f"CONNECT {host}:{port} HTTP/1.1", f"Host: {host}:{port}"]
    if authorization is not None:
        lines.append(f"Proxy-Authorization: {authorization.reveal()}")
    await loop.sock_sendall(sock, "\r\n".join([*lines, "", ""]).encode("ascii"))
    heard = b""
    while b"\r\n\r\n" not in heard:
        data = await loop.sock_recv(sock, 4096)
        if not data or len(heard) > _MOST:
            raise DialFailed("proxy_malformed", "the proxy gave no usable answer")
        heard += data
    head, _, rest = heard.partition(b"\r\n\r\n")
    match = _STATUS.fullmatch(head.partition(b"\r\n")[0])
    if match is None or (rest and match[1].startswith(b"2")):
        raise DialFailed("proxy_malformed", "the proxy gave no usable answer")
    return int(match[1])
