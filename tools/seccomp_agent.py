"""Writes the agent's seccomp filters, one for each machine, into the package. Needs pyseccomp (and libseccomp).

    python tools/seccomp_agent.py           writes them
    python tools/seccomp_agent.py --list    prints the rules for people

A denylist in the manner of Docker's and Flatpak's: the agent is a general-purpose user of Linux, so what is refused is what
reaches into the kernel or out of the bottle. Why each group is refused stands beside it. Other architectures' system calls
(i386, x32, 32-bit ARM) end the process: their numbers would not be checked.
"""

import argparse
import errno
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pyseccomp

MACHINES = ("x86_64", "aarch64")
TARGET = Path(__file__).parent.parent / "src/bot_bottle/backends"
LOW = 0xFFFFFFFF
"""The kernel reads `int` arguments from the lower half of a register: compare no more than that."""

EPERM, ENOSYS, EAFNOSUPPORT = errno.EPERM, errno.ENOSYS, errno.EAFNOSUPPORT

REFUSED = {
    "new or other namespaces": "setns unshare",
    "mounts": "mount umount2 pivot_root chroot fsopen fsconfig fsmount fspick move_mount open_tree mount_setattr",
    "programs and work given to the kernel": "bpf io_uring_setup io_uring_enter io_uring_register userfaultfd",
    "keys, which are not kept apart by namespaces": "add_key keyctl request_key",
    "watching the machine": "perf_event_open lookup_dcookie syslog fanotify_init",
    "another process's memory (ptrace stays: debuggers are work, and see only what is under this same filter)": (
        "process_vm_readv process_vm_writev process_madvise kcmp move_pages migrate_pages mbind set_mempolicy"
    ),
    "files by handle, past every mount": "open_by_handle_at",
    "the running system": (
        "kexec_load kexec_file_load init_module finit_module delete_module reboot swapon swapoff quotactl quotactl_fd acct "
        "settimeofday clock_settime clock_adjtime adjtimex sethostname setdomainname vhangup nfsservctl"
    ),
    "old doors into the hardware": "iopl ioperm modify_ldt uselib ustat sysfs _sysctl",
}
MISSING = {
    "their flags are in memory, where a filter can't look; programs fall back to the older call": "clone3 openat2",
}
NAMESPACES = (0x00020000, 0x02000000, 0x04000000, 0x08000000, 0x10000000, 0x20000000, 0x40000000)
TERMINAL = {"TIOCSTI": 0x5412, "TIOCLINUX": 0x541C}
SET_ID_BITS = (0o4000, 0o2000)
MODE_ARGUMENT = {"chmod": 1, "fchmod": 1, "fchmodat": 2, "fchmodat2": 2, "mknod": 1, "mknodat": 2, "creat": 1,
                 "mkdir": 1, "mkdirat": 2}  # fmt: skip
NEWER = {"fchmodat2": 452}
"""Calls that older libseccomp releases can't name; one number on every machine."""
CREATING_OPENS = {"open": (1, 2), "openat": (2, 3)}
O_CREAT, O_TMPFILE = 0o100, 0o20000000
AF_UNIX, AF_INET, AF_INET6, AF_NETLINK = 1, 2, 10, 16
OF_A_PROCESS = ("prlimit64", "sched_setaffinity", "sched_setattr", "sched_setparam", "sched_setscheduler")
"""Calls whose first argument is whose limits or turn on a processor they set; 0 is one's own."""


class Condition(NamedTuple):
    """`argument` of the call, masked, equals (`==`), differs from (`!=`) or exceeds (`>`) `value`."""

    argument: int
    test: str
    value: int
    mask: int = LOW


class Rule(NamedTuple):
    """Calls of `call` for which every condition holds fail with `error`."""

    call: str
    error: int
    conditions: tuple[Condition, ...] = ()


