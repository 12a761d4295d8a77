"""TLS that the bundle itself speaks to upstreams. Imported only where a route asks for it: it is several MiB."""

import asyncio
import socket
import ssl
from collections import OrderedDict

from bot_bottle.bundle.egress.dial import DialFailed
from bot_bottle.bundle.egress.selector import DirectSelector
from bot_bottle.bundle.egress.tls import HTTP_1, TlsTransport, harden

_SESSIONS = 256
_SESSION_SECONDS = 600.0
"""A resumed session is not verified again, so the certificate was seen at most that long ago."""


class _Kept:
    """A session that can be taken up again."""

    __slots__ = ("session", "verified_at")

    def __init__(self, session: ssl.SSLSession, verified_at: float) -> None:
        self.session = session
        self.verified_at = verified_at


class OriginTransport(TlsTransport):
    """A TlsTransport that leaves the session that it was verified for to the next connections to the same place."""

    keep: "OrderedDict[tuple[str, str], _Kept] | None" = None
    place: tuple[str, str] = ("", "")
    verified_at = 0.0

    def close(self) -> None:
        if self.keep is not None and self.sock.fileno() >= 0 and not self.resumed():
            session = self.session()
            if session is not None:
                self.keep[self.place] = _Kept(session, self.verified_at)
                self.keep.move_to_end(self.place)
                while len(self.keep) > _SESSIONS:
                    self.keep.popitem(last=False)
        super().close()


class Origin:
    """Makes TLS connections verified against the system's certificates and `authorities` (PEM); loads both before confinement."""

    def __init__(self, selector: DirectSelector, *, seconds: float, authorities: str = "") -> None:
        self._selector = selector
        self._seconds = seconds
        self._context = harden(ssl.create_default_context())
        if authorities:
            self._context.load_verify_locations(cadata=authorities)
        self._sessions: OrderedDict[tuple[str, str], _Kept] = OrderedDict()

    async def __call__(
        self, sock: socket.socket, server_name: str, /, *, protocol: str = HTTP_1
    ) -> TlsTransport:
        now = asyncio.get_running_loop().time()
        place = (server_name, f"{sock.getpeername()} {protocol}")
        kept = self._sessions.get(place)
        if kept is not None and now - kept.verified_at > _SESSION_SECONDS:
            del self._sessions[place]
            kept = None
        self._context.set_alpn_protocols([protocol])  # a connection takes over what is set when it is made
        transport = OriginTransport(
            sock,
            self._selector,
            self._context,
            server_name=server_name,
            session=kept.session if kept else None,
        )
        try:
            await transport.handshake(self._seconds)
        except TimeoutError as error:
            failure = DialFailed("tls_timeout", "the upstream's TLS handshake took too long", timeout=True)
            cause: Exception = error
        except ssl.SSLCertVerificationError as error:
            text = f"the upstream's certificate is not valid: {error.verify_message}"
            failure, cause = DialFailed("certificate_not_valid", text), error
        except ssl.SSLError as error:
            text = f"the upstream's TLS handshake failed: {_said(error)}"
            failure, cause = DialFailed("tls_failed", text), error
            if protocol != HTTP_1 and "no application protocol" in text:
                failure = _other_protocol(protocol)
        except OSError as error:
            failure, cause = DialFailed("tls_failed", "the upstream ended during the TLS handshake"), error
        except asyncio.CancelledError:  # the policy changed meanwhile, or the agent went away
            transport.close()
            raise
        else:
            if protocol != HTTP_1 and transport.protocol() != protocol:
                transport.close()
                raise _other_protocol(protocol)
            transport.keep, transport.place = self._sessions, place
            transport.verified_at = now
            return transport
        transport.close()
        raise failure from cause


def _other_protocol(protocol: str) -> DialFailed:
    return DialFailed("no_h2", f"the upstream does not speak {protocol}, which is all that the client speaks")


def _said(error: ssl.SSLError) -> str:
    """OpenSSL's name for it, as words."""
    return (error.reason or "unknown").lower().replace("_", " ")
