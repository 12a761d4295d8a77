"""A bottle's file that is changed by program stays its author's: every byte of it but what had to change."""

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from bot_bottle.manifest.edit import CantEdit, edit_egress
from bot_bottle.manifest.frontmatter import parse

LINE = '{host: new.example.org, methods: [GET], paths: ["/a b"]}'
ROUTE = {"host": "new.example.org", "methods": ["GET"], "paths": ["/a b"]}
FILES = {
    "a list": "---\negress:\n  # why\n  routes:\n    - host: a.example.org  # the model\n      port: 8443\n"
              "    # - host: no\n\nenv: {A: b}\n---\nText\n",
    "a list without indent": "---\negress:\n  routes:\n  - host: a.example.org\n---\n",
    "brackets": "---\negress: {routes: [{host: a.example.org}]}  # all\n---\nText",
    "brackets over lines": "---\negress:\n  routes: [\n    {host: a.example.org},\n  ]\n---\n",
    "empty brackets": "---\negress:\n  routes: []\n---\n",
    "no routes": "---\negress:\n  engine: builtin\n\n# of the rest\nenv: {A: b}\n---\n",
    "empty braces": "---\negress: {}\n---\n",
    "no egress": "---\nbackend: namespace\n---\n",
    "nothing": "---\n---\n",
    "observing": "---\negress:\n  mode: observe  # for a day\n  routes:\n    - {host: a.example.org}\n---\n",
    "observing in braces": "---\negress: {mode: observe}\n---\n",
    "Windows": "---\r\negress:\r\n  routes:\r\n    - host: a.example.org # x\r\n---\r\nText\r\n",
    "a mark": "\ufeff---\negress:\n  routes:\n    - host: a.example.org\n---\n",
}  # fmt: skip


def read(text: str) -> dict:
    problems: list[str] = []
    front = parse(text.encode(), lambda line, what: problems.append(f"{line}: {what}"))
    assert front is not None, problems
    assert not problems
    return front.data


@pytest.mark.parametrize("name", FILES)
def test_a_route_is_added_and_everything_else_stays(name: str) -> None:
    before = FILES[name]
    after = edit_egress(
        before, routes=[LINE], comments=["- {host: no.example.org}  # refused"], mode="enforce"
    )
    was, now = read(before), read(after)
    assert now["egress"]["routes"] == [*was.get("egress", {}).get("routes", []), ROUTE]
    assert now["egress"]["mode"] == "enforce"
    for key in was:
        if key != "egress":
            assert now[key] == was[key]
    comments = [line.partition("#")[2] for line in before.splitlines() if "#" in line]
    assert all(any(comment in line for line in after.splitlines()) for comment in comments)
    lost = [line for line in before.splitlines() if line not in after.splitlines()]
    assert len(lost) <= 2  # where the file has it all on one line, and the mode's own
    assert after.partition("---")[2].partition("\n---")[2] == before.partition("---")[2].partition("\n---")[2]
    assert ("\r\n" in before) == ("\n" in after.replace("\r\n", "") is False or "\r\n" in after)


@pytest.mark.parametrize("name", FILES)
def test_without_anything_to_change_nothing_changes(name: str) -> None:
    if "egress" in FILES[name]:
        assert edit_egress(FILES[name]) == FILES[name]


@pytest.mark.parametrize(
    "text", ["", "no front matter", "---\negress: [\n---\n", "---\negress: 5\n---\n", "---\n- a\n---\n",
             "---\negress: {routes: 5}\n---\n", "---\n{a: b}\n---\n", "---\na: b\n"],
)  # fmt: skip
def test_a_file_of_another_shape_is_left_alone(text: str) -> None:
    with pytest.raises(CantEdit):
        edit_egress(text, routes=[LINE])


@given(st.text(alphabet="{}[]:,-#'\"|>&*!% \n\tabx", max_size=60))
def test_no_line_can_say_more_than_one_route(line: str) -> None:
    """What can't be told from the rest of the file as one more route is refused, however it is written."""
    before = FILES["a list"]
    try:
        after = edit_egress(before, routes=[line])
    except CantEdit:
        return
    was, now = (yaml.load(text.split("---")[1], Loader=yaml.BaseLoader) for text in (before, after))
    assert now["egress"]["routes"][:-1] == was["egress"]["routes"]
    assert {**now, "egress": None} == {**was, "egress": None}


FILLED = {
    "a list": "---\negress:\n  routes:\n    - host: a.example.org  # forge\n      paths: [/v1]\n    - host: b.example.org\n---\n",
    "braces": "---\negress:\n  routes:\n    - {host: a.example.org, paths: [/v1]}  # forge\n    - {host: b.example.org}\n---\n",
    "brackets": "---\negress: {routes: [{host: a.example.org, paths: [/v1]}, {host: b.example.org}]}  # forge\n---\n",
}


@pytest.mark.parametrize("name", FILLED)
def test_a_route_that_is_there_gets_its_credential_and_nothing_stands_there_twice(name: str) -> None:
    before = FILLED[name]
    line = '{host: a.example.org, paths: ["/v1"], credential: forge}'
    after = edit_egress(before, routes=[line, LINE])
    assert read(after)["egress"]["routes"] == [
        {"host": "a.example.org", "paths": ["/v1"], "credential": "forge"}, {"host": "b.example.org"}, ROUTE,
    ]  # fmt: skip
    assert "# forge" in after
    other = edit_egress(before, routes=[line.replace("/v1", "/v2")])
    assert len(read(other)["egress"]["routes"]) == 3
