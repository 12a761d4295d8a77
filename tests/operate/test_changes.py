"""What the agent did in its copy is what is shown and applied: all of it, nothing else, whatever it did to trick that."""

import json
import os
import socket
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support_changes import Run, facts, git

from bot_bottle.errors import HostError, NotFoundError, StateError, UsageError
from bot_bottle.operate import changes as operate_changes
from bot_bottle.operate import placing
from bot_bottle.provision import snapshot, workspace
from support.waiting import wait_for


def same(run: Run) -> bool:
    return facts(run.source) == facts(run.copy)


def test_nothing_changed_is_no_changes(started):
    found = started.changes()
    assert (found.patch, found.files, found.left_out) == (b"", (), ())
    assert started.apply() == found


def test_every_kind_of_change_is_shown_and_applied(started):
    copy = started.copy
    (copy / "hello.py").write_text("print('hello')\n" * 4 + "print('bye')\n")
    (copy / "new.txt").write_text("new\n")
    (copy / "empty").write_text("")
    (copy / "binary").write_bytes(bytes(range(256)) * 20)
    (copy / "no newline").write_text("no newline")
    (copy / "crlf.txt").write_bytes(b"a\r\nb\r\n")
    (copy / "tool").write_text("#!/bin/sh\n")
    (copy / "tool").chmod(0o755)
    (copy / "link").symlink_to("sub/data.txt")
    (copy / "deep/er").mkdir(parents=True)
    (copy / "deep/er/file").write_text("x\n")
    (copy / 'tab\tnew\nline"quote\\back').write_text("odd\n")
    (copy / os.fsdecode(b"\xff\xfe latin")).write_text("bytes\n")
    (copy / " spaces ").write_text("s\n")
    (copy / "a -> b").write_text("s\n")
    (copy / "sub/data.txt").unlink()
    (copy / "sub").rmdir()
    found = started.changes()
    statuses = {file.path: file.status for file in found.files}
    assert statuses["hello.py"] == "M"
    assert statuses["sub/data.txt"] == "D"
    assert statuses['tab\tnew\nline"quote\\back'] == "A"
    assert len(statuses) == 14
    assert next(file for file in found.files if file.path == "binary").insertions is None
    assert found.insertions > 0
    before = facts(started.source)
    started.apply(check_only=True)
    assert facts(started.source) == before
    assert started.apply() == found
    assert same(started)
    assert not (started.source / "sub").exists()
    with pytest.raises(UsageError, match="already"):
        started.apply()


def test_a_rename_is_shown_as_one(run):
    (run.source / "long.txt").write_text("".join(f"line {n}\n" for n in range(50)))
    run.start()
    (run.copy / "moved").mkdir()
    (run.copy / "long.txt").rename(run.copy / "moved/longer.txt")
    (file,) = run.changes().files
    assert (file.status, file.old_path, file.path) == ("R", "long.txt", "moved/longer.txt")
    run.apply()
    assert same(run)


def test_files_folders_and_links_take_each_others_places(run):
    for name in ("a", "b", "c"):
        (run.source / name).write_text(f"{name}\n")
    (run.source / "d").mkdir()
    (run.source / "d/inner").write_text("x\n")
    (run.source / "e").symlink_to("a")
    run.start()
    copy = run.copy
    (copy / "a").unlink()
    (copy / "a").mkdir()
    (copy / "a/inside").write_text("x\n")
    (copy / "b").unlink()
    (copy / "b").symlink_to("c")
    (copy / "d/inner").unlink()
    (copy / "d").rmdir()
    (copy / "d").write_text("file\n")
    (copy / "e").unlink()
    (copy / "e").write_text("was a link\n")
    run.apply()
    assert same(run)


def test_a_mode_change_is_applied_and_other_permissions_stay(run):
    (run.source / "script").write_text("x\n")
    (run.source / "script").chmod(0o640)
    (run.source / "private").write_text("x\n")
    (run.source / "private").chmod(0o600)
    (run.source / "sub").chmod(0o700)
    run.start()
    (run.copy / "script").chmod(0o755)
    (run.copy / "private").write_text("y\n")
    (run.copy / "sub/data.txt").write_text("y\n")
    run.apply()
    assert stat.S_IMODE((run.source / "script").stat().st_mode) == 0o750
    assert stat.S_IMODE((run.source / "private").stat().st_mode) == 0o600
    assert stat.S_IMODE((run.source / "sub").stat().st_mode) == 0o700
    assert same(run)


