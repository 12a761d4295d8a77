"""Doctor says which secrets could not be read, without reading one."""

import sys

import pytest

from bot_bottle.operate import sources
from support.bottles import front_matter
from support.logins import claude_login


@pytest.fixture
def bottles(own_home, monkeypatch):
    folder = own_home / ".bot-bottle" / "bottles"
    folder.mkdir(parents=True)
    (own_home / "login").write_text(claude_login())
    (own_home / "key").write_text("s3cret")
    monkeypatch.setenv("SET", "s3cret")
    credentials = {
        "set": {"env": "SET"}, "unset": {"env": "UNSET"}, "file": {"file": "~/key"}, "nofile": {"file": "~/nokey"},
        "program": {"command": ["touch", str(own_home / "ran")]}, "noprogram": {"command": ["no-such-program"]},
        "login": {"claude_login": "~/login"}, "nologin": {"claude_login": "~/key"},
    }  # fmt: skip
    (folder / "one.md").write_text(
        front_matter({
            "credentials": {name: {"from": origin, "bearer": True} for name, origin in credentials.items()},
            "sensitive": {"other": {"env": "UNSET_TOO"}},
        })
    )  # fmt: skip
    (folder / "wrong.md").write_text("---\nno: such\n---\n")
    return own_home


def test_what_is_not_there_is_named_and_nothing_is_read_or_run(bottles):
    found = list(sources.missing(str(bottles / ".bot-bottle")))
    assert {one.name for one in found} == {"unset", "nofile", "noprogram", "nologin", "other"}
    assert all(one.bottle == "one" and one.do for one in found)
    assert "s3cret" not in repr(found)
    assert not (bottles / "ran").exists()


def test_a_machine_without_a_keyring_is_told_what_is_missing(monkeypatch):
    keyring = pytest.importorskip("keyring")
    from keyring.backends import fail, null

    before = keyring.get_keyring()
    try:
        keyring.set_keyring(fail.Keyring())
        assert sources.keyring()[0] == "no keyring answers here"
        keyring.set_keyring(null.Keyring())
        assert sources.keyring()[1] == ""
    finally:
        keyring.set_keyring(before)
    monkeypatch.setitem(sys.modules, "keyring", None)
    assert "pip install 'bot-bottle[keyring]'" in sources.keyring()[1]
