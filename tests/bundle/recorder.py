"""An upstream for tests of what reaches one: it remembers every byte."""

import socket
import ssl

from tests.bundle.harness import Server, until
from tests.bundle.origins import over_tls

_UNVERIFIED = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
_UNVERIFIED.check_hostname = False
_UNVERIFIED.verify_mode = ssl.CERT_NONE


class Recorder:
    """Answers each `\\r\\n\\r\\n` once. With a context it speaks TLS, and remembers what was said inside."""

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self.seen: list[bytearray] = []
        self.busy = 0
        self._tls = tls
        self.server = Server(over_tls(tls, self._serve) if tls else self._serve)

    def _serve(self, sock: socket.socket) -> None:
        seen = bytearray()
        self.seen.append(seen)
        self.busy += 1
        answered = 0
        try:
            while part := sock.recv(65536):
                seen += part
                ends = seen.count(b"\r\n\r\n")
                for _ in range(answered, ends):
                    sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
                answered = ends
        finally:
            self.busy -= 1

    def everything(self) -> bytes:
        """What came, once all connections made so far were taken and have ended: a last one of our own comes behind them."""
        mark = b"mark %d" % len(self.seen)
        with socket.create_connection(("127.0.0.1", self.server.port)) as bare:
            if self._tls is None:
                bare.sendall(mark)
            else:
                with _UNVERIFIED.wrap_socket(bare) as sock:
                    sock.sendall(mark)
        until(lambda: mark in self.seen and not self.busy)
        return b"".join(seen for seen in self.seen if not seen.startswith(b"mark "))

    def forget(self) -> None:
        self.everything()
        self.seen.clear()
