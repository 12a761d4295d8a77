"""The contract of `backends/base.py` as one suite of tests, which every backend runs.

    class TestNamespace(BackendContract): ...

with a fixture `make_bottle` (a `MakeBottle`) that makes bottles with the backend and destroys them at the end. Inside, the
suite needs a shell, coreutils, tar and Python 3. Nothing here knows how a bottle is made.
"""

import json
import os
import re
import signal
import socket
import stat
import struct
import termios
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from fcntl import ioctl
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from bot_bottle.backends import copying
from bot_bottle.backends.base import Bottle, Process, Stdio
from bot_bottle.backends.execution import Completed, run
from bot_bottle.door.model import Listener
from bot_bottle.errors import SandboxError
from bot_bottle.plan.model import INSIDE_HOME, INSIDE_UID, INSIDE_WORKSPACE, Command, File, Mount, Trust
from bot_bottle.testing.probes import CONFINEMENT, REFUSALS, VISIBLE

ENVIRONMENT = (("PATH", "/usr/bin:/bin"), ("HOME", INSIDE_HOME), ("LANG", "C.UTF-8"))
DEADLINE = 30.0
SLEEP = ("sleep", "1000")


class MakeBottle(Protocol):
    """Makes a bottle whose agent is `argv`, and releases it unless told otherwise; the test's end destroys it.

    `workspace` is the folder on the host that the bottle shows as its workspace. `changes` are of the plan.
    """

    workspace: Path

    def __call__(
        self, *argv: str, stdio: Stdio | None = None, release: bool = True, **changes: Any
    ) -> Bottle: ...


def command(*argv: str, cwd: str = INSIDE_WORKSPACE, **env: str) -> Command:
    """`argv` with the suite's environment and `env`."""
    return Command(argv=argv, env=(*ENVIRONMENT, *env.items()), cwd=cwd)


def shell(bottle: Bottle, script: str, **options: Any) -> Completed:
    """Runs a shell script inside."""
    return run(bottle, command("sh", "-c", script), timeout=DEADLINE, **options)


def python(bottle: Bottle, script: str) -> Any:
    """Runs a Python script inside that prints JSON; answers what it printed."""
    done = run(bottle, command("/usr/bin/python3", "-I", "-c", script), timeout=DEADLINE)
    assert done.code == 0, done.said
    return json.loads(done.stdout)


def until(condition: Callable[[], Any], what: str) -> Any:
    """What `condition` answers once that is true; fails when it is not within the deadline."""
    end = time.monotonic() + DEADLINE
    while True:
        answer = condition()
        if answer:
            return answer
        assert time.monotonic() < end, f"not within {DEADLINE:.0f} s: {what}"
        time.sleep(0.01)


@contextmanager
def piped(bottle: Bottle, *argv: str) -> Iterator[tuple[Process, int, int]]:
    """A process inside with our ends of its stdin and stdout."""
    inner, to = os.pipe()
    answer, outer = os.pipe()
    try:
        process = bottle.spawn(command(*argv), Stdio(inner, outer, outer))
    finally:
        os.close(inner)
        os.close(outer)
    try:
        yield process, to, answer
    finally:
        process.signal(signal.SIGKILL)
        os.close(to)
        os.close(answer)


