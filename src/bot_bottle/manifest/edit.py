"""Changing a bottle's file as its author would: a few lines more, everything else, comments too, as it was. Pure.

The places are those that the YAML reader gives; what came out is read again, so an edit that would say something else than it
should is refused.
"""

import json
from collections.abc import Sequence
from typing import NamedTuple

import yaml
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode


class CantEdit(ValueError):
    """The file is written in a way that this does not know how to change; says which."""


class _Edit(NamedTuple):
    start: int
    end: int
    text: str


class _Text(NamedTuple):
    """A file: `front` is what stands between its two `---` lines, from `start`."""

    whole: str
    front: str
    start: int
    newline: str


def edit_egress(
    text: str, *, routes: Sequence[str] = (), comments: Sequence[str] = (), mode: str | None = None
) -> str:
    """The file with `routes` (`{host: …}`, each on one line) added, `comments` below them, and `mode` set.

    A route that says what one there says, and a credential besides, is said by giving that one the credential. Raises CantEdit.
    """
    file = _take_apart(text)
    root = _compose(file.front)
    egress = _value(root, "egress")
    notes = [f"# {line}" for line in comments]
    filled = _filled(egress, routes)
    routes = [route for route in routes if route not in filled]
    if egress is None:
        edits = [_append_egress(file, root, routes, notes, mode)]
    elif isinstance(egress, MappingNode):
        edits = _edits(file, egress, routes, notes, mode) + [
            _filling(file, *each) for each in filled.values()
        ]
    else:
        raise CantEdit("`egress` is no map")
    front = file.front
    for edit in sorted(edits, key=lambda edit: -edit.start):  # from the end, so that the other places stay
        front = front[: edit.start] + edit.text + front[edit.end :]
    changed = file.whole[: file.start] + front + file.whole[file.start + len(file.front) :]
    _check(file, front, routes, mode, [(number, name) for number, _, name in filled.values()])
    return changed


def _filled(egress: Node | None, routes: Sequence[str]) -> dict[str, tuple[int, MappingNode, str]]:
    """Those of `routes` that give a route of the file a credential, and say the same otherwise: which one, and the credential."""
    stated = _value(egress, "routes") if isinstance(egress, MappingNode) else None
    there = stated.value if isinstance(stated, SequenceNode) else []
    found: dict[str, tuple[int, MappingNode, str]] = {}
    for route in routes:
        said = _said(_compose(route))
        name = said.pop("credential", None) if isinstance(said, dict) else None
        for number, node in enumerate(there):
            if name is not None and isinstance(node, MappingNode) and _said(node) == said:
                found[route] = (number, node, name)
    return found


def _filling(file: _Text, _number: int, node: MappingNode, name: str) -> _Edit:
    addition = [f"credential: {json.dumps(name)}"]
    return _add_keys(file, node, addition, addition)


def missing(text: str, routes: Sequence[str]) -> list[str]:
    """Those of `routes` that the file does not say yet, however they are written there. Raises CantEdit."""
    egress = _value(_compose(_take_apart(text).front), "egress")
    stated = _value(egress, "routes") if isinstance(egress, MappingNode) else None
    if not isinstance(stated, SequenceNode):
        return list(routes)
    there = [_said(each) for each in stated.value]
    return [route for route in routes if _said(_compose(route)) not in there]


def _said(node: Node | None) -> object:
    """What a node says, as text."""
    try:
        return yaml.load(yaml.serialize(node), Loader=yaml.BaseLoader)  # noqa: S506 - BaseLoader makes text only
    except yaml.YAMLError as error:
        raise CantEdit("the lines do not fit into it") from error


def _take_apart(text: str) -> _Text:
    newline = "\r\n" if "\r\n" in text else "\n"
    lines = text.split("\n")
    end = next((number for number, line in enumerate(lines[1:], 1) if line.rstrip() == "---"), None)
    if lines[0].removeprefix("\ufeff").rstrip() != "---" or end is None:
        raise CantEdit("it has no front matter")
    start = len(lines[0]) + 1
    front = "\n".join(lines[1:end]) + ("\n" if end > 1 else "")
    return _Text(text, front, start, newline)


def _compose(front: str) -> Node | None:
    try:
        return yaml.compose(front, Loader=yaml.SafeLoader)
    except yaml.YAMLError as error:
        raise CantEdit("its front matter is not YAML") from error


def _value(node: Node | None, name: str) -> Node | None:
    if node is not None and not isinstance(node, MappingNode):
        raise CantEdit("its front matter is no map")
    pairs = node.value if node is not None else []
    return next((value for key, value in pairs if isinstance(key, ScalarNode) and key.value == name), None)


