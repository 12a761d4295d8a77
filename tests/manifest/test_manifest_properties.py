"""Whatever stands in the files: an answer or an error of the one shape, and no route that nobody wrote."""

import contextlib
import tempfile
from pathlib import Path
from typing import get_args, get_origin, get_type_hints

import jsonschema
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bot_bottle.errors import BotBottleError
from bot_bottle.manifest.compose import route_document
from bot_bottle.manifest.document import BottleDocument, ManifestDocument, RouteDocument
from bot_bottle.manifest.load import load, load_bottle
from bot_bottle.manifest.model import Route
from bot_bottle.manifest.schema import json_schema

few = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
KEYS = [
    "extends",
    "backend",
    "image",
    "workspace",
    "resources",
    "egress",
    "credentials",
    "git",
    "env",
    "supervise",
    "cpus",
    "memory",
    "pids",
    "engine",
    "routes",
    "secrets",
    "on_match",
    "host",
    "protocol",
    "port",
    "methods",
    "paths",
    "upstream",
    "credential",
    "from",
    "file",
    "command",
    "keyring",
    "header",
    "prefix",
    "bearer",
    "user",
    "name",
    "email",
    "remotes",
    "url",
    "key",
    "known_host",
    "provider",
    "bottle",
    "model",
    "base_url",
    "skills",
]
WORDS = [
    "true",
    "a.org",
    "*.a.org",
    "tcp",
    "http",
    "https",
    "4GiB",
    "GET",
    "/x/**",
    "default",
    "command",
    "k",
    "x-key",
    "docker",
]
plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-5, 70000)
    | st.floats()
    | st.sampled_from(WORDS)
    | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(KEYS) | st.text(max_size=4), inner, max_size=5)
    ),
    max_leaves=25,
)
HOSTS = st.sampled_from(["a.org", "b.org", "*.a.org", "A.org", "c.example"])
routes = st.fixed_dictionaries(
    {"host": HOSTS},
    optional={
        "protocol": st.sampled_from(["https", "http"]),
        "methods": st.lists(st.sampled_from(["GET", "POST"]), min_size=1, max_size=2),
        "paths": st.lists(st.sampled_from(["/x", "/**"]), min_size=1, max_size=2),
        "upstream": st.sampled_from(["127.0.0.1:80", "https://up.example.org"]),
        "port": st.sampled_from([443, 8443]),
    },
)
bottles = st.fixed_dictionaries(
    {},
    optional={
        "supervise": st.booleans(),
        "backend": st.sampled_from(["namespace", "docker"]),
        "env": st.dictionaries(st.sampled_from(["A", "B"]), st.text("abc", max_size=3)),
        "resources": st.fixed_dictionaries(
            {}, optional={"cpus": st.integers(1, 4), "memory": st.just("1GiB")}
        ),
        "egress": st.fixed_dictionaries({}, optional={"routes": st.lists(routes, max_size=3)}),
    },
)


def written(front: object) -> str:
    return f"---\n{yaml.safe_dump(front, allow_unicode=True)}\n---\n"


@contextlib.contextmanager
def root_with(**files: bytes):
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        for name, raw in files.items():
            kind = "agents" if name.startswith("agent") else "bottles"
            (root / kind).mkdir(exist_ok=True)
            (root / kind / f"{name}.md").write_bytes(raw)
        yield root


def answers_or_says(raw_agent: bytes, raw_bottle: bytes) -> None:
    with root_with(agent=raw_agent, default=raw_bottle) as root:
        with contextlib.suppress(BotBottleError):
            holds_to(ManifestDocument, load("agent", root=root, repository=None))


