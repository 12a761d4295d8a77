"""Putting a credential into a request on its way to the upstream: after everything was judged and looked at, and only there."""

from bot_bottle.bundle.egress.heads import Headers
from bot_bottle.bundle.model import HeaderValue


def inject(target: bytes, headers: Headers, credential: HeaderValue) -> tuple[bytes, Headers]:
    """`target` and `headers` with `credential` in the place of whatever the agent put there."""
    name = credential.header.lower().encode("ascii")
    kept = [(key, value) for key, value in headers if key != name]
    return target, [*kept, (credential.header.encode("ascii"), credential.value.reveal().encode())]
