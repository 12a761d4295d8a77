"""The agent's seccomp filter: what it decides, interpreted here for both machines without running anything."""

import errno
import importlib.util
import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot_bottle.backends import seccomp

FOLDER = Path(seccomp.__file__).parent
ARCHITECTURE = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
NUMBERS = {
    "x86_64": {
        "read": 0, "open": 2, "ioctl": 16, "socket": 41, "clone": 56, "chmod": 90, "ptrace": 101, "mount": 165,
        "openat": 257, "mkdirat": 258,
        "mknodat": 259, "fchmodat": 268, "unshare": 272, "setns": 308, "bpf": 321, "fork": 57, "execve": 59,
        "prlimit64": 302, "setpriority": 141, "sched_setparam": 142, "sched_setscheduler": 144, "sched_setaffinity": 203,
        "sched_setattr": 314,
    },
    "aarch64": {
        "read": 63, "ioctl": 29, "socket": 198, "clone": 220, "ptrace": 117, "mount": 40, "openat": 56, "mkdirat": 34,
        "mknodat": 33, "fchmodat": 53, "unshare": 97, "setns": 268, "bpf": 280, "execve": 221,
        "prlimit64": 261, "setpriority": 140, "sched_setparam": 118, "sched_setscheduler": 119, "sched_setaffinity": 122,
        "sched_setattr": 274,
    },
}  # fmt: skip
EVERYWHERE = {"io_uring_setup": 425, "open_tree": 428, "clone3": 435, "openat2": 437, "mount_setattr": 442}
EVERYWHERE |= {"fchmodat2": 452}
ALLOW, KILL = 0x7FFF0000, 0x80000000
HIGH = 0x5_0000_0000
machines = pytest.mark.parametrize("machine", ARCHITECTURE)


def interpret(program: bytes, data: bytes) -> int:
    """What the kernel would answer: classic BPF over struct seccomp_data."""
    code = list(struct.iter_unpack("<HBBI", program))
    place, value = 0, 0
    while True:
        operation, yes, no, constant = code[place]
        place += 1
        if operation == 0x20:
            (value,) = struct.unpack_from("<I", data, constant)
        elif operation == 0x54:
            value &= constant
        elif operation == 0x05:
            place += constant
        elif operation == 0x06:
            return constant
        else:
            holds = {
                0x15: value == constant,
                0x25: value > constant,
                0x35: value >= constant,
                0x45: value & constant,
            }
            place += yes if holds[operation] else no


def decide(machine: str, call: str | int, *arguments: int, architecture: int | None = None) -> int:
    number = call if isinstance(call, int) else {**EVERYWHERE, **NUMBERS[machine]}[call]
    six = [*arguments, *[0] * 6][:6]
    data = struct.pack("<IIQ6Q", number, architecture or ARCHITECTURE[machine], 0, *six)
    return interpret((FOLDER / f"agent.{machine}.bpf").read_bytes(), data)


def error(number: int) -> int:
    return 0x50000 | number


@machines
@pytest.mark.parametrize("call", ["read", "execve", "ptrace", "clone", "socket", "openat", "ioctl"])
def test_ordinary_work_is_allowed(machine: str, call: str) -> None:
    arguments = {"socket": (1,), "clone": (17,), "ioctl": (0, 0x5401)}.get(call, ())
    assert decide(machine, call, *arguments) == ALLOW


@machines
@pytest.mark.parametrize(
    "call", ["mount", "unshare", "setns", "bpf", "io_uring_setup", "open_tree", "mount_setattr"]
)
def test_what_reaches_into_the_kernel_is_refused(machine: str, call: str) -> None:
    assert decide(machine, call) == error(errno.EPERM)


@machines
@pytest.mark.parametrize("call", ["clone3", "openat2"])
def test_calls_that_hide_their_flags_do_not_exist(machine: str, call: str) -> None:
    assert decide(machine, call) == error(errno.ENOSYS)


@machines
@pytest.mark.parametrize("upper", [0, HIGH])
def test_process_1_keeps_its_limits_and_its_turn_and_others_can_be_given_theirs(
    machine: str, upper: int
) -> None:
    for call in ("prlimit64", "sched_setaffinity", "sched_setattr", "sched_setparam", "sched_setscheduler"):
        assert decide(machine, call, 1 + upper, 7, 0x1000) == error(errno.EPERM), call
        assert decide(machine, call, 0, 7, 0x1000) == decide(machine, call, 4711, 7, 0x1000) == ALLOW, call
    assert decide(machine, "setpriority", 0, 1 + upper, 19) == error(errno.EPERM)
    assert decide(machine, "setpriority", 0, 0, 19) == ALLOW


@machines
@given(flags=st.integers(0, 2**64 - 1))
def test_no_new_namespace_comes_by_clone(machine: str, flags: int) -> None:
    wanted = flags & 0x7E020000
    assert decide(machine, "clone", flags) == (error(errno.EPERM) if wanted else ALLOW)


@machines
@given(family=st.integers(0, 2**64 - 1) | st.integers(0, 50), protocol=st.integers(0, 2**32 - 1) | st.just(0))
def test_only_local_inet_and_route_sockets_exist(machine: str, family: int, protocol: int) -> None:
    fine = family in (1, 2, 10) or (family == 16 and protocol == 0)
    assert decide(machine, "socket", family, 3, protocol) == (ALLOW if fine else error(errno.EAFNOSUPPORT))


@machines
@pytest.mark.parametrize("request_number", [0x5412, 0x541C])
def test_typing_into_the_terminal_is_refused_whatever_the_upper_half_says(
    machine: str, request_number: int
) -> None:
    for number in (request_number, request_number + HIGH):
        assert decide(machine, "ioctl", 0, number) == error(errno.EPERM)


@machines
@given(mode=st.integers(0, 2**16 - 1), upper=st.sampled_from([0, HIGH]))
def test_set_id_bits_are_refused_wherever_a_mode_is_given(machine: str, mode: int, upper: int) -> None:
    expected = error(errno.EPERM) if mode & 0o6000 else ALLOW
    for call, arguments in {
        "fchmodat": (0, 0, mode + upper),
        "fchmodat2": (0, 0, mode + upper),
        "mkdirat": (0, 0, mode + upper),
        "mknodat": (0, 0, mode + upper),
        "openat": (0, 0, 0o101, mode + upper),
    }.items():
        assert decide(machine, call, *arguments) == expected, call
    assert (
        decide(machine, "openat", 0, 0, 0o1, mode) == ALLOW
    )  # no file is made: whatever is there means nothing


def test_the_older_calls_with_a_mode_are_held_too() -> None:
    assert decide("x86_64", "chmod", 0, 0o4755) == error(errno.EPERM)
    assert decide("x86_64", "open", 0, 0o101, 0o2755) == error(errno.EPERM)


@machines
def test_other_machines_calls_end_the_process(machine: str) -> None:
    assert decide(machine, "read", architecture=0x40000003) == KILL  # i386
    assert decide(machine, "read", architecture=0x40000028) == KILL  # 32-bit ARM
    assert decide("x86_64", 0x40000000) == KILL  # x32


@machines
def test_the_filters_in_the_package_are_what_the_tool_makes(machine: str) -> None:
    pytest.importorskip("pyseccomp", reason="pyseccomp (a development dependency) is not installed")
    path = Path(__file__).parents[2] / "tools" / "seccomp_agent.py"
    spec = importlib.util.spec_from_file_location("seccomp_agent", path)
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    assert tool.build(machine) == (FOLDER / f"agent.{machine}.bpf").read_bytes()
