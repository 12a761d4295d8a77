"""What agent files mean, whose they are, and that a repository never grants."""

from pathlib import Path

import pytest

from bot_bottle.errors import ManifestError, NotFoundError
from bot_bottle.manifest.check import check_all


def said_of(home, agent: str, bottle: str | None = None) -> str:
    with pytest.raises(ManifestError) as caught:
        home.load(agent, bottle)
    return str(caught.value)


def test_an_agent_that_says_nothing_is_claude_in_the_default_bottle(home) -> None:
    home.bottle("default")
    path = home.agent("claude", body="\nFix it.\n\n")
    made = home.load("claude")
    assert made["agent"] == {
        "name": "claude",
        "file": str(path),
        "from_repository": False,
        "provider": "claude",
        "bottle": "default",
        "command": [],
        "model": None,
        "base_url": None,
        "skills": [],
        "env": {},
        "prompt": "Fix it.",
    }
    assert made["bottle"]["name"] == "default"
    assert made["sources"] == [str(path), str(home.root / "bottles" / "default.md")]


@pytest.mark.parametrize(
    ("front", "said"),
    [
        ("provider: command", "command: is missing"),
        ("provider: command\ncommand: []", "must not be empty"),
        ("provider: command\ncommand: echo hi", "must be a list"),
        ("provider: command\ncommand: [echo, 5]", "command[1]: must be text"),
        ("command: [true]", "is only for `provider: command`"),
        ("provider: claude\ncommand: [x]", "is only for `provider: command`"),
        ("provider: ../x", "can't be a name"),
        ("model: --dangerous", "is no name of a model"),
        ("base_url: ftp://a.org", "must be a URL"),
        ("base_url: http://u:p@a.org", "has a user or password"),
        ("base_url: http://127.0.0.1:80", "has a host that is an address"),
        ("base_url: http://a.org/?x=1", "must be a URL"),
        ("base_url: 'http://a.org:99999'", "must be a URL"),
        ("base_url: http://[::1", "must be a URL"),
        ("skills: claude", "must be a list"),
        ("skills: [../x]", "can't be a name"),
        ("env: {A-B: x}", "is no name of an environment variable"),
        ("bottles: x", "did you mean `bottle`?"),
        ("bottle: nowhere", "there is no bottle `nowhere`"),
    ],
)
def test_an_agent_that_can_not_hold_is_refused(home, front: str, said: str) -> None:
    home.bottle("default")
    home.agent("one", front)
    refused = said_of(home, "one")
    assert said in refused
    assert "one.md:" in refused


def test_a_command_runs_as_written(home) -> None:
    home.bottle("default")
    home.agent("one", "provider: command\ncommand: [sh, -c, 'echo hi']")
    assert home.load("one")["agent"]["command"] == ["sh", "-c", "echo hi"]


def test_a_missing_agent_names_the_nearest_and_says_what_there_is(home) -> None:
    home.agent("claude")
    home.repository_agent("review")
    with pytest.raises(NotFoundError) as caught:
        home.load("cluade")
    assert "Did you mean `claude`? There is: claude, review." in str(caught.value)


def test_without_any_agent_or_bottle_the_way_on_is_init(home) -> None:
    with pytest.raises(NotFoundError, match="bot-bottle init"):
        home.load("claude")
    home.agent("claude")
    with pytest.raises(NotFoundError, match="bot-bottle init"):
        home.load("claude")


def test_problems_of_the_agent_and_of_its_bottle_are_listed_together(home) -> None:
    home.bottle("default", "x: 1")
    home.agent("one", "skills: [gone]")
    said = said_of(home, "one")
    assert "default.md:2: unknown key `x`" in said
    assert "one.md:2: skills: there is no skill `gone`" in said


def test_the_operators_own_agent_wins_over_the_repositorys(home) -> None:
    home.bottle("default")
    home.repository_agent("one", body="theirs")
    assert home.load("one")["agent"]["from_repository"] is True
    home.agent("one", body="mine")
    assert home.load("one")["agent"]["prompt"] == "mine"
    assert home.load("one")["agent"]["from_repository"] is False


def test_a_wrong_agent_of_the_operators_is_an_error_and_not_a_reason_to_take_the_repositorys(home) -> None:
    home.bottle("default")
    home.repository_agent("one", body="theirs")
    home.agent("one", "x: 1")
    assert "unknown key `x`" in said_of(home, "one")


def test_a_repositorys_agent_can_not_choose_its_bottle(home) -> None:
    home.bottle("default")
    home.bottle("wide", "egress: {routes: [{host: '*.org'}]}")
    path = home.repository_agent("one", "provider: claude\nbottle: wide")
    assert (
        f"{path}:3: bottle: a repository can't choose the bottle; to agree, pass `--bottle wide`"
        in said_of(home, "one")
    )
    assert home.load("one", "wide")["bottle"]["name"] == "wide"
    assert home.load("one", "default")["agent"]["bottle"] == "default"


