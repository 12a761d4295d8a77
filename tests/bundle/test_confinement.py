"""What a broken-in bundle could do: tried from inside a real one, after it has confined itself."""

import importlib.util
import os
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bot_bottle.bundle import confine, landlock
from bot_bottle.policy.model import EgressPolicy
from tests.bundle.harness import SOURCE, served

TOOL = SOURCE.parent / "tools/make_filters.py"
ATTEMPTS = """
libc = ctypes.CDLL(None, use_errno=True)

def attempt(name, action):
    try:
        result = action()
        found[name] = "done" if result is None or result == 0 else f"done: {result}"
    except OSError as error:
        found[name] = errno.errorcode[error.errno]

def call(*arguments):
    if libc.syscall(*arguments) < 0:
        raise OSError(ctypes.get_errno(), "")

attempt("exec", lambda: os.execv("/bin/true", ["true"]))
attempt("fork", lambda: os.fork() or os._exit(0))
attempt("write a file", lambda: os.open("/tmp/bot-bottle-written", os.O_WRONLY | os.O_CREAT))
attempt("append to a file", lambda: os.open("/etc/hosts", os.O_RDWR))
attempt("make a folder", lambda: os.mkdir("/tmp/bot-bottle-folder"))
attempt("remove a file", lambda: os.unlink("/tmp/bot-bottle-none"))
attempt("change a mode", lambda: os.chmod("/tmp", 0o777))
attempt("read a file", lambda: os.close(os.open(SECRET, os.O_RDONLY)))
attempt("read itself", lambda: os.close(os.open("/proc/self/environ", os.O_RDONLY)))
attempt("list a folder", lambda: os.listdir("/home"))
attempt("read resolv.conf", lambda: os.close(os.open("/etc/resolv.conf", os.O_RDONLY)))
attempt("ptrace", lambda: call(101 if X86 else 117, 0, 0, 0, 0))
attempt("unshare", lambda: call(272 if X86 else 97, 0x10000000))
attempt("setns", lambda: call(308 if X86 else 268, 0, 0))
attempt("mount", lambda: call(165 if X86 else 40, 0, 0, 0, 0, 0))
attempt("io_uring", lambda: call(425, 1, 0))
attempt("bpf", lambda: call(321 if X86 else 280, 0, 0, 0))
attempt("keyctl", lambda: call(250 if X86 else 219, 0, 0))
attempt("memfd", lambda: call(319 if X86 else 279, b"x", 0))
attempt("clone a process", lambda: call(56 if X86 else 220, 17, 0, 0, 0, 0))
attempt("kill", lambda: os.kill(os.getppid(), 0))
attempt("make memory executable", lambda: call(10 if X86 else 226, 0, 4096, 7))
attempt("netlink", lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0))
attempt("packet", lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0))
attempt("raw", lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, 1))
attempt("unix", lambda: socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
attempt("vsock", lambda: socket.socket(40, socket.SOCK_STREAM))
attempt("bind", lambda: socket.socket().bind(("127.0.0.1", 0)))
attempt("listen", lambda: socket.socket().listen())
attempt("tcp", lambda: socket.socket(socket.AF_INET6).close())
attempt("udp", lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM).close())
attempt("raise its limits", lambda: call(302 if X86 else 261, 0, 4, 0, 0))
import threading
thread = threading.Thread(target=lambda: attempt("exec in a thread", lambda: os.execv("/bin/true", ["true"])))
thread.start()
thread.join()
found["environment"] = dict(os.environ)
found["uid"] = [os.getuid(), os.geteuid(), os.getgid()]
"""
REFUSED = (
    "exec", "fork", "write a file", "append to a file", "make a folder", "remove a file", "change a mode", "ptrace",
    "unshare", "setns", "mount", "io_uring", "bpf", "keyctl", "memfd", "clone a process", "kill",
    "make memory executable", "netlink", "packet", "raw", "unix", "vsock", "bind", "listen", "raise its limits",
    "exec in a thread",
)  # fmt: skip
LEFT = ("read resolv.conf", "tcp", "udp")
NEEDS_LANDLOCK = ("read a file", "read itself", "list a folder")


@pytest.fixture(scope="module")
def confined(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[dict[str, Any], int]]:
    secret = Path("/tmp") / f"bot-bottle-secret-{os.getpid()}"
    secret.write_text("a file that everybody may read")
    secret.chmod(0o644)
    x86 = os.uname().machine == "x86_64"
    hook = f"SECRET = {str(secret)!r}\nX86 = {x86}\n{ATTEMPTS}"
    with served(EgressPolicy(), hook=hook, env={"ANTHROPIC_API_KEY": "sk-operator"}) as (_, bundle):
        yield bundle.ready["confined"], bundle.pid
    secret.unlink()


@pytest.mark.parametrize("what", REFUSED)
def test_a_confined_bundle_cannot(what: str, confined: tuple[dict[str, Any], int]) -> None:
    assert confined[0]["found"][what] in ("EPERM", "EACCES")


@pytest.mark.parametrize("what", LEFT)
def test_a_confined_bundle_still_can(what: str, confined: tuple[dict[str, Any], int]) -> None:
    assert confined[0]["found"][what] == "done"


