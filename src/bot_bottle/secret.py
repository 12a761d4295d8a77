"""A value that must not be shown.

`Secret` keeps a credential from standing in a log, a traceback or a plan by accident: it prints as `<secret>`, can't be
pickled or put into JSON, and gives its value only when asked by name.
"""

from bot_bottle.typed import NoReturn


class Secret:
    """Holds `value` (text); `reveal()` is the only way to it."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        return self._value

    def __repr__(self) -> str:
        return "<secret>"

    __str__ = __repr__

    def __reduce__(self) -> NoReturn:
        raise TypeError("a secret is not pickled")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other._value == self._value

    def __hash__(self) -> int:
        return hash(("secret", self._value))
