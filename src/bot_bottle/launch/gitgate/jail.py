"""The place that each of the gate's processes runs in: what it sees, what it may write, whether it has a network.

Bubblewrap makes it, as it makes bottles. A process of a place is gone when its keeper is, with everything that it has started.
"""

import importlib.util
import json
import os
import signal
import sys
import sysconfig
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from functools import partial
from typing import NamedTuple

import bot_bottle
from bot_bottle.backends import seccomp
from bot_bottle.backends.namespace import program, view
from bot_bottle.host import kernel, lifeline, spawn

PYTHON = "/python"
"""Where modules are inside: a folder on this host's search path may be anything, and lie anywhere."""
_NETWORK = (
    "/etc/resolv.conf", "/etc/hosts", "/etc/host.conf", "/etc/nsswitch.conf", "/etc/gai.conf", "/etc/services",
    "/etc/protocols", "/run/systemd/resolve",
)  # fmt: skip
"""What resolving a name takes; certificates are in what every place sees."""
_START = (
    "import sys; n = int(sys.argv[1]); sys.path[:0] = sys.argv[2:2 + n];"
    " from bot_bottle.bundle.gitgate.first import begin; begin(*sys.argv[2 + n:])"
)
_OWN = f"{PYTHON}/own"
_OTHERS = ("h11", "re2", "brotli", "_brotli")
"""Modules of others that the gate's processes use."""
_MEMORY = (("MALLOC_MMAP_THRESHOLD_", "1048576"), ("MALLOC_ARENA_MAX", "2"))
"""What the C library takes for something large it gives back at once; by itself it would keep more with every large file."""
_PATIENCE = 1.0, 20.0
"""Seconds for a place to end by itself, which takes it 0.01; and to be made, before it can."""


PROGRAMS = "/programs"
PATH = f"{PROGRAMS}:/usr/local/bin:/usr/bin:/bin"


class Place(NamedTuple):
    """`readable` and `writable` are (path on the host, path inside)."""

    readable: tuple[tuple[str, str], ...] = ()
    writable: tuple[tuple[str, str], ...] = ()
    network: bool = False
    scratch: int = 256 << 20
    """Bytes of its own /tmp, in memory."""


class Jailed:
    """A running process of a place, by the bubblewrap that made it; `kill` ends everything in the place."""

    def __init__(self, child: spawn.Child, owned: ExitStack, info: int) -> None:
        """`owned` has the lifeline, and `info`, a copy of which is kept: where bubblewrap tells who is process 1."""
        self.pid = child.pid
        self._child = child
        self._info = os.dup(info)
        self._owned = owned
        self._ended = False

    def wait(self, timeout: float | None = None) -> int | None:
        return self._child.wait(timeout)

    def kill(self) -> None:
        """Ends it, and is back when it has. Idempotent."""
        if self._ended:
            return
        self._ended = True
        self._owned.close()
        for_itself, at_all = _PATIENCE
        if self._child.wait(for_itself) is None:
            with suppress(OSError, ValueError, KeyError):
                known = json.loads(os.pread(self._info, 65536, 0))
                os.kill(int(known["child-pid"]), signal.SIGKILL)  # not reaped before its parent is
            if self._child.wait(at_all) is None:
                self._child.kill()
        os.close(self._info)

    def close(self) -> None:
        self.kill()
        self._child.close()


def start(module: str, descriptors: Sequence[int], place: Place) -> Jailed:
    """Starts `module.serve(*descriptors)` in `place`. Raises ChildFailed, OSError, HostError.

    It ends when it is killed, or when this process ends.
    """
    with ExitStack() as until_started, ExitStack() as owned:
        null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        until_started.callback(os.close, null)
        _, theirs = lifeline.pair(owned)
        until_started.callback(theirs.close)
        info = os.memfd_create("info")
        owned.callback(os.close, info)
        contents: list[int] = []

        def content(data: bytes) -> str:
            descriptor = os.memfd_create("content")
            until_started.callback(os.close, descriptor)
            os.write(descriptor, data)
            os.lseek(descriptor, 0, os.SEEK_SET)
            contents.append(descriptor)
            return str(descriptor)

        spoken = ["--info-fd", str(info), *_words(place, content)]
        everything = content(b"".join(word.encode() + b"\0" for word in spoken))
        child = spawn.start(
            [
                spawn.Step("streams", partial(spawn.set_standard, null, null, null)),
                spawn.Step("session", os.setsid),
                spawn.Step("folder", partial(os.chdir, "/")),
                spawn.Step("let the lifeline alone end it", partial(kernel.die_with_parent, 0)),
            ],
            spawn.Program(
                program.find(),
                ["bwrap", "--args", everything, "--", *_program(module, (theirs.fileno(), *descriptors))],
                {},
            ),
            keep=[*descriptors, theirs.fileno(), info, *contents],
            for_steps=(null,),
        )
        return Jailed(child, owned.pop_all(), info)


