"""The namespace backend against hosts that lack something, and what it shows of the host's files."""

import ctypes
import os
import re
import signal
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from bot_bottle.backends.base import Bottle, Stdio
from bot_bottle.backends.namespace import backend as module
from bot_bottle.backends.namespace import enter, program
from bot_bottle.backends.registry import backend
from bot_bottle.errors import BotBottleError, HostError, NotFoundError, SandboxError
from bot_bottle.plan.model import File, Limits, Mount
from bot_bottle.testing.conformance import SLEEP, command, run, shell, until
from support.backends import AGENT_ID, make_plan

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


@contextmanager
def fake_bubblewrap(monkeypatch, script: str) -> Iterator[None]:
    with tempfile.TemporaryDirectory() as folder:  # pytest's own folder is closed to other users
        path = Path(folder) / "bwrap"
        path.write_text(f"#!/bin/sh\n{script}\n")
        for place in (path.parent, path):
            place.chmod(0o755)
        monkeypatch.setenv("PATH", folder)
        yield


def children_of_ours() -> set[str]:
    """The processes that this one has not collected; other tests' fixtures may have some."""
    return {
        child
        for task in Path("/proc/self/task").iterdir()
        for child in (task / "children").read_text().split()
    }


def open_descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_a_backend_that_does_not_exist_is_said() -> None:
    with pytest.raises(NotFoundError):
        backend("vagrant")


def test_without_bubblewrap_it_is_said_how_to_install_it(make_bottle, monkeypatch) -> None:
    monkeypatch.setattr(program, "_candidates", list)
    with pytest.raises(HostError, match="not found") as caught:
        make_bottle(*SLEEP)
    assert "pip install" in caught.value.resolution


@pytest.mark.parametrize(
    ("script", "brief"),
    [
        ("echo 'bwrap: Unknown option --disable-userns' >&2; exit 1", "too old"),
        ("echo 'bwrap: No permissions to create new namespace' >&2; exit 1", "make namespaces"),
        ("kill -9 $$", "could not be made"),
        ("exit 0", "could not be made"),
    ],
)
def test_a_bubblewrap_that_fails_leaves_nothing(make_bottle, monkeypatch, script, brief) -> None:
    before, children = open_descriptors(), children_of_ours()
    with fake_bubblewrap(monkeypatch, script), pytest.raises(BotBottleError, match=brief):
        make_bottle(*SLEEP)
    assert open_descriptors() <= before
    assert children_of_ours() <= children


def test_a_workspace_that_is_not_there_is_a_host_error_and_leaves_nothing(make_bottle) -> None:
    make_bottle.workspace.rmdir()
    before = open_descriptors()
    with pytest.raises(HostError, match="workspace"):
        make_bottle(*SLEEP)
    assert open_descriptors() == before


@pytest.mark.skipif(os.geteuid() == 0, reason="root can read everything")
def test_a_workspace_that_is_not_readable_is_a_host_error(make_bottle) -> None:
    make_bottle.workspace.chmod(0)
    with pytest.raises(HostError, match="not readable"):
        make_bottle(*SLEEP)


