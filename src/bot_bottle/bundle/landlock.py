"""Landlock: after this, the bundle can read the files that resolving a name and checking a certificate need, and no others.

Raw system calls, so that no library is needed. What a kernel's version of Landlock does not know is left out, and said:
`restrict` answers with the version in force, 0 when the kernel has none.
"""

import ctypes
import os
import stat
from collections.abc import Iterable

from bot_bottle.bundle import linux

READABLE = (
    "/etc/resolv.conf",
    "/etc/hosts",
    "/etc/host.conf",
    "/etc/nsswitch.conf",
    "/etc/gai.conf",
    "/etc/services",
    "/etc/protocols",
    "/run/systemd/resolve",
    "/run/resolvconf",
    "/run/NetworkManager/resolv.conf",
    "/etc/resolvconf/run",
    "/etc/ssl",
    "/etc/pki",
    "/etc/ca-certificates",
    "/usr/share/ca-certificates",
    "/usr/local/share/ca-certificates",
    "/etc/localtime",
)
"""`/etc/resolv.conf` is a link into `/run` on most systems: a rule holds for what it points to when it is made."""

_CREATE, _ADD_RULE, _RESTRICT = 444, 445, 446
_VERSION_QUERY = 1
_RULE_PATH_BENEATH, _RULE_NET_PORT = 1, 2
_EXECUTE = 1 << 0
_READ_FILE, _READ_DIR = 1 << 2, 1 << 3
# Rights that exist in each version: files (13, then refer, truncate, ioctl), TCP bind and connect, scopes.
_FILE_RIGHTS = {1: 13, 2: 14, 3: 15, 4: 15, 5: 16}
_NET_BIND = 1 << 0
_SCOPE_ABSTRACT_UNIX, _SCOPE_SIGNAL = 1 << 0, 1 << 1


class _Ruleset(ctypes.Structure):
    _fields_ = (("fs", ctypes.c_uint64), ("net", ctypes.c_uint64), ("scoped", ctypes.c_uint64))


class _PathBeneath(ctypes.Structure):
    _pack_ = 1
    _fields_ = (("allowed", ctypes.c_uint64), ("parent", ctypes.c_int32))


class _NetPort(ctypes.Structure):
    _fields_ = (("allowed", ctypes.c_uint64), ("port", ctypes.c_uint64))


def version() -> int:
    """The kernel's version of Landlock; 0 when it has none or it is switched off."""
    try:
        return linux.syscall("landlock_create_ruleset", _CREATE, None, 0, _VERSION_QUERY)
    except OSError:
        return 0


def restrict(
    readable: Iterable[str] = READABLE, *, executable: Iterable[str] = (), port: int | None = None
) -> int:
    """Takes away every right to files but reading `readable`, and the right to bind. Needs no_new_privs.

    `executable` can be read and executed as well; `port` can still be bound.

    Raises OSError when a kernel that has Landlock refuses.
    """
    abi = version()
    if abi < 1:
        return 0
    handled = _Ruleset(
        fs=(1 << _FILE_RIGHTS[min(abi, 5)]) - 1,
        net=_NET_BIND if abi >= 4 else 0,
        scoped=_SCOPE_ABSTRACT_UNIX | _SCOPE_SIGNAL if abi >= 6 else 0,
    )
    size = 24 if abi >= 6 else 16 if abi >= 4 else 8
    ruleset = linux.syscall("landlock_create_ruleset", _CREATE, ctypes.pointer(handled), size, 0)
    try:
        for path in readable:
            _allow(ruleset, path, 0)
        for path in executable:
            _allow(ruleset, path, _EXECUTE)
        if port is not None and handled.net:
            rule = _NetPort(allowed=_NET_BIND, port=port)
            linux.syscall("landlock_add_rule", _ADD_RULE, ruleset, _RULE_NET_PORT, ctypes.pointer(rule), 0)
        linux.syscall("landlock_restrict_self", _RESTRICT, ruleset, 0)
    finally:
        os.close(ruleset)
    return abi


def _allow(ruleset: int, path: str, more: int) -> None:
    try:
        opened = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:  # not on this system
        return
    try:
        is_folder = stat.S_ISDIR(os.fstat(opened).st_mode)
        rule = _PathBeneath(allowed=_READ_FILE | more | (_READ_DIR if is_folder else 0), parent=opened)
        linux.syscall("landlock_add_rule", _ADD_RULE, ruleset, _RULE_PATH_BENEATH, ctypes.pointer(rule), 0)
    finally:
        os.close(opened)