class Commands:
    """Running things in a bottle."""

    def test_the_exit_code_is_the_command_s_own(self, make_bottle: MakeBottle) -> None:
        assert shell(make_bottle(*SLEEP), "exit 23").code == 23

    def test_a_command_that_a_signal_ended_has_128_and_the_signal_s_number(
        self, make_bottle: MakeBottle
    ) -> None:
        assert shell(make_bottle(*SLEEP), "kill -TERM $$").code == 128 + signal.SIGTERM

    def test_a_command_that_does_not_exist_is_127_and_one_that_can_t_be_run_126(
        self, make_bottle: MakeBottle
    ) -> None:
        bottle = make_bottle(*SLEEP)
        missing = run(bottle, command("no-such-command"), timeout=DEADLINE)
        assert missing.code == 127
        assert b"no-such-command" in missing.stderr
        assert run(bottle, command("/nowhere/command"), timeout=DEADLINE).code == 127
        assert run(bottle, command("/usr"), timeout=DEADLINE).code == 126

    def test_an_agent_that_does_not_exist_is_127(self, make_bottle: MakeBottle) -> None:
        assert make_bottle("no-such-agent").agent.wait(DEADLINE) == 127

    def test_stdin_stdout_and_stderr_are_kept_apart(self, make_bottle: MakeBottle) -> None:
        done = shell(make_bottle(*SLEEP), "cat; echo wrong >&2", stdin=b"in\0put")
        assert (done.stdout, done.stderr, done.code) == (b"in\0put", b"wrong\n", 0)

    def test_output_arrives_while_the_command_runs(self, make_bottle: MakeBottle) -> None:
        with piped(make_bottle(*SLEEP), "cat") as (process, to, answer):
            for word in (b"one", b"two"):
                os.write(to, word)
                assert os.read(answer, 10) == word
            assert process.poll() is None

    def test_a_command_that_takes_too_long_is_killed_and_says_so(self, make_bottle: MakeBottle) -> None:
        bottle = make_bottle(*SLEEP)
        done = run(bottle, command("sh", "-c", "echo before; sleep 999; echo after"), timeout=0.3)
        assert (done.timed_out, done.code, done.stdout) == (True, 124, b"before\n")
        until(
            lambda: b"sleep 999" not in shell(bottle, "cat /proc/[0-9]*/cmdline | tr '\\0' ' '").stdout,
            "killed",
        )

    def test_what_a_command_leaves_in_the_background_is_not_waited_for(self, make_bottle: MakeBottle) -> None:
        assert shell(make_bottle(*SLEEP), "sleep 999 & echo done").stdout == b"done\n"

    def test_a_hundred_megabytes_come_through_whole(self, make_bottle: MakeBottle) -> None:
        size = 100 * 1024 * 1024
        with piped(make_bottle(*SLEEP), "head", "-c", str(size), "/dev/zero") as (process, _, answer):
            got = 0
            while part := os.read(answer, 1 << 20):
                got += len(part)
            assert (got, process.wait(DEADLINE)) == (size, 0)

    def test_output_beyond_the_limit_is_dropped_and_said(self, make_bottle: MakeBottle) -> None:
        done = shell(make_bottle(*SLEEP), "head -c 5000000 /dev/zero", limit=1000)
        assert (len(done.stdout), done.truncated, done.code) == (1000, True, 0)

    def test_a_command_that_does_not_read_its_stdin_is_no_problem(self, make_bottle: MakeBottle) -> None:
        assert shell(make_bottle(*SLEEP), "exit 4", stdin=b"x" * 1_000_000).code == 4

    def test_a_signal_reaches_the_process_group_and_nothing_else(self, make_bottle: MakeBottle) -> None:
        bottle = make_bottle(*SLEEP)
        script = "trap 'echo got; exit 3' TERM; echo ready; sleep 1000 & wait"
        with piped(bottle, "sh", "-c", script) as (process, _, answer):
            assert os.read(answer, 10) == b"ready\n"
            process.signal(signal.SIGTERM)
            assert os.read(answer, 10) == b"got\n"
            assert process.wait(DEADLINE) == 3
        assert bottle.agent.poll() is None
        assert shell(bottle, "exit 0").code == 0

    def test_a_signal_to_the_agent_ends_it_and_a_later_one_does_nothing(
        self, make_bottle: MakeBottle
    ) -> None:
        agent = make_bottle(*SLEEP).agent
        agent.signal(signal.SIGTERM)
        assert agent.wait(DEADLINE) == 128 + signal.SIGTERM
        agent.signal(signal.SIGTERM)
        assert agent.poll() == 128 + signal.SIGTERM

    def test_signals_are_at_their_defaults(self, make_bottle: MakeBottle) -> None:
        status = run(
            make_bottle(*SLEEP), command("cat", "/proc/self/status"), timeout=DEADLINE
        ).stdout.decode()
        masks = re.findall(r"^Sig(Blk|Ign|Cgt):\s*(\w+)$", status, re.MULTILINE)
        assert masks == [(name, "0" * 16) for name in ("Blk", "Ign", "Cgt")]


