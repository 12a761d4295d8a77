"""Writing a plan's files inside, as the namespace backend does."""

import stat

import pytest

from bot_bottle.errors import PlanError, SandboxError
from bot_bottle.plan.model import File
from bot_bottle.provision.files import checked
from bot_bottle.provision.pipeline import provision, steps
from bot_bottle.testing.documents import run_plan


def mode(path):
    return oct(stat.S_IMODE(path.lstat().st_mode))


def home(name):
    return f"/home/agent/{name}"


def test_nothing_to_write_does_nothing(bottle, tmp_path):
    plan = run_plan(tmp_path)
    assert steps(plan) == ()
    provision(bottle, plan)
    assert bottle.written == []


def test_all_files_go_in_at_once_and_have_their_modes(bottle, tmp_path):
    files = (
        File(target=home(".claude.json"), content=b"{}"),
        File(target=home(".claude/skills/a/run.sh"), content=b"#!/bin/sh\n", mode=0o755),
        File(target=home("name with ' and ümlaut"), content=b"\x00\xff" * 5000, mode=0o644),
        File(target=home("d/" + "long" * 40), content=b""),
    )
    heard = []
    provision(bottle, run_plan(tmp_path, files=files), heard.append)
    assert len(bottle.written) == 1
    for file in files:
        path = bottle.root / file.target[1:]
        assert path.read_bytes() == file.content
        assert mode(path) == oct(file.mode)
    assert mode(bottle.root / "home/agent/.claude/skills") == "0o700"
    assert heard == [
        f"write {home('.claude.json')}, {home('.claude/skills/a/run.sh')}, {files[2].target} and 1 more"
    ]


def test_folders_that_exist_keep_their_mode_and_files_are_replaced(bottle, tmp_path):
    folder = bottle.root / "home/agent/.config"
    folder.mkdir(mode=0o751)
    folder.chmod(0o751)
    (folder / "x").write_text("old and longer")
    provision(bottle, run_plan(tmp_path, files=(File(target=home(".config/x"), content=b"new"),)))
    assert mode(folder) == "0o751"
    assert (folder / "x").read_text() == "new"


def test_a_file_is_written_instead_of_a_link_not_through_it(bottle, tmp_path):
    outside = tmp_path / "outside"
    outside.write_text("untouched")
    (bottle.root / "home/agent/.gitconfig").symlink_to(outside)
    provision(bottle, run_plan(tmp_path, files=(File(target=home(".gitconfig"), content=b"new"),)))
    assert outside.read_text() == "untouched"


def test_a_bottle_that_cant_write_is_a_sandbox_error_with_what_was_wrong(bottle, tmp_path):
    (bottle.root / "home/agent/.claude").write_text("a file where a folder must be")
    with pytest.raises(SandboxError, match="could not be provisioned") as caught:
        provision(bottle, run_plan(tmp_path, files=(File(target=home(".claude/x"), content=b""),)))
    assert ".claude" in caught.value.details


@pytest.mark.parametrize(
    "target",
    [
        *(
            "/etc/passwd",
            "home/agent/x",
            "/home/agent",
            "/home/agent/",
            "/home/agent/../x",
            "/home/agentx/y",
            "",
        ),
        *("/home/agent/a//b", "/home/agent/./a", "/home/agent/a/..", "/home/agent/a\0b", "/workspace/x"),
    ],
)
def test_a_target_that_is_not_plainly_in_the_agents_home_is_refused(target):
    with pytest.raises(PlanError):
        checked((File(target=target, content=b""),))


def test_two_different_files_for_one_target_are_refused_and_equal_ones_are_one(bottle, tmp_path):
    one, other = File(target=home("x"), content=b"1"), File(target=home("x"), content=b"2")
    with pytest.raises(PlanError, match="Two different files"):
        checked((one, other))
    assert checked((one, one)) == checked((one,))


def test_no_mode_gets_in_that_gives_a_program_another_users_rights(bottle, tmp_path):
    provision(bottle, run_plan(tmp_path, files=(File(target=home("x"), content=b"", mode=0o6755),)))
    assert mode(bottle.root / "home/agent/x") == "0o755"
