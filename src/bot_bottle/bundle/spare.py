"""What libraries import for things that no bundle does: left out while they are imported. It spares a bundle 4 MiB and 13 ms.

- `inspect` is asyncio's for debugging, and `dataclasses`' for docstrings, which nobody reads here.
- `email.utils` is cryptography's for mail addresses in certificates; it brings `urllib`, `random` and more.
- `logging` would go to a standard error that leads nowhere; `traceback` is asyncio's for debugging, too.
- `typing` is what asyncio and httptools write a few annotations with.
- `tokenize` is for tracebacks with lines of source, which a confined process can't read; `locale` for text from other programs.
- `ssl` is asyncio's; only a bundle that opens TLS needs it, and not there.
- asyncio's streams, subprocesses and what is Unix's alone in it: a bundle has a loop, tasks and times.
- `random` and the keys of `ssh` are cryptography's, for keys that are read from files.
- `datetime` is written twice, in C and in Python, which is read, thrown away and leaves holes: only the one in C is taken.

What stands in their place turns into the real module when more of it is used, as another version of a library may. In a confined
process that fails: it can load nothing.
"""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from importlib.machinery import ModuleSpec
from types import ModuleType, NoneType

from bot_bottle.typed import Any, cast

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


class _Empty(ModuleType):
    """Stands for a module of which others import names without using them."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)


class _OfAsyncio:
    """Finds empty modules for parts of asyncio, so that its package has them as it expects."""

    names = frozenset(
        f"asyncio.{name}"
        for name in (
            "base_subprocess runners sslproto staggered streams subprocess taskgroups threads unix_events"
        ).split()
    )

    def find_spec(self, name: str, _path: object, _target: object = None, /) -> ModuleSpec | None:
        return ModuleSpec(name, cast(Any, self)) if name in self.names else None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        made = Later(spec.name)
        vars(made)["__all__"] = ()
        return made

    def exec_module(self, module: ModuleType) -> None:
        """There is nothing in it."""


_OF_ASYNCIO = _OfAsyncio()


def _standing() -> dict[str, ModuleType]:
    names = (
        "inspect",
        "email.utils",
        "tokenize",
        "locale",
        "logging",
        "traceback",
        "typing",
        "random",
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
    # What asyncio asks of a callback that has failed, before it tells anybody: it must not fail as well.
    vars(found["inspect"]).update(
        signature=lambda *_, **__: "", unwrap=lambda function: function, isfunction=lambda _: False
    )
    vars(found["tokenize"])["open"] = _no_source
    vars(mail)["parseaddr"] = lambda *words, **options: mail.__getattr__("parseaddr")(*words, **options)
    keys = "cryptography.hazmat.primitives.serialization.ssh"
    return {**found, keys: _Empty(keys)}


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
    sys.modules.setdefault("datetime", import_module("_datetime"))
    sys.meta_path.insert(0, _OF_ASYNCIO)
    os.environ[_NO_OLD_CIPHERS] = "1"
    try:
        yield
    finally:
        del os.environ[_NO_OLD_CIPHERS]
        sys.meta_path.remove(_OF_ASYNCIO)
        for name in (*standing, *_OF_ASYNCIO.names):
            if isinstance(sys.modules.get(name, 0), (Later, _Empty, NoneType)):
                del sys.modules[name]
