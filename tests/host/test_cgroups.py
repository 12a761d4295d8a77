"""Limits of control groups: really run into on the machine's own hierarchy, and cgroup v2's files on a written one."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from bot_bottle.errors import HostError
from bot_bottle.host import cgroups
from bot_bottle.plan.model import Limits

SOURCES = Path(__file__).resolve().parents[2] / "src"
MIB = 1024 * 1024


def need(limit: str) -> None:
    if limit not in cgroups.available():
        pytest.skip(f"no control group for {limit} can be made here")


@pytest.fixture
def held() -> Iterator[list[cgroups.Group]]:
    """Groups put in here are gone at the end."""
    groups: list[cgroups.Group] = []
    yield groups
    for group in groups:
        group.kill()
        group.remove()


def run_under(group: cgroups.Group, code: str, *, timeout: float = 60) -> subprocess.CompletedProcess[str]:
    """Runs Python `code` that starts once it is in the group."""
    child = subprocess.Popen(
        [sys.executable, "-c", f"input()\n{code}"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    group.add(child.pid)
    said, errors = child.communicate("go\n", timeout=timeout)
    return subprocess.CompletedProcess(child.args, child.returncode, said, errors)


def made(held: list[cgroups.Group], name: str, **limits: object) -> cgroups.Group:
    group = cgroups.make(f"{name}-{os.getpid()}", Limits(**{"pids": None, "stated": tuple(limits), **limits}))
    assert group is not None
    held.append(group)
    return group


def test_memory_beyond_the_limit_kills_and_is_counted(held):
    need("memory")
    group = made(held, "memory", memory=64 * MIB)
    done = run_under(group, "x = bytearray(300 * 1024 * 1024); print('survived')")
    assert done.returncode == -signal.SIGKILL, done
    assert "survived" not in done.stdout
    used = group.usage()
    assert used["oom_kills"] >= 1
    assert used["memory_peak"] <= 64 * MIB
    assert run_under(group, "x = bytearray(20 * 1024 * 1024); print('survived')").stdout == "survived\n"


def test_processes_beyond_the_limit_are_not_started(held):
    need("pids")
    group = made(held, "pids", pids=5)
    code = """
import os, time
started = 0
try:
    for _ in range(20):
        if os.fork() == 0:
            time.sleep(60)
            os._exit(0)
        started += 1
except BlockingIOError:
    print(started, flush=True)
    os._exit(0)
"""
    child = subprocess.Popen(
        [sys.executable, "-c", f"input()\n{code}"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    group.add(child.pid)
    child.stdin.write("go\n")
    child.stdin.flush()
    assert child.stdout.readline() == "4\n"
    assert group.usage()["pids"] >= 4
    group.kill()
    child.communicate()
    assert Path(group.names()["pids"], "cgroup.procs").read_text() == ""


def test_cpu_is_held_to_the_share(held):
    need("cpus")
    group = made(held, "cpus", cpus=0.2)
    code = """
import time

begin = time.monotonic()
while time.process_time() < 0.2:
    pass
print(time.monotonic() - begin)
"""
    done = run_under(group, code)
    assert float(done.stdout) > 0.5
    folder = group.names()["cpus"]
    throttled = dict(line.split() for line in Path(folder, "cpu.stat").read_text().splitlines())
    assert int(throttled["nr_throttled"]) > 0


def test_children_of_a_process_are_under_its_limits(held):
    need("pids")
    group = made(held, "children", pids=20)
    code = "import subprocess; print(subprocess.run(['cat', '/proc/self/cgroup'], capture_output=True, text=True).stdout)"
    assert f"bot-bottle-children-{os.getpid()}" in run_under(group, code).stdout


def test_a_fork_bomb_is_killed_whole(held):
    need("pids")
    group = made(held, "bomb", pids=60)
    code = """
import os, signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print('lit', flush=True)
while True:
    try:
        os.fork()
        time.sleep(0.001)
    except BlockingIOError:
        pass
"""
    child = subprocess.Popen(
        [sys.executable, "-c", f"input()\n{code}"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    group.add(child.pid)
    child.stdin.write("go\n")
    child.stdin.flush()
    assert child.stdout.readline() == "lit\n"
    group.kill()
    child.communicate(timeout=10)
    group.remove()
    assert not any(os.path.exists(folder) for folder in group.names().values())


def test_the_group_is_what_was_told_beforehand_and_found_again(held):
    need("pids")
    limits = Limits(memory=100 * MIB, cpus=1.0, stated=("memory", "cpus", "pids"))
    told = cgroups.names("told-ab12", limits)
    group = cgroups.make("told-ab12", limits)
    held.append(group)
    assert group.names() == told
    assert set(told) == set(cgroups.available())
    child = subprocess.Popen(["sleep", "60"])
    group.add(child.pid)
    again = cgroups.find(told)
    with pytest.raises(HostError, match="still in use"):
        again.remove(timeout=0.05)
    again.kill()
    assert child.wait(timeout=30) == -signal.SIGKILL
    again.remove()
    again.remove()
    again.kill()
    assert not any(os.path.exists(folder) for folder in told.values())


def test_what_is_not_one_of_ours_is_never_touched(tmp_path):
    (tmp_path / "bot-bottle-x").mkdir()
    recorded = {"pids": str(tmp_path / "bot-bottle-x"), "memory": "/sys/fs/cgroup/init.scope", "cpus": "/"}
    for mount, *_ in cgroups._mounts():
        recorded[mount] = mount
        recorded[mount + "up"] = mount + "/bot-bottle-x/../../bot-bottle-y"
    group = cgroups.find(recorded)
    assert group.names() == {}
    group.kill()
    group.remove()
    assert (tmp_path / "bot-bottle-x").is_dir()


def test_what_is_not_stated_makes_no_group():
    assert cgroups.make("none-ab12", Limits(pids=None)) is None
    assert cgroups.make("none-ab12", Limits()) is None


def test_a_group_of_the_real_v2_hierarchy_kills_at_once(held):
    mount = next((mount for mount, _, kind, _ in cgroups._mounts() if kind == "cgroup2"), None)
    if mount is None or not os.access(mount, os.W_OK):
        pytest.skip("no cgroup v2 that can be written to")
    folder = f"{mount}/bot-bottle-v2-{os.getpid()}"
    os.mkdir(folder)
    group = cgroups.Group({"pids": folder})
    held.append(group)
    child = subprocess.Popen(["sleep", "60"])
    group.add(child.pid)
    group.kill()
    assert child.wait(timeout=30) == -signal.SIGKILL


@pytest.mark.skipif(os.geteuid() != 0, reason="not run as root")
def test_a_user_without_delegation_is_told_what_to_do():
    code = """
