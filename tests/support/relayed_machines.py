"""A microVM with the door's relay in it, and what a bundle would hold outside: for tests, and for `bench`."""

import shutil
import socket
import threading
from collections.abc import Callable
from pathlib import Path

from bot_bottle.backends.smolmachines import program
from bot_bottle.backends.smolmachines.arguments import Folder, Machine, MountedSocket
from bot_bottle.backends.smolmachines.smolvm import Smolvm
from bot_bottle.door import relayed
from bot_bottle.door.model import STANDARD, SUPERVISE
from bot_bottle.door.passing import receive_listeners
from bot_bottle.errors import HostError
from bot_bottle.host.process import Finished

DEADLINE = 60.0
INSIDE = "/.bottle/relay"
BARE = "s = socket.socket(socket.AF_UNIX); s.connect('/.door/bare')"
"""How a program inside reaches `World.bare`, which is a mounted socket with nothing of ours in between."""
RELAYED = "s = socket.socket(); s.connect(('192.0.2.7', 80))"
"""How it reaches the door's listener for port 80."""


class World:
    """A machine with the relay in it, and what the bundle would hold outside."""

    def __init__(self, folder: Path, image: str) -> None:
        self.folder = folder
        for name in ("bottle", "shown", "workspace", "run"):
            (folder / name).mkdir()
        shutil.copy(relayed.program(), folder / "bottle" / "relay")
        (folder / "shown" / "file").write_text("as it was")
        self.bare = socket.socket(socket.AF_UNIX)
        self.bare.bind(str(folder / "run" / "bare.sock"))
        self.bare.listen(8)
        self.relay = relayed.Relay(str(folder / "run" / "door.sock"))
        self.smolvm = Smolvm(program.find(), str(folder / "state"))
        self.smolvm.create(
            Machine(
                name="bottle",
                image=image,
                cpus=1,
                memory=512,
                storage=2,
                command=(INSIDE, "inside", "/.door/door"),
                folders=(
                    Folder(str(folder / "bottle"), "/.bottle"),
                    Folder(str(folder / "shown"), "/shown"),
                    Folder(str(folder / "workspace"), "/workspace", writable=True),
                ),
                sockets=(
                    MountedSocket(str(folder / "run" / "door.sock"), "/.door/door"),
                    MountedSocket(str(folder / "run" / "bare.sock"), "/.door/bare"),
                ),
            )
        )
        self._start()
        ours, theirs = socket.socketpair()
        with ours, theirs:
            self.relay.open_door((*STANDARD, SUPERVISE), theirs)
            self.listeners = receive_listeners(ours, len(STANDARD) + 1, 0)
        for listener in (*self.listeners, self.bare):
            listener.settimeout(DEADLINE)

    def _start(self) -> None:
        """A boot under emulation now and then makes no progress for longer than smolvm waits; the next one does."""
        for _ in range(2):
            try:
                self.smolvm.start("bottle")
                break
            except HostError as error:
                print(f"\na boot failed: {error.details}")
                self.smolvm.stop("bottle")
        else:
            self.smolvm.start("bottle")
        self.relay.wait_for_inside(DEADLINE)

    def run(self, *argv: str, user: str = "1000:1000") -> Finished:
        return self.smolvm.execute("bottle", argv, user=user, seconds=100)

    def python(self, script: str, *, user: str = "1000:1000") -> str:
        done = self.run("/usr/bin/python3", "-I", "-c", script, user=user)
        assert done.code == 0, done.said
        return done.stdout.decode()

    def close(self) -> None:
        self.relay.end()
        self.smolvm.stop("bottle")
        self.smolvm.delete("bottle")

    def megabytes_a_second(self, listener: socket.socket, connect: str, size: int) -> float:
        """How fast `size` bytes come out of the machine at `listener`."""
        script = f"""
import socket, time
{connect}
data, before = bytes(65536), time.monotonic()
for _ in range({size} // 65536): s.sendall(data)
s.shutdown(1); assert s.recv(1) == b"!"
print(time.monotonic() - before)"""

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.settimeout(DEADLINE)
                while connection.recv(1 << 17):
                    pass
                connection.sendall(b"!")

        return size / 1e6 / self._timed(serve, script)

    def connections_a_second(self, listener: socket.socket, connect: str, count: int) -> float:
        """How many of them, one after the other, each until it was answered."""
        script = f"""
import socket, time
before = time.monotonic()
for _ in range({count}):
    {connect}; assert s.recv(1) == b"!"; s.close()
print(time.monotonic() - before)"""

        def serve() -> None:
            for _ in range(count):
                connection, _ = listener.accept()
                connection.sendall(b"!")
                connection.close()

        return count / self._timed(serve, script)

    def _timed(self, serve: Callable[[], None], script: str) -> float:
        """The seconds that `script` takes inside by its own clock."""
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        seconds = float(self.python(script, user="0:0"))
        thread.join(DEADLINE)
        return seconds