@pytest.mark.skipif(os.geteuid() != 0, reason="not run as root")
def test_as_root_what_is_applied_belongs_to_the_workspaces_owner(run):
    git(run.source, "config", "safe.directory", "*")
    subprocess.run(["chown", "-R", "23458:23458", str(run.source)], check=True)
    run.start()
    (run.copy / "hello.py").write_text("y\n")
    (run.copy / "new").mkdir()
    (run.copy / "new/file").write_text("y\n")
    run.apply()
    for name in ("hello.py", "new", "new/file"):
        assert (run.source / name).stat().st_uid == 23458, name


def test_what_is_ignored_is_left_out_unless_git_tracks_it(run):
    (run.source / "kept.log").write_text("tracked\n")
    git(run.source, "add", "-f", "kept.log")
    (run.source / "loose.log").write_text("ignored\n")
    (run.source / "build").mkdir()
    (run.source / "build/kept.o").write_text("tracked\n")
    git(run.source, "add", "-f", "build/kept.o")
    (run.source / ".git/info/exclude").write_text("mine.txt\n")
    run.start()
    for name in ("kept.log", "loose.log", "build/kept.o", "build/other.o", "mine.txt", "sub/new.log"):
        (run.copy / name).write_text("changed\n")
    assert run.statuses() == {"kept.log": "M", "build/kept.o": "M"}


def test_a_new_ignore_rule_hides_new_files_but_never_a_change_to_an_old_one(started):
    (started.copy / ".gitignore").write_text("*\n")
    (started.copy / "hello.py").write_text("changed\n")
    (started.copy / "new").write_text("hidden\n")
    assert started.statuses() == {".gitignore": "M", "hello.py": "M"}


def test_a_workspace_without_git_works(tmp_path):
    run = Run(tmp_path)
    run.source.mkdir()
    (run.source / "a").write_text("a\n")
    run.start()
    (run.copy / "a").write_text("b\n")
    (run.copy / "new").write_text("n\n")
    run.apply()
    assert same(run)


def test_a_second_change_within_the_clocks_tick_is_seen(started):
    known = (started.copy / "sub/data.txt").stat()
    (started.copy / "sub/data.txt").write_text("ONE\ntwo\nthree\n")
    os.utime(started.copy / "sub/data.txt", ns=(known.st_atime_ns, known.st_mtime_ns))
    assert started.statuses() == {"sub/data.txt": "M"}


def test_a_change_that_left_every_fact_of_a_file_as_it_was_is_seen_if_it_was_that_soon(started):
    (started.copy / "sub/data.txt").write_text("ONE\ntwo\nthree\n")
    now = (started.copy / "sub/data.txt").stat()
    recorded = Path(started.plan.workspace.base, workspace.START)
    begun = recorded.stat().st_mtime_ns
    lines = recorded.read_bytes().split(b"\0")
    facts_now = b"%o %d %d %d %d sub/data.txt" % snapshot._facts(now)
    lines = [facts_now if line.endswith(b" sub/data.txt") else line for line in lines]
    recorded.write_bytes(b"\0".join(lines))
    os.utime(recorded, ns=(begun, begun))
    assert started.statuses() == {"sub/data.txt": "M"}


def test_untouched_files_are_not_read_again(run, monkeypatch):
    for n in range(50):
        (run.source / f"f{n}").write_text(f"{n}\n")
    run.start()
    os.utime(Path(run.plan.workspace.base, workspace.START), ns=(newest(run.copy) + 1, newest(run.copy) + 1))
    taken = []
    real = snapshot.take_in
    monkeypatch.setattr(
        snapshot, "take_in", lambda found, into: taken.append(found.path) or real(found, into)
    )
    (run.copy / "f7").write_text("changed\n")
    assert run.statuses() == {"f7": "M"}
    assert taken == ["f7"]


