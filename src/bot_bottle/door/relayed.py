"""The door of a bottle in a virtual machine, whose sockets can't be passed to us: a relay carries its connections.

The listeners that the bundle accepts on are opened here, in a network namespace of their own in which every address is local.
One process of the relay (`relay/relay.c`) holds the same listeners inside the machine, as its root, and carries every connection
over a unix socket that is mounted there; the other one, in that namespace, connects it to the address that was meant. So
the bundle meets connections as in any other bottle, and whatever the machine says reaches these listeners and nothing else.
"""

import contextlib
import os
import socket
import struct
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial

from bot_bottle.door.inside import open_listeners
from bot_bottle.door.model import Listener
from bot_bottle.door.passing import receive_listeners, send_listeners
from bot_bottle.errors import HostError, SandboxError
from bot_bottle.host import files, kernel, spawn
from bot_bottle.typed import NamedTuple

BACKLOG = 1024
PATIENCE = 10.0
"""Seconds that the relay inside may take to answer an order."""
_STREAM, _DATAGRAM = 1, 2


def program(machine: str | None = None) -> str:
    """Where the relay's program for `machine` (default: this one) is. Raises HostError when there is none."""
    path = files.beside(__file__, f"relay/relay.{machine or os.uname().machine}")
    if not os.path.isfile(path):
        raise HostError(f"There is no relay for this machine ({machine or os.uname().machine})")
    return path


class Network(NamedTuple):
    """A network namespace with nothing but lo in it, and the user namespace that owns it, both open."""

    user: int
    net: int


class Relay:
    """The half outside, and the line to the half inside. Made before the machine starts; `end` is to follow, always."""

    def __init__(self, path: str, *, user: tuple[int, int] | None = None) -> None:
        """Listens at `path`, which is to be mounted. `user` is who the relay is when the caller is root.

        Raises HostError, SandboxError; then nothing is left.
        """
        self._line: socket.socket | None = None
        self._held: set[tuple[str, int, bool]] = set()
        self._user = user
        with ExitStack() as made:
            self._network = _make_network(user, made)
            mounted = made.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
            made.callback(_unlink, path)
            mounted.bind(path)
            os.chmod(path, 0o600)
            mounted.listen(BACKLOG)
            self._keeper, theirs = socket.socketpair()
            made.callback(self._keeper.close)
            with theirs:
                self._process = _start_outside(mounted, theirs, self._network, user)
            made.callback(self._process.close)
            made.callback(self._process.wait)
            made.callback(self._process.kill)
            self._made = made.pop_all()

    def fileno(self) -> int:
        """A descriptor that becomes readable when the half outside has ended."""
        return self._process.fileno()

    @property
    def line(self) -> socket.socket:
        """The line to the half inside: readable when that has ended. Raises SandboxError when there is none."""
        if self._line is None:
            raise SandboxError("The relay inside the bottle's machine has not come")
        return self._line

    def wait_for_inside(self, timeout: float) -> None:
        """Until the half inside holds its end of the line; nobody else can have it then. Raises SandboxError."""
        if not spawn.readable(self._keeper.fileno(), timeout):
            raise SandboxError(f"The relay inside the bottle's machine did not come within {timeout:.0f} s")
        _, descriptors, _, _ = socket.recv_fds(self._keeper, 1, 1)
        if len(descriptors) != 1:
            raise SandboxError("The relay has ended", details=f"exit code {self._process.wait(PATIENCE)}")
        self._line = socket.socket(fileno=descriptors[0])
        self._made.callback(self._line.close)

    def open_door(self, listeners: Sequence[Listener], channel: socket.socket) -> None:
        """See `backends.base.Bottle.open_door`.

        The half inside holds what it has opened until it ends, also between two bundles: what comes then is refused outside,
        where nobody listens, and the agent can't take a port that the next bundle needs.
        """
        ours, theirs = socket.socketpair()
        with ours, theirs, ExitStack() as opened:
            self._open_outside(listeners, theirs)
            try:
                sockets = [opened.enter_context(sock) for sock in receive_listeners(ours, len(listeners), 0)]
                further = [listener for listener in listeners if _place(listener) not in self._held]
                if further:
                    self._open_inside(further)
                self._held |= set(map(_place, further))
                send_listeners(channel, sockets)
            except OSError as error:
                raise SandboxError("The bottle's door could not be opened", details=str(error)) from error

    def end(self) -> None:
        """Ends the half outside and removes the socket; the half inside ends with its line. Idempotent."""
        self._made.close()

    def _open_outside(self, listeners: Sequence[Listener], channel: socket.socket) -> None:
        def body(_: spawn.Say) -> None:
            _enter(self._network, self._user)
            send_listeners(channel, open_listeners(listeners))

        keep = (channel.fileno(), *self._network)
        helper, report = spawn.fork(body, keep=keep)
        try:
            for _ in spawn.hear(report, PATIENCE):
                pass
        except spawn.ChildFailed as failed:
            raise SandboxError("The bottle's door could not be opened", details=failed.said) from failed
        finally:
            os.close(report)
            os.waitpid(helper, 0)

    def _open_inside(self, listeners: Sequence[Listener]) -> None:
        """Raises OSError when one of them was refused; then none is open."""
        line = self.line
        line.settimeout(PATIENCE)
        line.sendall(order(listeners))
        answer = line.recv(1)
        if not answer:
            raise OSError("the relay inside the bottle's machine has ended")
        if answer[0]:
            raise OSError(answer[0], f"inside the machine: {os.strerror(answer[0])}")


