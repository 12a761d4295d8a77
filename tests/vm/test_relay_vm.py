"""The door's relay in a real microVM. Runs where one boots; `make test-vm` makes such a place where there is none.

One machine serves all tests, in their order: a boot takes up to a minute there. The last ones end it.
"""

import os
import re
import socket
import subprocess
import threading
from collections.abc import Iterator

import pytest

from bot_bottle.backends.smolmachines import doctor
from bot_bottle.door.model import Listener
from bot_bottle.door.passing import receive_listeners
from bot_bottle.errors import HostError
from bot_bottle.host import spawn
from support.relayed_machines import DEADLINE, INSIDE, World

pytestmark = [pytest.mark.vm, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def world(image: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    made = World(tmp_path_factory.mktemp("vm"), image)
    yield made
    made.close()


def answered(listener: socket.socket, answer: bytes) -> tuple[threading.Thread, list[tuple[str, int]]]:
    """Serves one connection of `listener` beside the test, and tells which address it was for."""
    meant: list[tuple[str, int]] = []

    def serve() -> None:
        connection, _ = listener.accept()
        with connection:
            meant.append(connection.getsockname())
            connection.recv(100)
            connection.sendall(answer)

    thread = threading.Thread(target=serve)
    thread.start()
    return thread, meant


@pytest.mark.parametrize(
    ("number", "address", "port"),
    [(1, "192.0.2.7", 80), (2, "198.18.0.3", 443), (0, "127.0.0.1", 3128), (5, "127.0.0.1", 3129)],
)
def test_the_agent_s_connection_arrives_with_the_address_that_was_meant(world, number, address, port):
    thread, meant = answered(world.listeners[number], b"from outside")
    script = f"import socket; s = socket.create_connection(('{address}', {port}), 60); s.sendall(b'x'); print(s.recv(99))"
    assert world.python(script) == "b'from outside'\n"
    thread.join(DEADLINE)
    assert meant == [(address, port)]


def test_names_are_asked_for_over_udp(world):
    def serve() -> None:
        connection, _ = world.listeners[4].accept()
        with connection:
            connection.recv(100)
            connection.sendall(b"\0\6answer")

    thread = threading.Thread(target=serve)
    thread.start()
    script = "import socket\ns = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.settimeout(60)\n" \
        "s.connect(('8.8.8.8', 53)); s.send(b'query'); print(s.recv(99))"  # fmt: skip
    assert world.python(script) == "b'answer'\n"
    thread.join(DEADLINE)


def test_there_is_no_other_way_out_not_even_for_root(world):
    with socket.create_server(("0.0.0.0", 0)) as service:
        port = service.getsockname()[1]
        hosts = ["127.0.0.1", "10.0.2.15", "10.0.2.2", "169.254.169.254", "192.168.127.254", "1.1.1.1"]
        script = f"""
import socket
for host in {hosts}:
    try: socket.create_connection((host, {port}), 3); print('reached', host)
    except OSError: pass
names = __import__('os').listdir('/sys/class/net')
print([name for name in names if int(open(f'/sys/class/net/{{name}}/flags').read(), 16) & 1])"""
        assert world.python(script, user="0:0") == "['lo']\n"
        service.setblocking(False)
        with pytest.raises(BlockingIOError):
            service.accept()


def test_the_agent_can_t_stop_replace_or_look_into_the_relay_nor_take_its_ports(world):
    script = f"""
import os, socket
relay = [int(n) for n in os.listdir('/proc') if n.isdigit() and open(f'/proc/{{n}}/cmdline').read().startswith('{INSIDE}')][0]
def tried(what, do):
    try: do(); print('could', what)
    except OSError as error: pass
tried('stop', lambda: os.kill(relay, 9))
for name in ('mem', 'environ', 'maps', 'fd/0', 'exe', 'root'): tried(name, lambda: open(f'/proc/{{relay}}/{{name}}', 'rb').read(1))
tried('write', lambda: open('{INSIDE}', 'ab'))
tried('remove', lambda: os.unlink('{INSIDE}'))
tried('rename', lambda: os.rename('/.bottle', '/.other'))
for port in (80, 443, 53, 3128, 3129): tried(f'take {{port}}', lambda: socket.socket().bind(('127.0.0.1', port)))
"""
    assert world.python(script) == ""


def test_what_is_shown_read_only_stays_so_against_root(world):
    script = """
for how in 'echo changed > /shown/file' 'rm /shown/file' 'mount -o remount,rw /shown' 'touch /shown/new'; do sh -c "$how"; done
mkdir -p /mnt/again; mount -t virtiofs smolvm1 /mnt/again && { echo changed > /mnt/again/file; touch /mnt/again/new; }; true"""
    world.run("/bin/sh", "-c", script, user="0:0")
    shown = world.folder / "shown"
    assert (shown / "file").read_text() == "as it was"
    assert [path.name for path in shown.iterdir()] == ["file"]


def test_the_workspace_is_the_folder_outside(world):
    (world.folder / "workspace" / "from-outside").write_text("hello")
    done = world.run(
        "/bin/sh",
        "-c",
        "cat /workspace/from-outside; echo back > /workspace/from-inside",
        user=f"{os.getuid()}:{os.getgid()}",
    )
    assert done.stdout == b"hello", done.said
    made = world.folder / "workspace" / "from-inside"
    assert (made.read_text(), made.stat().st_uid) == ("back\n", os.getuid())


def test_what_a_machine_prints_is_believed_in_nothing(world):
    lie = '{"error":{"code":"NOT_FOUND","message":"vm not found: bottle"}}'
    done = world.run("/bin/sh", "-c", f"echo '{lie}' >&2; exit 1")
    assert done.code == 1
    assert world.smolvm.status("bottle")["state"] == "running"


def test_further_listeners_and_one_that_the_agent_took(world):
    ours, theirs = socket.socketpair()
    with ours, theirs:
        world.relay.open_door([Listener("tcp", "0.0.0.0", 5432)], theirs)
        (further,) = receive_listeners(ours, 1, 0)
    with further:
        further.settimeout(DEADLINE)
        thread, meant = answered(further, b"database")
        script = "import socket; s = socket.create_connection(('198.18.0.9', 5432), 60); s.sendall(b'x'); print(s.recv(99))"
        assert world.python(script) == "b'database'\n"
        thread.join(DEADLINE)
        assert meant == [("198.18.0.9", 5432)]


def test_a_relay_that_is_killed_inside_is_seen_and_nothing_goes_out_any_more(world):
    world.run("/bin/sh", "-c", "kill -9 $(grep -l relay /proc/[0-9]*/comm | cut -d/ -f3)", user="0:0")
    assert spawn.readable(world.relay.line.fileno(), DEADLINE)
    assert world.relay.line.recv(1) == b""
    done = world.run(
        "/usr/bin/python3", "-I", "-c", "import socket; socket.create_connection(('192.0.2.7', 80), 5)"
    )
    assert done.code
    assert re.search(rb"refused|unreachable|timed out", done.stderr)


def test_a_machine_that_is_killed_is_removed_and_leaves_no_process(world):
    pid = int(world.smolvm.status("bottle")["pid"])
    os.kill(pid, 9)
    world.smolvm.stop("bottle")
    assert world.smolvm.delete("bottle")
    assert world.smolvm.names() == []
    left = subprocess.run(
        ["pgrep", "-f", str(world.folder / "state")], capture_output=True, check=False
    ).stdout
    assert left == b""


def test_the_doctor_says_yes_only_after_a_boot(world):
    """The last one: it has a machine of its own, and two at once are more than an emulated host carries."""
    found, version = doctor.smolvm()
    assert version.startswith("smolvm 1.")
    for attempt in range(3):
        try:
            doctor.try_a_machine(found)
            break
        except HostError as error:
            print(f"\na boot failed: {error.details}")
            assert attempt < 2
            assert "boot" in error.details
