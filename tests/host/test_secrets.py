"""Where secrets are read, and what is said when one can't be had: never a value."""

import base64
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from bot_bottle.errors import HostError
from bot_bottle.host import secrets
from bot_bottle.plan.model import Credential, Sensitive

SECRET = "s3cret-value-5150"
SOURCE = str(Path(__file__).parents[2] / "src")


def item(source, **keys):
    return Credential(**{"name": "key", "source": source, "scheme": "header", "key": "x-api-key", **keys})


def read(source, **keys):
    return secrets.read_all([item(source, **keys)], []).credentials["key"]


def program(folder, name, script):
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return str(path)


@pytest.fixture
def op(tmp_path, monkeypatch):
    """A program that answers as 1Password's does, when its session is in the environment."""
    folder = tmp_path / "bin"
    folder.mkdir()
    program(
        folder,
        "op",
        f'[ "$OP_SESSION_me" = open ] || {{ echo "[ERROR] you are not signed in" >&2; exit 6; }}\n'
        f'[ "$1 $2" = "read op://team/api/key" ] && echo {SECRET} && echo more',
    )
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    monkeypatch.setenv("OP_SESSION_me", "open")


def test_a_variable_a_file_and_a_command_give_the_same(monkeypatch, tmp_path, op):
    monkeypatch.setenv("KEY", SECRET)
    (tmp_path / "key").write_text(f"{SECRET}\n")
    command = "command:" + json.dumps(["op", "read", "op://team/api/key"])
    for source in ("env:KEY", f"file:{tmp_path}/key", command):
        held = read(source)
        assert (held.value.reveal(), held.secret.reveal()) == (SECRET, SECRET)


def test_each_way_out_has_its_value(monkeypatch):
    pairs = [
        ({"prefix": "Bearer ", "key": "authorization"}, f"Bearer {SECRET}", SECRET),
        (
            {"scheme": "basic", "user": "me"},
            "Basic " + base64.b64encode(f"me:{SECRET}".encode()).decode(),
            SECRET,
        ),
        ({"scheme": "query", "key": "api_key"}, SECRET, SECRET),
    ]
    for keys, value, bare in pairs:
        monkeypatch.setenv("KEY", SECRET)
        held = read("env:KEY", **keys)
        assert (held.value.reveal(), held.secret.reveal()) == (value, bare)
    monkeypatch.setenv("KEY", f"me:{SECRET}:x")
    held = read("env:KEY", scheme="basic")
    assert base64.b64decode(held.value.reveal().removeprefix("Basic ")).decode() == f"me:{SECRET}:x"
    assert held.secret.reveal() == f"{SECRET}:x"


def test_a_failed_command_shows_what_it_said_on_standard_error_and_never_its_output(
    monkeypatch, op, tmp_path
):
    monkeypatch.setenv("OP_SESSION_me", "closed")
    with pytest.raises(HostError) as caught:
        read("command:" + json.dumps(["op", "read", "op://team/api/key"]))
    assert "[ERROR] you are not signed in" in caught.value.details
    assert "exit code 6" in caught.value.details
    assert caught.value.resolution == "Run it yourself: op read op://team/api/key"
    printing = program(tmp_path, "printing", f"echo {SECRET}; exit 1")
    empty = program(tmp_path, "empty", f"echo; echo {SECRET}")
    for one in (printing, empty):
        with pytest.raises(HostError) as caught:
            read("command:" + json.dumps([one]))
        assert SECRET not in str(caught.value)


def test_a_command_that_is_not_there_or_never_ends_is_named(monkeypatch):
    monkeypatch.setattr(secrets, "COMMAND_SECONDS", 0.2)
    for argv, said in ((["no-such-program"], "not found"), (["sleep", "60"], "took longer")):
        with pytest.raises(HostError, match=said) as caught:
            read("command:" + json.dumps(argv))
        assert "The credential key" in caught.value.brief


def test_a_command_runs_at_home_and_not_in_the_repository(monkeypatch, tmp_path, own_home):
    monkeypatch.chdir(tmp_path)
    assert read("command:" + json.dumps(["pwd"])).secret.reveal() == str(own_home)


