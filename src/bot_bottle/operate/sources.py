"""Which of the secrets that bottles name could be read now: looked at without reading one."""

import json
import os
import shutil
from collections.abc import Iterator
from typing import NamedTuple

from bot_bottle.errors import BotBottleError


class Missing(NamedTuple):
    """One secret that could not be read."""

    bottle: str
    name: str
    seen: str
    do: str


def keyring() -> tuple[str, str]:
    """The system's keyring as bottles would use it, and what to do when there is none."""
    try:
        import keyring as library
        from keyring.backends.fail import Keyring
    except ImportError:
        return "the library is not installed", "For `keyring:` in a bottle: pip install 'bot-bottle[keyring]'"
    found = library.get_keyring()
    if isinstance(found, Keyring):
        return (
            "no keyring answers here",
            "`keyring:` in a bottle needs a Secret Service, KWallet or another backend.",
        )
    return str(found.name), ""


def missing(root: str) -> Iterator[Missing]:
    """Every secret of every bottle below `root` that could not be read; bottles that are wrong are `validate`'s."""
    from bot_bottle.manifest.load import load_bottle
    from bot_bottle.manifest.places import known_bottles

    for bottle in known_bottles(root):
        try:
            made = load_bottle(bottle, root=root)
        except BotBottleError:
            continue
        named = {name: item["source"] for name, item in made["credentials"].items()}
        for name, source in {**named, **made["sensitive"]}.items():
            seen, do = _look(source)
            if seen:
                yield Missing(bottle, name, seen, do)


def _look(source: str) -> tuple[str, str]:
    """What is wrong with a source, and what to do; empty when nothing is."""
    kind, _, place = source.partition(":")
    if kind == "env" and not os.environ.get(place):
        return f"{place} is not set", f"export {place}=…"
    if kind == "file" and not os.access(place, os.R_OK):
        return f"{place} can't be read", f"Write it to {place}."
    if kind == "command" and not shutil.which(program := json.loads(place)[0]):
        return f"{program} was not found", f"Install {program}, or write its whole path."
    if kind == "keyring":
        return keyring() if keyring()[1] else ("", "")
    return _look_at_login(place) if kind == "oauth" else ("", "")


def _look_at_login(place: str) -> tuple[str, str]:
    from bot_bottle.host import oauth

    login = oauth.Login.parse(place)
    try:
        kept = oauth.read(login)
    except BotBottleError as error:
        return error.brief, error.resolution
    if not kept.refresh:
        return f"the login in {login.file} can't be renewed: it has no refresh token", "Log in again."
    if not os.access(os.path.dirname(os.path.realpath(login.file)), os.W_OK):
        return f"the login in {login.file} can't be renewed: its folder can't be written", "Make it writable."
    return "", ""
