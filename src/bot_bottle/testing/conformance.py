"""The contract of `backends/base.py` as one suite of tests, which every backend runs.

    class TestNamespace(BackendContract): ...

with a fixture `make_bottle` (a `MakeBottle`) that makes bottles with the backend and destroys them at the end. Inside, the
suite needs a shell, coreutils, tar and Python 3. Nothing here knows how a bottle is made.
"""

import os
import re
import signal
import socket
import struct
import termios
import time
from contextlib import suppress
from fcntl import ioctl

from bot_bottle.backends.execution import run
from bot_bottle.door.model import Listener
from bot_bottle.testing.bottles import (
    DEADLINE,
    ENVIRONMENT,
    SLEEP,
    MakeBottle,
    accepted,
    command,
    failure_of,
    host_processes,
    own_children,
    own_descriptors,
    own_mounts,
    piped,
    python,
    shell,
    terminal_pair,
    until,
    until_seen,
)
from bot_bottle.testing.conformance_place import Confinement, Files

__all__ = [
    "DEADLINE",
    "ENVIRONMENT",
    "SLEEP",
    "BackendContract",
    "Commands",
    "Confinement",
    "Door",
    "Files",
    "Lifecycle",
    "MakeBottle",
    "Terminal",
    "command",
    "piped",
    "python",
    "run",
    "shell",
    "until",
    "until_seen",
]


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
        failure_of(lambda: shell(bottle, "true"))
        failure_of(bottle.release)

    def test_teardown_leaves_no_process_mount_or_descriptor(self, make_bottle: MakeBottle) -> None:
        marker = f"{time.time_ns()}"
        before = (own_descriptors(), own_mounts(), own_children())
        bottle = make_bottle("sleep", marker)
        shell(bottle, f"setsid sleep {marker} >/dev/null 2>&1 & nohup sleep {marker} >/dev/null 2>&1 &")
        until(lambda: len(host_processes(marker)) >= 3, "three processes run")
        bottle.destroy()
        assert host_processes(marker) == []
        assert (own_descriptors(), own_mounts(), own_children()) == before

    def test_many_commands_leave_no_descriptor(self, make_bottle: MakeBottle) -> None:
        bottle = make_bottle(*SLEEP)
        shell(bottle, "true")
        before = len(own_descriptors())
        for _ in range(10):
            shell(bottle, "true")
        assert len(own_descriptors()) <= before

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


class Terminal:
    """A bottle on a pseudo-terminal."""

    def test_an_agent_has_a_terminal_of_the_right_size_and_hears_of_changes(
        self, make_bottle: MakeBottle
    ) -> None:
        script = "trap 'stty size' WINCH; test -t 0 && stty size && echo here >/dev/tty; while :; do sleep 0.05; done"
        with terminal_pair(33, 101) as (ours, stdio):
            make_bottle("sh", "-c", script, stdio=stdio)
            until_seen(ours, rb"33 101\r\nhere\r\n")
            ioctl(ours, termios.TIOCSWINSZ, struct.pack("HHHH", 44, 120, 0, 0))
            until_seen(ours, rb"44 120\r\n")

    def test_ctrl_c_reaches_what_runs_in_front_and_leaves_the_bottle(self, make_bottle: MakeBottle) -> None:
        with terminal_pair(24, 80) as (ours, stdio):
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
        with terminal_pair(20, 60) as (ours, stdio):
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
                connection = until(lambda: accepted(listeners[1]), "it connected")
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
        failure_of(lambda: bottle.open_door([Listener("http", "0.0.0.0", 80)], theirs))  # noqa: S104 - it is open
        try:
            assert [listener.getsockname()[1] for listener in (*first, *further)] == [80, 8443, 5432]
            script = (
                "import socket; print(socket.create_connection(('192.0.2.7', 5432), 30).getpeername()[1])"
            )
            with piped(bottle, "/usr/bin/python3", "-c", script) as (_, _, answer):
                until(lambda: accepted(further[1]), "it connected").close()
                assert os.read(answer, 100) == b"5432\n"
        finally:
            for sock in (*first, *further, ours, theirs):
                sock.close()

    def test_what_nobody_serves_any_more_is_opened_again(self, make_bottle: MakeBottle) -> None:
        """As for the bundle that takes the place of one that has ended."""
        from bot_bottle.door.passing import receive_listeners

        bottle = make_bottle(*SLEEP)
        ours, theirs = socket.socketpair()
        wanted = [Listener("http", "0.0.0.0", 80), Listener("dns-udp", "0.0.0.0", 53)]  # noqa: S104
        script = "import socket; print(socket.create_connection(('192.0.2.7', 80), 30).recv(5))"
        with ours, theirs:
            for _ in range(2):
                bottle.open_door(wanted, theirs)
                listeners = receive_listeners(ours, len(wanted), DEADLINE)
                with piped(bottle, "/usr/bin/python3", "-c", script) as (_, _, answer):
                    connection = until(lambda: accepted(listeners[0]), "it connected")  # noqa: B023
                    connection.sendall(b"again")
                    connection.close()
                    assert os.read(answer, 100) == b"b'again'\n"
                for sock in listeners:
                    sock.close()

    def test_a_door_that_can_t_be_opened_is_said(self, make_bottle: MakeBottle) -> None:
        bottle = make_bottle(*SLEEP, release=False)
        ours, theirs = socket.socketpair()
        with ours, theirs:
            failure_of(lambda: bottle.open_door([Listener("http", "0.0.0.0", 80)] * 2, theirs))  # noqa: S104
            ours.setblocking(False)
            with suppress(BlockingIOError):
                assert not ours.recv(10), "something was passed"


class BackendContract(Commands, Lifecycle, Confinement, Files, Terminal, Door):
    """Everything; a backend that can't do a part names the classes it can, and says why."""