def holds_to(shape: object, value: object) -> None:
    """Raises AssertionError when `value` is not what the TypedDict says."""
    origin, arguments = get_origin(shape), get_args(shape)
    if hasattr(shape, "__required_keys__"):
        assert isinstance(value, dict)
        assert shape.__required_keys__ <= value.keys() <= set(shape.__annotations__), value.keys()
        for key, inner in get_type_hints(shape).items():
            if key in value:
                holds_to(inner, value[key])
    elif origin is list:
        assert isinstance(value, list)
        for item in value:
            holds_to(arguments[0], item)
    elif origin is dict:
        assert isinstance(value, dict)
        for key, item in value.items():
            holds_to(arguments[0], key)
            holds_to(arguments[1], item)
    elif isinstance(shape, type):
        assert type(value) is shape, (shape, value)
    elif all(not isinstance(argument, type) and get_origin(argument) is None for argument in arguments):
        assert value in arguments
    else:
        assert any(fits(argument, value) for argument in arguments), (shape, value)


def fits(shape: object, value: object) -> bool:
    try:
        holds_to(shape, value)
    except AssertionError:
        return False
    return True


@few
@given(st.binary(max_size=200), st.binary(max_size=200))
def test_any_bytes_give_an_answer_or_an_error_of_the_one_shape(agent: bytes, bottle: bytes) -> None:
    answers_or_says(agent, bottle)


@few
@given(st.binary(max_size=200) | st.text(max_size=200).map(lambda text: text.encode(errors="surrogatepass")))
def test_any_front_matter_gives_an_answer_or_an_error_of_the_one_shape(raw: bytes) -> None:
    answers_or_says(b"---\n---\n", b"---\n" + raw + b"\n---\n")


@few
@given(st.text("abE:-{}[],&*!|>'\"%@#?\\ \n\t<~0.", max_size=120))
def test_any_yaml_punctuation_gives_an_answer_or_an_error_of_the_one_shape(text: str) -> None:
    answers_or_says(b"---\n---\n", f"---\n{text}\n---\n".encode())


@few
@given(plain, plain)
def test_any_structure_gives_an_answer_or_an_error_of_the_one_shape(agent: object, bottle: object) -> None:
    answers_or_says(written(agent).encode(), written(bottle).encode())


@few
@given(st.dictionaries(st.sampled_from(KEYS), plain, max_size=6))
def test_any_known_key_with_any_value_gives_an_answer_or_an_error_of_the_one_shape(front: object) -> None:
    answers_or_says(written(front).encode(), written(front).encode())


@few
@given(bottles)
def test_what_the_loader_takes_the_schema_takes_and_the_document_has_its_shape(front: dict) -> None:
    with root_with(one=written(front).encode()) as root, contextlib.suppress(BotBottleError):
        holds_to(BottleDocument, load_bottle("one", root=root))
        jsonschema.validate(front, json_schema("bottle"))


@few
@given(st.dictionaries(st.sampled_from(KEYS), plain, max_size=6))
def test_the_schema_is_never_stricter_than_the_loader(front: dict) -> None:
    with root_with(one=written(front).encode()) as root, contextlib.suppress(BotBottleError):
        load_bottle("one", root=root)
        jsonschema.validate(front, json_schema("bottle"))


@few
@given(bottles, bottles, bottles, st.sampled_from([["a", "b"], ["b", "a"], ["a"], ["b", "b"]]))
def test_a_composed_bottle_has_no_route_that_none_of_its_files_states(
    a: dict, b: dict, own: dict, order: list[str]
) -> None:
    own = {**own, "extends": order}
    b = {**b, "extends": "a"}
    with root_with(a=written(a).encode(), b=written(b).encode(), own=written(own).encode()) as root:
        try:
            composed = load_bottle("own", root=root)
        except BotBottleError:
            return
    used = [own, a, b] if "b" in order else [own, a]
    stated = [route for front in used for route in front.get("egress", {}).get("routes", [])]
    allowed = [route_document(Route.model_validate(route)) for route in stated]
    assert all(route in allowed for route in composed["egress"]["routes"])
    assert {scope(route) for route in allowed} == {scope(route) for route in composed["egress"]["routes"]}


def scope(route: RouteDocument) -> tuple:
    return (route["host"], route["port"], route["protocol"], *route["methods"], *route["paths"])