def newest(folder: Path) -> int:
    return max(path.lstat().st_ctime_ns for path in folder.rglob("*"))


def test_a_start_that_was_long_before_the_agent_began_is_believed_without_a_look_at_the_files(run):
    run.start()
    base = run.plan.workspace.base
    os.utime(Path(base, workspace.START), ns=(newest(run.copy), newest(run.copy)))
    assert snapshot.unchanged(str(run.copy), base) is None

    def later() -> bool:
        workspace.agent_begins(run.plan)
        return Path(base, workspace.START).stat().st_mtime_ns > newest(run.copy)

    wait_for(later, "the file system's clock to go on")
    assert snapshot.unchanged(str(run.copy), base) == ()
    (run.copy / "hello.py").write_bytes((run.copy / "hello.py").read_bytes())
    assert snapshot.unchanged(str(run.copy), base) is None


def test_nested_repositories_and_submodules_are_folders_like_any_other(run, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    git(other, "init", "-q")
    (other / "lib.c").write_text("int x;\n")
    git(other, "add", ".")
    git(other, "commit", "-q", "-m", "x")
    git(run.source, "submodule", "--quiet", "add", str(other), "vendored")
    run.start()
    (run.copy / "vendored/lib.c").write_text("int y;\n")
    empty = run.copy / "empty-repository"
    empty.mkdir()
    git(empty, "init", "-q")
    (empty / "file").write_text("x\n")
    assert run.statuses() == {"vendored/lib.c": "M", "empty-repository/file": "A"}
    run.apply()
    assert (run.source / "vendored/lib.c").read_text() == "int y;\n"
    assert not (run.source / "empty-repository/.git").exists()


# -- attacks -----------------------------------------------------------------------------------------------------------


def arm(repository: Path, tripwire: str) -> None:
    """Everything by which a repository makes git run a program."""
    for section, name in (
        ("core", "fsmonitor"),
        ("core", "pager"),
        ("core", "editor"),
        ("core", "sshCommand"),
        ("diff", "external"),
        ("filter.trip", "clean"),
        ("filter.trip", "smudge"),
        ("filter.trip", "process"),
        ("diff.trip", "command"),
        ("diff.trip", "textconv"),
        ("merge.trip", "driver"),
        ("credential", "helper"),
        ("uploadpack", "packObjectsHook"),
    ):
        git(repository, "config", f"{section}.{name}", tripwire)
    git(repository, "config", "core.hooksPath", str(repository / "hooks"))
    (repository / "hooks").mkdir(exist_ok=True)
    hooks = "pre-commit post-checkout applypatch-msg pre-applypatch post-applypatch post-index-change reference-transaction"
    for folder in (repository / "hooks", repository / ".git/hooks"):
        for hook in hooks.split():
            (folder / hook).unlink(missing_ok=True)
            (folder / hook).symlink_to(tripwire)
    (repository / ".gitattributes").write_text(
        "* filter=trip diff=trip merge=trip text eol=crlf ident working-tree-encoding=UTF-16\n"
    )
    (repository / ".git/info").mkdir(exist_ok=True)
    (repository / ".git/info/attributes").write_text("* filter=trip diff=trip\n")


def test_no_setting_of_the_copy_makes_git_run_anything(started, tripwire):
    arm(started.copy, tripwire)
    (started.copy / "hello.py").write_bytes(b"$Id$ \xc3\xa4\r\nbye\n")
    assert started.statuses()["hello.py"] == "M"
    assert b"+$Id$ \xc3\xa4\r\n+bye\n" in started.changes().patch
    started.apply()
    assert (started.source / "hello.py").read_bytes() == b"$Id$ \xc3\xa4\r\nbye\n"


def test_no_setting_of_the_persons_repository_makes_git_run_anything(run, tripwire):
    arm(run.source, tripwire)
    (run.source / "hello.py").write_bytes(b"one\r\ntwo\r\n")
    run.start()
    (run.copy / "hello.py").write_bytes(b"one\r\n2\r\n")
    run.apply()
    assert (run.source / "hello.py").read_bytes() == b"one\r\n2\r\n"


def test_git_variables_and_config_of_the_person_play_no_part(started, tripwire, monkeypatch, tmp_path):
    (tmp_path / "config").write_text(
        f"[core]\n\tfsmonitor = {tripwire}\n[diff]\n\tnoprefix = true\n\texternal = {tripwire}\n"
    )
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(tmp_path / "config"))
    monkeypatch.setenv("GIT_EXTERNAL_DIFF", tripwire)
    monkeypatch.setenv("GIT_DIR", "/nonexistent")
    monkeypatch.setenv("GIT_INDEX_FILE", "/nonexistent")
    (started.copy / "hello.py").write_text("bye\n")
    started.apply()
    assert same(started)