def test_a_mount_is_shown_read_only_and_a_writable_one_is_not(make_bottle, tmp_path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir(mode=0o700)
    (tmp_path / "one" / "tool").write_text("#!/bin/sh\necho tool runs\n")
    (tmp_path / "one" / "tool").chmod(0o700)
    (tmp_path / "file").write_text("a file")
    mounts = (
        Mount(source=str(tmp_path / "one"), target="/opt/one"),
        Mount(source=str(tmp_path / "two"), target="/home/agent/inner/two", writable=True),
        Mount(source=str(tmp_path / "file"), target="/home/agent/inner/file"),
    )
    bottle = make_bottle(*SLEEP, mounts=mounts)
    done = shell(
        bottle, "/opt/one/tool; cat ~/inner/file; touch ~/inner/two/made; touch /opt/one/x || echo read-only"
    )
    assert done.stdout == b"tool runs\na fileread-only\n", done.said
    assert (tmp_path / "two" / "made").stat().st_uid == os.getuid()


@as_root
def test_root_s_own_closed_places_can_be_shown(make_bottle, tmp_path) -> None:
    tmp_path.chmod(0o700)
    (make_bottle.workspace / "inner").mkdir(mode=0o700)
    (make_bottle.workspace / "inner" / "theirs").write_text("not the agent's")
    os.chown(make_bottle.workspace / "inner" / "theirs", 12345, 12345)
    bottle = make_bottle("sh", "-c", "sleep 1000")
    assert shell(bottle, "touch inner/made; stat -c %u inner inner/theirs").stdout == b"1000\n65534\n"
    assert (make_bottle.workspace / "inner" / "made").stat().st_uid == 0
    assert shell(bottle, "echo x >> inner/theirs").code != 0


@as_root
def test_the_agent_is_the_planned_user_on_the_host_and_never_root(make_bottle) -> None:
    bottle = make_bottle("sh", "-c", "touch ready; exec sleep 1000")
    until((make_bottle.workspace / "ready").exists, "the agent runs")
    status = Path(f"/proc/{bottle.agent.pid}/status").read_text()
    assert re.findall(r"^[UG]id:\s+(.*)$", status, re.MULTILINE) == ["\t".join([str(AGENT_ID)] * 4)] * 2
    assert re.findall(r"^Groups:[ \t]*(.*)$", status, re.MULTILINE) == [""]


@as_root
def test_a_file_system_that_can_t_show_its_owner_as_the_agent_is_a_host_error(make_bottle, tmp_path) -> None:
    with pytest.raises(HostError, match="can't show its files") as caught:
        make_bottle(*SLEEP, mounts=(Mount(source="/proc/sys", target="/opt/sys", writable=True),))
    assert "root" in caught.value.resolution
    bottle = make_bottle(*SLEEP, mounts=(Mount(source="/proc/sys", target="/opt/sys"),))
    assert shell(bottle, "cat /opt/sys/kernel/ostype").stdout == b"Linux\n"


@as_root
def test_the_tests_own_mounts_are_as_before(make_bottle) -> None:
    before = Path("/proc/self/mountinfo").read_text()
    make_bottle(*SLEEP)
    assert Path("/proc/self/mountinfo").read_text() == before


def test_a_limit_on_processes_holds_for_this_bottle_alone(make_bottle) -> None:
    from bot_bottle.plan.model import Limits

    limited = make_bottle(*SLEEP, limits=Limits(pids=20))
    other = make_bottle(*SLEEP)
    done = shell(
        limited, "for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21; do sleep 9 & done; wait"
    )
    assert done.code != 0
    assert "fork" in done.said.lower()
    assert (
        shell(
            other, "for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21; do sleep 0 & done; wait"
        ).code
        == 0
    )


def test_arguments_of_bubblewrap_are_in_no_command_line_of_the_host(make_bottle) -> None:
    make_bottle(*SLEEP)
    for child in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split():
        words = Path(f"/proc/{child}/cmdline").read_bytes().split(b"\0")
        assert os.fsencode(make_bottle.workspace) not in words
        if words[0] == b"bwrap":
            assert words[1:2] + words[3:] == [b"--args", b"--", b"/.bottle", b""]


def test_no_module_is_loaded_from_inside_while_a_process_goes_in(make_bottle) -> None:
    bottle = make_bottle(*SLEEP)
    done = run(bottle, command("sh", "-c", "echo $$; exit 0"), timeout=30)
    assert done.code == 0
    # What a child does after it has entered works with an empty import path: see spawn.forget_imports.
    from bot_bottle.backends.namespace import enter

    assert "forget_imports" in enter._go_in.__code__.co_names


def test_an_agent_that_stops_whoever_comes_in_holds_up_nobody(make_bottle, monkeypatch) -> None:
    stopper = "import os\nprint(flush=True)\nwhile True:\n try: os.kill(-1, 19)\n except OSError: pass"
    bottle = make_bottle("python3", "-c", stopper)
    bottle.release()
    monkeypatch.setattr(enter, "_PATIENCE", 0.3)
    signal.alarm(30)  # instead of waiting for ever
    try:
        until(lambda: _is_refused(bottle), "a process that was stopped on its way in")
    finally:
        signal.alarm(0)
    assert bottle.agent.poll() is None


def _is_refused(bottle: Bottle) -> bool:
    try:
        with open(os.devnull, "r+b") as null:
            bottle.spawn(command("true"), Stdio(null.fileno(), null.fileno(), null.fileno()))
    except SandboxError as error:
        return "said nothing" in error.details
    return False


def test_reaping_what_is_not_there_succeeds(make_bottle, tmp_path) -> None:
    plan = make_plan(tmp_path)
    traces = make_bottle.backend.traces(plan)
    assert make_bottle.backend.reap(traces) == []
    assert make_bottle.backend.reap({}) == []


def test_reaping_ends_what_is_left_in_the_group(make_bottle, tmp_path) -> None:
    if "pids" not in module.cgroups.available():
        pytest.skip("this user can't make control groups here")
    plan = make_plan(tmp_path, limits=Limits(stated=("pids",)))
    group = module.cgroups.make(plan.id, plan.limits)
    pid = os.fork()
    if pid == 0:
        ctypes.CDLL(None).pause()
    group.add(pid)
    assert len(make_bottle.backend.reap(make_bottle.backend.traces(plan))) >= 1
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -9
    assert make_bottle.backend.reap(make_bottle.backend.traces(plan)) == []


def test_devices_in_the_bottle_are_only_the_harmless_ones(make_bottle) -> None:
    names = shell(make_bottle(*SLEEP), "cd /dev; find . -type c -o -type b | sort").stdout.split()
    allowed = {b"null", b"zero", b"full", b"random", b"urandom", b"tty", b"console", b"ptmx"}
    assert {os.path.basename(name) for name in names if not name.startswith(b"./pts")} <= allowed
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)


def test_files_are_not_written_where_the_held_agent_is_gone(make_bottle) -> None:
    bottle = make_bottle("true", release=False)
    bottle.agent.kill()
    bottle.agent.wait()
    with pytest.raises(SandboxError):
        bottle.write_files([File(target="/home/agent/x", content=b"x")])
