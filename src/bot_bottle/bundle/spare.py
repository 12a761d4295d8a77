"""What libraries import for things that no bundle does: left out while they are imported. It spares a bundle 2 MiB and 13 ms.

- `inspect` is asyncio's for debugging, and `dataclasses`' for docstrings, which nobody reads here.
- `email.utils` is cryptography's for mail addresses in certificates; it brings `urllib`, `random` and more.
- `logging` would go to a standard error that leads nowhere; `traceback` is asyncio's for debugging, too.
- `typing` is what asyncio and httptools write a few annotations with, mostly in `asyncio.staggered`, which races connections.
- `tokenize` is for tracebacks with lines of source, which a confined process can't read; `locale` for text from other programs.
- `ssl` is asyncio's; only a bundle that opens TLS needs it, and not there.

What stands in their place turns into the real module when more of it is used, as another version of a library may. In a confined
process that fails: it can load nothing.
"""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from types import ModuleType

from bot_bottle.typed import Any

_NO_OLD_CIPHERS = "CRYPTOGRAPHY_OPENSSL_NO_LEGACY"
"""What cryptography looks for in the environment when it is imported."""


class Later(ModuleType):
    """Stands for a module that is only imported when something of it is used that was not put here in its place."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # what an import asks for
            raise AttributeError(name)
        if sys.modules.get(self.__name__) is self:
            del sys.modules[self.__name__]
        return getattr(import_module(self.__name__), name)


def _no_source(path: str) -> Any:
    raise OSError(f"{path} is not read")


class _Mute:
    """A logger that nobody hears."""

    def _nothing(self, *_: object, **__: object) -> None:
        return

    debug = info = warning = error = critical = exception = log = addHandler = setLevel = _nothing  # noqa: N815

    def isEnabledFor(self, _: int) -> bool:  # noqa: N802 - as `logging` calls it
        return False


class _Annotation:
    """Stands in an annotation."""

    def __class_getitem__(cls, _: object) -> type:
        return cls


def _standing() -> dict[str, ModuleType]:
    names = (
        "inspect",
        "email.utils",
        "tokenize",
        "locale",
        "logging",
        "traceback",
        "typing",
        "asyncio.staggered",
    )
    found = {name: Later(name) for name in names}
    vars(found["logging"]).update(
        getLogger=lambda *_: _Mute(), DEBUG=10, INFO=20, WARNING=30, ERROR=40, CRITICAL=50
    )
    vars(found["traceback"])["extract_stack"] = lambda *_, **__: []
    vars(found["typing"]).update(
        final=lambda kind: kind, Optional=_Annotation, Type=_Annotation, Protocol=_Annotation
    )
    mail = found["email.utils"]
    vars(found["inspect"])["signature"] = lambda *_, **__: ""
    vars(found["tokenize"])["open"] = _no_source
    vars(mail)["parseaddr"] = lambda *words, **options: mail.__getattr__("parseaddr")(*words, **options)
    return dict(found)


_STANDING = _standing()


@contextmanager
def left_out(*, ssl: bool = False) -> Iterator[None]:
    """Whatever is imported meanwhile does without; what was imported before stays. With `ssl` it does without that, too."""
    standing: dict[str, Any] = dict(_STANDING)
    if not ssl:
        del standing["typing"]  # other libraries than asyncio and httptools make more of it than annotations
    if ssl and "asyncio" not in sys.modules:
        standing["ssl"] = (
            None  # asyncio knows how to live without it: 15 ms and 4 MiB of each bundle that needs none
        )
    standing = {name: module for name, module in standing.items() if name not in sys.modules}
    sys.modules.update(standing)
    os.environ[_NO_OLD_CIPHERS] = "1"
    try:
        yield
    finally:
        del os.environ[_NO_OLD_CIPHERS]
        for name, module in standing.items():
            if name in sys.modules and sys.modules[name] is module:
                del sys.modules[name]
