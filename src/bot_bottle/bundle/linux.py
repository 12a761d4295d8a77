"""The few system calls that Python does not wrap, by ctypes. Each raises OSError with the call's name."""

import ctypes
import os

PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_SECCOMP, PR_SET_NO_NEW_PRIVS = 1, 4, 22, 38

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long


def prctl(option: int, second: int, third: int = 0) -> None:
    arguments = [ctypes.c_ulong(number) for number in (second, third, 0, 0)]
    _checked(_libc.prctl(ctypes.c_int(option), *arguments), f"prctl {option}")


def syscall(name: str, number: int, *arguments: "int | ctypes._Pointer[ctypes.Structure] | None") -> int:
    """Integers go as longs, None as a null pointer."""
    converted = [ctypes.c_long(a) if isinstance(a, int) else a for a in arguments]
    return _checked(_libc.syscall(ctypes.c_long(number), *converted), name)


def _checked(result: int, name: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")
    return result
