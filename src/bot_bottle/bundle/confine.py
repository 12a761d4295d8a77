"""The bundle gives up, before it reads its first byte from the agent, everything that serving does not need.

What is left when this has run: the sockets it has, connecting over IPv4 and IPv6, memory and threads, and reading the few
files of `landlock.READABLE`. No program can be started, no file written, no namespace, tracing or other socket made.
The seccomp filters are made beforehand (`tools/make_filters.py`), so that nothing has to be installed to load them.
"""

import ctypes
import os
import resource
from collections.abc import Iterable

from bot_bottle.bundle import landlock, linux
from bot_bottle.errors import HostError
from bot_bottle.host import files

_SECCOMP_MODE_FILTER = 2
_INSTRUCTION = 8


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_char_p))


def filter_name(machine: str, kind: str = "bundle") -> str:
    return f"{kind}.{machine}.bpf"


def load_filter(kind: str = "bundle") -> bytes:
    """This machine's filter of that kind. Raises HostError when there is none for it: then there is no such process."""
    machine = os.uname().machine
    try:
        program = files.read(files.beside(__file__, filter_name(machine, kind)))
    except FileNotFoundError as error:
        raise HostError(
            f"There is no seccomp filter for {machine}", resolution="Use x86_64 or aarch64"
        ) from error
    if not program or len(program) % _INSTRUCTION:
        raise HostError("The seccomp filter is damaged", resolution="Install bot-bottle again")
    return program


def limit_process(files_at_once: int) -> None:
    """Bounded descriptors, no core dump, not readable by other processes of the same user."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    most = files_at_once if hard == resource.RLIM_INFINITY else min(files_at_once, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    linux.prctl(linux.PR_SET_DUMPABLE, 0)


def limit_memory(size: int) -> None:
    """At most `size` bytes of memory of its own; more than that is a MemoryError."""
    hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
    most = size if hard == resource.RLIM_INFINITY else min(size, hard)
    resource.setrlimit(resource.RLIMIT_DATA, (most, most))


def drop_root(uid: int, gid: int) -> None:
    """As root, becomes `uid` for good, without supplementary groups. Raises OSError, HostError."""
    if os.geteuid() != 0 and os.getuid() != 0:
        return
    if not uid or not gid:
        raise HostError("The bundle was to run as root")
    os.setgroups([])
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, uid)


def confine(program: bytes, readable: Iterable[str] = landlock.READABLE) -> dict[str, object]:
    """Confines this process for good, with no other thread in it yet; answers what is in force. Raises OSError."""
    linux.prctl(linux.PR_SET_NO_NEW_PRIVS, 1)
    version = landlock.restrict(readable)
    buffer = ctypes.create_string_buffer(program, len(program))
    loaded = _Program(len(program) // _INSTRUCTION, ctypes.cast(buffer, ctypes.c_char_p))
    linux.prctl(linux.PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.addressof(loaded))
    return {"seccomp": True, "landlock": version, "uid": os.getuid()}