@pytest.mark.skipif(not landlock.version(), reason="this kernel has no Landlock")
@pytest.mark.parametrize("what", NEEDS_LANDLOCK)
def test_with_landlock_it_reads_nothing_else(what: str, confined: tuple[dict[str, Any], int]) -> None:
    assert confined[0]["landlock"] > 0
    assert confined[0]["found"][what] == "EACCES"


def test_nothing_of_the_operators_environment_is_left_in_it(confined: tuple[dict[str, Any], int]) -> None:
    found, pid = confined
    assert found["found"]["environment"] == {"LOCALDOMAIN": "."}
    if os.geteuid() == 0:
        assert b"sk-operator" not in Path(f"/proc/{pid}/environ").read_bytes()


def test_it_dumps_no_core_and_is_nobody(confined: tuple[dict[str, Any], int]) -> None:
    found, pid = confined
    limits = Path(f"/proc/{pid}/limits").read_text().splitlines()
    assert next(line.split()[-3:-1] for line in limits if line.startswith("Max core")) == ["0", "0"]
    if os.geteuid() == 0:
        assert found["found"]["uid"] == [65534, 65534, 65534]
        status = dict(line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
        assert status["Groups"].strip() == ""
        assert int(status["CapEff"], 16) == 0
        assert status["NoNewPrivs"] == "1"
        assert status["Seccomp"] == "2"


def test_it_has_no_descriptor_and_no_folder_of_its_keepers(confined: tuple[dict[str, Any], int]) -> None:
    if os.geteuid() != 0:
        pytest.skip("a bundle can't be looked into but by root")
    targets = {os.readlink(entry) for entry in Path(f"/proc/{confined[1]}/fd").iterdir()}
    kinds = {target.partition(":")[0] for target in targets}
    assert kinds <= {"/dev/null", "socket", "anon_inode"}
    assert os.readlink(f"/proc/{confined[1]}/cwd") == "/"


def test_it_is_out_of_reach_of_the_terminals_ctrl_c(confined: tuple[dict[str, Any], int]) -> None:
    pid = confined[1]
    assert os.getsid(pid) == pid
    assert os.getpgid(pid) == pid


def test_without_a_filter_for_the_machine_there_is_no_bundle(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(confine, "filter_name", lambda machine, kind: "none.bpf")
    with pytest.raises(confine.HostError, match="no seccomp filter"):
        confine.load_filter()


def test_a_filter_that_the_kernel_refuses_stops_the_bundle() -> None:
    code = "from bot_bottle.bundle import confine; confine.confine(bytes(8))"
    done = subprocess.run([sys.executable, "-c", code], env={"PYTHONPATH": str(SOURCE)}, capture_output=True)
    assert b"OSError: [Errno 22] prctl 22" in done.stderr


# The filters in the package are those that the tool makes. Compared by what they decide: another libseccomp may order the
# same rules differently.


def decide(program: bytes, number: int, architecture: int, arguments: tuple[int, ...]) -> int:
    """What the classic BPF `program` returns for one system call."""
    data = struct.pack("<iIQ6Q", number, architecture, 0, *(arguments + (0,) * 6)[:6])
    code = list(struct.iter_unpack("<HBBI", program))
    accumulator = at = 0
    while True:
        operation, jump_true, jump_false, k = code[at]
        at += 1
        if operation == 0x20:
            (accumulator,) = struct.unpack_from("<I", data, k)
        elif operation == 0x54:
            accumulator &= k
        elif operation == 0x05:
            at += k
        elif operation in (0x15, 0x25, 0x35):
            holds = {0x15: accumulator == k, 0x25: accumulator > k, 0x35: accumulator >= k}[operation]
            at += jump_true if holds else jump_false
        else:
            assert operation == 0x06, hex(operation)
            return k


ARGUMENTS = [(), (1,), (2, 1), (2, 2), (2, 3), (10, 1), (0, 1, 1), (0, 0x541B), (0, 0x5421), (0, 1, 4), (0, 1, 3),
             (0, 0o100), (0, 0, 0o100), (0, 0, 0o1000), (0, 0, 0o2), (0x3D0F00,), (17,), (15,), (0x53564D41,), (4, 0)]  # fmt: skip


@pytest.mark.parametrize("kind", ["bundle", "supervise"])
@pytest.mark.parametrize(("machine", "architecture"), [("x86_64", 0xC000003E), ("aarch64", 0xC00000B7)])
def test_the_filters_are_those_that_the_tool_makes(machine: str, architecture: int, kind: str) -> None:
    pytest.importorskip("pyseccomp", reason="pyseccomp or libseccomp is not installed", exc_type=Exception)
    spec = importlib.util.spec_from_file_location("make_filters", TOOL)
    assert spec
    assert spec.loader
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    made = tool.make_filter(machine, kind)
    kept = Path(confine.__file__).with_name(confine.filter_name(machine, kind)).read_bytes()
    for number in (*range(600), 0x40000000 + 59):
        for arguments in ARGUMENTS:
            assert decide(made, number, architecture, arguments) == decide(
                kept, number, architecture, arguments
            )
    for foreign in (0x40000003, 0xC000003E, 0xC00000B7):
        if foreign != architecture:
            assert decide(kept, 0, foreign, ()) in (0, 0x80000000)
