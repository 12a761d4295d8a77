"""Reading skills from folders that anybody may have written."""

import os

import pytest

from bot_bottle.errors import ManifestError, NotFoundError
from bot_bottle.provision import skills
from bot_bottle.provision.skills import read_skills

INSIDE = "/home/agent/.claude/skills"


@pytest.fixture
def skill(tmp_path):
    folder = tmp_path / "review"
    (folder / "scripts").mkdir(parents=True)
    (folder / "SKILL.md").write_text("---\nname: review\n---\n")
    (folder / "scripts/run.sh").write_text("#!/bin/sh\n")
    (folder / "scripts/run.sh").chmod(0o755)
    return folder


def read(folder):
    return read_skills([{"name": "review", "folder": str(folder)}], INSIDE)


def test_a_skill_is_copied_whole_with_its_programs_executable(skill):
    assert [(file.target, file.content, oct(file.mode)) for file in read(skill)] == [
        (f"{INSIDE}/review/SKILL.md", b"---\nname: review\n---\n", "0o644"),
        (f"{INSIDE}/review/scripts/run.sh", b"#!/bin/sh\n", "0o755"),
    ]


def test_no_skills_read_nothing():
    assert read_skills([], INSIDE) == ()


def test_a_link_out_of_the_skill_is_refused_and_not_read(skill, tmp_path):
    (tmp_path / "secret").write_text("a private key")
    (skill / "notes.md").symlink_to(tmp_path / "secret")
    with pytest.raises(ManifestError, match="symlinks are not followed") as caught:
        read(skill)
    assert "private key" not in str(caught.value)
    assert "notes.md" in caught.value.details


def test_a_folder_that_is_a_link_is_refused(skill, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (skill / "more").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ManifestError):
        read(skill)


def test_a_skill_that_is_a_link_itself_is_refused(skill, tmp_path):
    (tmp_path / "linked").symlink_to(skill)
    with pytest.raises(NotFoundError):
        read(tmp_path / "linked")


def test_a_folder_swapped_for_a_link_while_it_is_read_is_refused(skill, tmp_path, monkeypatch):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/key").write_text("a private key")
    opened = os.open

    def swap(name, flags, *args, **options):
        if name == "scripts":
            (skill / "scripts").rename(skill / "gone")
            (skill / "scripts").symlink_to(tmp_path / "elsewhere")
        return opened(name, flags, *args, **options)

    monkeypatch.setattr(skills.os, "open", swap)
    with pytest.raises(ManifestError):
        read(skill)


def test_a_pipe_neither_blocks_nor_gets_in(skill):
    os.mkfifo(skill / "pipe")
    with pytest.raises(ManifestError, match="no plain file"):
        read(skill)


def test_too_many_files_and_too_many_bytes_are_refused(skill, monkeypatch):
    monkeypatch.setattr(skills, "MOST_FILES", 1)
    with pytest.raises(ManifestError, match="too large"):
        read(skill)
    monkeypatch.setattr(skills, "MOST_FILES", 10)
    monkeypatch.setattr(skills, "MOST_BYTES", 10)
    with pytest.raises(ManifestError, match="too large"):
        read(skill)


def test_a_skill_nested_too_deep_is_refused(skill):
    (skill / "/".join("d" * (skills.MOST_DEPTH + 2))).mkdir(parents=True)
    with pytest.raises(ManifestError, match="nested"):
        read(skill)


def test_a_skill_without_its_file_or_folder_is_not_found(skill, tmp_path):
    with pytest.raises(NotFoundError):
        read(tmp_path / "none")
    (skill / "SKILL.md").unlink()
    with pytest.raises(NotFoundError, match=r"no SKILL\.md"):
        read(skill)


def test_version_control_and_its_hooks_stay_outside(skill):
    (skill / ".git/hooks").mkdir(parents=True)
    (skill / ".git/hooks/post-checkout").write_text("x")
    assert not [file for file in read(skill) if ".git" in file.target]


def test_every_descriptor_is_closed_whatever_happens(skill, tmp_path):
    before = len(os.listdir("/proc/self/fd"))
    (skill / "link").symlink_to("/etc/passwd")
    with pytest.raises(ManifestError):
        read(skill)
    assert len(os.listdir("/proc/self/fd")) == before
