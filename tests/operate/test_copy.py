"""The workspace's copy: everything that belongs to it, nothing that must not come along, nothing left of a failed one."""

import os
import signal
import socket
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest
from support_changes import Run, facts, git

from bot_bottle.errors import HostError
from bot_bottle.events import NewEvent
from bot_bottle.launch.reap import reap
from bot_bottle.provision import workspace
from bot_bottle.state.store import Store

HERE = Path(__file__).resolve().parent
SOURCES = Path(__file__).resolve().parents[2] / "src"


def test_files_links_modes_and_times_are_copied(run):
    (run.source / "tool").write_text("#!/bin/sh\n")
    (run.source / "tool").chmod(0o755)
    (run.source / "link").symlink_to("sub/data.txt")
    (run.source / "out").symlink_to("/etc")
    (run.source / "empty").mkdir(mode=0o750)
    os.utime(run.source / "tool", ns=(10**18, 10**18 + 7))
    assert run.start() == ()
    assert facts(run.copy) == facts(run.source)
    assert os.readlink(run.copy / "out") == "/etc"
    assert (run.copy / "tool").stat().st_mtime_ns == 10**18 + 7
    assert stat.S_IMODE((run.copy / "empty").stat().st_mode) == 0o750
    assert git(run.copy, "status", "--short") == git(run.source, "status", "--short")


def test_pipes_sockets_and_setuid_do_not_come_along(run):
    os.mkfifo(run.source / "pipe")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(run.source / "socket"))
        (run.source / "privileged").write_text("x")
        (run.source / "privileged").chmod(0o6755)
        run.start()
    assert not (run.copy / "pipe").exists()
    assert not (run.copy / "socket").exists()
    assert stat.S_IMODE((run.copy / "privileged").stat().st_mode) == 0o755


def test_a_sparse_file_stays_sparse(run):
    with open(run.source / "image", "wb") as file:
        file.truncate(1 << 30)
        file.seek(1 << 29)
        file.write(b"middle")
    (run.source / ".gitignore").write_text("image\n")
    run.start()
    copied = (run.copy / "image").stat()
    assert copied.st_size == 1 << 30
    assert copied.st_blocks * 512 < 1 << 24
    with open(run.copy / "image", "rb") as file:
        file.seek(1 << 29)
        assert file.read(6) == b"middle"


@pytest.mark.skipif(os.geteuid() != 0, reason="not run as root")
def test_as_root_the_copy_belongs_to_the_agent(tmp_path):
    run = Run(tmp_path, uid=23456)
    run.source.mkdir()
    (run.source / "file").write_text("x")
    (run.source / "link").symlink_to("file")
    run.start()
    for path in (run.copy, run.copy / "file", run.copy / "link"):
        assert (path.lstat().st_uid, path.lstat().st_gid) == (23456, 23456)
    assert run.state.stat().st_uid == 0
    assert Path(run.plan.workspace.base).stat().st_uid == 0


def test_a_workspace_that_holds_the_state_folder_is_not_copied_into_itself(tmp_path):
    run = Run(tmp_path)
    run.source = tmp_path
    run.plan = run.plan._replace(workspace=run.plan.workspace._replace(source=str(tmp_path)))
    (tmp_path / "file").write_text("x")
    run.start()
    assert (run.copy / "file").exists()
    assert not (run.copy / "state/fixer-ab12").exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="not run as root")
def test_what_can_not_be_read_is_left_out_and_told(run):
    code = """
import os, sys
sys.path[:0] = sys.argv[1:3]
from pathlib import Path
from support_changes import Run
os.umask(0o022)
os.setgid(23457); os.setuid(23457)
print(Run(Path(sys.argv[3])).start())
"""
    (run.source / "secret").write_text("x")
    (run.source / "secret").chmod(0o600)
    (run.source / "closed").mkdir(mode=0o700)
    for folder in run.source.parents:
        if folder == Path("/tmp"):
            break
        folder.chmod(0o755)
    run.state.parent.mkdir(mode=0o777)
    run.state.parent.chmod(0o777)
    done = subprocess.run(
        [sys.executable, "-c", code, str(SOURCES), str(HERE), str(run.source.parent)],
        capture_output=True,
        text=True,
        cwd="/",
        check=False,
    )
    assert "'closed: Permission denied'" in done.stdout, done.stderr
    assert "'secret: Permission denied'" in done.stdout


def test_a_workspace_that_is_no_folder_is_said(run):
    run.source = run.source / "hello.py"
    run.plan = run.plan._replace(workspace=run.plan.workspace._replace(source=str(run.source)))
    with pytest.raises(HostError, match="can't be copied"):
        run.start()
    assert not run.copy.exists()
    assert not list(run.state.iterdir())


def test_an_interrupted_copy_leaves_nothing(run, monkeypatch):
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("bot_bottle.host.copying._copy_content", interrupt)
    workspace.make_folder(run.plan)
    with pytest.raises(KeyboardInterrupt):
        workspace.copy_files(run.plan)
    assert list(run.state.iterdir()) == []


def test_what_a_killed_copy_left_is_removed_by_the_next(run):
    for n in range(200):
        (run.source / f"f{n}").write_text("x")
    code = """
import sys
sys.path[:0] = sys.argv[1:3]
from pathlib import Path
from support_changes import Run
Run(Path(sys.argv[3])).start()
"""
    child = subprocess.Popen([sys.executable, "-c", code, *map(str, (SOURCES, HERE, run.source.parent))])
    deadline = time.monotonic() + 60
    while not (run.copy / "f0").exists() and child.poll() is None:
        assert time.monotonic() < deadline
    child.send_signal(signal.SIGKILL)
    child.wait()
    run.start()
    assert facts(run.copy) == facts(run.source)


@pytest.mark.skipif(os.geteuid() != 0, reason="not run as root")
def test_a_full_disk_is_said_and_leaves_nothing(run):
    script = """
mount -t tmpfs -o size=300k none "$1/state" && exec "$2" -c '
import os, sys
sys.path[:0] = sys.argv[1:3]
from pathlib import Path
from support_changes import Run
from bot_bottle.errors import HostError
run = Run(Path(sys.argv[3]))
try:
    run.start()
except HostError as error:
    print(error.brief, os.listdir(run.state))
' "$3" "$4" "$1"
"""
    (run.source / "large").write_bytes(b"x" * 400_000)
    run.state.parent.mkdir()
    done = subprocess.run(
        [
            "unshare",
            "-m",
            "sh",
            "-c",
            script,
            "sh",
            *map(str, (run.source.parent, sys.executable, SOURCES, HERE)),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == "The disk is full: the workspace can't be copied []\n", done.stderr


def test_without_git_on_the_machine_it_is_said(run, monkeypatch):
    workspace.make_folder(run.plan)
    workspace.copy_files(run.plan)
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(HostError, match="Git was not found"):
        workspace.remember_start(run.plan)


def test_a_dead_run_ends_even_when_its_changes_are_too_much_to_save(run, tmp_path):
    run.start()
    with open(run.copy / "huge", "wb") as file:
        file.truncate(2 << 30)
    with Store.open(str(tmp_path / "store" / "store.db")) as store:
        store.record([NewEvent(run.record.id, 1.0, "run.planned", {})], run.record._replace(traces="{}"))
        said = reap(store, str(tmp_path / "run"))
        assert store.run(run.record.id).state == "ended"
    assert "its copy of the workspace stays" in "".join(said)
    assert (run.copy / "huge").exists()