def test_the_same_source_is_read_once(tmp_path):
    counted = program(tmp_path, "counted", f"echo x >> {tmp_path}/count; echo {SECRET}")
    source = "command:" + json.dumps([counted])
    secrets.read_all([item(source), item(source, name="other")], [Sensitive("third", source)])
    assert (tmp_path / "count").read_text() == "x\n"


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda folder: "env:NO_SUCH_KEY", "is empty"),
        (lambda folder: f"file:{folder}/none", "can't be read"),
        (lambda folder: f"file:{folder}", "can't be read"),
        (lambda folder: f"file:{folder}/empty", "is empty"),
        (lambda folder: f"file:{folder}/long", "is longer than"),
        (lambda folder: f"file:{folder}/lines", "can't stand in a header"),
        (lambda folder: f"file:{folder}/umlaut", "can't stand in a header"),
    ],
)
def test_what_can_not_be_used_is_refused_without_its_value(tmp_path, make, said):
    contents = {"empty": " \n", "long": SECRET * 5000, "lines": f"{SECRET}\r\nx: y", "umlaut": f"ü{SECRET}"}
    for name, text in contents.items():
        (tmp_path / name).write_text(text)
    with pytest.raises(HostError) as caught:
        read(make(tmp_path))
    assert said in str(caught.value)
    assert SECRET not in str(caught.value)


def test_a_pair_without_a_colon_is_refused(monkeypatch):
    monkeypatch.setenv("KEY", SECRET)
    with pytest.raises(HostError, match="is not USER:PASSWORD") as caught:
        read("env:KEY", scheme="basic")
    assert SECRET not in str(caught.value)


def test_a_sensitive_value_may_be_any_text_but_not_a_short_one(tmp_path):
    (tmp_path / "key").write_text(f"-----BEGIN-----\nümlaut {SECRET}\n")
    vault = secrets.read_all([], [Sensitive("one", f"file:{tmp_path}/key")])
    assert vault.sensitive[0].reveal() == f"-----BEGIN-----\nümlaut {SECRET}"
    (tmp_path / "key").write_text("12345\n")
    with pytest.raises(HostError, match="shorter than 6"):
        secrets.read_all([], [Sensitive("one", f"file:{tmp_path}/key")])


def test_nothing_shows_a_secret_by_accident(monkeypatch):
    monkeypatch.setenv("KEY", SECRET)
    monkeypatch.setenv("OTHER", SECRET)
    vault = secrets.read_all([item("env:KEY")], [Sensitive("one", "env:OTHER")])
    assert SECRET not in f"{vault} {vault!r}"


def test_a_variable_that_was_read_is_gone_from_the_process_and_from_what_proc_shows_of_it():
    code = (
        "import os; from bot_bottle.host import secrets; from bot_bottle.plan.model import Credential, Sensitive\n"
        "v = secrets.read_all([Credential('a', 'env:KEY', 'header', 'x')], [Sensitive('b', 'env:OTHER')])\n"
        "print(v.credentials['a'].secret.reveal() == v.sensitive[0].reveal(), 'KEY' in os.environ)\n"
        "print(open('/proc/self/environ', 'rb').read())\n"
        "import subprocess; print(subprocess.run(['env'], capture_output=True).stdout)"
    )
    env = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": SOURCE,
        "A": "1",
        "KEY": SECRET,
        "OTHER": SECRET,
        "Z_KEY": "stays",
    }
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("True False\n")
    assert SECRET not in done.stdout
    assert done.stdout.count("Z_KEY=stays") == 2
    assert "A=1" in done.stdout


@pytest.fixture
def ring(monkeypatch):
    keyring = pytest.importorskip("keyring")
    from keyring.backend import KeyringBackend
    from keyring.errors import KeyringLocked

    class Ring(KeyringBackend):
        priority = 1
        locked = False

        def get_password(self, service, username):
            if self.locked:
                raise KeyringLocked("the keyring is locked")
            return SECRET if (service, username) == ("work/api", "me") else None

        def set_password(self, *_):
            raise NotImplementedError

    before = keyring.get_keyring()
    ring = Ring()
    keyring.set_keyring(ring)
    yield ring
    keyring.set_keyring(before)


def test_the_systems_keyring_is_asked_by_service_and_user(ring):
    assert read("keyring:work/api/me").secret.reveal() == SECRET
    with pytest.raises(HostError, match="the keyring has no work/api/you") as caught:
        read("keyring:work/api/you")
    assert caught.value.resolution == "keyring set work/api you"
    ring.locked = True
    with pytest.raises(HostError, match="the keyring is locked"):
        read("keyring:work/api/me")


def test_without_the_keyring_library_it_is_said_how_to_have_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "keyring", None)
    with pytest.raises(HostError) as caught:
        read("keyring:work/me")
    assert caught.value.resolution == "pip install 'bot-bottle[keyring]'"


def test_nothing_of_the_keyring_is_imported_for_another_source():
    code = (
        "import sys; from bot_bottle.host import secrets; from bot_bottle.plan.model import Credential\n"
        "secrets.read_all([Credential('a', 'env:KEY', 'header', 'x')], [])\n"
        "print({'keyring', 'ssl', 'subprocess', 'urllib.request', 'ctypes'} & set(sys.modules))"
    )
    env = {"PATH": os.environ["PATH"], "PYTHONPATH": SOURCE, "KEY": SECRET}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
