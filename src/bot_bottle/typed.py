"""What every start needs of `typing`, without importing it: that takes 3 ms, and each of its named tuples another 0.1.

For whoever checks types these are `typing`'s own. `NamedTuple` makes the same classes, a good deal sooner: their annotations are
not looked at, and the function that makes an instance is only compiled for the first one. The others have no meaning when a
program runs; where `typing` is there at any rate, they are its own, for whoever wants to look at annotations.
"""

import sys
from _collections import _tuplegetter  # type: ignore[import-not-found] # what `collections.namedtuple` is made of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import IO as IO
    from typing import Any as Any
    from typing import Final as Final
    from typing import Literal as Literal
    from typing import NamedTuple as NamedTuple
    from typing import NoReturn as NoReturn
    from typing import NotRequired as NotRequired
    from typing import Protocol as Protocol
    from typing import TypedDict as TypedDict
    from typing import cast as cast
else:
    if "typing" in sys.modules:
        from typing import IO, Any, Final, Literal, NoReturn, NotRequired, Protocol, TypedDict, cast
    else:

        class Any:
            """Stands in an annotation."""

            def __class_getitem__(cls, _: object) -> type:
                return cls

        IO = Final = Literal = NoReturn = NotRequired = Any

        class Protocol:
            """Nothing of a protocol is there when a program runs but what it documents."""

        class TypedDict(dict):
            """A dictionary."""

        def cast(_: object, value: object) -> object:
            """`value`."""
            return value

    class _Tuple(tuple):
        """What all named tuples have in common, as `collections.namedtuple` has it."""

        __slots__ = ()
        _fields = ()
        _field_defaults = {}  # noqa: RUF012 - as in `typing`

        def __new__(cls, /, *values: object, **named: object) -> "_Tuple":
            """The first instance of a class: makes what makes them from then on."""
            made = next(kind for kind in cls.__mro__ if "_fields" in kind.__dict__)
            made.__new__ = _maker(made)
            return made.__new__(cls, *values, **named)

        @classmethod
        def _make(cls, values: object) -> "_Tuple":
            made = tuple.__new__(cls, values)
            if len(made) != len(cls._fields):
                raise TypeError(f"Expected {len(cls._fields)} arguments, got {len(made)}")
            return made

        def _replace(self, /, **named: object) -> "_Tuple":
            made = self._make(map(named.pop, self._fields, self))
            if named:
                raise ValueError(f"Got unexpected field names: {list(named)!r}")
            return made

        def _asdict(self) -> dict[str, object]:
            return dict(zip(self._fields, self, strict=True))

        def __repr__(self) -> str:
            shown = ", ".join(f"{name}={value!r}" for name, value in zip(self._fields, self, strict=True))
            return f"{self.__class__.__name__}({shown})"

        def __getnewargs__(self) -> tuple[object, ...]:
            return tuple(self)

    def _maker(made: type) -> object:
        """The function that makes an instance of `made`, its fields being its arguments."""
        names = ", ".join(made._fields)
        source = f"lambda _cls, {names}: _new(_cls, ({names}{',' if made._fields else ''}))"
        function = eval(source, {"_new": tuple.__new__, "__name__": made.__module__})  # noqa: S307 - names of fields
        function.__defaults__ = tuple(made._field_defaults.values())
        function.__annotations__ = {name: made.__annotations__[name] for name in made._fields}
        function.__name__, function.__qualname__ = "__new__", f"{made.__qualname__}.__new__"
        return function

    def _annotations(space: dict[str, object]) -> dict[str, object]:
        """What stands in a class's body; from Python 3.14 on, a function in there tells it."""
        tell = space.get("__annotate_func__") or space.get("__annotate__")
        return tell(1) if tell else space.get("__annotations__", {})

    class _Maker(type):
        def __new__(cls, name: str, bases: tuple[type, ...], space: dict[str, object]) -> type:
            if not bases:
                return super().__new__(cls, name, bases, space)
            fields = tuple(_annotations(space))
            defaults = {field: space[field] for field in fields if field in space}
            if tuple(defaults) != fields[len(fields) - len(defaults) :]:
                raise TypeError(f"{name}: a field without a default follows one with a default")
            for number, field in enumerate(fields):
                space[field] = _tuplegetter(number, "")
            space.update(__slots__=(), _fields=fields, _field_defaults=defaults, __match_args__=fields)
            return type(name, (_Tuple,), space)

    class NamedTuple(metaclass=_Maker):
        """The base of a class with annotated fields; see `typing.NamedTuple`."""