def _place(listener: Listener) -> tuple[str, int, bool]:
    """What no two listeners can share."""
    return listener.address, listener.port, listener.kind == "dns-udp"


def order(listeners: Sequence[Listener]) -> bytes:
    """What the half inside is told to open, all or nothing. Raises OSError for more than one order may name."""
    if not 0 < len(listeners) <= 128:
        raise OSError(f"{len(listeners)} listeners can't be ordered at once")
    told = bytes([len(listeners)])
    for listener in listeners:
        kind = _DATAGRAM if listener.kind == "dns-udp" else _STREAM
        told += struct.pack("!BxH4s", kind, listener.port, socket.inet_aton(listener.address))
    return told


def _make_network(user: tuple[int, int] | None, owned: ExitStack) -> Network:
    """Raises SandboxError when the host lets nobody make one."""
    ours, theirs = socket.socketpair()

    def body(_: spawn.Say) -> None:
        if user:
            spawn.become(*user)
        kernel.unshare(kernel.CLONE_NEWUSER | kernel.CLONE_NEWNET)
        names = [os.open(f"/proc/self/ns/{kind}", os.O_RDONLY | os.O_CLOEXEC) for kind in Network._fields]
        socket.send_fds(theirs, [b"n"], names)

    with ours, theirs:
        helper, report = spawn.fork(body, keep=(theirs.fileno(),))
        try:
            for _ in spawn.hear(report, PATIENCE):
                pass
            _, descriptors, _, _ = socket.recv_fds(ours, 1, 2)
        except spawn.ChildFailed as failed:
            raise SandboxError("The door's network can't be made", details=str(failed)) from failed
        finally:
            os.close(report)
            os.waitpid(helper, 0)
    for descriptor in descriptors:
        owned.callback(os.close, descriptor)
    return Network(*descriptors)


def _enter(network: Network, user: tuple[int, int] | None) -> None:
    if user:
        spawn.become(*user)
    kernel.enter(network.user, kernel.CLONE_NEWUSER)
    kernel.enter(network.net, kernel.CLONE_NEWNET)


def _start_outside(
    mounted: socket.socket, keeper: socket.socket, network: Network, user: tuple[int, int] | None
) -> spawn.Child:
    with ExitStack() as opened:
        executable = os.open(program(), os.O_RDONLY | os.O_CLOEXEC)
        opened.callback(os.close, executable)
        nothing = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
        opened.callback(os.close, nothing)
        steps = [
            spawn.Step("make a session", os.setsid),
            spawn.Step("enter the door's network", partial(_enter, network, user)),
            spawn.Step("set the standard streams", partial(spawn.set_standard, nothing, nothing, nothing)),
            spawn.Step("die with the keeper", kernel.die_with_parent),
        ]
        kept = (mounted.fileno(), keeper.fileno())
        given = (*network, nothing, executable)
        started = spawn.Program(executable, ["relay", "outside", *map(str, kept)], {})
        try:
            return spawn.start(steps, started, keep=kept, for_steps=given)
        except spawn.ChildFailed as failed:
            raise SandboxError("The relay could not be started", details=str(failed)) from failed


def _unlink(path: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
