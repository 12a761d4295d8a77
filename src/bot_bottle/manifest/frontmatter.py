"""Markdown with YAML front matter into plain data, with the line of every value. Strict, bounded, total.

The YAML read here is the part that people mean: maps, lists, text, numbers, true and false by YAML 1.2's
rules (so `no` and `22:22` are text). Aliases, tags, merges, empty values and a key given twice are refused.
"""

import re
from collections.abc import Callable
from typing import Any, NamedTuple

import yaml
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

DEPTH_LIMIT = 24
_TAG = "tag:yaml.org,2002:"
_FORBIDDEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff\ud800-\udfff]")

Path = tuple[str | int, ...]
Report = Callable[[int, str], None]


class FrontMatter(NamedTuple):
    """A file's front matter as plain data; `lines` has the line of every value, `bad` what was reported."""

    data: dict[str, Any]
    lines: dict[Path, int]
    bad: set[Path]
    body: str

    def line(self, path: Path) -> int:
        """The line of `path`, or of the nearest thing around it."""
        while path and path not in self.lines:
            path = path[:-1]
        return self.lines.get(path, 1)

    def is_bad(self, path: Path) -> bool:
        """Whether `path`, or something around it, was reported already."""
        return any(path[:length] in self.bad for length in range(len(path) + 1))


def parse(raw: bytes, report: Report) -> FrontMatter | None:
    """The front matter and body of a file; None when they can't be read. Every problem is reported."""
    text = _decode(raw, report)
    if text is None:
        return None
    lines = text.split("\n")
    if lines[0].rstrip() != "---":
        report(1, "has no front matter: the first line must be `---`, then keys, then `---` again")
        return None
    end = next((number for number, line in enumerate(lines[1:], 1) if line.rstrip() == "---"), None)
    if end is None:
        report(1, "has front matter without an end: put a line `---` after the last key")
        return None
    return _read_yaml("\n".join(lines[1:end]), "\n".join(lines[end + 1 :]).strip(), report)


def _decode(raw: bytes, report: Report) -> str | None:
    try:
        text = raw.removeprefix(b"\xef\xbb\xbf").decode()
    except UnicodeDecodeError as error:
        report(raw[: error.start].count(b"\n") + 1, "is not UTF-8 text here; save the file as UTF-8")
        return None
    text = text.replace("\r\n", "\n")
    found = {text.count("\n", 0, match.start()) + 1: match[0] for match in _first(_FORBIDDEN, text)}
    for line, character in found.items():
        report(line, f"has the invisible character U+{ord(character):04X}; take it out")
    return None if found else text


def _first(pattern: re.Pattern[str], text: str) -> list[re.Match[str]]:
    return [match for match, _ in zip(pattern.finditer(text), range(10), strict=False)]


def _read_yaml(text: str, body: str, report: Report) -> FrontMatter | None:
    loader = _Loader(text, report)
    try:
        node = loader.get_single_node()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        report((mark.line if mark else 0) + 2, f"is not YAML: {error.problem or error.context}")
        return None
    except (yaml.YAMLError, ValueError, OverflowError) as error:
        report(loader.line + 2, f"is not YAML: {str(error).splitlines()[0]}")
        return None
    finally:
        loader.dispose()
    front = FrontMatter({}, {}, set(), body)
    if node is None:
        return front
    data = _Builder(front, report, loader.aliases).build(node, ())
    if not isinstance(data, dict):
        report(front.line(()), "has front matter that is no map; write `key: value` lines between the `---`")
        return None
    front.data.update(data)
    return front


def shown(path: Path) -> str:
    """`path` as a person would write it: `egress.routes[0].host`."""
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)
    return text.removeprefix(".")[:120]


class _Loader(yaml.SafeLoader):
    """Composes nodes only: bounded in depth, without aliases, with YAML 1.2's plain values."""

    yaml_implicit_resolvers: Any = {}  # noqa: RUF012 - the base class keeps them here

    def __init__(self, text: str, report: Report) -> None:
        super().__init__(text)
        self.report = report
        self.depth = 0
        self.aliases: set[int] = set()

    def compose_node(self, parent: Node | None, index: Any) -> Node | None:
        if self.check_event(yaml.AliasEvent):
            event: Any = self.get_event()  # type: ignore[no-untyped-call]
            self.report(event.start_mark.line + 2, "uses a YAML alias (`*`); write the value out")
            node = ScalarNode(_TAG + "null", "", event.start_mark, event.end_mark)
            self.aliases.add(id(node))
            return node
        self.depth += 1
        if self.depth > DEPTH_LIMIT:
            mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
            raise yaml.MarkedYAMLError(problem=f"nested more than {DEPTH_LIMIT} deep", problem_mark=mark)
        node_or_none = super().compose_node(parent, index)
        self.depth -= 1
        return node_or_none


for _name, _pattern, _starts in (
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("int", r"[-+]?[0-9]+", "-+0123456789"),
    ("float", r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?", "-+.0123456789"),
):
    _Loader.add_implicit_resolver(_TAG + _name, re.compile(rf"(?:{_pattern})\Z"), list(_starts))


class _Builder:
    """Nodes into plain data. A value that can't be used is reported, marked bad, and stands as None."""

    def __init__(self, front: FrontMatter, report: Report, aliases: set[int]) -> None:
        self.front = front
        self.report = report
        self.aliases = aliases

    def build(self, node: Node, path: Path) -> Any:
        self.front.lines.setdefault(path, node.start_mark.line + 2)
        if id(node) in self.aliases:
            self.front.bad.add(path)
            return None
        if isinstance(node, MappingNode) and node.tag == _TAG + "map":
            return self._map(node, path)
        if isinstance(node, SequenceNode) and node.tag == _TAG + "seq":
            return [self.build(item, (*path, index)) for index, item in enumerate(node.value)]
        if isinstance(node, ScalarNode):
            return self._scalar(node, path)
        return self._bad(path, f"has the YAML tag {node.tag}; write plain values")

    def _map(self, node: MappingNode, path: Path) -> dict[str, Any]:
        data: dict[str, Any] = {}
        for key_node, value_node in node.value:
            key = key_node.value if isinstance(key_node, ScalarNode) else None
            if not isinstance(key, str) or key_node.tag != _TAG + "str" or _FORBIDDEN.search(key):
                self.report(
                    key_node.start_mark.line + 2, "has a key that is not plain text; put it in quotes"
                )
                continue
            here = (*path, key)
            if key in data:
                self.front.bad.add(here)
                first, line = self.front.line(here), key_node.start_mark.line + 2
                self.report(line, f"{shown(here)}: is given twice, first on line {first}; keep one")
                continue
            self.front.lines[here] = key_node.start_mark.line + 2
            data[key] = self.build(value_node, here)
        return data

    def _scalar(self, node: ScalarNode, path: Path) -> Any:
        text: str = node.value
        try:
            match node.tag.removeprefix(_TAG):
                case "null":
                    return self._bad(path, "is empty: give it a value, or take the key away")
                case "bool" if text.lower() in ("true", "false"):
                    return text.lower() == "true"
                case "int":
                    return int(text)
                case "float":
                    return float(text)
                case "str":
                    if match := _FORBIDDEN.search(text):
                        what = f"has the invisible character U+{ord(match[0]):04X}; take it out"
                        return self._bad(path, what)
                    return text
        except (ValueError, OverflowError):
            return self._bad(path, "is a number that can't be read")
        return self._bad(path, "has a YAML tag; write plain values")

    def _bad(self, path: Path, what: str) -> None:
        self.front.bad.add(path)
        named = f"{shown(path)}: " if path else ""
        self.report(self.front.line(path), named + what)