def _append_egress(
    file: _Text, root: Node | None, routes: Sequence[str], notes: list[str], mode: str | None
) -> _Edit:
    if isinstance(root, MappingNode) and root.flow_style:
        raise CantEdit("its front matter is one map in braces")
    lines = ["egress:", *([f"  mode: {mode}"] if mode else []), "  routes:" if routes else "  routes: []"]
    lines += [f"    - {line}" for line in routes] + [f"    {note}" for note in notes]
    end = len(file.front)
    before = "" if not file.front or file.front.endswith("\n") else file.newline
    return _Edit(end, end, before + _lines(lines, file))


def _edits(
    file: _Text, egress: MappingNode, routes: Sequence[str], notes: list[str], mode: str | None
) -> list[_Edit]:
    """At places that differ: a value that is there is changed, keys that are not there are added together."""
    edits: list[_Edit] = []
    block: list[str] = []
    flow: list[str] = []
    stated = _value(egress, "mode")
    if mode is not None and stated is not None:
        edits.append(_Edit(stated.start_mark.index, stated.end_mark.index, mode))
    elif mode is not None:
        block.append(f"mode: {mode}")
        flow.append(f"mode: {mode}")
    there = _value(egress, "routes")
    if there is not None:
        edits += _into_list(file, there, routes, notes)
    elif routes or (notes and not egress.flow_style):
        block += ["routes:" if routes else "routes: []"]
        block += [f"  - {line}" for line in routes] + [f"  {note}" for note in notes]
        flow.append(f"routes: [{', '.join(routes)}]")
    # First, and so behind what is put at the same place after it: the end of the list may be that of the map.
    return [_add_keys(file, egress, block, flow), *edits] if flow else edits


def _into_list(file: _Text, stated: Node, routes: Sequence[str], notes: list[str]) -> list[_Edit]:
    if not isinstance(stated, SequenceNode):
        raise CantEdit("`egress.routes` is no list")
    if stated.flow_style:
        return [_into_brackets(file.front, stated, ", ".join(routes))] if routes else []
    at = _content_end(file.front, stated.end_mark.index)
    indent = " " * stated.start_mark.column
    lines = [*(f"{indent}- {line}" for line in routes), *(indent + note for note in notes)]
    return [_Edit(at, at, _lines(lines, file))] if lines else []


def _add_keys(file: _Text, egress: MappingNode, block: list[str], flow: list[str]) -> _Edit:
    if egress.flow_style:
        return _into_brackets(file.front, egress, ", ".join(flow))
    at = _content_end(file.front, egress.end_mark.index)
    indent = " " * egress.start_mark.column
    return _Edit(at, at, _lines([indent + line for line in block], file))


def _into_brackets(front: str, node: MappingNode | SequenceNode, addition: str) -> _Edit:
    """Before the closing bracket; a comma that is there already is not said twice."""
    at = node.end_mark.index - 1
    before = front[node.start_mark.index + 1 : at].rstrip()
    comma = "" if not node.value or before.endswith(",") else ", "
    return _Edit(at, at, comma + addition)


def _content_end(front: str, end: int) -> int:
    """The end of the last line before `end` that says something: blank lines and comments after it stay after it."""
    lines = front[:end].splitlines(keepends=True)
    while lines and (not lines[-1].strip() or lines[-1].lstrip().startswith("#")):
        lines.pop()
    return sum(map(len, lines))


def _lines(lines: Sequence[str], file: _Text) -> str:
    return "".join(line + file.newline for line in lines)


def _check(
    file: _Text, front: str, routes: Sequence[str], mode: str | None, filled: Sequence[tuple[int, str]]
) -> None:
    """Raises CantEdit unless the new front matter says what the old one did, with `routes` and `mode` in addition."""
    try:
        before = yaml.load(file.front, Loader=yaml.BaseLoader) or {}  # noqa: S506 - BaseLoader makes text only
        after = yaml.load(front, Loader=yaml.BaseLoader)  # noqa: S506
        added = [yaml.load(line, Loader=yaml.BaseLoader) for line in routes]  # noqa: S506
        egress = dict(before.get("egress") or {})
        if mode is not None:
            egress["mode"] = mode
        if routes or "routes" in egress or "routes" in (after.get("egress") or {}):
            stated = [dict(route) for route in egress.get("routes", [])]
            for number, name in filled:
                stated[number]["credential"] = name
            egress["routes"] = [*stated, *added]
        fits = after == {**before, "egress": egress}
    except (yaml.YAMLError, AttributeError, TypeError) as error:
        raise CantEdit("the lines do not fit into it") from error
    if not fits:
        raise CantEdit("the lines do not fit into it")