class Lifecycle:
    """The order of things, from create to destroy."""

    def test_the_agent_has_not_run_before_it_is_released(self, make_bottle: MakeBottle) -> None:
        bottle = make_bottle("touch", "ran", release=False)
        assert shell(bottle, "test ! -e ran").code == 0
        assert bottle.agent.poll() is None
        bottle.release()
        assert bottle.agent.wait(DEADLINE) == 0
        assert (make_bottle.workspace / "ran").exists()

    def test_a_bottle_that_is_destroyed_before_its_release_never_ran_its_agent(
        self, make_bottle: MakeBottle
    ) -> None:
        bottle = make_bottle("touch", "ran", release=False)
        bottle.destroy()
        assert bottle.agent.poll() is not None
        assert not (make_bottle.workspace / "ran").exists()

    def test_the_agent_s_descriptor_tells_its_end(self, make_bottle: MakeBottle) -> None:
        import select

        bottle = make_bottle("true", release=False)
        assert select.select([bottle.agent.fileno()], [], [], 0)[0] == []
        bottle.release()
        assert select.select([bottle.agent.fileno()], [], [], DEADLINE)[0] == [bottle.agent.fileno()]
        assert bottle.agent.poll() == 0

    def test_commands_run_also_after_the_agent_has_ended(self, make_bottle: MakeBottle) -> None:
        bottle = make_bottle("true")
        assert bottle.agent.wait(DEADLINE) == 0
        assert shell(bottle, "exit 6").code == 6

    def test_nothing_starts_in_a_bottle_that_has_ended(self, make_bottle: MakeBottle) -> None:
        bottle = make_bottle(*SLEEP)
        bottle.destroy()
        bottle.destroy()
        _failure(lambda: shell(bottle, "true"))
        _failure(bottle.release)

    def test_teardown_leaves_no_process_mount_or_descriptor(self, make_bottle: MakeBottle) -> None:
        marker = f"{time.time_ns()}"
        before = (_descriptors(), Path("/proc/self/mountinfo").read_text(), _children())
        bottle = make_bottle("sleep", marker)
        shell(bottle, f"setsid sleep {marker} >/dev/null 2>&1 & nohup sleep {marker} >/dev/null 2>&1 &")
        until(lambda: len(_host_processes(marker)) >= 3, "three processes run")
        bottle.destroy()
        assert _host_processes(marker) == []
        assert (_descriptors(), Path("/proc/self/mountinfo").read_text(), _children()) == before

    def test_many_commands_leave_no_descriptor(self, make_bottle: MakeBottle) -> None:
        bottle = make_bottle(*SLEEP)
        shell(bottle, "true")
        before = len(_descriptors())
        for _ in range(10):
            shell(bottle, "true")
        assert len(_descriptors()) <= before

    def test_ten_bottles_at_once_are_ten_bottles(self, make_bottle: MakeBottle) -> None:
        bottles = [make_bottle(*SLEEP) for _ in range(10)]
        for number, bottle in enumerate(bottles):
            assert shell(bottle, f"echo {number} > /tmp/number").code == 0
        for number, bottle in enumerate(bottles):
            assert (
                shell(bottle, "cat /tmp/number; ls /proc | grep -c '^[0-9]'").stdout.split()[0]
                == b"%d" % number
            )
        bottles[0].destroy()
        assert all(shell(bottle, "true").code == 0 for bottle in bottles[1:])


