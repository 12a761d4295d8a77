"""Renewing a login in a process of its own, which ends what it began whatever becomes of the one that asked for it.

Between the server's answer and the file there must be nobody who stops it: not Ctrl-C, not the end of the run.
"""

import json
import os

from bot_bottle.errors import HostError
from bot_bottle.host import oauth, spawn
from bot_bottle.secret import Secret


def start(login: oauth.Login, *, held: Secret | None) -> tuple[int, int]:
    """Begins to renew it; the process's id, and the descriptor on which `outcome` finds what came of it at its end."""

    def body(say: spawn.Say) -> None:
        os.setsid()
        try:
            token = oauth.renew(login, held=held)
            said = {"access": token.access.reveal(), "expires": token.expires}
        except HostError as error:
            said = {
                "lost": isinstance(error, oauth.LoginLost),
                "brief": error.brief,
                "details": error.details,
                "resolution": error.resolution,
            }
        say(json.dumps(said).encode())

    return spawn.fork(body, keep=(), outlives=True)


def outcome(message: bytes) -> oauth.Token:
    """The token in what the process said. Raises what it raised, HostError when it said nothing of use."""
    try:
        said = json.loads(message)
        if "access" in said:
            return oauth.Token(Secret(said["access"]), said["expires"])
        kind = oauth.LoginLost if said["lost"] else HostError
        raise kind(said["brief"], details=said["details"], resolution=said["resolution"])
    except (ValueError, KeyError, TypeError) as error:
        raise HostError("Renewing the login ended without an answer") from error


def renew_apart(login: oauth.Login, *, held: Secret | None) -> oauth.Token:
    """`oauth.renew` in such a process, waited for. Raises as it does."""
    pid, report = start(login, held=held)
    try:
        with open(report, "rb") as said:
            message = said.read()
    finally:
        os.waitpid(pid, 0)
    return outcome(message)