def test_the_operator_chooses_the_bottle_of_any_agent(home) -> None:
    home.bottle("default")
    home.bottle("other")
    home.agent("one", "bottle: default")
    assert home.load("one", "other")["bottle"]["name"] == "other"
    with pytest.raises(NotFoundError, match="There is no bottle `gone`"):
        home.load("one", "gone")


def test_bottles_and_parents_in_a_repository_are_never_read(home) -> None:
    folder = home.repository / ".bot-bottle" / "bottles"
    folder.mkdir()
    for name in ("default", "base"):
        (folder / f"{name}.md").write_text("---\negress: {routes: [{host: '*.org'}]}\n---\n")
    home.repository_agent("one")
    with pytest.raises(NotFoundError, match="There is no bottle `default`"):
        home.load("one")
    home.bottle("default", "extends: base")
    assert "there is no bottle `base`" in said_of(home, "one")


@pytest.mark.parametrize(
    "key", ["egress", "credentials", "resources", "backend", "workspace", "supervise", "git", "image"]
)
def test_an_agent_file_has_no_key_that_grants(home, key: str) -> None:
    home.bottle("default")
    home.repository_agent("one", f"{key}: {{}}")
    assert f"unknown key `{key}`" in said_of(home, "one")


def test_a_repositorys_agent_that_is_a_link_out_of_it_is_refused(home, tmp_path: Path) -> None:
    home.bottle("default")
    (tmp_path / "private.md").write_text("---\n{}\n---\nprivate words\n")
    link = home.repository / ".bot-bottle" / "agents" / "one.md"
    link.symlink_to(tmp_path / "private.md")
    said = said_of(home, "one")
    assert "is a link that leads out of" in said
    assert "private words" not in said
    link.unlink()
    link.parent.rmdir()
    link.parent.symlink_to(tmp_path)
    (tmp_path / "two.md").write_text("---\n{}\n---\n")
    assert "is a link that leads out of" in said_of(home, "two")


def test_a_home_that_is_the_repository_has_only_the_operators_own_files(home) -> None:
    home.repository = home.root.parent
    home.bottle("default")
    home.bottle("wide")
    home.agent("one", "bottle: wide")
    assert home.load("one")["agent"]["from_repository"] is False
    assert len(check_all(root=home.root, repository=home.repository)) == 3


def test_a_skill_is_found_in_the_operators_folder_first(home) -> None:
    home.bottle("default")
    theirs = home.skill("tidy", in_repository=True)
    home.repository_agent("one", "skills: [tidy]")
    assert home.load("one")["agent"]["skills"] == [{"name": "tidy", "folder": str(theirs)}]
    mine = home.skill("tidy")
    assert home.load("one")["agent"]["skills"] == [{"name": "tidy", "folder": str(mine)}]


def test_the_operators_agent_takes_no_skill_from_a_repository(home) -> None:
    home.bottle("default")
    home.skill("tidy", in_repository=True)
    home.agent("one", "skills: [tidy]")
    assert "one.md:2: skills: there is no skill `tidy`" in said_of(home, "one")


@pytest.mark.parametrize("in_repository", [False, True])
def test_a_skill_that_leads_out_of_its_place_is_refused(home, tmp_path: Path, in_repository: bool) -> None:
    home.bottle("default")
    (home.repository_agent if in_repository else home.agent)("one", "skills: [tidy]")
    secret = tmp_path / "secret"
    secret.mkdir()
    (secret / "SKILL.md").write_text("private")
    folder = home.skill("tidy", in_repository=in_repository)
    for name, target in (
        ("file", secret / "SKILL.md"),
        ("folder", secret),
        ("up", ".."),
        ("gone", "nothing"),
    ):
        link = folder / "scripts" / name
        link.parent.mkdir(exist_ok=True)
        link.symlink_to(target)
        assert "skill" in said_of(home, "one")
        link.unlink()
    (folder / "scripts" / "near").symlink_to("../SKILL.md")
    assert home.load("one")["agent"]["skills"][0]["folder"] == str(folder)
    folder.rename(tmp_path / "moved")
    folder.symlink_to(tmp_path / "moved")
    assert "is a link that leads out of" in said_of(home, "one")


def test_a_skill_without_its_file_is_refused(home) -> None:
    home.bottle("default")
    (home.skill("tidy") / "SKILL.md").unlink()
    home.agent("one", "skills: [tidy]")
    assert "has no SKILL.md" in said_of(home, "one")