from bot_bottle.errors import HostError
from bot_bottle.host import cgroups
from bot_bottle.plan.model import Limits
print(cgroups.available(), cgroups.make("x-ab12", Limits(memory=100)))
try:
    cgroups.make("x-ab12", Limits(memory=100, stated=("memory",)))
except HostError as error:
    print(error.brief, error.resolution)
"""
    done = subprocess.run(
        ["setpriv", "--reuid=23999", "--regid=23999", "--clear-groups", sys.executable, "-c", code],
        env={"PYTHONPATH": str(SOURCES)},
        capture_output=True,
        text=True,
        cwd="/",
        check=True,
    )
    if not done.stdout.startswith("() None"):
        pytest.skip("every user may make control groups here")
    assert "The limit on memory can't be kept" in done.stdout
    assert "systemd-run --user" in done.stdout


# -- hierarchies as they are written down ------------------------------------------------------------------------------


@pytest.fixture
def written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A cgroup v2 tree in files, as a user's session under systemd has it; returns its mount point."""
    mount = tmp_path / "cgroup"
    service = mount / "user.slice/user-1000.slice/user@1000.service"
    for folder, hands_down, processes in (
        (mount, "cpu memory pids", "1\n"),
        (mount / "user.slice", "cpu memory pids", ""),
        (mount / "user.slice/user-1000.slice", "cpu memory pids", ""),
        (service, "memory pids", ""),
        (service / "app.slice", "memory", ""),
        (service / "app.slice/term.scope", "", "77\n"),
    ):
        folder.mkdir(parents=True)
        (folder / "cgroup.controllers").write_text("cpu memory pids")
        (folder / "cgroup.subtree_control").write_text(hands_down)
        (folder / "cgroup.procs").write_text(processes)
        if folder != mount:
            (folder / "cgroup.type").write_text("domain")
    texts = {
        "/proc/self/mountinfo": f"42 32 0:27 / {mount} rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n",
        "/proc/self/cgroup": "0::/user.slice/user-1000.slice/user@1000.service/app.slice/term.scope\n",
    }
    real = cgroups._read
    monkeypatch.setattr(cgroups, "_read", lambda path: texts.get(path) or real(path))
    return mount


def test_on_v2_the_group_is_made_beside_our_own_and_controllers_handed_down(written):
    slice_ = written / "user.slice/user-1000.slice/user@1000.service/app.slice"
    assert cgroups.available() == ("memory", "cpus", "pids")
    assert (slice_ / "cgroup.subtree_control").read_text() == "memory", "asking changes nothing"
    group = cgroups.make(
        "fixer-ab12", Limits(memory=1000, cpus=1.5, pids=7, stated=("memory", "cpus", "pids"))
    )
    folder = slice_ / "bot-bottle-fixer-ab12"
    assert group.names() == dict.fromkeys(("memory", "cpus", "pids"), str(folder))
    assert (folder / "memory.max").read_text() == "1000"
    assert (folder / "cpu.max").read_text() == "150000 100000"
    assert (folder / "pids.max").read_text() == "7"
    assert (slice_ / "cgroup.subtree_control").read_text() in ("+cpu", "+pids")
    group.add(99)
    assert (folder / "cgroup.procs").read_text() == "99"


def test_on_v2_a_group_with_processes_hands_nothing_down(written):
    for folder in (
        "",
        "/user-1000.slice",
        "/user-1000.slice/user@1000.service",
        "/user-1000.slice/user@1000.service/app.slice",
    ):
        (written / f"user.slice{folder}" / "cgroup.procs").write_text("5\n")
    assert cgroups.available() == ("memory", "cpus", "pids"), "the real root may have processes"
    assert cgroups.names("a-ab12", Limits(stated=("pids",)))["pids"] == f"{written}/bot-bottle-a-ab12"
    (written / "cgroup.type").write_text("domain")
    assert cgroups.available() == ()


def test_a_group_that_can_not_be_made_leaves_nothing(written, monkeypatch):
    real = cgroups._write

    def refuse(path: str, text: str) -> None:
        if path.endswith("cpu.max"):
            raise PermissionError(path)
        real(path, text)

    def remove(self, *, timeout: float = 5.0) -> None:
        for folder in self._distinct():
            subprocess.run(["rm", "-r", folder], check=True)

    monkeypatch.setattr(cgroups, "_write", refuse)
    monkeypatch.setattr(cgroups.Group, "remove", remove)
    with pytest.raises(HostError, match="The limit on cpus"):
        cgroups.make("a-ab12", Limits(memory=1000, cpus=1.0, stated=("memory", "cpus")))
    assert not list(written.rglob("bot-bottle-*"))
    group = cgroups.make("a-ab12", Limits(memory=1000, pids=5, stated=("memory", "pids")))
    assert set(group.names()) == {"memory", "pids"}
