"""Modules that are kept as packed code until somebody imports them, from memory: a confined process can read no file any more.

For what most bundles never use, and some use late. Modules of Python alone; what else they import has to be imported already.
"""

import marshal
import os
import sys
import zlib
from collections.abc import Iterator, Sequence
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from types import ModuleType

from bot_bottle.typed import Any, cast


class Stored:
    """Finds and runs what it holds; what was imported is held no longer."""

    def __init__(self) -> None:
        self._packed: dict[str, tuple[bytes, bool]] = {}

    def hold(self, names: Sequence[str]) -> None:
        """Takes these packages and all modules in them that are not imported yet. From now on they are imported from here."""
        for name in names:
            for spec in _within(name, None):
                if spec.name not in sys.modules and isinstance(spec.loader, SourceFileLoader):
                    code = marshal.dumps(spec.loader.get_code(spec.name))
                    is_package = spec.submodule_search_locations is not None
                    self._packed[spec.name] = zlib.compress(code, 1), is_package
        if self not in sys.meta_path:
            sys.meta_path.insert(0, self)

    def find_spec(
        self,
        fullname: str,
        _path: Sequence[str] | None,
        _target: ModuleType | None = None,
        /,
    ) -> ModuleSpec | None:
        if fullname not in self._packed:
            return None
        return ModuleSpec(fullname, cast(Any, self), is_package=self._packed[fullname][1])

    def create_module(self, _spec: ModuleSpec) -> None:
        """None: as usual."""

    def exec_module(self, module: ModuleType) -> None:
        packed, _ = self._packed.pop(module.__name__)
        exec(marshal.loads(zlib.decompress(packed)), vars(module))  # noqa: S102, S302 - code that was read before


def _within(name: str, path: Sequence[str] | None) -> Iterator[ModuleSpec]:
    """The specification of a module and, when it is a package, of everything in it."""
    if path is None and "." in name:
        path = list(sys.modules[name.rpartition(".")[0]].__path__)
    spec = PathFinder.find_spec(name, path)
    if spec is None:
        raise ImportError(f"there is no {name}")
    yield spec
    for folder in spec.submodule_search_locations or ():
        for entry in sorted(os.listdir(folder)):
            inner, extension = os.path.splitext(entry)
            if (extension == ".py" and inner != "__init__") or os.path.exists(
                f"{folder}/{entry}/__init__.py"
            ):
                yield from _within(f"{name}.{inner}", [folder])
