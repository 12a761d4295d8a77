"""The place that each of the gate's processes runs in: what it sees, what it may write, whether it has a network.

Bubblewrap makes it, as it makes bottles. A process of a place is gone when its keeper is, with everything that it has started.
"""

import os
import sys
import sysconfig
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from typing import NamedTuple

from bot_bottle.backends import seccomp
from bot_bottle.backends.namespace import program, view
from bot_bottle.host import spawn

_NETWORK = (
    "/etc/resolv.conf", "/etc/hosts", "/etc/host.conf", "/etc/nsswitch.conf", "/etc/gai.conf", "/etc/services",
    "/etc/protocols", "/run/systemd/resolve",
)  # fmt: skip
"""What resolving a name takes; certificates are in what every place sees."""
_START = (
    "import sys; n = int(sys.argv[1]); sys.path[:0] = sys.argv[2 + n:]; from {module} import serve;"
    " serve(*map(int, sys.argv[2:2 + n]))"
)


PROGRAMS = "/programs"
PATH = f"{PROGRAMS}:/usr/local/bin:/usr/bin:/bin"


class Place(NamedTuple):
    """`readable` and `writable` are (path on the host, path inside)."""

    readable: tuple[tuple[str, str], ...] = ()
    writable: tuple[tuple[str, str], ...] = ()
    network: bool = False
    scratch: int = 256 << 20
    """Bytes of its own /tmp, in memory."""


def start(module: str, descriptors: Sequence[int], place: Place) -> spawn.Child:
    """Starts `module.serve(*descriptors)` in `place`. Raises ChildFailed, OSError, HostError."""
    folders = [path for path in sys.path if os.path.isabs(path)]
    python = os.path.realpath(sys.executable)
    argv = [python, "-I", "-S", "-c", _START.format(module=module), str(len(descriptors))]
    argv += [*map(str, descriptors), *folders]
    with ExitStack() as held:
        null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        held.callback(os.close, null)
        contents: list[int] = []

        def content(data: bytes) -> str:
            descriptor = os.memfd_create("content")
            held.callback(os.close, descriptor)
            os.write(descriptor, data)
            os.lseek(descriptor, 0, os.SEEK_SET)
            contents.append(descriptor)
            return str(descriptor)

        words = [
            "--seccomp",
            content(seccomp.agents_filter()),
            *_namespaces(place),
            *_system(place),
            *_user(content),
        ]
        for path in sorted(_python(python, folders)):
            words += [*_way_to(path), "--ro-bind", path, path]
        words += _binds(place)
        spoken = content(b"".join(word.encode() + b"\0" for word in words))
        return spawn.start(
            [
                spawn.Step("streams", partial(spawn.set_standard, null, null, null)),
                spawn.Step("session", os.setsid),
                spawn.Step("folder", partial(os.chdir, "/")),
            ],
            spawn.Program(program.find(), ["bwrap", "--args", spoken, "--", *argv], {}),
            keep=[*descriptors, *contents],
            for_steps=(null,),
        )


def _namespaces(place: Place) -> list[str]:
    """Root keeps what it takes to become another user, and does so first; everybody else is alone with a user of their own."""
    words = ["--die-with-parent", "--new-session", "--cap-drop", "ALL"]
    words += ["--clearenv", "--setenv", "LC_ALL", "C.UTF-8", "--setenv", "PATH", PATH]
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


def _python(executable: str, folders: Sequence[str]) -> set[str]:
    """What of the interpreter and of ours lies beyond /usr."""
    needed = {executable, sysconfig.get_path("stdlib"), *folders}
    return {
        path for path in needed if not path.startswith(("/usr/", "/lib/", "/bin/")) and os.path.exists(path)
    }


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
