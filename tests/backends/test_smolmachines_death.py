"""Whoever takes part in a bottle in a machine dies: nothing goes out any more, it is said, and nothing is left."""

import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from bot_bottle.backends.base import Bottle, Stdio
from bot_bottle.backends.registry import backend
from bot_bottle.backends.smolmachines import deputy, machine
from bot_bottle.errors import SandboxError
from bot_bottle.host import spawn
from bot_bottle.testing.bottles import DEADLINE, SLEEP, shell
from support import machines
from support.backends import Factory, make_plan
from support.microvms import children, is_gone
from support.waiting import wait_for

MARK = "1000.25"
AGENT = ("sleep", MARK)


@pytest.fixture
def folder() -> Iterator[Path]:
    with machines.short_folder() as made:
        yield made


@pytest.fixture
def make_bottle(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Factory]:
    yield from machines.bottles(folder, monkeypatch)


def processes(folder: str, word: bytes) -> list[int]:
    """Those below this test's own stand-in whose first word begins with `word`."""
    roots = [path for path in Path("/proc").glob("[0-9]*") if folder.encode() in read(path / "cmdline")]
    below = {int(path.name) for path in roots}
    grown = True
    while grown:
        children = {int(path.name) for path in Path("/proc").glob("[0-9]*") if parent_of(path) in below}
        grown = not children <= below
        below |= children
    return [pid for pid in below if read(Path("/proc") / str(pid) / "cmdline").startswith(word)]


def read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


def parent_of(path: Path) -> int:
    words = read(path / "stat").rpartition(b")")[2].split()
    return int(words[1]) if words else 0


def is_empty(bottle: Bottle, path: bytes) -> bool:
    """Whether it is a plain file with nothing in it: the place of something that is mounted elsewhere."""
    return shell(bottle, f"test -f {path.decode()} -a ! -s {path.decode()}").code == 0


def relay_outside() -> list[int]:
    children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    return [int(pid) for pid in children if read(Path(f"/proc/{pid}/cmdline")).startswith(b"relay\0outside")]


@pytest.mark.parametrize("victim", ["relay inside", "relay outside", "deputy", "process 1", "machine"])
def test_whoever_is_killed_the_bottle_ends_and_says_so(make_bottle: Factory, victim: str) -> None:
    said, words = os.pipe()
    with open(os.devnull, "r+b") as nothing:
        bottle = make_bottle(*AGENT, stdio=Stdio(nothing.fileno(), nothing.fileno(), words))
    os.close(words)
    state = machine.names(make_bottle.plan).state
    find: dict[str, Callable[[], list[int]]] = {
        "relay inside": partial(processes, state, b"/.bottle/relay"),
        "relay outside": relay_outside,
        "deputy": partial(processes, state, b"/.bottle/deputy"),
        "process 1": partial(processes, state, b"guest\0"),
        "machine": partial(processes, state, b"unshare\0"),
    }
    found = wait_for(find[victim], f"{victim} is there")
    os.kill(min(found), signal.SIGKILL)  # what process 1 has just forked still bears its name
    assert bottle.agent.wait(DEADLINE) == 128 + signal.SIGKILL
    with pytest.raises(SandboxError, match="ended"):
        shell(bottle, "true")
    if victim != "process 1":  # which takes the agent along first
        assert os.read(said, 1000).startswith(b"bot-bottle: The bottle's machine has ended")
    os.close(said)
    bottle.destroy()
    assert processes(state, b"") == []


def test_the_agent_s_place_has_no_process_of_ours_but_process_1(make_bottle: Factory) -> None:
    bottle = make_bottle(*SLEEP)
    words = shell(bottle, "for p in /proc/[0-9]*; do tr '\\0' ' ' < $p/cmdline; echo; done").stdout
    assert b"relay" not in words
    assert b"deputy" not in words


