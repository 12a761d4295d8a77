"""The cache: fast when nothing changed, and never an answer that the files would not give."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import bot_bottle
from bot_bottle.errors import BotBottleError, ManifestError, NotFoundError

IN_ANOTHER_PROCESS = """
import json, sys
from bot_bottle.manifest.cache import load_cached
root, repository, cache = sys.argv[1:]
document = load_cached("one", root=root, repository=repository, cache_root=cache)
heavy = sorted({name.split(".")[0] for name in sys.modules}
    & {"pydantic", "pydantic_core", "yaml", "subprocess", "asyncio"})
print(json.dumps([document, heavy]))
"""


def entries(home) -> list[Path]:
    return sorted((home.cache / "manifest").glob("*"))


def forget_loader(monkeypatch) -> None:
    """From here on only the cache can answer."""
    monkeypatch.setitem(sys.modules, "bot_bottle.manifest.load", None)


@pytest.fixture
def cached(home):
    """A home whose agent `one` uses a bottle with a parent and a skill, in the cache already."""
    home.bottle("base", "egress: {routes: [{host: a.org}]}")
    home.bottle("default", "extends: base")
    home.skill("tidy", in_repository=True)
    home.repository_agent("one", "skills: [tidy]")
    home.load_cached("one")
    return home


def test_a_hit_is_the_same_answer_and_imports_neither_pydantic_nor_yaml(cached) -> None:
    environment = {**os.environ, "PYTHONPATH": str(Path(bot_bottle.__file__).parent.parent)}
    said = subprocess.run(
        [sys.executable, "-c", IN_ANOTHER_PROCESS, cached.root, cached.repository, cached.cache],
        env=environment, capture_output=True, check=True, timeout=60,
    )  # fmt: skip
    document, heavy = json.loads(said.stdout)
    assert heavy == []
    assert document == cached.load("one")


def test_a_hit_does_not_load_the_files_again(cached, monkeypatch) -> None:
    whole = cached.load("one")
    forget_loader(monkeypatch)
    assert cached.load_cached("one") == whole


def edit_agent(home) -> None:
    home.repository_agent("one", "skills: [tidy]", body="Do that.\n")


def edit_bottle(home) -> None:
    home.bottle("default", "extends: base\nsupervise: true")


def edit_parent(home) -> None:
    home.bottle("base", "egress: {routes: [{host: b.org}]}")


def edit_keeping_size_and_time(home) -> None:
    path = home.root / "bottles" / "base.md"
    before = path.stat()
    path.write_text(path.read_text().replace("a.org", "b.org"))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def shadow_agent(home) -> None:
    home.agent("one", body="mine")


def shadow_skill(home) -> None:
    home.skill("tidy")


@pytest.mark.parametrize(
    "edit", [edit_agent, edit_bottle, edit_parent, edit_keeping_size_and_time, shadow_agent, shadow_skill]
)
def test_an_edit_is_seen(cached, edit) -> None:
    before = cached.load_cached("one")
    edit(cached)
    if edit is shadow_skill:
        cached.repository_agent("one", "skills: [tidy]")
    after = cached.load_cached("one")
    assert after != before
    assert after == cached.load("one")
    assert cached.load_cached("one") == after


@pytest.mark.parametrize("gone", ["bottles/base.md", "bottles/default.md"])
def test_a_file_that_is_gone_is_an_error_again(cached, gone: str) -> None:
    (cached.root / gone).unlink()
    with pytest.raises(BotBottleError):
        cached.load_cached("one")


def test_an_agent_that_is_gone_is_not_found(cached) -> None:
    (cached.repository / ".bot-bottle" / "agents" / "one.md").unlink()
    with pytest.raises(NotFoundError):
        cached.load_cached("one")


def test_a_file_that_was_replaced_by_a_link_out_of_its_place_is_refused(cached, tmp_path: Path) -> None:
    path = cached.root / "bottles" / "base.md"
    path.rename(tmp_path / "base.md")
    path.symlink_to(tmp_path / "base.md")
    with pytest.raises(ManifestError, match="leads out of"):
        cached.load_cached("one")


def test_a_link_put_into_a_skill_later_is_refused(cached, tmp_path: Path) -> None:
    (cached.repository / ".bot-bottle" / "skills" / "tidy" / "x").symlink_to("/etc/passwd")
    with pytest.raises(ManifestError, match="leads out of the skill"):
        cached.load_cached("one")


def test_a_file_that_becomes_wrong_is_an_error_and_right_again_is_right(cached) -> None:
    cached.bottle("default", "x: 1")
    for _ in range(2):
        with pytest.raises(ManifestError):
            cached.load_cached("one")
    cached.bottle("default")
    assert cached.load_cached("one") == cached.load("one")


def test_each_bottle_and_repository_has_an_answer_of_its_own(cached, tmp_path: Path) -> None:
    cached.bottle("other")
    assert cached.load_cached("one", "other")["bottle"]["name"] == "other"
    assert cached.load_cached("one")["bottle"]["name"] == "default"
    cached.repository = tmp_path / "elsewhere"
    with pytest.raises(NotFoundError):
        cached.load_cached("one")


def test_another_home_is_another_answer(home, monkeypatch) -> None:
    home.bottle("default", "credentials: {k: {from: {file: ~/key}, bearer: true}}")
    home.agent("one")
    for place in ("/home/a", "/home/b"):
        monkeypatch.setenv("HOME", place)
        assert home.load_cached("one")["bottle"]["credentials"]["k"]["source"] == f"file:{place}/key"


def test_the_cache_is_the_operators_alone(cached) -> None:
    (entry,) = entries(cached)
    assert entry.stat().st_mode & 0o777 == 0o600
    assert entry.parent.stat().st_mode & 0o777 == 0o700


def forged(entry: Path) -> str:
    """The entry with a wider route in it, its own digest right."""
    from bot_bottle.manifest.cache import _digest

    whole = json.loads(entry.read_text())
    whole["body"]["document"]["bottle"]["egress"]["routes"][0]["host"] = "evil.org"
    whole["digest"] = _digest(whole["body"])
    return json.dumps(whole)


def test_an_entry_that_others_could_have_written_is_ignored(cached) -> None:
    whole = cached.load("one")
    (entry,) = entries(cached)
    entry.write_text(forged(entry))
    assert cached.load_cached("one") != whole, "the forgery has to be good enough to be believed"
    entry.chmod(0o660)
    assert cached.load_cached("one") == whole


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file to another user")
def test_an_entry_of_another_user_is_ignored(cached) -> None:
    whole = cached.load("one")
    (entry,) = entries(cached)
    entry.write_text(forged(entry))
    os.chown(entry, 12345, -1)
    assert cached.load_cached("one") == whole


def test_an_entry_that_is_a_link_is_ignored(cached, tmp_path: Path) -> None:
    whole = cached.load("one")
    (entry,) = entries(cached)
    (tmp_path / "forged").write_text(forged(entry))
    (tmp_path / "forged").chmod(0o600)
    entry.unlink()
    entry.symlink_to(tmp_path / "forged")
    assert cached.load_cached("one") == whole


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"null",
        b"[]",
        b"{}",
        b'{"identity": 1}',
        b"\xff",
        b"[" * 100_000,
        b'{"body": {"files": [1]}}',
    ],
)
def test_a_broken_entry_is_ignored_and_replaced(cached, content: bytes) -> None:
    (entry,) = entries(cached)
    whole = entry.read_bytes()
    entry.write_bytes(content)
    assert cached.load_cached("one") == cached.load("one")
    assert entry.read_bytes() == whole


def test_an_entry_that_was_changed_by_a_byte_is_ignored(cached) -> None:
    (entry,) = entries(cached)
    entry.write_text(entry.read_text().replace("a.org", "b.org"))
    assert cached.load_cached("one") == cached.load("one")


def test_an_entry_of_other_code_is_not_asked(cached, monkeypatch) -> None:
    forget_loader(monkeypatch)
    monkeypatch.setattr("bot_bottle.manifest.cache.__version__", "0")
    with pytest.raises(ImportError):
        cached.load_cached("one")
    monkeypatch.undo()
    forget_loader(monkeypatch)
    monkeypatch.setattr("bot_bottle.manifest.cache.SCHEMA", 0)
    with pytest.raises(ImportError):
        cached.load_cached("one")


def test_without_a_place_for_the_cache_the_answer_is_the_same(home, tmp_path: Path) -> None:
    home.bottle("default")
    home.agent("one")
    home.cache = tmp_path / "file"
    home.cache.write_text("")
    assert home.load_cached("one") == home.load("one")


def test_a_wrong_manifest_is_not_remembered(home) -> None:
    home.agent("one", "x: 1")
    with pytest.raises(ManifestError):
        home.load_cached("one")
    assert entries(home) == []