class Confinement:
    """What is held back from whatever runs inside."""

    def test_the_environment_is_exactly_what_was_planned(self, make_bottle: MakeBottle) -> None:
        os.environ["BOTTLE_SUITE"] = "s"
        try:
            bottle = make_bottle(*SLEEP)
            done = run(bottle, command("env", "-0", EXTRA="a b"), timeout=DEADLINE)
        finally:
            del os.environ["BOTTLE_SUITE"]
        assert sorted(done.stdout.decode().rstrip("\0").split("\0")) == sorted(
            f"{name}={value}" for name, value in (*ENVIRONMENT, ("EXTRA", "a b"))
        )

    def test_no_descriptor_is_inherited(self, make_bottle: MakeBottle) -> None:
        leaked = os.open("/dev/null", os.O_RDONLY)
        os.set_inheritable(leaked, True)
        try:
            bottle = make_bottle("sh", "-c", "ls /proc/self/fd > agent; exec sleep 1000")
            assert shell(bottle, "ls /proc/self/fd").stdout.split() == [
                b"0",
                b"1",
                b"2",
                b"3",
            ]  # 3 is the folder
            agent = make_bottle.workspace / "agent"
            assert until(lambda: agent.exists() and agent.read_text(), "listed").split() == [
                "0",
                "1",
                "2",
                "3",
            ]
        finally:
            os.close(leaked)

    def test_there_are_no_privileges(self, make_bottle: MakeBottle) -> None:
        found = python(make_bottle(*SLEEP), CONFINEMENT)
        assert found["capabilities"] == ["0" * 16] * 5
        assert found["flags"] == {"NoNewPrivs": "1", "Seccomp": "2"}
        assert found["ids"] == [INSIDE_UID] * 6

    def test_limits_are_in_force(self, make_bottle: MakeBottle) -> None:
        limits = python(make_bottle(*SLEEP), CONFINEMENT)["limits"]
        assert limits["core"] == [0, 0]
        assert 0 < limits["files"][1] <= 65536

    def test_a_command_is_confined_exactly_as_the_agent_is(self, make_bottle: MakeBottle) -> None:
        script = f"/usr/bin/python3 -I -c '{CONFINEMENT}' > agent.tmp && mv agent.tmp agent; exec sleep 1000"
        bottle = make_bottle("sh", "-c", script)
        agent = make_bottle.workspace / "agent"
        until(agent.exists, "the agent told what it is")
        assert python(bottle, CONFINEMENT) == json.loads(agent.read_text())

    def test_the_kernel_s_dangerous_calls_are_refused(self, make_bottle: MakeBottle) -> None:
        allowed = [name for name, refused in python(make_bottle(*SLEEP), REFUSALS).items() if not refused]
        assert allowed == []

    def test_there_is_no_network_but_lo(self, make_bottle: MakeBottle) -> None:
        found = python(make_bottle(*SLEEP), VISIBLE)
        assert found["interfaces"] == ["lo"]
        assert found["routes"] == []

    def test_nothing_of_the_host_is_there(self, make_bottle: MakeBottle) -> None:
        found = python(make_bottle(*SLEEP), VISIBLE)
        assert found["home"] == []
        assert found["present"] == []
        assert found["uids_in_passwd"] == ["0", str(INSIDE_UID), "65534"]

    def test_no_process_of_the_host_is_there(self, make_bottle: MakeBottle) -> None:
        bottle = make_bottle(*SLEEP)
        words = shell(bottle, "cat /proc/[0-9]*/cmdline | tr '\\0' ' '").stdout
        assert b"pytest" not in words
        assert b"--unshare" not in words
        assert b"bind" not in words
        assert make_bottle.workspace.name.encode() not in words

    def test_process_1_can_t_be_looked_into(self, make_bottle: MakeBottle) -> None:
        script = "for file in mem environ maps fd root exe; do head -c 1 /proc/1/$file && echo $file; ls /proc/1/fd/; done"
        assert shell(make_bottle(*SLEEP), script + " 2>/dev/null").stdout == b""

    def test_the_held_agent_can_t_be_looked_into(self, make_bottle: MakeBottle) -> None:
        bottle = make_bottle(*SLEEP, release=False)
        script = """
        for process in /proc/[0-9]*; do
            case $process in /proc/$$) continue;; esac
            test -e $process/stat && head -c 1 $process/mem $process/environ && echo $process
            tr -d '\\0' < $process/cmdline
        done 2>/dev/null"""
        words = shell(bottle, script).stdout
        assert b"pytest" not in words
        assert b"/proc/" not in words

    def test_the_system_is_read_only(self, make_bottle: MakeBottle) -> None:
        script = "for place in / /usr /etc /dev /proc/sys /var; do touch $place/x 2>/dev/null && echo $place; done; true"
        assert shell(make_bottle(*SLEEP), script).stdout == b""

    def test_scratch_space_is_there_and_bounded(self, make_bottle: MakeBottle) -> None:
        script = f"for place in /tmp {INSIDE_HOME} /dev/shm /var/tmp; do touch $place/x && stat -f -c %b $place; done"
        sizes = shell(make_bottle(*SLEEP), script).stdout.split()
        assert len(sizes) == 4
        assert all(0 < int(blocks) * 4096 <= 2**32 for blocks in sizes)

    def test_no_set_user_id_file_can_be_made(self, make_bottle: MakeBottle) -> None:
        script = "cp /usr/bin/true x; chmod u+s x; chmod g+s x; install -m 4755 /usr/bin/true y; ls"
        shell(make_bottle(*SLEEP), script)
        for path in make_bottle.workspace.iterdir():
            assert not path.stat().st_mode & (stat.S_ISUID | stat.S_ISGID)


