"""The bottle's process 1: a program of 22 instructions, written out here so that nothing has to be built or found.

bubblewrap's own process 1 runs without the seccomp filter and can be traced by the agent (it is the agent's user), which
would be a way around the filter. This one is under the filter, keeps its memory to itself, and lives as long as its
standard input, a socket to the keeper:

    prctl(PR_SET_DUMPABLE, 0)               nobody inside can trace it or look at its descriptors
    rt_sigaction(SIGCHLD, SIG_IGN)          orphans that end are removed by the kernel
    write(0, one byte) != 1: exit           tells the keeper that everything is in place; ends if there is no keeper
    read(0, …); exit                        ends, and the bottle with it, when the keeper closes the socket or dies
"""

import os
import struct

_BASE = 0x400000
_HEADERS = 64 + 56  # the ELF header and one program header
_IGNORE_ACTION = struct.pack(
    "<QQQQ", 1, 0, 0, 0
)  # struct sigaction with SIG_IGN; its first byte is also what is sent

_X86_64 = """
b89d000000      mov   $157, %eax            prctl
bf04000000      mov   $4, %edi              PR_SET_DUMPABLE
31f6            xor   %esi, %esi
0f05            syscall
b80d000000      mov   $13, %eax             rt_sigaction
bf11000000      mov   $17, %edi             SIGCHLD
488d3541000000  lea   action(%rip), %rsi
31d2            xor   %edx, %edx
41ba08000000    mov   $8, %r10d
0f05            syscall
b801000000      mov   $1, %eax              write
31ff            xor   %edi, %edi
488d3529000000  lea   action(%rip), %rsi
ba01000000      mov   $1, %edx
0f05            syscall
83f801          cmp   $1, %eax
7510            jne   out
31c0            xor   %eax, %eax            read
31ff            xor   %edi, %edi
488d7424c0      lea   -64(%rsp), %rsi
ba01000000      mov   $1, %edx
0f05            syscall
b8e7000000      mov   $231, %eax            out: exit_group
31ff            xor   %edi, %edi
0f05            syscall
0f1f4000        nop
"""

_AARCH64 = """
e81480d2        mov   x8, #167              prctl
800080d2        mov   x0, #4                PR_SET_DUMPABLE
010080d2        mov   x1, #0
010000d4        svc   #0
c81080d2        mov   x8, #134              rt_sigaction
200280d2        mov   x0, #17               SIGCHLD
81020010        adr   x1, action
020080d2        mov   x2, #0
030180d2        mov   x3, #8
010000d4        svc   #0
080880d2        mov   x8, #64               write
000080d2        mov   x0, #0
c1010010        adr   x1, action
220080d2        mov   x2, #1
010000d4        svc   #0
1f0400f1        cmp   x0, #1
c1000054        b.ne  out
e80780d2        mov   x8, #63               read
000080d2        mov   x0, #0
e10301d1        sub   x1, sp, #64
220080d2        mov   x2, #1
010000d4        svc   #0
c80b80d2        mov   x8, #94               out: exit_group
000080d2        mov   x0, #0
010000d4        svc   #0
1f2003d5        nop
"""

_LISTINGS = {"x86_64": (62, _X86_64), "aarch64": (183, _AARCH64)}  # with the ELF number of the machine


def program(machine: str | None = None) -> bytes:
    """The whole executable file for `machine` (default: this one). Raises KeyError where there is none."""
    number, listing = _LISTINGS[machine or os.uname().machine]
    code = b"".join(bytes.fromhex(line.split()[0]) for line in listing.strip().splitlines()) + _IGNORE_ACTION
    size = _HEADERS + len(code)
    identity = b"\x7fELF" + bytes([2, 1, 1]) + bytes(9)
    header = struct.pack("<HHIQQQIHHHHHH", 2, number, 1, _BASE + _HEADERS, 64, 0, 0, 64, 56, 1, 0, 0, 0)
    segment = struct.pack("<IIQQQQQQ", 1, 5, 0, _BASE, _BASE, size, size, 0x10000)
    return identity + header + segment + code