def rules() -> Iterator[Rule]:
    """The whole policy, as data."""
    for error, table in ((EPERM, REFUSED), (ENOSYS, MISSING)):
        for calls in table.values():
            for call in calls.split():
                yield Rule(call, error)
    for flag in NAMESPACES:
        yield Rule("clone", EPERM, (Condition(0, "==", flag, flag),))
    for request in TERMINAL.values():  # typing into the terminal that the operator sits at
        yield Rule("ioctl", EPERM, (Condition(1, "==", request),))
    for call in OF_A_PROCESS:  # process 1 may be the agent's user, and is what the operator has to the bottle
        yield Rule(call, EPERM, (Condition(0, "==", 1),))
    yield Rule("setpriority", EPERM, (Condition(1, "==", 1),))
    yield from _set_id_rules()
    yield from _socket_rules()


def _set_id_rules() -> Iterator[Rule]:
    """No file with set-user-id or set-group-id bits: in a mounted workspace it would be one on the host."""
    for bit in SET_ID_BITS:
        for call, mode in MODE_ARGUMENT.items():
            yield Rule(call, EPERM, (Condition(mode, "==", bit, bit),))
        for call, (flags, mode) in CREATING_OPENS.items():
            for creating in (O_CREAT, O_TMPFILE):
                found = Condition(flags, "==", creating, creating)
                yield Rule(call, EPERM, (found, Condition(mode, "==", bit, bit)))


def _socket_rules() -> Iterator[Rule]:
    """Only local, IPv4, IPv6 and route netlink sockets. Not vsock: it reaches the host past every network namespace."""
    kept = {AF_UNIX, AF_INET, AF_INET6, AF_NETLINK}
    for family in range(AF_NETLINK + 1):
        if family not in kept:
            yield Rule("socket", EAFNOSUPPORT, (Condition(0, "==", family),))
    yield Rule("socket", EAFNOSUPPORT, (Condition(0, ">", AF_NETLINK),))
    for bit in range(32):  # NETLINK_ROUTE is 0: any other protocol has a bit that is set
        netlink = Condition(0, "==", AF_NETLINK)
        yield Rule("socket", EAFNOSUPPORT, (netlink, Condition(2, "==", 1 << bit, 1 << bit)))


def _argument(condition: Condition) -> Any:
    if condition.test == ">":
        # Whole register: a number with anything in the upper half is above every family, and refused.
        return pyseccomp.Arg(condition.argument, pyseccomp.GT, condition.value)
    assert condition.test == "=="
    return pyseccomp.Arg(condition.argument, pyseccomp.MASKED_EQ, condition.mask, condition.value)


def build(machine: str) -> bytes:
    """The BPF program for `machine`."""
    policy = pyseccomp.SyscallFilter(pyseccomp.ALLOW)
    wanted = getattr(pyseccomp.Arch, machine.upper())
    if wanted != pyseccomp.system_arch() and not policy.exist_arch(wanted):
        policy.add_arch(wanted)
        policy.remove_arch(pyseccomp.system_arch())
    policy.set_attr(pyseccomp.Attr.ACT_BADARCH, pyseccomp.KILL_PROCESS)
    for rule in rules():
        # By the number it has here: libseccomp translates that to the wanted machine's, and leaves out what it lacks.
        number = NEWER.get(rule.call) or pyseccomp.resolve_syscall(pyseccomp.Arch.NATIVE, rule.call)
        policy.add_rule(pyseccomp.ERRNO(rule.error), number, *map(_argument, rule.conditions))
    with tempfile.TemporaryFile() as file:
        policy.export_bpf(file)
        file.seek(0)
        return file.read()


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--list", action="store_true")
    if parser.parse_args().list:
        for rule in rules():
            tests = " and ".join(
                f"arg{c.argument} & {c.mask:#x} {c.test} {c.value:#x}" for c in rule.conditions
            )
            sys.stdout.write(f"{rule.call:24}{errno.errorcode[rule.error]:14}{tests}\n")
        return 0
    for machine in MACHINES:
        (TARGET / f"agent.{machine}.bpf").write_bytes(build(machine))
    return 0


if __name__ == "__main__":
    sys.exit(main())