class Files:
    """The workspace, and copying."""

    def test_the_workspace_s_files_belong_to_its_owner_on_both_sides(self, make_bottle: MakeBottle) -> None:
        (make_bottle.workspace / "private").write_text("read me")
        (make_bottle.workspace / "private").chmod(0o600)
        done = shell(
            make_bottle(*SLEEP), "cat private; stat -c %u private; echo made > made; stat -c %u made"
        )
        assert done.stdout.decode() == f"read me{INSIDE_UID}\n{INSIDE_UID}\n", done.said
        assert (make_bottle.workspace / "made").stat().st_uid == make_bottle.workspace.stat().st_uid

    def test_files_are_written_before_the_agent_runs(self, make_bottle: MakeBottle) -> None:
        bottle = make_bottle(*SLEEP, release=False)
        self._write(make_bottle, bottle, bottle.write_files)

    def test_files_are_written_while_the_agent_runs(self, make_bottle: MakeBottle) -> None:
        bottle = make_bottle(*SLEEP)
        self._write(make_bottle, bottle, bottle.write_files)

    def test_files_are_written_by_tar(self, make_bottle: MakeBottle) -> None:
        bottle = make_bottle(*SLEEP)
        self._write(make_bottle, bottle, lambda files: copying.write_files(bottle, files))

    def _write(
        self, make_bottle: MakeBottle, bottle: Bottle, write: Callable[[Sequence[File]], None]
    ) -> None:
        """They have their modes and belong to the agent; what is there is replaced; new folders are the agent's alone."""
        files = [
            File(target=f"{INSIDE_HOME}/.config/tool/settings", content=b"{}"),
            File(target=f"{INSIDE_HOME}/bin/run", content=b"#!/bin/sh\nexit 9\n", mode=0o755),
        ]
        shell(bottle, "cd; mkdir bin; ln -s /workspace/elsewhere bin/run; echo kept > elsewhere")
        write(files)
        stated = shell(
            bottle, "cd; stat -c '%a %u' .config .config/tool/settings bin/run; cat .config/tool/settings"
        ).stdout
        assert stated.decode() == "".join(f"{mode} {INSIDE_UID}\n" for mode in (700, 600, 755)) + "{}"
        assert shell(bottle, f"{INSIDE_HOME}/bin/run").code == 9
        assert not (make_bottle.workspace / "elsewhere").exists()

    def test_files_that_can_t_be_written_are_a_sandbox_error_that_names_one(
        self, make_bottle: MakeBottle
    ) -> None:
        files = [File(target=f"{INSIDE_HOME}/{name}", content=b"x" * 1_000_000) for name in ("a/b", "c")]
        for release in (False, True):
            bottle = make_bottle(*SLEEP, release=release)
            shell(bottle, "cd; touch a")
            assert "home/agent/a" in _failure(partial(bottle.write_files, files)).details
            assert shell(bottle, "exit 7").code == 7
            bottle.destroy()
            _failure(partial(bottle.write_files, files))

    def test_certificate_stores_show_at_once_what_is_written_outside_and_nothing_inside_writes_them(
        self, make_bottle: MakeBottle, tmp_path: Path
    ) -> None:
        file, target = tmp_path / "list.pem", "/etc/trusted.pem"
        file.write_text("one\n")
        file.chmod(0o666)  # so that nothing but the mount forbids it
        bottle = make_bottle(*SLEEP, trust=Trust(str(tmp_path), (Mount(str(file), target),)))
        assert shell(bottle, f"cat {target}").stdout == b"one\n"
        file.write_text("two\n")
        assert shell(bottle, f"cat {target}").stdout == b"two\n"
        assert shell(bottle, f"echo x >> {target}").code
        assert shell(bottle, f"chmod 666 {target} || rm {target}").code
        assert file.read_text() == "two\n"

    def test_a_folder_comes_back_as_it_went_in(self, make_bottle: MakeBottle, tmp_path: Path) -> None:
        source = tmp_path / "source"
        (source / "inner" / ("long" * 40)).mkdir(parents=True)
        (source / "inner" / "file ü\n").write_bytes(bytes(range(256)) * 1000)
        (source / "run").write_text("x")
        (source / "run").chmod(0o755)
        (source / "inner" / "link").symlink_to("../run")
        bottle = make_bottle(*SLEEP)
        copying.copy_in(bottle, str(source), "/tmp/there")  # noqa: S108 - inside
        assert copying.copy_out(bottle, "/tmp/there", str(tmp_path / "back")) == []  # noqa: S108
        assert _tree(tmp_path / "back") == _tree(source)

    def test_one_file_can_be_copied(self, make_bottle: MakeBottle, tmp_path: Path) -> None:
        bottle = make_bottle(*SLEEP)
        shell(bottle, "echo hello > one")
        copying.copy_out(bottle, f"{INSIDE_WORKSPACE}/one", str(tmp_path / "one"))
        assert (tmp_path / "one").read_text() == "hello\n"

    def test_what_is_not_there_can_t_be_copied(self, make_bottle: MakeBottle, tmp_path: Path) -> None:
        bottle = make_bottle(*SLEEP)
        failed = _failure(lambda: copying.copy_out(bottle, "/nowhere", str(tmp_path / "out")))
        assert "nowhere" in failed.details

    def test_links_that_lead_out_and_devices_are_left_out(
        self, make_bottle: MakeBottle, tmp_path: Path
    ) -> None:
        bottle = make_bottle(*SLEEP)
        script = """mkdir -p d/x/y; cd d; ln -s /etc/passwd absolute; ln -s ../../out relative; ln -s ../.. x/y/up
        ln -s x/y/up/../.. chain; mkfifo fifo; ln -s x/y fine; touch kept"""
        assert shell(bottle, script).code == 0
        left_out = copying.copy_out(bottle, f"{INSIDE_WORKSPACE}/d", str(tmp_path / "d"))
        assert sorted(left_out) == ["absolute", "chain", "fifo", "relative"]
        assert sorted(path.name for path in (tmp_path / "d").rglob("*")) == ["fine", "kept", "up", "x", "y"]

    def test_more_than_is_allowed_does_not_come_out(self, make_bottle: MakeBottle, tmp_path: Path) -> None:
        bottle = make_bottle(*SLEEP)
        shell(bottle, "mkdir d; head -c 3000000 /dev/zero > d/big; touch d/1 d/2 d/3")
        for bounds in (copying.Bounds(size=1_000_000), copying.Bounds(members=3)):
            target = str(tmp_path / repr(bounds))
            copy = partial(copying.copy_out, bottle, f"{INSIDE_WORKSPACE}/d", target, bounds=bounds)
            assert "More" in _failure(copy).brief


