"""The named tuples that stand in for `typing`'s: the same from outside."""

import copy
import pickle
import subprocess
import sys
import typing

import pytest

from bot_bottle import typed
from bot_bottle.plan.model import Mount

BODY = '''
class {name}({base}.NamedTuple):
    """A pair."""

    one: int
    two: "str | None" = None
    """What the second is."""
    three: tuple[str, ...] = ()

    @property
    def both(self):
        return self.one, self.two

    @classmethod
    def of(cls, word):
        return cls(len(word), word)
'''
spaces = {"typed": typed, "typing": typing, "__name__": __name__}
for base, name in (("typed", "Ours"), ("typing", "Theirs")):
    exec(BODY.format(base=base, name=name), spaces)
Ours, Theirs = spaces["Ours"], spaces["Theirs"]
BOTH = pytest.mark.parametrize("kind", [Ours, Theirs])


@BOTH
def test_instances_are_tuples_with_names(kind):
    one = kind(1, three=("x",))
    assert one == (1, None, ("x",))
    assert (one.one, one.two, one.three, one.both) == (1, None, ("x",), (1, None))
    assert one._replace(two="b") == kind(1, "b", ("x",))
    assert one._asdict() == {"one": 1, "two": None, "three": ("x",)}
    assert repr(one) == f"{kind.__name__}(one=1, two=None, three=('x',))"
    assert (kind.of("ab"), type(kind.of("ab"))) == ((2, "ab", ()), kind)
    assert (copy.copy(one), hash(one)) == (one, hash(tuple(one)))
    assert (kind._make(one), kind._fields, kind.__match_args__) == (one, *[("one", "two", "three")] * 2)
    assert (kind._field_defaults, kind.__doc__) == ({"two": None, "three": ()}, "A pair.")
    match one:
        case kind(number, None):
            assert number == 1
    with pytest.raises(AttributeError):
        one.one = 2
    with pytest.raises(AttributeError):
        one.four = 2


@BOTH
@pytest.mark.parametrize("words", [{}, {"two": 1}, {"one": 1, "four": 2}])
def test_what_is_missing_or_unknown_is_a_type_error(kind, words):
    with pytest.raises(TypeError):
        kind(**words)
    with pytest.raises(TypeError):
        kind(1, "b", (), 4)
    with pytest.raises(TypeError):
        kind._make([1])
    with pytest.raises((TypeError, ValueError)):
        kind(1)._replace(four=4)


@BOTH
def test_a_class_below_has_its_own_instances(kind):
    class Below(kind):
        def more(self):
            return self.one + 1

    for made in (Below(1), kind(1), Below(1)):
        assert type(made) in (Below, kind)
    assert (type(Below(1)), Below(1).more(), type(kind(1))) == (Below, 2, kind)


def test_a_class_below_that_comes_first_does_not_take_over():
    class First(typed.NamedTuple):
        one: int

    class Below(First):
        pass

    assert (type(Below(1)), type(First(1)), type(Below(2))) == (Below, First, Below)


@pytest.mark.parametrize("module", [typed, typing])
def test_a_default_before_none_is_refused(module):
    with pytest.raises(TypeError):

        class Wrong(module.NamedTuple):
            one: int = 1
            two: int


def test_without_fields_there_is_one_value():
    class Nothing(typed.NamedTuple):
        pass

    assert (Nothing(), Nothing()._asdict()) == ((), {})


def test_one_of_the_products_own_survives_being_pickled():
    mount = Mount(source="/a", target="/b")
    assert pickle.loads(pickle.dumps(mount)) == mount
    assert type(pickle.loads(pickle.dumps(mount))) is Mount


def test_without_typing_the_rest_still_stands_in_annotations():
    code = """
import sys
assert "typing" not in sys.modules
from bot_bottle.typed import Any, Final, Literal, NamedTuple, NotRequired, Protocol, TypedDict, cast
Mode = Literal["a", "b"]
class Can(Protocol):
    def do(self, what: Any | None, mode: Mode | None = None) -> list[Any]: ...
class Document(TypedDict):
    name: NotRequired[str]
HOLDER: Final = "x"
assert cast("int", 5) == 5 and Document(name="n") == {"name": "n"}
assert "typing" not in sys.modules
"""
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", f"import sys; sys.path[:0] = {sys.path!r}\n{code}"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
