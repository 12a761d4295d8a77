"""Providers by name. Asking for one imports that one and no other; asking for the names imports none."""

from importlib import import_module

from bot_bottle.errors import NotFoundError
from bot_bottle.providers.base import Provider
from bot_bottle.typed import cast

_CLASSES = {
    "claude": "bot_bottle.providers.claude:Claude",
    "codex": "bot_bottle.providers.codex:Codex",
    "command": "bot_bottle.providers.command:AnyCommand",
    "gemini": "bot_bottle.providers.gemini:Gemini",
    "opencode": "bot_bottle.providers.opencode:Opencode",
}


def names() -> tuple[str, ...]:
    """Every provider there is, in alphabetical order."""
    return tuple(sorted(_CLASSES))


def provider(name: str) -> Provider:
    """The provider called `name`. Raises NotFoundError when there is none."""
    place = _CLASSES.get(name)
    if place is None:
        raise NotFoundError(f"There is no provider {name!r}", resolution=f"One of: {', '.join(names())}.")
    module, _, attribute = place.partition(":")
    return cast("Provider", getattr(import_module(module), attribute)())