class Terminal:
    """A bottle on a pseudo-terminal."""

    def test_an_agent_has_a_terminal_of_the_right_size_and_hears_of_changes(
        self, make_bottle: MakeBottle
    ) -> None:
        script = "trap 'stty size' WINCH; test -t 0 && stty size && echo here >/dev/tty; while :; do sleep 0.05; done"
        with _pty(33, 101) as (ours, stdio):
            make_bottle("sh", "-c", script, stdio=stdio)
            until_seen(ours, rb"33 101\r\nhere\r\n")
            ioctl(ours, termios.TIOCSWINSZ, struct.pack("HHHH", 44, 120, 0, 0))
            until_seen(ours, rb"44 120\r\n")

    def test_ctrl_c_reaches_what_runs_in_front_and_leaves_the_bottle(self, make_bottle: MakeBottle) -> None:
        with _pty(24, 80) as (ours, stdio):
            bottle = make_bottle("bash", "--norc", "--noprofile", "-i", stdio=stdio)
            os.write(ours, b"echo $((40+2)); sleep 1000\n")
            until_seen(ours, rb"42\r\n")
            until(lambda: b"sleep" in shell(bottle, "cat /proc/[0-9]*/comm").stdout, "it sleeps")
            os.write(ours, b"\x03")
            until(
                lambda: b"sleep\n" not in shell(bottle, "cat /proc/[0-9]*/comm").stdout, "it was interrupted"
            )
            os.write(ours, b"exit $((5+6))\n")
            assert bottle.agent.wait(DEADLINE) == 11

    def test_a_command_can_have_a_terminal_beside_the_agent_s(self, make_bottle: MakeBottle) -> None:
        bottle = make_bottle(*SLEEP)
        with _pty(20, 60) as (ours, stdio):
            process = bottle.spawn(command("sh", "-c", "stty size; exit 8"), stdio)
            until_seen(ours, rb"20 60")
            assert process.wait(DEADLINE) == 8