def _program(module: str, descriptors: Sequence[int]) -> list[str]:
    folders = [inside for _, inside in _folders()]
    argv = [os.path.realpath(sys.executable), "-I", "-S", "-c", _START, str(len(folders)), *folders, module]
    return [*argv, *map(str, descriptors)]


def _words(place: Place, content: Callable[[bytes], str]) -> list[str]:
    words = [
        "--seccomp",
        content(seccomp.agents_filter()),
        *_namespaces(place),
        *_system(place),
        *_user(content),
    ]
    for path in sorted(_python(os.path.realpath(sys.executable))):
        words += [*_way_to(path), "--ro-bind", path, path]
    own = os.path.dirname(os.path.abspath(bot_bottle.__file__))
    modules = ((own, f"{_OWN}/bot_bottle"), *_folders()[1:])
    return [*words, *_binds(place._replace(readable=(*modules, *place.readable)))]


def _namespaces(place: Place) -> list[str]:
    """Root keeps what it takes to become another user, and does so first; everybody else is alone with a user of their own."""
    words = ["--as-pid-1", "--new-session", "--cap-drop", "ALL"]
    words += ["--clearenv", "--setenv", "LC_ALL", "C.UTF-8", "--setenv", "PATH", PATH]
    words += [word for name, value in _MEMORY for word in ("--setenv", name, value)]
    words += ["--unshare-pid", "--unshare-ipc", "--unshare-uts", "--unshare-cgroup-try"]
    words += [] if place.network else ["--unshare-net"]
    if os.geteuid() == 0:
        return [*words, "--cap-add", "CAP_SETUID", "--cap-add", "CAP_SETGID"]
    return [*words, "--unshare-user"]


def _system(place: Place) -> list[str]:
    seen = view.look()
    words: list[str] = []
    for folder in seen.folders:
        words += ["--ro-bind", folder, folder]
    for target, path in seen.links:
        words += ["--symlink", target, path]
    words += ["--proc", "/proc", "--dev", "/dev"]
    words += ["--perms", "1777", "--size", str(place.scratch), "--tmpfs", "/tmp"]  # noqa: S108 - its own
    for path in ("/etc/ld.so.cache", "/etc/ssl/openssl.cnf", "/etc/localtime"):
        words += ["--ro-bind-try", path, path]
    return words


def _user(content: Callable[[bytes], str]) -> list[str]:
    """Who one is: ssh asks for a name."""
    uid, gid = os.geteuid(), os.getegid()
    user = f"gate:x:{uid}:{gid}::/nonexistent:/usr/sbin/nologin\n"
    return ["--ro-bind-data", content(user.encode()), "/etc/passwd",
            "--ro-bind-data", content(f"gate:x:{gid}:\n".encode()), "/etc/group"]  # fmt: skip


def _python(executable: str) -> set[str]:
    """What of the interpreter lies beyond /usr."""
    needed = {executable, sysconfig.get_path("stdlib")}
    return {
        path for path in needed if not path.startswith(("/usr/", "/lib/", "/bin/")) and os.path.exists(path)
    }


def _folders() -> tuple[tuple[str, str], ...]:
    """The folders that modules are sought in, on the host and inside: the first is that of ours, where nothing else is seen."""
    found: dict[str, str] = {"": _OWN}
    for name in _OTHERS:
        spec = importlib.util.find_spec(name)
        if spec is not None and spec.origin:
            path = os.path.dirname(os.path.abspath(spec.origin))
            path = os.path.dirname(path) if spec.submodule_search_locations else path
            found.setdefault(path, f"{PYTHON}/{len(found)}")
    return tuple(found.items())


def _way_to(path: str) -> list[str]:
    """The folders above it, open to everybody: made on the way to something else they would be closed."""
    words: list[str] = []
    parts = path.strip("/").split("/")[:-1]
    for end in range(1, len(parts) + 1):
        words += ["--perms", "0755", "--dir", "/" + "/".join(parts[:end])]
    return words


def _binds(place: Place) -> list[str]:
    words: list[str] = []
    for path in _NETWORK if place.network else ():
        words += [*_way_to(path), "--ro-bind-try", os.path.realpath(path), path]
    for source, target in place.readable:
        words += [*_way_to(target), "--ro-bind", source, target]
    for source, target in place.writable:
        words += [*_way_to(target), "--bind", source, target]
    return [*words, "--remount-ro", "/"]