def test_the_line_and_the_door_s_socket_are_not_there_for_the_agent(make_bottle: Factory) -> None:
    bottle = make_bottle(*SLEEP)
    script = "for place in /.door /.bottle /.shown; do find $place -mindepth 1 -type s -o -type f; done 2>/dev/null"
    assert [line for line in shell(bottle, script).stdout.splitlines() if not is_empty(bottle, line)] == []
    assert not os.path.exists(f"{machine.folder(make_bottle.plan)}/line.sock")


def test_what_a_dead_keeper_left_is_removed_by_name(make_bottle: Factory) -> None:
    bottle = make_bottle(*AGENT)
    ours = backend("smolmachines")
    traces = ours.traces(make_bottle.plan)
    state, name = traces["state"], traces["machine"]
    assert ours.reap(traces) == [f"removed the machine {name}"]
    assert processes(state, b"") == []
    assert ours.reap(traces) == []
    assert bottle.agent.wait(DEADLINE) == 128 + signal.SIGKILL


KEEPER = """
import os, sys
sys.path[:0] = {path!r}
from pathlib import Path
import pytest
from support import machines
from bot_bottle.testing.bottles import SLEEP
patch = pytest.MonkeyPatch()
made = next(machines.bottles(Path({folder!r}), patch))
bottle = made("sleep", "1000")
print("ready", flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("is_slow", [False, True], ids=["at once", "when its carrier gets to run"])
def test_a_keeper_that_is_killed_takes_its_machine_along(folder: Path, is_slow: bool) -> None:
    _, why_not = machines.root_fs()
    if why_not:
        pytest.skip(why_not)
    script = KEEPER.format(path=sys.path, folder=str(folder))
    keeper = subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    with keeper:
        assert keeper.stdout is not None
        assert keeper.stdout.readline() == b"ready\n"
        state = str(folder / "data" / "vm")
        assert processes(state, b"/.bottle/deputy")
        carriers = children(keeper.pid, sys.executable.encode()) if is_slow else []
        assert len(carriers) == is_slow
        hung = [*carriers, *(processes(state, b"/.bottle/deputy") if is_slow else ())]
        for pid in hung:  # so that nothing ends the machine but whoever kills it
            os.kill(pid, signal.SIGSTOP)
        keeper.kill()
        keeper.wait()
        for pid in carriers:
            os.kill(pid, signal.SIGCONT)
        wait_for(lambda: not processes(state, b""), "the machine to end")
        wait_for(lambda: all(map(is_gone, carriers)), "the carrier to end")


@pytest.mark.parametrize(
    "said",
    [
        b"\0\0dzzzz",
        b"\0\0d\0\0\0\x04abcd",
        b"\0\0d\xff\xff\xff\xff",
        b"\0\x09d\0\0\0\x01x" * 3 + b"\0\0d\0\0\0\x14" + b"\xff" * 20,
    ],
)
def test_a_machine_that_talks_nonsense_has_ended_for_us(tmp_path: Path, said: bytes) -> None:
    path = str(tmp_path / "line")
    line = deputy.Waiting(path)
    with socket.socket(socket.AF_UNIX) as hostile:
        hostile.connect(path)
        hostile.sendall(said)
        attached = deputy.attach(line.take(DEADLINE))
        try:
            with pytest.raises(SandboxError, match="has ended"):
                attached.ask({"do": "write", "text": ""}, within=DEADLINE)
        finally:
            attached.close()


def test_a_machine_that_floods_is_not_read_without_end(tmp_path: Path) -> None:
    path = str(tmp_path / "line")
    line = deputy.Waiting(path)
    reader, writer = os.pipe()
    with socket.socket(socket.AF_UNIX) as hostile:
        hostile.connect(path)
        attached = deputy.attach(line.take(DEADLINE))
        stop = threading.Event()

        def flood() -> None:
            try:
                while not stop.is_set():
                    hostile.sendall(b"\0\x01d\0\0\x80\0" + b"x" * 32768)
            except OSError:
                pass

        thread = threading.Thread(target=flood)
        thread.start()
        try:
            from bot_bottle.backends.attached import End

            with pytest.raises(SandboxError, match="has ended"):
                attached.ask(
                    {"do": "spawn", "number": 1, "tty": False, "channels": [1, 2, 3], "text": ""},
                    [End(1, writer, reads=False)],
                    within=DEADLINE,
                )
        finally:
            stop.set()
            attached.close()
            thread.join(DEADLINE)
            os.close(reader)
            os.close(writer)


def test_a_line_is_good_for_one_connection(tmp_path: Path) -> None:
    path = str(tmp_path / "line")
    line = deputy.Waiting(path)
    with socket.socket(socket.AF_UNIX) as first, socket.socket(socket.AF_UNIX) as second:
        first.connect(path)
        attached = deputy.attach(line.take(DEADLINE))
        try:
            with pytest.raises(OSError, match=r"refused|No such file"):
                second.connect(path)
        finally:
            attached.close()


def test_a_machine_that_never_answers_is_given_up(tmp_path: Path) -> None:
    line = deputy.Waiting(str(tmp_path / "line"))
    with pytest.raises(SandboxError, match="did not answer"):
        line.take(0.1)
    assert not (tmp_path / "line").exists()


def connected(path: str) -> "subprocess.Popen[bytes]":
    """A process of its own that has connected to `path`."""
    script = "import socket, sys; s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]); sys.stdin.read()"
    return subprocess.Popen([sys.executable, "-I", "-c", script, path], stdin=subprocess.PIPE)


def test_the_kernel_says_which_process_the_machine_is(tmp_path: Path) -> None:
    line = deputy.Waiting(str(tmp_path / "line"))
    with connected(str(tmp_path / "line")) as process, line.take(DEADLINE) as connection:
        found = deputy.machine_of(connection)
        try:
            signal.pidfd_send_signal(found, signal.SIGKILL)
            assert process.wait(DEADLINE) == -signal.SIGKILL
        finally:
            os.close(found)


@pytest.mark.parametrize("reaped", [False, True])
def test_a_machine_that_has_ended_is_no_process_to_be_killed(tmp_path: Path, reaped: bool) -> None:
    line = deputy.Waiting(str(tmp_path / "line"))
    with connected(str(tmp_path / "line")) as process, line.take(DEADLINE) as connection:
        process.kill()
        assert spawn.readable(connection.fileno(), DEADLINE)
        if reaped:
            process.wait(DEADLINE)
        with pytest.raises(SandboxError, match="has ended"):
            deputy.machine_of(connection)


def test_paths_that_are_too_long_for_sockets_are_refused_before_anything_is_made(tmp_path: Path) -> None:
    plan = make_plan(tmp_path / ("long" * 30))
    assert machine.too_long(plan)
    assert not machine.too_long(make_plan(Path("/run/user/1000/x/y")))


def test_channels_are_numbered_anew_and_never_those_of_what_still_runs(make_bottle: Factory) -> None:
    reader, writer = os.pipe()
    with open(os.devnull, "r+b") as nothing:
        stdio = Stdio(nothing.fileno(), writer, nothing.fileno())
        bottle = make_bottle("sh", "-c", "echo first; sleep 1000; echo last", stdio=stdio)
    os.close(writer)
    assert os.read(reader, 100) == b"first\n"
    bottle._channel = 65534  # as after some twenty thousand commands
    for number in range(5):
        assert shell(bottle, f"echo {number}").stdout == b"%d\n" % number
    assert bottle._channel < 20
    bottle.destroy()
    os.close(reader)


def test_stdio_is_kept_apart_from_what_the_caller_closes(make_bottle: Factory) -> None:
    reader, writer = os.pipe()
    with open(os.devnull, "r+b") as nothing:
        bottle = make_bottle(
            "echo", "hello", stdio=Stdio(nothing.fileno(), writer, nothing.fileno()), release=False
        )
    os.close(writer)
    bottle.release()
    assert bottle.agent.wait(DEADLINE) == 0
    assert os.read(reader, 100) == b"hello\n"
    assert os.read(reader, 100) == b""
    os.close(reader)