class Door:
    """The only way out."""

    def test_listeners_are_opened_inside_and_served_outside(self, make_bottle: MakeBottle) -> None:
        from bot_bottle.door.passing import receive_listeners

        bottle = make_bottle(*SLEEP, release=False)
        ours, theirs = socket.socketpair()
        wanted = [Listener("proxy", "127.0.0.1", 3128), Listener("http", "0.0.0.0", 80)]  # noqa: S104
        bottle.open_door(wanted, theirs)
        listeners = receive_listeners(ours, 2, DEADLINE)
        try:
            assert [listener.getsockname() for listener in listeners] == [
                (item.address, item.port) for item in wanted
            ]
            script = "import socket; print(socket.create_connection(('192.0.2.7', 80), 30).recv(9))"
            with piped(bottle, "/usr/bin/python3", "-c", script) as (_, _, answer):
                connection = until(lambda: _accepted(listeners[1]), "it connected")
                assert connection.getsockname() == ("192.0.2.7", 80)
                connection.sendall(b"outside")
                connection.close()
                assert os.read(answer, 100) == b"b'outside'\n"
        finally:
            for sock in (*listeners, ours, theirs):
                sock.close()

    def test_further_listeners_are_opened_while_the_agent_runs(self, make_bottle: MakeBottle) -> None:
        from bot_bottle.door.passing import receive_listeners

        bottle = make_bottle(*SLEEP)
        ours, theirs = socket.socketpair()
        theirs.setblocking(False)  # as the keeper has it, which waits for nobody
        bottle.open_door([Listener("http", "0.0.0.0", 80)], theirs)  # noqa: S104
        first = receive_listeners(ours, 1, DEADLINE)
        bottle.open_door([Listener("tls", "0.0.0.0", 8443), Listener("tcp", "0.0.0.0", 5432)], theirs)  # noqa: S104
        further = receive_listeners(ours, 2, DEADLINE)
        _failure(lambda: bottle.open_door([Listener("http", "0.0.0.0", 80)], theirs))  # noqa: S104 - it is open
        try:
            assert [listener.getsockname()[1] for listener in (*first, *further)] == [80, 8443, 5432]
            script = (
                "import socket; print(socket.create_connection(('192.0.2.7', 5432), 30).getpeername()[1])"
            )
            with piped(bottle, "/usr/bin/python3", "-c", script) as (_, _, answer):
                until(lambda: _accepted(further[1]), "it connected").close()
                assert os.read(answer, 100) == b"5432\n"
        finally:
            for sock in (*first, *further, ours, theirs):
                sock.close()

    def test_a_door_that_can_t_be_opened_is_said(self, make_bottle: MakeBottle) -> None:
        bottle = make_bottle(*SLEEP, release=False)
        ours, theirs = socket.socketpair()
        with ours, theirs:
            _failure(lambda: bottle.open_door([Listener("http", "0.0.0.0", 80)] * 2, theirs))  # noqa: S104
            ours.setblocking(False)
            with suppress(BlockingIOError):
                assert not ours.recv(10), "something was passed"


