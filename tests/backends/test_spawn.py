"""Starting processes by steps."""

import os
import signal
import subprocess
import sys

import pytest

from bot_bottle.host import spawn
from bot_bottle.testing.conformance import DEADLINE
from support.identity import Identity, identify, is_alive


def start(*argv: str, steps=(), keep=(), env=None):
    return spawn.start(steps, spawn.Program(argv[0], argv, env or {}), keep=keep)


def fail() -> None:
    raise OSError(28, "No space left on device")


def test_the_code_is_that_of_the_program() -> None:
    child = start("/bin/sh", "-c", "exit 5")
    assert child.wait(DEADLINE) == 5
    child.close()
    assert child.poll() == 5


def test_a_signal_is_128_and_its_number() -> None:
    child = start("/bin/sleep", "1000")
    assert child.wait(0) is None
    child.kill()
    assert child.wait(DEADLINE) == 137
    child.close()


def test_a_step_that_fails_is_named_and_the_rest_is_not_done(tmp_path) -> None:
    steps = [spawn.Step("do the impossible", fail), spawn.Step("go on", (tmp_path / "x").touch)]
    with pytest.raises(spawn.ChildFailed) as caught:
        start("/bin/true", steps=steps)
    assert (caught.value.what, caught.value.number) == ("do the impossible", 28)
    assert not (tmp_path / "x").exists()


def test_a_program_that_can_t_be_started_is_said() -> None:
    with pytest.raises(spawn.ChildFailed, match="No such file"):
        start("/no/such/program")


def test_an_unexpected_error_in_a_child_comes_back_and_never_runs_on() -> None:
    def wrong(_) -> None:
        raise ValueError("a\nb")

    here = os.getpid()
    pid, report = spawn.fork(wrong, keep=())
    with pytest.raises(spawn.ChildFailed, match="ValueError: a b"):
        list(spawn.hear(report))
    os.close(report)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 1
    assert os.getpid() == here


def test_only_what_is_kept_stays_open() -> None:
    reader, writer = os.pipe()
    leaked, _ = os.pipe()
    os.set_inheritable(leaked, True)
    steps = [spawn.Step("speak", lambda: os.dup2(writer, 1))]
    child = start("/bin/ls", "/proc/self/fd", steps=steps, keep=(writer,))
    child.wait(DEADLINE)
    assert os.read(reader, 100).split() == sorted(
        [b"0", b"1", b"2", b"3" if writer != 3 else b"4", b"%d" % writer]
    )
    for descriptor in (reader, writer, leaked, _):
        os.close(descriptor)
    child.close()


def test_a_handler_of_ours_does_not_run_in_a_child() -> None:
    ran = []
    before = signal.signal(signal.SIGUSR1, lambda *_: ran.append(os.getpid()))
    try:
        child = start("/bin/sh", "-c", "kill -USR1 $$; sleep 1000")
        assert child.wait(DEADLINE) == 128 + signal.SIGUSR1
        child.close()
        assert ran == []
    finally:
        signal.signal(signal.SIGUSR1, before)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP, 32, 33])
def test_a_signal_that_whoever_started_us_ignored_is_not_ignored_by_a_program(number: int) -> None:
    code = f"""
import os
from bot_bottle.host import kernel, spawn
ignore = (1).to_bytes(8, "little") + bytes(24)
kernel._syscall(kernel._number("rt_sigaction"), {int(number)}, ignore, 0, 8, what="rt_sigaction")
def ignored():
    with open("/proc/self/status") as file:
        return next(int(line.split()[1], 16) for line in file if line.startswith("SigIgn"))
assert ignored() >> ({int(number)} - 1) & 1
spawn.reset_signals()
assert ignored() == 0
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_an_identity_is_not_the_number_alone() -> None:
    me = identify(os.getpid())
    assert is_alive(me)
    assert not is_alive(Identity(me.pid, me.started - 1))
    child = start(sys.executable, "-c", "pass", env={"PYTHONDONTWRITEBYTECODE": "1"})
    theirs = identify(child.pid)
    child.wait(DEADLINE)
    assert theirs is None or not is_alive(theirs)
    child.close()
