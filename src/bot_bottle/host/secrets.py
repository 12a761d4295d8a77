"""Reads credentials where the bottle's file says they are. They are held in memory only."""

import os

from bot_bottle.errors import HostError
from bot_bottle.plan.model import Credential
from bot_bottle.secret import Secret

LARGEST = 65536


def read(credential: Credential) -> Secret:
    """The header value of `credential` (prefix included). Raises HostError that says which is missing, never a value."""
    kind, _, place = credential.source.partition(":")
    value = os.environ.get(place, "") if kind == "env" else _file(credential.name, place)
    value = value.strip()
    if not value:
        raise HostError(
            f"The credential {credential.name} is empty",
            details=f"It is read from {credential.source}.",
            resolution=f"export {place}=…" if kind == "env" else f"Write it to {place}.",
        )
    if not value.isascii() or not value.isprintable():
        raise HostError(
            f"The credential {credential.name} can't stand in a header",
            details="It has control or non-ASCII characters.",
        )
    return Secret(credential.prefix + value)


def _file(name: str, place: str) -> str:
    try:
        with open(os.path.expanduser(place), encoding="utf-8", errors="surrogateescape") as file:
            return file.read(LARGEST)
    except OSError as error:
        raise HostError(f"The credential {name} can't be read", details=str(error)) from error