class BackendContract(Commands, Lifecycle, Confinement, Files, Terminal, Door):
    """Everything; a backend that can't do a part names the classes it can, and says why."""


@contextmanager
def _pty(rows: int, columns: int) -> Iterator[tuple[int, Stdio]]:
    ours, theirs = os.openpty()
    ioctl(ours, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
    try:
        yield ours, Stdio(theirs, theirs, theirs, tty=True)
    finally:
        os.close(ours)
        os.close(theirs)


def until_seen(terminal: int, pattern: bytes) -> None:
    """Reads the terminal until `pattern` was on it."""
    import select

    seen = b""
    end = time.monotonic() + DEADLINE
    while not re.search(pattern, seen):
        assert select.select([terminal], [], [], max(0, end - time.monotonic()))[0], (
            f"not seen: {pattern!r} in {seen!r}"
        )
        seen += os.read(terminal, 65536)


def _failure(attempt: Callable[[], Any]) -> SandboxError:
    """The SandboxError that `attempt` must raise."""
    try:
        attempt()
    except SandboxError as error:
        return error
    raise AssertionError("it worked")


def _accepted(listener: socket.socket) -> socket.socket | None:
    try:
        return listener.accept()[0]
    except BlockingIOError:
        return None


def _descriptors() -> list[str]:
    return sorted(path.name for path in Path("/proc/self/fd").iterdir())[
        :-1
    ]  # without that of the folder itself


def _children() -> str:
    return Path(f"/proc/self/task/{os.getpid()}/children").read_text()


def _host_processes(marker: str) -> list[int]:
    """Processes of the host with `marker` in their arguments."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if marker.encode() in path.read_bytes():
                found.append(int(path.parent.name))
        except OSError:
            continue
    return found


def _tree(root: Path) -> dict[str, tuple[int, bytes | str]]:
    found: dict[str, tuple[int, bytes | str]] = {}
    for path in sorted(root.rglob("*")):
        content: bytes | str = path.read_bytes() if path.is_file() else ""
        found[str(path.relative_to(root))] = (
            path.lstat().st_mode,
            os.readlink(path) if path.is_symlink() else content,
        )
    return found