@pytest.mark.parametrize("name", ["commondir", "gitdir", "config.worktree", "objects/info/alternates"])
def test_a_repository_that_points_elsewhere_leads_nowhere(started, tripwire, tmp_path, name):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    git(elsewhere, "init", "-q")
    arm(elsewhere, tripwire)
    (started.copy / ".git" / name).write_text(f"{elsewhere}/.git\n")
    git_config = (started.copy / ".git/config").read_text()
    (started.copy / ".git/config").write_text(
        f"{git_config}\tworktree = /etc\n[include]\n\tpath = {elsewhere}/.git/config\n"
    )
    (started.copy / "hello.py").write_text("bye\n")
    assert started.statuses() == {"hello.py": "M"}
    started.apply()
    assert (started.source / "hello.py").read_text() == "bye\n"


def test_a_repository_that_is_a_link_or_a_file_changes_nothing(started, tripwire, tmp_path):
    (started.copy / ".git").rename(tmp_path / "aside")
    (started.copy / ".git").symlink_to("/etc")
    (started.copy / "hello.py").write_text("bye\n")
    assert started.statuses() == {"hello.py": "M"}
    (started.copy / ".git").unlink()
    (started.copy / ".git").write_text(f"gitdir: {tmp_path}/aside\n")
    assert started.statuses() == {"hello.py": "M"}


@pytest.mark.parametrize(
    "name",
    [
        ".GIT",
        ".Git/config",
        "sub/.gIt/hooks/x",
        "git~1",
        ".git /x",
        ".git::$INDEX",
        ".g\u200cit/config",
        "GIT~1",
    ],
)
def test_a_name_that_could_be_gits_own_is_left_out_and_told(started, name):
    path = started.copy / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("[core]\n")
    (started.copy / "hello.py").write_text("bye\n")
    found = started.changes()
    assert [file.path for file in found.files] == ["hello.py"]
    assert any("a name that git keeps for itself" in line for line in found.left_out)
    started.apply()
    assert not os.path.lexists(started.source / name)


def test_a_modules_file_that_is_a_link_is_left_out(started):
    (started.copy / ".gitmodules").symlink_to("/etc/passwd")
    (started.copy / "hello.py").write_text("bye\n")
    assert started.statuses() == {"hello.py": "M"}


@pytest.mark.parametrize("name", [".gitignore", ".gitattributes", "sub/pipe", "hello.py"])
def test_a_pipe_in_the_tree_stops_nothing(started, name):
    (started.copy / name).unlink(missing_ok=True)
    os.mkfifo(started.copy / name)
    (started.copy / "sub/data.txt").write_text("changed\n")
    assert started.statuses()["sub/data.txt"] == "M"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(started.copy / "socket"))
        assert any("socket" in line for line in started.changes().left_out)


def test_links_are_shown_as_links_and_never_followed(started, tmp_path):
    secret = tmp_path / "secret"
    secret.write_text("the host's own\n")
    (started.copy / "hello.py").unlink()
    (started.copy / "hello.py").symlink_to(secret)
    (started.copy / "data").symlink_to("/etc")
    (started.copy / ".gitignore").unlink()
    (started.copy / ".gitignore").symlink_to(secret)
    found = started.changes()
    assert b"host's own" not in found.patch
    assert b"root:" not in found.patch
    assert {flag.path for flag in found.flagged} == {"hello.py", "data", ".gitignore"}
    started.apply()
    assert secret.read_text() == "the host's own\n"
    assert os.readlink(started.source / "hello.py") == str(secret)


