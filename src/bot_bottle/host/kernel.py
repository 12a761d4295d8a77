"""System calls that Python 3.11 has no function for, by ctypes; the numbers and structures, and nothing else.

ctypes is loaded with the first call, so that importing this module costs nothing. Every function raises OSError.
"""

import fcntl
import os
import struct

from bot_bottle.typed import Any

CLONE_PARENT = 0x00008000
CLONE_NEWNS = 0x00020000
CLONE_NEWCGROUP = 0x02000000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000

MS_REC_PRIVATE = 0x4000 | 0x40000

_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_SET_SECCOMP, _PR_CAPBSET_DROP = 1, 4, 22, 24
_PR_SET_NO_NEW_PRIVS, _PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL = 38, 47, 4
_SECCOMP_MODE_FILTER = 2
_CAPABILITY_VERSION_3 = 0x20080522
_NS_GET_USERNS = 0xB701
_SIGNALS_OF_THE_C_LIBRARY = (32, 33)
_AT_FDCWD, _AT_EMPTY_PATH, _AT_RECURSIVE = -100, 0x1000, 0x8000
_OPEN_TREE_CLONE, _MOVE_MOUNT_F_EMPTY_PATH, _MOUNT_ATTR_IDMAP = 1, 0x4, 0x100000
_MNT_DETACH, _UMOUNT_NOFOLLOW = 2, 8

# Numbers of x86_64, and of aarch64 and every later architecture; the newer calls have one number everywhere.
_NUMBERS = {
    "x86_64": {"clone": 56, "capset": 126, "rt_sigaction": 13},
    "aarch64": {"clone": 220, "capset": 91, "rt_sigaction": 134},
}
_OPEN_TREE, _MOVE_MOUNT, _MOUNT_SETATTR = 428, 429, 442


_libc: Any = None


def libc() -> Any:
    """The C library, loaded once; called before a fork so that the children need not."""
    global _libc
    if _libc is None:
        import ctypes

        _libc = ctypes.CDLL(None, use_errno=True)
    return _libc


def _check(result: int, what: str) -> int:
    if result == -1:
        import ctypes

        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
    return result


def _syscall(number: int, *arguments: Any, what: str) -> int:
    import ctypes

    # Bare integers would be passed as 32-bit ones, and the upper half of a register left as it was.
    whole = [ctypes.c_long(value) if isinstance(value, int) else value for value in arguments]
    return _check(int(libc().syscall(ctypes.c_long(number), *whole)), what)


def _prctl(option: int, *arguments: int, what: str) -> int:
    import ctypes

    padded = [ctypes.c_ulong(value) for value in (*arguments, 0, 0, 0, 0)[:4]]
    return _check(int(libc().prctl(option, *padded)), what)


def die_with_parent(signal_number: int = 9) -> None:
    """Asks for `signal_number` when the parent's thread that made this process ends. Lost when credentials change."""
    _prctl(_PR_SET_PDEATHSIG, signal_number, what="PR_SET_PDEATHSIG")


def hide_memory() -> None:
    """Keeps processes of the same user from reading or tracing this one, until it executes a program."""
    _prctl(_PR_SET_DUMPABLE, 0, what="PR_SET_DUMPABLE")


def forbid_new_privileges() -> None:
    """No program executed from here on gains anything by set-user-id bits or file capabilities."""
    _prctl(_PR_SET_NO_NEW_PRIVS, 1, what="PR_SET_NO_NEW_PRIVS")


def drop_capabilities() -> None:
    """Empties the bounding, ambient, inheritable, permitted and effective set."""
    for capability in range(64):
        try:
            _prctl(_PR_CAPBSET_DROP, capability, what="PR_CAPBSET_DROP")
        except OSError as error:
            if error.errno != 22 or capability == 0:  # EINVAL: past the last capability that this kernel has
                raise
            break
    _prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL, what="PR_CAP_AMBIENT")
    header = struct.pack("=Ii", _CAPABILITY_VERSION_3, 0)
    _syscall(_number("capset"), header, bytes(24), what="capset")


