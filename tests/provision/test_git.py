"""The agent's git configuration, as git itself reads it."""

import subprocess
from typing import get_type_hints

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot_bottle.manifest.document import GitDocument
from bot_bottle.provision.git import identity


def document(name=None, email=None):
    return GitDocument(user_name=name, user_email=email, signing=None, remotes=[])


def read(content, key, folder):
    path = folder / "config"
    path.write_bytes(content)
    env = {"PATH": "/usr/bin:/bin", "GIT_CONFIG_NOSYSTEM": "1", "HOME": str(folder)}
    done = subprocess.run(
        ["git", "config", "-z", "-f", path, "--get", key], env=env, capture_output=True, check=False
    )
    return done.stdout.decode()[:-1] if done.returncode == 0 else None


def test_without_an_identity_and_with_ones_own_workspace_there_is_no_file():
    assert identity(document(), foreign_owner=False) == ()


def test_a_workspace_of_another_user_is_declared_safe(tmp_path):
    (file,) = identity(document(), foreign_owner=True)
    assert read(file.content, "safe.directory", tmp_path) == "/workspace"


@pytest.mark.parametrize(
    "name",
    [
        "Bot",
        'a "quoted" \\ name',
        "x\n[core]\n\tfsmonitor = evil",
        "# no comment ; none",
        " spaced ",
        "Zoë 🦀",
        "back\\",
    ],
)
def test_git_reads_the_name_that_was_written(tmp_path, name):
    (file,) = identity(document(name, "bot@example.org"), foreign_owner=True)
    assert read(file.content, "user.name", tmp_path) == name
    assert read(file.content, "user.email", tmp_path) == "bot@example.org"
    assert read(file.content, "core.fsmonitor", tmp_path) is None


@given(st.text(min_size=1))
def test_no_name_adds_a_line(name):
    files = identity(document(name), foreign_owner=False)
    assert all(len(file.content.splitlines()) == 2 for file in files)


def test_the_document_still_has_what_is_read_of_it():
    assert {"user_name", "user_email"} <= set(get_type_hints(GitDocument))
