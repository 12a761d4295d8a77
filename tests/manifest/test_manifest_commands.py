"""`validate`, `schema` and `init` as the operator meets them."""

import argparse
import json
import os
from pathlib import Path

import pytest

from bot_bottle.cli.commands import init, schema, validate
from bot_bottle.cli.console import Console
from bot_bottle.errors import HostError, ManifestError, NotFoundError
from bot_bottle.manifest.load import load
from bot_bottle.manifest.places import find_repository, known_agents, known_bottles
from bot_bottle.operate.scaffold import scaffold


@pytest.fixture(autouse=True)
def at_home(home, monkeypatch):
    """The operator's home and current folder are the test's own."""
    monkeypatch.setenv("HOME", str(home.root.parent))
    (home.repository / ".git").mkdir()
    (home.repository / "src").mkdir()
    monkeypatch.chdir(home.repository / "src")


def call(command, *words: str, as_json: bool = False) -> int:
    parser = argparse.ArgumentParser()
    command.arguments(parser)
    return command.run(parser.parse_args(words), Console(as_json=as_json))


def test_init_writes_files_that_are_right_and_private(home, capsys) -> None:
    for folder in ("bottles", "agents", "skills"):
        (home.root / folder).rmdir()
    home.root.rmdir()
    assert call(init) == 0
    for path in (home.root / "bottles" / "default.md", home.root / "agents" / "claude.md"):
        assert path.stat().st_mode & 0o777 == 0o600
        assert path.parent.stat().st_mode & 0o777 == 0o700
        assert f"written   {path}" in capsys.readouterr().out or path.name == "claude.md"
    assert home.root.stat().st_mode & 0o777 == 0o700
    made = load("claude", root=home.root, repository=None)
    assert [route["host"] for route in made["bottle"]["egress"]["routes"]] == ["api.anthropic.com"]
    assert made["agent"]["base_url"] == "http://api.anthropic.com"
    assert call(validate) == 0


def test_init_never_overwrites_unless_forced_and_then_keeps_what_was_there(home, capsys) -> None:
    path = home.root / "bottles" / "default.md"
    path.write_text("mine")
    assert call(init, as_json=True) == 0
    assert {one["outcome"] for one in json.loads(capsys.readouterr().out)} == {"kept", "written"}
    assert path.read_text() == "mine"
    assert call(init) == 0
    assert "not touched" in capsys.readouterr().err
    assert call(init, "--force") == 0
    assert path.read_text() != "mine"
    assert path.with_name("default.md.bak").read_text() == "mine"
    assert sorted(one.name for one in path.parent.iterdir()) == ["default.md", "default.md.bak"]


def test_init_does_not_write_through_a_link(home, tmp_path: Path) -> None:
    path = home.root / "bottles" / "default.md"
    path.symlink_to(tmp_path / "elsewhere")
    call(init)
    call(init, "--force")
    assert not (tmp_path / "elsewhere").exists()


def test_init_says_so_when_it_can_not_write(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(HostError, match="can't be written"):
        scaffold(root=tmp_path / "file")


def test_validate_lists_each_file_and_raises_when_one_is_wrong(home, capsys) -> None:
    home.bottle("default")
    home.bottle("wrong", "x: 1")
    home.agent("claude")
    home.repository_agent("claude", "y: 1")
    home.repository_agent("reaching", "bottle: wrong")
    with pytest.raises(ManifestError, match="3 of 5 files"):
        call(validate)
    out = capsys.readouterr().out
    assert f"ok     bottle  default   {home.root}/bottles/default.md" in out
    assert f"{home.root}/bottles/wrong.md:2: unknown key `x`" in out
    assert f"ok     agent   claude    {home.root}/agents/claude.md" in out
    assert f"{home.repository}/.bot-bottle/agents/claude.md:2: unknown key `y`" in out
    assert "pass `--bottle wrong`" in out


def test_validate_checks_what_is_named_and_knows_what_is_not_there(home, capsys) -> None:
    home.bottle("default")
    home.bottle("wrong", "x: 1")
    assert call(validate, "default", as_json=True) == 0
    (one,) = json.loads(capsys.readouterr().out)
    assert (one["kind"], one["name"], one["ok"], one["problems"]) == ("bottle", "default", True, [])
    with pytest.raises(NotFoundError, match="`gone`"):
        call(validate, "default", "gone")


def test_validate_in_json_has_the_problems_and_still_raises(home, capsys) -> None:
    home.agent("claude")
    with pytest.raises(ManifestError):
        call(validate, as_json=True)
    (one,) = json.loads(capsys.readouterr().out)
    assert one["ok"] is False
    assert "There is no bottle `default`" in one["problems"][0]


def test_validate_lists_a_bottles_problems_once_and_not_with_each_agent(home, capsys) -> None:
    home.bottle("default", "x: 1")
    home.agent("a")
    home.agent("b")
    with pytest.raises(ManifestError):
        call(validate)
    out = capsys.readouterr().out
    assert out.count("unknown key") == 1
    assert out.count("builds on a bottle that is wrong") == 2


def test_validate_tells_of_a_file_whose_name_is_none(home, capsys) -> None:
    (home.root / "agents" / "My Agent.md").write_text("---\n---\n")
    (home.root / "agents" / "README.md").write_text("hello")
    with pytest.raises(ManifestError, match="1 of 1 file is wrong"):
        call(validate)
    assert "My Agent.md:1: its name can't be" in capsys.readouterr().out


def test_validate_with_nothing_to_check_says_how_to_begin(capsys) -> None:
    assert call(validate) == 0
    assert "bot-bottle init" in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["bottle", "agent"])
def test_schema_prints_json(kind: str, capsys) -> None:
    assert call(schema, kind) == 0
    assert json.loads(capsys.readouterr().out)["additionalProperties"] is False


def test_known_names_are_those_that_could_be_started(home) -> None:
    home.bottle("default")
    home.bottle("web")
    home.agent("claude")
    home.repository_agent("claude")
    home.repository_agent("review")
    for name in ("README.md", "Not A Name.md", ".hidden.md", "notes.txt"):
        (home.root / "agents" / name).write_text("")
    assert known_agents(home.root, home.repository) == ["claude", "review"]
    assert known_agents(home.root, None) == ["claude"]
    assert known_bottles(home.root) == ["default", "web"]
    assert known_agents(home.root / "gone", None) == []


def test_the_repository_is_the_nearest_folder_with_git(home, tmp_path: Path) -> None:
    assert find_repository(os.getcwd()) == str(home.repository)
    alone = tmp_path / "alone"
    alone.mkdir()
    assert find_repository(alone) == str(alone)
