"""What pydantic found, in a person's words: which key, on which line, what is wrong, what to write."""

import difflib
import typing
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import BaseModel, ValidationError

from bot_bottle.manifest.frontmatter import FrontMatter, Path, Report, shown

_TYPES = {
    "string_type": "must be text",
    "bool_type": "must be true or false",
    "list_type": "must be a list (`- item` lines, or `[item, item]`)",
    "dict_type": "must be a map of `key: value` lines",
    "model_type": "must be a map of `key: value` lines",
    "float_type": "must be a number",
    "int_type": "must be a whole number",
    "int_from_float": "must be a whole number",
    "greater_than": "must be more than {gt}",
    "greater_than_equal": "must be {ge} or more",
    "less_than_equal": "must be {le} or less",
    "finite_number": "must be a finite number",
    "string_too_long": "is longer than {max_length} characters",
    "string_too_short": "must not be empty; take the key away, or give it a value",
    "too_short": "must not be empty; take the key away, or give it a value",
}


def report_errors(error: ValidationError, model: type[BaseModel], front: FrontMatter, report: Report) -> None:
    """Reports each error of `error` on its line, but not again what was reported of the same place before."""
    for found in error.errors(include_url=False):
        if found["type"] == "literal_error" and found["ctx"]["expected"] == "True":
            continue  # of a key that is `true` or text, what is said of the text is all there is to say
        path = _place(found["loc"], model)
        if front.is_bad(path):
            continue
        report(front.line(path), _sentence(found["type"], path, found, model))


def _place(loc: Path, model: type[BaseModel]) -> Path:
    """Where in the file `loc` is: without what pydantic adds for a map's keys, and for a key of several types."""
    path = tuple(part for part in loc if part != "[key]")
    return path[:-1] if len(path) > 1 and _is_kind_of(path, model) else path


def _is_kind_of(path: Path, model: type[BaseModel]) -> bool:
    """Whether the last part names one of a value's types, and no key."""
    keys = list(_keys(_model_at(model, path[:-2])))
    return isinstance(path[-1], str) and "[" in path[-1] and path[-2] in keys


def _sentence(kind: str, path: Path, found: Mapping[str, Any], model: type[BaseModel]) -> str:
    context = found.get("ctx", {})
    if kind == "extra_forbidden":
        return _unknown_key(path, model)
    where = f"{shown(path)}: " if path else ""
    if kind == "missing":
        return f"{where}is missing; add it"
    if kind == "wrong":
        return where + str(context["what"])
    if kind == "literal_error":
        return where + _not_one_of(str(context["expected"]), found["input"])
    if kind in _TYPES:
        return where + _TYPES[kind].format(**context) + _quoting(kind, found["input"])
    return where + str(found["msg"])


def _quoting(kind: str, value: object) -> str:
    """What a value that should be text was taken for; it may be a secret and is not repeated itself."""
    if kind == "string_type" and isinstance(value, bool | int | float):
        kind_of_value = "true or false" if isinstance(value, bool) else "a number"
        return f", and this reads as {kind_of_value}; put it in quotes"
    return ""


def _not_one_of(expected: str, value: object) -> str:
    words = [word.strip("' ") for word in expected.replace(" or ", ", ").split(", ")]
    near = difflib.get_close_matches(str(value), words, n=1) if isinstance(value, str) else []
    meant = f"; did you mean `{near[0]}`?" if near else ""
    return "must be one of " + ", ".join(f"`{word}`" for word in words) + meant


def _unknown_key(path: Path, model: type[BaseModel]) -> str:
    key, around = str(path[-1]), path[:-1]
    here = list(_keys(_model_at(model, around)))
    inside = f" in {shown(around)}" if around else ""
    text = f"unknown key `{key[:60]}`{inside}"
    home = next((place for place, name in _all_keys(model, ()) if name == key), None)
    near = difflib.get_close_matches(key, here, n=1, cutoff=0.6 if home is None else 0.75)
    if near:
        return f"{text}; did you mean `{near[0]}`?"
    if home is not None:
        return f"{text}; it belongs under `{shown(home)}`" if home else f"{text}; it belongs at the top"
    return f"{text}; known here: {', '.join(here)}"


def _keys(model: type[BaseModel] | None) -> Iterator[str]:
    for name, field in (model.model_fields if model else {}).items():
        yield field.alias or name


def _all_keys(model: type[BaseModel], path: Path) -> Iterator[tuple[Path, str]]:
    for name, field in model.model_fields.items():
        key = field.alias or name
        yield path, key
        inner, _ = _inner(field.annotation)
        if inner is not None:
            yield from _all_keys(inner, (*path, key))


def _model_at(model: type[BaseModel], path: Path) -> type[BaseModel] | None:
    """The model that checks the map at `path`."""
    current: type[BaseModel] | None = model
    names = iter(part for part in path if isinstance(part, str))
    for name in names:
        fields = current.model_fields.values() if current else ()
        keys = dict(zip(_keys(current), fields, strict=True))
        current, by_name = _inner(keys[name].annotation) if name in keys else (None, False)
        if by_name:
            next(names, None)
    return current


def _inner(annotation: object) -> tuple[type[BaseModel] | None, bool]:
    """The model inside `list[…]`, `… | None`, `dict[str, …]`; and whether it is one of a map's by name."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation, False
    for argument in typing.get_args(annotation):
        inner, by_name = _inner(argument)
        if inner is not None:
            return inner, by_name or typing.get_origin(annotation) is dict
    return None, False
