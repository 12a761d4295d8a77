"""Backends by name; only the one that is named is imported."""

from collections.abc import Callable
from importlib import import_module

from bot_bottle.backends.base import Backend
from bot_bottle.errors import NotFoundError
from bot_bottle.typed import cast

_MODULES = {
    "namespace": "bot_bottle.backends.namespace.backend",
    "docker": "bot_bottle.backends.docker.backend",
    "smolmachines": "bot_bottle.backends.smolmachines.backend",
}

NAMES = tuple(_MODULES)


def backend(name: str) -> Backend:
    """The backend called `name`. Raises NotFoundError."""
    if name not in _MODULES:
        raise NotFoundError(f"There is no backend {name!r}", resolution=f"Use one of: {', '.join(NAMES)}")
    make = cast(Callable[[], Backend], import_module(_MODULES[name]).make)
    return make()
