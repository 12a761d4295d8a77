"""The manifest reference is right: its examples load, and it leaves no key out."""

import re
from pathlib import Path

import jsonschema
import pytest

from bot_bottle.manifest.explain import _all_keys
from bot_bottle.manifest.frontmatter import parse
from bot_bottle.manifest.load import load, load_bottle
from bot_bottle.manifest.model import Agent, Bottle
from bot_bottle.manifest.schema import json_schema

TEXT = (Path(__file__).parents[2] / "docs" / "manifest.md").read_text()
EXAMPLES = re.findall(r"<!-- (bottle|agent): ([a-z]+) -->\n```markdown\n(.*?)```\n", TEXT, re.DOTALL)


def front_of(text: str) -> dict:
    problems: list[str] = []
    front = parse(text.encode(), lambda line, what: problems.append(f"{line}: {what}"))
    assert front is not None, problems
    return front.data


def test_every_example_is_marked_with_its_kind_and_name() -> None:
    assert len(EXAMPLES) == TEXT.count("```markdown") >= 7


@pytest.mark.parametrize(
    ("kind", "name", "text"), EXAMPLES, ids=lambda value: value if len(value) < 20 else ""
)
def test_an_example_is_right_by_the_schema(kind: str, name: str, text: str) -> None:
    schema = json_schema(kind)
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(front_of(text), schema)


def test_the_examples_load_together(tmp_path: Path) -> None:
    for kind, name, text in EXAMPLES:
        folder = tmp_path / f"{kind}s"
        folder.mkdir(exist_ok=True)
        (folder / f"{name}.md").write_text(text)
    (tmp_path / "skills" / "release-notes").mkdir(parents=True)
    (tmp_path / "skills" / "release-notes" / "SKILL.md").write_text("")
    for kind, name, _ in EXAMPLES:
        if kind == "bottle":
            load_bottle(name, root=tmp_path)
        else:
            load(name, root=tmp_path, repository=None)
    assert load_bottle("closed", root=tmp_path)["egress"]["routes"] == []
    assert len(load_bottle("everything", root=tmp_path)["egress"]["routes"]) == 7


@pytest.mark.parametrize("model", [Bottle, Agent])
def test_no_key_is_left_out(model: type) -> None:
    for _, key in _all_keys(model, ()):
        assert re.search(rf"`(?:[a-z_]+\.)*{key}[`:.]", TEXT), key


@pytest.mark.parametrize(
    ("kind", "front"),
    [
        ("bottle", {"suprvise": True}),
        ("bottle", {"supervise": "yes"}),
        ("bottle", {"image": None}),
        ("bottle", {"egress": {"routes": [{}]}}),
        ("bottle", {"egress": {"routes": [{"host": "a.org", "methods": []}]}}),
        ("bottle", {"egress": {"routes": [{"host": "a.org", "protocol": "tcp"}]}}),
        ("bottle", {"credentials": {"k": {"from": {}, "header": "x"}}}),
        ("bottle", {"credentials": {"k": {"from": {"env": "A"}}}}),
        ("bottle", {"credentials": {"k": {"from": {"env": "A"}, "header": "x", "bearer": True}}}),
        ("bottle", {"resources": {"memory": "lots"}}),
        ("agent", {"provider": "command"}),
        ("agent", {"command": ["x"]}),
        ("agent", {"bottle": "../x"}),
        ("agent", {"egress": {}}),
    ],
)
def test_the_schema_refuses_what_the_loader_refuses(kind: str, front: dict) -> None:
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(front, json_schema(kind))


def test_the_bottle_in_the_front_page_is_right(tmp_path: Path) -> None:
    page = (Path(__file__).parents[2] / "README.md").read_text()
    [text] = re.findall(r"```markdown\n(.*?)```\n", page, re.DOTALL)
    (tmp_path / "bottles").mkdir()
    (tmp_path / "bottles" / "default.md").write_text(text)
    assert len(load_bottle("default", root=tmp_path)["egress"]["routes"]) == 5
