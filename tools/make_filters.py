"""Makes the seccomp filters of what faces the agent, `src/bot_bottle/bundle/KIND.MACHINE.bpf`. Run it when the lists here change.

Needs pyseccomp and libseccomp (`apt install libseccomp2`). Everything that is not allowed here fails with EPERM, and
system calls of another architecture kill the process.
"""

import errno
import sys
import tempfile
from itertools import product
from pathlib import Path

import pyseccomp as seccomp

FOLDER = Path(__file__).parent.parent / "src/bot_bottle/bundle"
MACHINES = {"x86_64": seccomp.Arch.X86_64, "aarch64": seccomp.Arch.AARCH64}

ALWAYS = (
    # bytes through descriptors that are there
    "read readv write writev pread64 close lseek recvfrom recvmsg recvmmsg sendto sendmsg sendmmsg shutdown accept accept4"
    " connect getsockname getpeername getsockopt setsockopt"
    " poll ppoll select pselect6 epoll_create1 epoll_ctl epoll_wait epoll_pwait epoll_pwait2"
    # looking at files; Landlock says which ones can be opened
    " stat lstat fstat newfstatat statx readlink readlinkat access faccessat faccessat2 getdents64 getcwd"
    # memory and threads
    " munmap mremap madvise brk futex futex_waitv set_robust_list rseq sched_yield sched_getaffinity membarrier"
    # itself, time, chance
    " rt_sigaction rt_sigprocmask rt_sigreturn sigaltstack restart_syscall exit exit_group"
    " getpid getppid gettid getuid geteuid getgid getegid uname sysinfo getrusage"
    " clock_gettime clock_getres clock_nanosleep nanosleep gettimeofday time getrandom"
).split()  # fmt: skip

KINDS = ("bundle", "supervise")
"""The supervise server answers on connections that come to it: it opens none, opens no file and needs no thread."""
NOT_FOR_SUPERVISE = frozenset(
    "connect recvmsg recvmmsg sendmmsg stat lstat statx readlink readlinkat access faccessat faccessat2 getdents64"
    " getcwd set_robust_list futex_waitv".split()
)  # fmt: skip

AF_UNIX, AF_INET, AF_INET6, SOCK_STREAM, SOCK_DGRAM, SOCK_TYPE_MASK = 1, 2, 10, 1, 2, 0xF
PROT_EXEC = 0x4
THREAD = 0x3D0F00  # CLONE_VM FS FILES SIGHAND THREAD SYSVSEM SETTLS PARENT_SETTID CHILD_CLEARTID: what glibc asks for
FIONREAD, FIONBIO = 0x541B, 0x5421
FCNTL = {"F_GETFD": 1, "F_SETFD": 2, "F_GETFL": 3, "F_SETFL": 4}
PR_SET_NAME, PR_SET_VMA = 15, 0x53564D41
O_WRITES = 0o3 | 0o100 | 0o1000 | 0o2000 | 0o20000000  # O_ACCMODE O_CREAT O_TRUNC O_APPEND __O_TMPFILE


def make_filter(machine: str, kind: str = "bundle") -> bytes:
    """The BPF program for `machine`, for processes of that kind."""
    made = seccomp.SyscallFilter(seccomp.ERRNO(errno.EPERM))
    if not made.exist_arch(MACHINES[machine]):
        made.add_arch(MACHINES[machine])
    for other in MACHINES:
        if other != machine and made.exist_arch(MACHINES[other]):
            made.remove_arch(MACHINES[other])
    for name in ALWAYS:
        if kind == "bundle" or name not in NOT_FOR_SUPERVISE:
            made.add_rule(seccomp.ALLOW, name)
    _restricted(made)
    if kind == "bundle":
        _outward(made)
    else:
        made.add_rule(
            seccomp.ALLOW, "listen"
        )  # asyncio does so once more on a socket that listens; it has no other
    with tempfile.TemporaryFile() as file:
        made.export_bpf(file)
        file.seek(0)
        return file.read()


def _outward(made: seccomp.SyscallFilter) -> None:
    """What going out needs: new sockets, threads that wait for a resolver, and the files that it reads."""
    arg = seccomp.Arg
    for family in (AF_INET, AF_INET6):
        for kind in (SOCK_STREAM, SOCK_DGRAM):
            kind_is = arg(1, seccomp.MASKED_EQ, SOCK_TYPE_MASK, kind)
            made.add_rule(seccomp.ALLOW, "socket", arg(0, seccomp.EQ, family), kind_is)
    # A pair that nobody else has an end of: what runs through TLS to a proxy is handed on as one.
    made.add_rule(
        seccomp.ALLOW,
        "socketpair",
        arg(0, seccomp.EQ, AF_UNIX),
        arg(1, seccomp.MASKED_EQ, SOCK_TYPE_MASK, SOCK_STREAM),
    )
    made.add_rule(seccomp.ALLOW, "clone", arg(0, seccomp.EQ, THREAD))
    made.add_rule(seccomp.ALLOW, "open", arg(1, seccomp.MASKED_EQ, O_WRITES, 0))
    made.add_rule(seccomp.ALLOW, "openat", arg(2, seccomp.MASKED_EQ, O_WRITES, 0))


def _restricted(made: seccomp.SyscallFilter) -> None:
    """Calls that are allowed with some arguments only."""
    arg = seccomp.Arg
    for name in ("mmap", "mprotect"):
        made.add_rule(seccomp.ALLOW, name, arg(2, seccomp.MASKED_EQ, PROT_EXEC, 0))
    # Its arguments are out of a filter's sight; without it, libc falls back to clone.
    made.add_rule(seccomp.ERRNO(errno.ENOSYS), "clone3")
    for request in (FIONREAD, FIONBIO):
        made.add_rule(seccomp.ALLOW, "ioctl", arg(1, seccomp.EQ, request))
    for command in FCNTL.values():
        made.add_rule(seccomp.ALLOW, "fcntl", arg(1, seccomp.EQ, command))
    for option in (PR_SET_NAME, PR_SET_VMA):
        made.add_rule(seccomp.ALLOW, "prctl", arg(0, seccomp.EQ, option))


def main() -> int:
    for kind, machine in product(KINDS, MACHINES):
        program = make_filter(machine, kind)
        (FOLDER / f"{kind}.{machine}.bpf").write_bytes(program)
        sys.stdout.write(f"{kind}.{machine}.bpf: {len(program) // 8} instructions\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
