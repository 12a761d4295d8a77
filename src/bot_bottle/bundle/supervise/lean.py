"""Importing the SDK's server without its client and without the frameworks above it: they are not used, and cost more than it.

`mcp` and `mcp.server` import everything that the SDK has when they are imported themselves. Here they are packages that import
nothing, in which the server's own modules are found as ever. It spares 12 MiB and a fifth of the start. Should another version
of the SDK not bear that, it is imported whole.
"""

import sys
from contextlib import suppress
from importlib.machinery import PathFinder
from types import ModuleType

_EMPTY = ("mcp", "mcp.server")


def load() -> None:
    """Imports everything that serving needs."""
    before = set(sys.modules)
    with suppress(ImportError, AttributeError):
        path: list[str] | None = None
        for name in _EMPTY:
            path = _empty(name, path)
        _load()
        return
    for name in set(sys.modules) - before:
        if name.partition(".")[0] == "mcp":
            del sys.modules[name]
    _load()


def _load() -> None:
    from bot_bottle.bundle.supervise import front, server  # noqa: F401


def _empty(name: str, path: list[str] | None) -> list[str]:
    """A package of that name that runs nothing of its own; where its modules are."""
    found = PathFinder.find_spec(name, path)
    if found is None or not found.submodule_search_locations:
        raise ImportError(name)
    package = ModuleType(name)
    package.__spec__ = found
    package.__path__ = list(found.submodule_search_locations)
    sys.modules[name] = package
    return package.__path__