def test_a_file_is_not_written_through_a_link_that_the_changes_bring(started, tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    (started.source / "sub/data.txt").unlink()
    (started.source / "sub").rmdir()
    (started.source / "sub").symlink_to(outside)
    (outside / "data.txt").write_text("one\ntwo\nthree\n")
    (started.copy / "sub/data.txt").write_text("one\n2\nthree\n")
    (started.copy / "sub/new.txt").write_text("new\n")
    with pytest.raises(UsageError, match="don't fit") as error:
        started.apply()
    assert "sub/data.txt" in error.value.details
    assert sorted(os.listdir(outside)) == ["data.txt"]
    assert (outside / "data.txt").read_text() == "one\ntwo\nthree\n"


@pytest.mark.parametrize(
    "path",
    ["../outside", "/tmp/outside", "sub/../../outside", ".git/hooks/post-commit", ".GIT/config", "a//b", ""],
)
def test_saved_changes_that_reach_outside_are_refused(started, path):
    (started.copy / "hello.py").write_text("bye\n")
    found = operate_changes.save(started.record)
    patch = found.patch.replace(b"hello.py", path.encode())
    forged = found.files[0]._replace(path=path, old_path=path)
    listed = json.loads((started.state / "changes.json").read_text())
    listed["files"] = [list(forged)]
    (started.state / "changes.json").write_text(json.dumps(listed))
    (started.state / "changes.patch").write_bytes(patch)
    with pytest.raises(UsageError, match="git's own"):
        started.apply()


def test_a_patch_that_writes_more_than_it_lists_writes_none_of_that(started):
    (started.copy / "hello.py").write_text("bye\n")
    (started.copy / "unlisted").write_text("x\n")
    found = operate_changes.save(started.record)
    listed = json.loads((started.state / "changes.json").read_text())
    listed["files"] = [file for file in listed["files"] if file[0] == "hello.py"]
    (started.state / "changes.json").write_text(json.dumps(listed))
    assert len(found.files) == 2
    started.apply()
    assert not (started.source / "unlisted").exists()


def test_content_that_looks_like_a_patch_is_content(started):
    text = "--- a/hello.py\n+++ b/hello.py\n@@ -1 +1 @@\n-x\n+y\ndiff --git a/x b/../../x\nnew file mode 100644\n"
    (started.copy / "trick.patch").write_text(text)
    (started.copy / "hello.py").write_text(text)
    started.apply()
    assert same(started)


def test_a_folder_that_becomes_a_link_while_it_is_looked_at_leads_nowhere(started, tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    for n in range(20):
        (outside / f"f{n}").write_text("the host's own\n")
        (started.copy / "sub" / f"f{n}").write_text("the agent's\n")
    over = threading.Event()

    def swap() -> None:
        while not over.is_set():
            os.rename(started.copy / "sub", started.copy / "aside")
            os.symlink(outside, started.copy / "sub")
            os.unlink(started.copy / "sub")
            os.rename(started.copy / "aside", started.copy / "sub")

    attacker = threading.Thread(target=swap)
    attacker.start()
    try:
        for _ in range(60):
            assert b"the host's own" not in started.changes().patch
    finally:
        over.set()
        attacker.join()


def test_a_file_that_becomes_a_link_while_it_is_looked_at_leads_nowhere(started, tmp_path, monkeypatch):
    secret = tmp_path / "secret"
    secret.write_text("the host's own\n")
    (started.copy / "hello.py").write_text("the agent's\n")
    real = os.open

    def swapped(name: object, *arguments: object, **options: object) -> int:
        if name == "hello.py":
            (started.copy / "hello.py").unlink()
            (started.copy / "hello.py").symlink_to(secret)
        return real(name, *arguments, **options)

    monkeypatch.setattr(os, "open", swapped)
    found = started.changes()
    assert b"host's own" not in found.patch
    assert any("hello.py" in line for line in found.left_out)


def test_a_workspace_that_changes_under_the_copy_leads_nowhere(run, tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "data.txt").write_text("the host's own\n")
    over = threading.Event()

    def swap() -> None:
        while not over.is_set():
            os.rename(run.source / "sub", run.source / "aside")
            os.symlink(outside, run.source / "sub")
            os.unlink(run.source / "sub")
            os.rename(run.source / "aside", run.source / "sub")

    attacker = threading.Thread(target=swap)
    attacker.start()
    try:
        for _ in range(40):
            run.start()
            contents = [content for _, content in facts(run.copy).values()]
            assert b"the host's own\n" not in contents
            operate_changes.remove_copy(run.record)
    finally:
        over.set()
        attacker.join()


def test_a_tree_too_deep_is_told_and_can_be_removed(started):
    here = os.open(started.copy, os.O_RDONLY)
    for _ in range(3000):
        os.mkdir("d", dir_fd=here)
        inner = os.open("d", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = inner
    os.close(here)
    (started.copy / "hello.py").write_text("bye\n")
    found = started.changes()
    assert [file.path for file in found.files] == ["hello.py"]
    assert any("too deep" in line for line in found.left_out)
    operate_changes.remove_copy(started.record)
    assert not started.copy.exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="not run as root")
def test_closed_folders_and_files_are_looked_into_as_their_owner(run):
    code = """
import os, sys
sys.path[:0] = sys.argv[1:3]
from pathlib import Path
from support_changes import Run
from bot_bottle.operate import changes
os.setgid(23459); os.setuid(23459)
run = Run(Path(sys.argv[3]))
run.start()
(run.copy / "hello.py").write_text("bye")
os.chmod(run.copy / "hello.py", 0)
(run.copy / "shut").mkdir()
(run.copy / "shut/new").write_text("x")
os.chmod(run.copy / "shut", 0)
print(sorted(run.statuses().items()), oct((run.copy / "hello.py").stat().st_mode))
os.chmod(run.copy / "shut", 0o500)
changes.remove_copy(run.record)
print(run.copy.exists())
"""
    for folder in run.source.parents:
        if folder == Path("/tmp"):
            break
        folder.chmod(0o755)
    run.state.parent.mkdir(mode=0o777)
    run.state.parent.chmod(0o777)
    sources = Path(__file__).resolve().parents[2] / "src"
    done = subprocess.run(
        [sys.executable, "-c", code, str(sources), str(Path(__file__).parent), str(run.source.parent)],
        capture_output=True,
        text=True,
        cwd="/",
        check=False,
    )
    assert done.stdout == "[('hello.py', 'M'), ('shut/new', 'A')] 0o100000\nFalse\n", done.stderr


def test_too_much_is_said_and_nothing_is_lost(started, monkeypatch):
    monkeypatch.setattr(snapshot, "MAX_FILES", 3)
    for n in range(5):
        (started.copy / f"f{n}").write_text("x")
    with pytest.raises(HostError, match="Too much"):
        operate_changes.save(started.record)
    assert (started.copy / "f4").exists()
    assert not [name for name in os.listdir(started.state) if name.startswith("diff-")]


def test_a_large_file_is_shown_and_applied(started):
    (started.copy / "large.bin").write_bytes(os.urandom(1 << 20) * 50)
    (started.copy / "large.txt").write_text("a line of text that goes on\n" * 200_000)
    started.apply()
    assert same(started)


def test_what_does_something_on_the_host_later_is_flagged(started):
    names = (
        ".vscode/tasks.json", ".devcontainer/devcontainer.json", ".envrc", ".claude/settings.json", ".gitattributes",
        "sub/Makefile", "package.json", ".pre-commit-config.yaml", "lib/x.pth", "CLAUDE.md", ".github/workflows/ci.yml",
        "sub/.MCP.json", "harmless.py", "docs/make.md", "x.github/y",
    )  # fmt: skip
    for name in names:
        (started.copy / name).parent.mkdir(parents=True, exist_ok=True)
        (started.copy / name).write_text("{}\n")
    flagged = {flag.path for flag in started.changes().flagged}
    assert flagged == set(names[:-3])


# -- conflicts and failures --------------------------------------------------------------------------------------------


def test_what_the_person_did_elsewhere_in_a_file_is_kept(run):
    (run.source / "long.txt").write_text("".join(f"line {n}\n" for n in range(50)))
    run.start()
    (run.copy / "long.txt").write_text("".join(f"line {n}\n" for n in range(49)) + "the agent's\n")
    (run.source / "long.txt").write_text("the person's\n" + "".join(f"line {n}\n" for n in range(50)))
    run.apply()
    lines = (run.source / "long.txt").read_text().splitlines()
    assert (lines[0], lines[-1], len(lines)) == ("the person's", "the agent's", 51)


def test_a_conflict_names_the_files_and_changes_nothing(started):
    (started.copy / "hello.py").write_text("the agent's\n")
    (started.copy / "sub/data.txt").write_text("one\n2\nthree\n")
    (started.copy / "new").write_text("the agent's\n")
    (started.source / "hello.py").write_text("the person's\n")
    (started.source / "new").write_text("the person's\n")
    before = facts(started.source)
    for check_only in (True, False):
        with pytest.raises(UsageError, match="don't fit") as error:
            started.apply(check_only=check_only)
        assert "hello.py" in error.value.details
        assert "new" in error.value.details
        assert facts(started.source) == before
    assert sorted(os.listdir(started.source)) == [".git", ".gitignore", "hello.py", "new", "sub"]


def test_a_folder_with_other_files_is_not_replaced(started):
    (started.copy / "sub/data.txt").unlink()
    (started.copy / "sub").rmdir()
    (started.copy / "sub").write_text("a file now\n")
    (started.source / "sub/mine").write_text("the person's\n")
    for check_only in (True, False):
        with pytest.raises(UsageError, match="don't fit") as error:
            started.apply(check_only=check_only)
        assert "sub: is a folder" in error.value.details
    (started.source / "sub/mine").unlink()
    (started.source / "sub/empty/inner").mkdir(parents=True)
    started.apply()
    assert (started.source / "sub").read_text() == "a file now\n"


@pytest.mark.parametrize("at", range(7))
def test_a_step_that_fails_is_undone_with_all_before_it(run, monkeypatch, at):
    for name in ("a", "b/c", "d/e/f"):
        (run.source / name).parent.mkdir(parents=True, exist_ok=True)
        (run.source / name).write_text(f"{name}\n")
    run.start()
    (run.copy / "a").write_text("changed\n")
    (run.copy / "b/c").unlink()
    (run.copy / "b").rmdir()
    (run.copy / "b").write_text("a file\n")
    (run.copy / "d/e/f").unlink()
    (run.copy / "new/folder").mkdir(parents=True)
    (run.copy / "new/folder/file").write_text("new\n")
    before, listing = facts(run.source), sorted(map(str, run.source.rglob("*")))
    steps = [0]
    real = os.rename

    def rename(*arguments: object, **options: object) -> None:
        ours = str(arguments[0]).startswith("new-") or str(arguments[1]).startswith("old-")
        steps[0] += ours
        if ours and steps[0] == at + 1:
            raise OSError(28, "No space left on device")
        real(*arguments, **options)

    monkeypatch.setattr(os, "rename", rename)
    if at < 6:
        with pytest.raises(HostError, match="No space left"):
            run.apply()
        assert facts(run.source) == before
        assert sorted(map(str, run.source.rglob("*"))) == listing
    else:
        run.apply()
        assert same(run)


def test_what_can_not_be_moved_back_is_kept_and_told(started, monkeypatch):
    (started.copy / "hello.py").write_text("bye\n")
    (started.copy / "sub/data.txt").write_text("bye\n")

    def broken(*_: object) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(placing._Placement, "_put", broken)
    monkeypatch.setattr(placing._Placement, "_move", broken)
    with pytest.raises(HostError, match="half-way") as error:
        started.apply()
    (stage,) = started.source.glob(".bot-bottle-apply-*")
    assert stage.name in error.value.resolution
    paths = json.loads((stage / "paths").read_text())
    assert {path: (stage / name).read_text() for name, path in paths.items()} == {
        "hello.py": "print('hello')\n" * 5,
        "sub/data.txt": "one\ntwo\nthree\n",
    }


def test_a_file_that_is_saved_at_that_moment_is_not_overwritten(started, monkeypatch):
    (started.copy / "hello.py").write_text("the agent's\n")
    real = operate_changes._patched

    def patched(*arguments: object) -> set[str]:
        there = real(*arguments)
        (started.source / "hello.py").write_text("saved in the editor\n")
        return there

    monkeypatch.setattr(operate_changes, "_patched", patched)
    with pytest.raises(UsageError, match="don't fit"):
        started.apply()
    assert (started.source / "hello.py").read_text() == "saved in the editor\n"


# -- kept when the run has ended ---------------------------------------------------------------------------------------


def test_saved_changes_outlive_the_copy(started):
    (started.copy / "hello.py").write_text("bye\n")
    (started.copy / "Makefile").write_text("all:\n")
    (started.copy / os.fsdecode(b"\xff")).write_text("x\n")
    live = started.changes()
    assert operate_changes.save(started.record) == live
    assert operate_changes.save(started.record) == live
    operate_changes.remove_copy(started.record)
    operate_changes.remove_copy(started.record)
    assert started.changes() == live
    assert sorted(os.listdir(started.state)) == ["changes.json", "changes.patch"]
    started.apply()
    assert (started.source / "Makefile").read_text() == "all:\n"


def test_of_a_run_without_a_copy_there_is_nothing_to_save_or_show(run):
    assert operate_changes.save(run.record) is None
    with pytest.raises(NotFoundError):
        run.changes()
    with pytest.raises(UsageError, match="works in the workspace itself"):
        operate_changes.compute(run.record._replace(workspace_mode="mount"))


def test_saved_changes_that_are_broken_are_said(started):
    operate_changes.save(started.record)
    (started.state / "changes.json").write_text("{")
    with pytest.raises(StateError, match="can't be read"):
        started.changes()


NAMES = st.sampled_from(["a", "b", "c d", "e\tf", "g\nh", "é", os.fsdecode(b"\xfe"), "-x", '"', "\\"])
CONTENT = st.binary(max_size=40) | st.sampled_from(
    [b"", b"one\ntwo\nthree\n", b"one\n2\nthree", b"\0", b"x\r\n"]
)
ENTRIES = st.one_of(
    st.tuples(st.just("file"), CONTENT, st.booleans()),
    st.tuples(
        st.just("link"),
        st.sampled_from([b"a", b"../out", b"b/c", b"/nonexistent/x", b"/usr"]),
        st.just(False),
    ),
)
TREES = st.dictionaries(st.lists(NAMES, min_size=1, max_size=3).map(tuple), ENTRIES, max_size=7)


def write(folder: Path, tree: dict) -> None:
    for path, (kind, content, executable) in tree.items():
        target = folder.joinpath(*path)
        if any(folder.joinpath(*path[:end]).is_symlink() for end in range(1, len(path))):
            continue
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            if kind == "link":
                os.symlink(content, target)
            else:
                with open(target, "xb") as file:
                    file.write(content)
                target.chmod(0o755 if executable else 0o644)
        except OSError:
            continue


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(first=TREES, second=TREES)
def test_applying_the_changes_to_the_original_gives_the_copy(tmp_path_factory, first, second):
    run = Run(tmp_path_factory.mktemp("run"))
    run.source.mkdir()
    write(run.source, first)
    run.start()
    for entry in run.copy.iterdir():
        if entry.is_symlink() or not entry.is_dir():
            entry.unlink()
        else:
            subprocess.run(["rm", "-rf", "--", str(entry)], check=True)
    write(run.copy, second)
    run.apply()
    assert same(run)
    assert not run.source.joinpath("..", "out").exists()


def test_a_run_that_died_before_its_start_was_remembered_whole_has_nothing_to_save(run):
    run.start()
    (run.state / "base" / "files").unlink()
    assert operate_changes.save(run.record) is None
