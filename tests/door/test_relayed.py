"""The relay of a bottle in a virtual machine, with a network namespace in the machine's place."""

import contextlib
import errno
import hashlib
import json
import os
import runpy
import select
import signal
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bot_bottle.door import relayed
from bot_bottle.door.model import STANDARD, SUPERVISE, Listener
from bot_bottle.door.passing import receive_listeners
from bot_bottle.errors import SandboxError
from bot_bottle.host import kernel, spawn
from support.waiting import wait_for

DEADLINE = 20.0
HTTP = STANDARD[1]
RELAY = Path(relayed.__file__).parent / "relay"


class Machine:
    """A place with a network of its own, in which the half inside runs as its root; programs of a test run there, too."""

    def __init__(self, path: Path) -> None:
        argv = [
            "unshare",
            "--user",
            "--map-root-user",
            "--net",
            "--pid",
            "--fork",
            "--kill-child",
            relayed.program(),
            "inside",
        ]
        self.process = subprocess.Popen([*argv, str(path)], stdin=subprocess.DEVNULL)
        self.path = path

    @property
    def inside(self) -> int:
        """The number of the half inside."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        return int(wait_for(lambda: children.read_text().split(), "the half inside")[0])

    def python(self, script: str, *arguments: str) -> str:
        """Runs `script` in the machine's network, as somebody who has no rights there."""
        way = [
            "nsenter",
            "--preserve-credentials",
            "--user",
            "--net",
            "--target",
            str(self.process_in_namespace()),
        ]
        done = subprocess.run(
            [*way, "/usr/bin/python3", "-I", "-c", script, *arguments],
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout

    def process_in_namespace(self) -> int:
        return self.process.pid

    def close(self) -> None:
        self.process.kill()
        self.process.wait()


class Way:
    """What mounts a socket into a machine: as soon as either side ends a connection, or half of it, what is on its way is lost."""

    def __init__(self, path: Path, to: Path) -> None:
        self._to = to
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen(64)
        self._cut = threading.Event()
        self.carried: list[socket.socket] = []
        """Each connection that was ever made, first the line to the keeper."""
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        """Ends every connection that carries something from now on."""
        self._cut.set()

    def end_all(self) -> None:
        """Ends every connection but the line."""
        for connection in self.carried[1:]:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def held(self) -> int:
        """How many are still there."""
        return sum(connection.fileno() >= 0 for connection in self.carried)

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                inside, _ = self._listener.accept()
                self.carried.append(inside)
                threading.Thread(target=self._carry, args=(inside,), daemon=True).start()

    def _carry(self, inside: socket.socket) -> None:
        outside = socket.socket(socket.AF_UNIX)
        with inside, outside, contextlib.suppress(OSError):
            outside.connect(str(self._to))
            sides = {inside.fileno(): (inside, outside), outside.fileno(): (outside, inside)}
            polled = select.poll()
            for number in sides:
                polled.register(number, select.POLLIN | select.POLLRDHUP)
            while True:
                ready = polled.poll()
                if self._cut.is_set() or any(events & ~select.POLLIN for _, events in ready):
                    return
                for number, _ in ready:
                    source, target = sides[number]
                    target.sendall(source.recv(4096))


class World:
    """Both halves, with the listeners of the door as the bundle gets them. With `loses` a `Way` lies between them."""

    def __init__(self, folder: Path, *, loses: bool = False) -> None:
        self.path = folder / "door.sock"
        user = (2_000_000, 2_000_000) if os.geteuid() == 0 else None
        self.relay = relayed.Relay(str(self.path), user=user)
        self.sockets: list[socket.socket] = []
        mounted = folder / "mounted.sock" if loses else self.path
        self.way = Way(mounted, self.path) if loses else None
        self.machine = Machine(mounted)
        try:
            self.relay.wait_for_inside(DEADLINE)
        except BaseException:
            self.close()
            raise

    def open(self, *listeners: Listener) -> list[socket.socket]:
        ours, theirs = socket.socketpair()
        with ours, theirs:
            self.relay.open_door(listeners, theirs)
            opened = receive_listeners(ours, len(listeners), 0)
        for sock in opened:
            sock.settimeout(DEADLINE)
        self.sockets += opened
        return opened

    def close(self) -> None:
        self.relay.end()
        self.machine.close()
        if self.way:
            self.way.close()
        for sock in self.sockets:
            sock.close()


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    tmp_path.chmod(0o755)
    made = World(tmp_path)
    yield made
    made.close()


@pytest.fixture
def losing(tmp_path: Path) -> Iterator[World]:
    tmp_path.chmod(0o755)
    made = World(tmp_path, loses=True)
    yield made
    made.close()


def keeper_of(script: str, *arguments: str) -> "subprocess.Popen[str]":
    """A keeper that is a process of its own."""
    environment = {"PYTHONPATH": str(Path(relayed.__file__).parents[2]), "PATH": os.defpath}
    return subprocess.Popen(
        [sys.executable, "-c", script, *arguments],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment,
    )  # fmt: skip


def tcp(port: int) -> Listener:
    return Listener("tcp", "0.0.0.0", port)


SAY = "import socket, sys; s = socket.create_connection((sys.argv[1], int(sys.argv[2])), 20); "


def test_a_connection_arrives_with_the_address_that_was_meant(world):
    listeners = world.open(*STANDARD, SUPERVISE)
    said = {}

    def serve(listener: socket.socket) -> None:
        connection, _ = listener.accept()
        with connection:
            said[connection.getsockname()] = connection.recv(100)
            connection.sendall(b"from outside")

    for number, (address, port) in enumerate(
        [("192.0.2.7", 80), ("198.18.3.4", 443), ("127.0.0.1", 3128), ("127.0.0.1", 3129)]
    ):
        listener = listeners[[1, 2, 0, 5][number]]
        served = threading.Thread(target=serve, args=(listener,))
        served.start()
        heard = world.machine.python(
            SAY + "s.sendall(b'from inside'); print(s.recv(100))", address, str(port)
        )
        served.join(DEADLINE)
        assert heard == "b'from outside'\n"
        assert said.pop((address, port)) == b"from inside"


def test_a_port_that_nobody_holds_is_refused_and_so_is_one_that_nobody_serves(world):
    (http,) = world.open(HTTP)
    refused = "import socket, sys\ntry: s = socket.create_connection(('192.0.2.7', int(sys.argv[1])), 20); print(s.recv(1))\n" \
        "except OSError as error: print(type(error).__name__)"  # fmt: skip
    assert world.machine.python(refused, "81") == "ConnectionRefusedError\n"
    http.close()
    assert world.machine.python(refused, "80") == "ConnectionResetError\n"


def test_an_answer_to_dns_comes_from_the_address_that_was_asked(world):
    listeners = world.open(*STANDARD)

    def serve() -> None:
        connection, _ = listeners[4].accept()
        with connection:
            size = struct.unpack("!H", connection.recv(2))[0]
            query = connection.recv(size)
            connection.sendall(struct.pack("!H", size + 7) + query)
            connection.sendall(b"-answer")
            assert connection.getsockname() == ("9.9.9.9", 53)

    served = threading.Thread(target=serve)
    served.start()
    script = "import socket\ns = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.settimeout(20)\n" \
        "s.connect(('9.9.9.9', 53)); s.send(b'query'); print(s.recv(100))"  # fmt: skip
    assert world.machine.python(script) == "b'query-answer'\n"
    served.join(DEADLINE)


def test_much_comes_through_whole_both_ways_at_once(world):
    (listener,) = world.open(tcp(7000))
    size = 30_000_000

    def serve() -> None:
        connection, _ = listener.accept()
        with connection:
            while part := connection.recv(1 << 16):
                connection.sendall(part)

    served = threading.Thread(target=serve)
    served.start()
    script = (
        SAY
        + """
import hashlib, random, threading
data = random.Random(1).randbytes(int(sys.argv[3]))
def send(): s.sendall(data); s.shutdown(socket.SHUT_WR)
threading.Thread(target=send).start()
heard, count = hashlib.sha256(), 0
while part := s.recv(65536): heard.update(part); count += len(part)
print(count, heard.hexdigest() == hashlib.sha256(data).hexdigest())"""
    )
    assert world.machine.python(script, "192.0.2.1", "7000", str(size)) == f"{size} True\n"
    served.join(DEADLINE)


def test_the_end_of_one_direction_is_not_the_end_of_the_other(world):
    (listener,) = world.open(tcp(7000))

    def serve() -> None:
        connection, _ = listener.accept()
        with connection:
            assert connection.recv(10) == b"question"
            assert connection.recv(10) == b""
            connection.sendall(b"answer")

    served = threading.Thread(target=serve)
    served.start()
    script = SAY + "s.sendall(b'question'); s.shutdown(socket.SHUT_WR); print(s.recv(100), s.recv(100))"
    assert world.machine.python(script, "192.0.2.1", "7000") == "b'answer' b''\n"
    served.join(DEADLINE)


AS_IT_ENDS = {
    "a half that ends": "s.sendall(data); s.shutdown(socket.SHUT_WR); print(len(heard(s)))",
    "a client that leaves": "s.sendall(data); s.close(); print(0)",
    "a server that leaves": "print(len(heard(s)))",
    "both at once": "threading.Thread(target=lambda: (s.sendall(data), s.shutdown(socket.SHUT_WR))).start(); print(len(heard(s)))",
}


@pytest.mark.parametrize("how", AS_IT_ENDS)
def test_nothing_is_lost_where_a_machine_s_socket_loses_what_is_on_its_way_at_an_end(losing, how):
    (listener,) = losing.open(tcp(7000))
    size, got = 3_000_000, []
    answers = size if how != "a client that leaves" else 0

    def read(connection: socket.socket) -> None:
        while part := connection.recv(1 << 16):
            got.append(len(part))

    def serve() -> None:
        connection, _ = listener.accept()
        with connection:
            if how in ("a half that ends", "a client that leaves"):
                read(connection)
            connection.sendall(bytes(answers))
            if how == "both at once":
                connection.shutdown(socket.SHUT_WR)
                read(connection)

    served = threading.Thread(target=serve)
    served.start()
    script = (
        SAY
        + f"""
import threading
data = bytes({size})
def heard(s):
    found = b""
    while part := s.recv(65536): found += part
    return found
{AS_IT_ENDS[how]}"""
    )
    assert losing.machine.python(script, "192.0.2.1", "7000") == f"{answers}\n"
    served.join(DEADLINE)
    assert sum(got) == (0 if how == "a server that leaves" else size)


def test_what_was_cut_off_on_its_way_is_no_ordinary_end(losing):
    (listener,) = losing.open(tcp(7000))
    ends = []

    def serve() -> None:
        connection, _ = listener.accept()
        with connection:
            assert connection.recv(10) == b"first"
            losing.way.cut()
            connection.sendall(b"second")
            try:
                ends.append(connection.recv(10))
            except ConnectionResetError:
                ends.append("reset")

    served = threading.Thread(target=serve)
    served.start()
    script = SAY + "s.sendall(b'first')\ntry: print(s.recv(10))\nexcept ConnectionResetError: print('reset')"
    assert losing.machine.python(script, "192.0.2.1", "7000") == "reset\n"
    served.join(DEADLINE)
    assert ends == ["reset"]


def test_who_resets_a_connection_resets_it_on_the_other_side_too(world):
    (listener,) = world.open(tcp(7000))
    ends = []

    def serve() -> None:
        connection, _ = listener.accept()
        with connection:
            try:
                while connection.recv(10):
                    pass
                ends.append("an end")
            except ConnectionResetError:
                ends.append("reset")

    served = threading.Thread(target=serve)
    served.start()
    script = SAY + (
        "s.sendall(b'first'); import struct\n"
        "s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0)); s.close()"
    )
    world.machine.python(script, "192.0.2.1", "7000")
    served.join(DEADLINE)
    assert ends == ["reset"]


ONE_AFTER_THE_OTHER = """
import random, socket, sys
picks = random.Random(3)
for number in range(int(sys.argv[1])):
    s = socket.create_connection(("192.0.2.1", 7000), 20)
    words = b"%d " % number * picks.choice((0, 1, 30_000))
    def heard():
        found = b""
        while part := s.recv(65536): found += part
        return found
    first = picks.choice(("client", "server", "both"))
    s.sendall(first.encode() + b"\\n")
    if first == "server":
        assert heard() == b"bye"
        s.sendall(words)
        s.close()
        continue
    s.sendall(words)
    s.shutdown(socket.SHUT_WR)
    assert heard() == (words if first == "client" else b"bye"), (first, number)
    s.close()
print("done")
"""


def serve_as_asked(listener: socket.socket, streams: int, got: list[bytes]) -> None:
    """Ends before the client does, after it, or at once with it, as its first line says."""
    for _ in range(streams):
        connection, _ = listener.accept()
        with connection, connection.makefile("rb") as heard:
            first = heard.readline()
            if first == b"client\n":
                got.append(heard.read())
                connection.sendall(got[-1])
            else:
                connection.sendall(b"bye")
                connection.shutdown(socket.SHUT_WR)
                got.append(heard.read())


def test_a_way_through_the_machine_s_wall_carries_one_stream_after_the_other(losing):
    (listener,) = losing.open(tcp(7000))
    got = []
    served = threading.Thread(target=serve_as_asked, args=(listener, 60, got))
    served.start()
    assert losing.machine.python(ONE_AFTER_THE_OTHER, "60") == "done\n"
    served.join(DEADLINE)
    assert len(got) == 60
    for number, words in enumerate(got):
        assert set(words.split()) <= {b"%d" % number}
    assert len(losing.way.carried) < 10


def test_of_a_crowd_s_ways_only_a_few_are_kept(losing):
    (listener,) = losing.open(tcp(7000))
    crowd = 50
    held = []
    everybody = threading.Barrier(2)

    def serve() -> None:
        held.extend(listener.accept()[0] for _ in range(crowd))
        everybody.wait(DEADLINE)
        for connection in held:
            connection.close()

    served = threading.Thread(target=serve)
    served.start()
    client = threading.Thread(
        target=losing.machine.python,
        args=(
            "import socket\n"
            f"held = [socket.create_connection(('192.0.2.1', 7000), 20) for _ in range({crowd})]\n"
            "for s in held: assert s.recv(1) == b''",
        ),
    )
    client.start()
    everybody.wait(DEADLINE)
    client.join(DEADLINE)
    served.join(DEADLINE)
    assert len(losing.way.carried) == 1 + crowd
    assert wait_for(lambda: losing.way.held() <= 9 and losing.way.held(), "the others to be closed") > 1


def test_after_the_ways_that_are_kept_have_ended_new_ones_are_made(losing):
    (listener,) = losing.open(tcp(7000))
    for _ in range(3):
        served = threading.Thread(target=serve_one, args=(listener, b"here"))
        served.start()
        assert losing.machine.python(SAY + "print(s.recv(4))", "192.0.2.1", "7000") == "b'here'\n"
        served.join(DEADLINE)
        losing.way.end_all()
        wait_for(lambda: losing.way.held() == 1, "the ways to end")
    assert len(losing.way.carried) == 4


def test_a_query_that_nobody_answers_leaves_its_way_to_the_next(losing):
    listener = losing.open(*STANDARD)[4]
    asked = 12

    def serve() -> None:
        for number in range(asked):
            connection, _ = listener.accept()
            with connection:
                size = struct.unpack("!H", connection.recv(2))[0]
                query = connection.recv(size)
                if number % 2:
                    connection.sendall(struct.pack("!H", size) + query)

    served = threading.Thread(target=serve)
    served.start()
    script = f"""
import socket, time
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.settimeout(20); s.connect(("9.9.9.9", 53))
for number in range(0, {asked}, 2):
    s.send(b"not answered"); s.send(b"%d" % number)
    assert s.recv(100) in (b"%d" % number, b"not answered")
print("done")"""
    assert losing.machine.python(script) == "done\n"
    served.join(DEADLINE)
    assert len(losing.way.carried) <= 1 + 2 * 2


HEAD_7000 = struct.pack("!BcH4s", 0xBB, b"S", 7000, socket.inet_aton("192.0.2.1"))
END, OVER = bytes(4), b"\xff\xff\xff\xff"


def piece(words: bytes) -> bytes:
    return struct.pack("!I", len(words)) + words


def test_a_machine_that_says_of_itself_when_its_streams_are_over_is_cut_off(world):
    (listener,) = world.open(tcp(7000))
    for ahead in (piece(b"more"), END, OVER, HEAD_7000, b"x"):
        with socket.socket(socket.AF_UNIX) as machine:
            machine.settimeout(DEADLINE)
            machine.connect(str(world.path))
            machine.sendall(HEAD_7000 + piece(b"words") + END + ahead.ljust(4, b"x"))
            connection, _ = listener.accept()
            with connection, contextlib.suppress(ConnectionResetError):
                assert connection.recv(100) in (b"words", b"")
            assert machine.recv(100) == b""
    with socket.socket(socket.AF_UNIX) as machine:
        machine.settimeout(DEADLINE)
        machine.connect(str(world.path))
        machine.sendall(HEAD_7000)
        listener.accept()[0].close()
        assert machine.recv(4) == END
        machine.sendall(OVER)
        assert machine.recv(100) == b""
    with socket.socket(socket.AF_UNIX) as machine:
        machine.settimeout(DEADLINE)
        machine.connect(str(world.path))
        for words in (b"first", b"second"):
            machine.sendall(HEAD_7000 + piece(words) + END)
            connection, _ = listener.accept()
            with connection, connection.makefile("rb") as said:
                assert said.read() == words
                connection.sendall(b"answer to " + words)
            heard = machine.makefile("rb")
            assert heard.read(4 + 10 + len(words) + 4) == piece(b"answer to " + words) + OVER


def test_who_does_not_read_holds_up_nobody_else_and_costs_little(world):
    slow, quick = world.open(tcp(7000), tcp(7001))
    script = """
import socket
held = [socket.create_connection(('192.0.2.1', 7000), 20) for _ in range(40)]
for s in held:
    s.setblocking(False)
    try:
        while True: s.send(b'x' * 65536)
    except BlockingIOError: pass
s = socket.create_connection(('192.0.2.1', 7001), 20)
print(s.recv(10))"""

    def serve() -> None:
        connection, _ = quick.accept()
        with connection:
            connection.sendall(b"still here")

    served = threading.Thread(target=serve)
    served.start()
    assert world.machine.python(script) == "b'still here'\n"
    served.join(DEADLINE)
    slow.close()


def test_more_connections_than_it_keeps_wait_and_are_served(world):
    (listener,) = world.open(tcp(7000))
    crowd = 2000

    def serve() -> None:
        for _ in range(crowd):
            connection, _ = listener.accept()
            with connection:
                connection.sendall(b"!")

    served = threading.Thread(target=serve)
    served.start()
    script = """
import socket, sys
held, answers = [], 0
for number in range(int(sys.argv[1])):
    s = socket.create_connection(('192.0.2.1', 7000), 20); held.append(s)
    if len(held) == 500:
        answers += sum(s.recv(1) == b'!' for s in held); [s.close() for s in held]; held = []
print(answers)"""
    assert world.machine.python(script, str(crowd)) == f"{crowd}\n"
    served.join(DEADLINE)


def test_a_relay_without_free_descriptors_serves_the_others_later(tmp_path):
    tmp_path.chmod(0o755)
    crowd = 300
    script = """
import resource, socket, sys
resource.setrlimit(resource.RLIMIT_NOFILE, (160, 160))
from bot_bottle.door import relayed
from bot_bottle.door.model import Listener
from bot_bottle.door.passing import receive_listeners
relay = relayed.Relay(sys.argv[1])
print("listens", flush=True)
relay.wait_for_inside(60)
ours, theirs = socket.socketpair()
relay.open_door([Listener("tcp", "0.0.0.0", 7000)], theirs)
(listener,) = receive_listeners(ours, 1, 0)
listener.settimeout(60)
print("serves", flush=True)
for _ in range(int(sys.argv[2])):
    connection, _ = listener.accept()
    connection.sendall(b"!")
    connection.close()
print("served", relay._process.poll(), flush=True)
sys.stdin.read()"""
    with keeper_of(script, str(tmp_path / "door.sock"), str(crowd)) as keeper:
        assert keeper.stdout.readline() == "listens\n"
        machine = Machine(tmp_path / "door.sock")
        try:
            assert keeper.stdout.readline() == "serves\n"
            client = """
import socket, sys
held = [socket.create_connection(('192.0.2.1', 7000), 20) for _ in range(int(sys.argv[1]))]
print(sum(s.recv(1) == b'!' and s.close() is None for s in held))"""
            assert machine.python(client, str(crowd)) == f"{crowd}\n"
            assert keeper.stdout.readline() == "served None\n"
        finally:
            keeper.kill()
            machine.close()


def test_who_came_while_no_descriptor_was_free_is_served_when_a_stream_is_over(world):
    """Though the way that it was carried on is kept."""
    (listener,) = world.open(tcp(7000))
    outside = world.relay._process.pid

    def allow(soft: int) -> None:
        who = {"user": 2_000_000, "group": 2_000_000, "extra_groups": []} if os.geteuid() == 0 else {}
        subprocess.run(["prlimit", "--pid", str(outside), f"--nofile={soft}:"], check=True, **who)

    def serve() -> None:
        first, _ = listener.accept()
        with first:
            allow(0)
            first.sendall(b"!")
            assert first.recv(1) == b"x"
            allow(1000)
        serve_one(listener, b"!")

    served = threading.Thread(target=serve)
    served.start()
    script = (
        SAY
        + """
assert s.recv(1) == b"!"
late = socket.create_connection((sys.argv[1], int(sys.argv[2])), 20)
s.sendall(b"x")
assert s.recv(1) == b""
s.close()
print(late.recv(1))"""
    )
    assert world.machine.python(script, "192.0.2.1", "7000") == "b'!'\n"
    served.join(DEADLINE)


def test_further_listeners_are_opened_all_or_none(world):
    world.open(HTTP)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        with pytest.raises(SandboxError):
            world.relay.open_door([tcp(7000), HTTP], theirs)
        ours.setblocking(False)
        with pytest.raises(BlockingIOError):
            ours.recv(1)
    world.open(tcp(7000), tcp(7001))


def test_the_next_bundle_s_listeners_take_the_place_of_those_of_one_that_has_ended(world):
    for served in (b"first", b"second"):
        (listener, query) = world.open(HTTP, Listener("dns-udp", "0.0.0.0", 53))
        answering = threading.Thread(target=lambda: serve_one(listener, served), daemon=True)  # noqa: B023
        answering.start()
        assert world.machine.python(SAY + "print(s.recv(9))", "192.0.2.1", "80") == f"{served!r}\n"
        answering.join(DEADLINE)
        for sock in (listener, query):
            sock.close()
        # In between it is the relay's: whoever is in the machine can't take it, and reaches nobody.
        assert world.machine.python(TAKE) == f"{errno.EADDRINUSE}\n"
        assert world.machine.python(ASK, "192.0.2.1", "80") == "b''\n"


TAKE = """
import socket
try: socket.create_server(("0.0.0.0", 80))
except OSError as error: print(error.errno)
"""
ASK = """
import socket, sys
try: print(socket.create_connection((sys.argv[1], int(sys.argv[2])), 20).recv(9))
except ConnectionResetError: print(b"")
"""


def serve_one(listener: socket.socket, words: bytes) -> None:
    connection, _ = listener.accept()
    with connection:
        connection.sendall(words)


def test_a_port_that_the_agent_took_is_refused(world):
    world.open(HTTP)
    taker = subprocess.Popen(
        ["nsenter", "--preserve-credentials", "--user", "--net", "--target", str(world.machine.process_in_namespace()),
         "/usr/bin/python3", "-c", "import socket; s = socket.create_server(('0.0.0.0', 7000)); print(flush=True); input()"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    taker.stdout.readline()
    ours, theirs = socket.socketpair()
    with ours, theirs, pytest.raises(SandboxError, match="door"):
        world.relay.open_door([tcp(7001), tcp(7000)], theirs)
    taker.communicate(b"\n")
    world.open(tcp(7001), tcp(7000))  # neither half has kept the one that was free


def test_when_the_half_inside_dies_its_line_ends_and_so_does_the_way_out(world):
    (listener,) = world.open(HTTP)
    os.kill(world.machine.inside, signal.SIGKILL)
    assert spawn.readable(world.relay.line.fileno(), DEADLINE)
    assert world.relay.line.recv(1) == b""
    world.machine.process.wait(DEADLINE)
    assert listener.fileno() >= 0


def test_when_the_half_outside_dies_that_is_seen_and_nothing_gets_through(world):
    world.open(HTTP)
    os.kill(world.relay._process.pid, signal.SIGKILL)
    assert spawn.readable(world.relay.fileno(), DEADLINE)
    script = "import socket\ntry: s = socket.create_connection(('192.0.2.7', 80), 20); print(s.recv(1))\n" \
        "except OSError as error: print('closed')"  # fmt: skip
    assert world.machine.python(script) == "closed\n"


def test_when_the_keeper_ends_both_halves_do(tmp_path):
    tmp_path.chmod(0o755)
    made = World(tmp_path)
    process = made.relay._process.pid
    made.relay.end()
    assert made.machine.process.wait(DEADLINE) == 0
    assert not Path(f"/proc/{process}").exists()
    assert not made.path.exists()
    made.relay.end()


def test_a_keeper_that_is_killed_leaves_neither_half(tmp_path):
    tmp_path.chmod(0o755)
    script = """
import sys
from bot_bottle.door import relayed
relay = relayed.Relay(sys.argv[1])
print("listens", flush=True)
relay.wait_for_inside(60)
print(relay._process.pid, flush=True)
sys.stdin.read()"""
    with keeper_of(script, str(tmp_path / "door.sock")) as keeper:
        assert keeper.stdout.readline() == "listens\n"
        machine = Machine(tmp_path / "door.sock")
        try:
            outside = Path(f"/proc/{int(keeper.stdout.readline())}")
            keeper.kill()
            assert machine.process.wait(DEADLINE) == 0
            wait_for(lambda: not outside.exists(), "the half outside to end")
        finally:
            machine.close()


def test_the_line_is_given_once(world):
    world.open(HTTP)
    with socket.socket(socket.AF_UNIX) as second:
        second.settimeout(DEADLINE)
        second.connect(str(world.path))
        second.sendall(bytes([0xBB, ord("C"), 0, 0, 0, 0, 0, 0]))
        assert second.recv(1) == b""
    assert not spawn.readable(world.relay._keeper.fileno(), 0)
    world.open(tcp(7000))


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=40))
def test_whatever_a_machine_sends_reaches_the_door_s_network_or_nothing(shared_world, words):
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(DEADLINE)
        sock.connect(str(shared_world.path))
        with contextlib.suppress(BrokenPipeError):
            sock.sendall(words)
            sock.shutdown(socket.SHUT_WR)
        with contextlib.suppress(ConnectionResetError):
            assert sock.recv(100) == b""
    assert shared_world.relay._process.poll() is None


@pytest.fixture(scope="module")
def shared_world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("relay")
    folder.chmod(0o755)
    folder.parent.chmod(0o755)
    made = World(folder)
    yield made
    made.close()


def test_the_host_s_own_services_are_not_reached(world):
    with socket.create_server(("127.0.0.1", 0)) as service, socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(DEADLINE)
        sock.connect(str(world.path))
        port = service.getsockname()[1]
        sock.sendall(struct.pack("!BcH4s", 0xBB, b"S", port, socket.inet_aton("127.0.0.1")))
        assert sock.recv(1) == b""
        service.setblocking(False)
        with pytest.raises(BlockingIOError):
            service.accept()


def test_neither_half_can_do_more_than_move_bytes(world):
    for number in (world.machine.inside, world.relay._process.pid):
        status = Path(f"/proc/{number}/status")
        wait_for(lambda: "Seccomp:\t2" in status.read_text(), "it to confine itself")  # noqa: B023
        assert "NoNewPrivs:\t1" in status.read_text()
    outside = Path(f"/proc/{world.relay._process.pid}/status").read_text()
    assert "CapEff:\t0000000000000000" in outside
    assert os.geteuid() or "Uid:\t0" not in outside


def test_making_and_ending_leaves_no_descriptor_and_no_process(tmp_path):
    tmp_path.chmod(0o755)
    kernel.libc()

    def once() -> None:
        World(tmp_path).close()

    once()
    before = len(os.listdir("/proc/self/fd"))
    once()
    assert len(os.listdir("/proc/self/fd")) == before


def test_it_is_one_static_program_that_needs_nothing(tmp_path):
    for machine in ("x86_64", "aarch64"):
        data = (RELAY / f"relay.{machine}").read_bytes()
        assert data[:4] == b"\x7fELF"
        assert b"/ld-" not in data
        assert len(data) < 100_000


def test_the_programs_were_built_from_this_source():
    digests = json.loads((RELAY / "built.json").read_text())
    for machine in ("x86_64", "aarch64"):
        assert hashlib.sha256((RELAY / f"relay.{machine}").read_bytes()).hexdigest() == digests[machine]
    path = Path(__file__).parents[2] / "tools" / "make_relay.py"
    assert runpy.run_path(str(path))["source_digest"]() == digests["source"], "run tools/make_relay.py"