def apply_seccomp(program: bytes) -> None:
    """Puts this process under the BPF `program` (struct sock_filter, eight bytes each) for good."""
    import ctypes

    class Program(ctypes.Structure):
        _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_char_p))

    filled = Program(len(program) // 8, program)
    address = ctypes.addressof(filled)
    _prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, address, what="PR_SET_SECCOMP")


def enter(descriptor: int, kinds: int) -> None:
    """setns: joins the namespace that `descriptor` is, or those of `kinds` of the process that it is a pidfd of."""
    _check(int(libc().setns(descriptor, kinds)), "setns")


def unshare(kinds: int) -> None:
    """Makes new namespaces of `kinds` for this process."""
    _check(int(libc().unshare(kinds)), "unshare")


def owning_user_namespace(namespace: int) -> int:
    """A descriptor of the user namespace that owns the open `namespace`."""
    return fcntl.ioctl(namespace, _NS_GET_USERNS)


def fork(flags: int) -> int:
    """Forks with `flags` of clone(2), past Python's and libc's own. For a child that soon executes a program or ends."""
    return _syscall(_number("clone"), flags | 17, 0, 0, 0, 0, what="clone")  # 17: SIGCHLD


def mount(source: str, target: str, kind: str, flags: int, options: str = "") -> None:
    """mount(2)."""
    arguments = (source.encode(), target.encode(), kind.encode(), flags, options.encode())
    _check(int(libc().mount(*arguments)), f"mount {target}")


def unmount(target: str) -> None:
    """Takes the mount at `target` away at once; whoever is in it keeps it. Never follows a link."""
    _check(int(libc().umount2(os.fsencode(target), _MNT_DETACH | _UMOUNT_NOFOLLOW)), f"umount {target}")


def clone_tree(path: str) -> int:
    """A descriptor of a detached copy of the mount at `path` and everything mounted below it."""
    flags = _OPEN_TREE_CLONE | _AT_RECURSIVE | os.O_CLOEXEC
    return _syscall(_OPEN_TREE, _AT_FDCWD, os.fsencode(path), flags, what=f"open_tree {path}")


def attach_tree(tree: int, target: str) -> None:
    """Mounts the detached `tree` at `target`."""
    arguments = (tree, b"", _AT_FDCWD, os.fsencode(target), _MOVE_MOUNT_F_EMPTY_PATH)
    _syscall(_MOVE_MOUNT, *arguments, what=f"move_mount {target}")


def map_owners(tree: int, user_namespace: int) -> None:
    """Shows the owners of the files in the detached `tree` as `user_namespace` maps them (an idmapped mount)."""
    attributes = struct.pack("=QQQQ", _MOUNT_ATTR_IDMAP, 0, 0, user_namespace)
    arguments = (tree, b"", _AT_EMPTY_PATH | _AT_RECURSIVE, attributes, len(attributes))
    _syscall(_MOUNT_SETATTR, *arguments, what="mount_setattr")


def default_signals() -> None:
    """Gives every signal its default disposition (a thirtieth of the time that the signal module takes for it)."""
    set_disposition = libc().signal
    for number in range(1, 65):
        set_disposition(number, None)
    # The C library keeps these two to itself, and yet its posix_spawn leaves them ignored: so does make.
    for number in _SIGNALS_OF_THE_C_LIBRARY:
        _syscall(_number("rt_sigaction"), number, bytes(32), 0, 8, what="rt_sigaction")


def blank_command_line() -> None:
    """Overwrites this process's own command line in memory, which /proc shows to everybody."""
    import ctypes

    with open("/proc/self/stat", "rb") as file:
        fields = file.read().rpartition(b")")[2].split()
    start, end = int(fields[45]), int(fields[46])
    if 0 < start < end:
        ctypes.memset(start, 0, end - start)


def _number(call: str) -> int:
    try:
        return _NUMBERS[os.uname().machine][call]
    except KeyError:
        raise OSError(38, f"{call}: not known on this machine ({os.uname().machine})") from None
