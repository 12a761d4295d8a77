"""TLS that the bundle itself speaks to an upstream, for routes that ask for it. Imported only then: it is several MiB."""

import asyncio
import encodings.idna  # noqa: F401 - ssl needs it for every name, and would look for it too late
import socket
import ssl

from bot_bottle.bundle.egress.dial import DialFailed
from bot_bottle.bundle.egress.wire import CHUNK


class TlsTransport:
    """The two ends of an asyncio TLS stream as a transport."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def receive(self, limit: int) -> bytes:
        try:
            return await self._reader.read(limit)
        except ssl.SSLError as error:  # a broken record: the end, but not a proper one
            raise ConnectionResetError("TLS broke off") from error

    async def send(self, data: bytes) -> None:
        self._writer.write(data)
        await self._writer.drain()

    def close(self) -> None:
        self._writer.close()

    def abort(self) -> None:
        self._writer.transport.abort()


class Origin:
    """Makes TLS connections verified against the system's certificates; loads those once, before confinement."""

    def __init__(self, *, seconds: float, authorities: str | None = None) -> None:
        self._seconds = seconds
        self._context = ssl.create_default_context(cafile=authorities)
        self._context.minimum_version = ssl.TLSVersion.TLSv1_2
        self._context.set_alpn_protocols(["http/1.1"])

    async def __call__(self, sock: socket.socket, server_name: str) -> TlsTransport:
        try:
            async with asyncio.timeout(self._seconds):
                reader, writer = await asyncio.open_connection(
                    sock=sock, ssl=self._context, server_hostname=server_name, limit=CHUNK
                )
        except TimeoutError as error:
            sock.close()
            raise DialFailed(
                "tls_timeout", "the upstream's TLS handshake took too long", timeout=True
            ) from error
        except ssl.SSLCertVerificationError as error:
            sock.close()
            raise DialFailed(
                "certificate_not_valid", f"the upstream's certificate: {error.verify_message}"
            ) from error
        except (OSError, ssl.SSLError) as error:
            sock.close()
            raise DialFailed("tls_failed", "the upstream's TLS handshake failed") from error
        return TlsTransport(reader, writer)
