"""Starting a process by fork and exec, as an ordered list of small steps; and holding what was started.

For processes that must not outlive the one that started them, and that change who they are on the way (mounts, users,
namespaces). The caller has one thread. Whatever the caller's death, the child is dead or has not begun: it asks for
SIGKILL at its parent's end before anything else, and looks whether the parent is still there.
"""

import contextlib
import errno
import fcntl
import gc
import os
import select
import signal
import sys
import termios
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from functools import partial

from bot_bottle.host import kernel
from bot_bottle.typed import NamedTuple

_EVERY_SIGNAL = signal.valid_signals()

Say = Callable[[bytes], None]
"""How a forked child tells its parent something."""

Body = Callable[[Say], None]
"""What a forked child does."""


class Step(NamedTuple):
    """One thing that a child does to itself before its program: what to call it in an error, and how it is done."""

    what: str
    do: Callable[[], object]


class Program(NamedTuple):
    """What a child becomes: `executable` is a path, or an open descriptor of the file."""

    executable: str | int
    argv: Sequence[str]
    env: Mapping[str, str]


def nothing() -> None:
    """What there is to do where there is nothing."""


class ChildFailed(Exception):
    """A child could not do one of its steps, or not start its program."""

    def __init__(self, what: str, number: int, said: str) -> None:
        super().__init__(f"{what}: {said}")
        self.what = what
        self.number = number
        self.said = said


class Child:
    """A child of this process, by its pidfd: can't be mistaken for another process. Keeps `backends.base.Process`."""

    _pidfd = -1

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._code: int | None = None
        self._pidfd = os.pidfd_open(pid)

    def fileno(self) -> int:
        return self._pidfd

    def poll(self) -> int | None:
        return self.wait(0)

    def wait(self, timeout: float | None = None) -> int | None:
        if self._code is None and self._pidfd >= 0 and readable(self._pidfd, timeout):
            try:
                result = os.waitid(os.P_PIDFD, self._pidfd, os.WEXITED)
            except ChildProcessError:  # reaped behind our back; how it ended can't be known any more
                self._code = 255
            else:
                assert result is not None
                exited = result.si_code == os.CLD_EXITED
                self._code = result.si_status if exited else 128 + result.si_status
        return self._code

    def signal(self, number: int) -> None:
        """Sends `number` to the child's process group, whose id can't be used again before the child is reaped."""
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, number)

    def kill(self) -> None:
        """Ends the child alone, at once."""
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)

    def close(self) -> None:
        """Gives up the descriptor. A code that was heard stays; a child that still runs is not waited for any more."""
        if self._pidfd >= 0:
            os.close(self._pidfd)
            self._pidfd = -1

    def __del__(self) -> None:
        self.close()  # as a file does; weakref.finalize would take a millisecond to import


def readable(descriptor: int, timeout: float | None) -> bool:
    """Whether `descriptor` can be read (or has ended) within `timeout` seconds."""
    return _ready(descriptor, select.POLLIN, timeout)


def writable(descriptor: int, timeout: float | None) -> bool:
    """Whether `descriptor` can be written (or nobody reads it any more) within `timeout` seconds."""
    return _ready(descriptor, select.POLLOUT, timeout)


def _ready(descriptor: int, event: int, timeout: float | None) -> bool:
    waiting = select.poll()
    waiting.register(descriptor, event)
    return bool(waiting.poll(None if timeout is None else max(0, timeout * 1000)))


def start(
    steps: Sequence[Step],
    program: Program,
    *,
    keep: Collection[int],
    for_steps: Collection[int] = (),
    meanwhile: Callable[[], object] = nothing,
) -> Child:
    """A child that does `steps` and becomes `program`, with the descriptors 0, 1, 2 and `keep` open, and no other.

    `for_steps` are open until then. `meanwhile` is done while the child does its steps. Raises ChildFailed when a step or the
    program's start failed, and what `meanwhile` raises; the child is gone then.
    """

    def body(_: Say) -> None:
        for step in steps:
            perform(step)
        for descriptor in (*keep, *for_steps):
            os.set_inheritable(descriptor, descriptor in keep)
        become_program = partial(os.execve, program.executable, list(program.argv), program.env)
        perform(Step(f"execute {program.argv[0]}", become_program))

    pid, report = fork(body, keep=(*keep, *for_steps))
    child = Child(pid)
    try:
        meanwhile()
        for _ in hear(report):
            pass
    except BaseException:
        child.kill()
        child.wait()
        child.close()
        raise
    finally:
        os.close(report)
    return child


def fork(
    body: Body, *, keep: Collection[int], namespaces: int = 0, outlives: bool = False
) -> tuple[int, int]:
    """Forks a child that runs `body(say)` and ends; answers its pid and the descriptor where what it says arrives.

    `namespaces` (CLONE_NEW…) are the child's own from its beginning. It has 0, 1, 2 and `keep` open; its signals are at
    their defaults; its memory can't be read. It dies with its parent unless it `outlives` it.
    """
    kernel.libc()
    parent = os.getpid()
    reader, writer = os.pipe()
    before = signal.pthread_sigmask(signal.SIG_SETMASK, _EVERY_SIGNAL)
    try:
        pid = kernel.fork(namespaces) if namespaces else os.fork()
        if pid == 0:
            _be_child(body, parent=None if outlives else parent, report=writer, keep=keep)
    except OSError:
        os.close(reader)
        raise
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        os.close(writer)
    return pid, reader


def _be_child(body: Body, *, parent: int | None, report: int, keep: Collection[int]) -> None:
    """The whole life of a forked child; never returns."""

    def say(message: bytes) -> None:
        os.write(report, message.replace(b"\n", b" ") + b"\n")

    code = 1
    gc.disable()  # a collection would copy every page of the parent's objects
    try:
        if parent is not None:
            kernel.die_with_parent()
            if os.getppid() != parent:
                os._exit(code)
        kernel.hide_memory()
        reset_signals()
        close_all_but({0, 1, 2, report, *keep})
        body(say)
        code = 0
    except ChildFailed as failed:
        say(f"!{failed.number}\0{failed.what}\0{failed.said}".encode())
    except BaseException as error:  # noqa: BLE001 - the boundary of a process; nothing may run on into the parent's code
        number = error.errno if isinstance(error, OSError) and error.errno else 0
        say(f"!{number}\0child\0{type(error).__name__}: {error}".encode())
    finally:
        os._exit(code)


def hear(report: int, patience: float | None = None) -> Iterator[bytes]:
    """Each message of a child, until it ended. Raises ChildFailed when one tells of a failure, or it is silent for long."""
    heard = b""
    while True:
        message, whole, rest = heard.partition(b"\n")
        if not whole:
            if not readable(report, patience):
                raise ChildFailed("wait", errno.ETIMEDOUT, f"it said nothing for {patience} s")
            part = os.read(report, 4096)
            if not part:
                return
            heard += part
            continue
        heard = rest
        if message.startswith(b"!"):
            number, what, said = message[1:].decode(errors="replace").split("\0", 2)
            raise ChildFailed(what, int(number), said)
        yield message


def perform(step: Step) -> None:
    """Does one step. Raises ChildFailed with its name."""
    try:
        step.do()
    except OSError as error:
        raise ChildFailed(step.what, error.errno or 0, error.strerror or str(error)) from error


def reset_signals() -> None:
    """Default dispositions and nothing blocked: neither Python's handlers nor its ignored SIGPIPE reach a program."""
    kernel.default_signals()
    signal.set_wakeup_fd(-1)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def close_all_but(kept: Iterable[int]) -> None:
    """Closes every descriptor that is not in `kept`, also those that the C library or the caller's parent left open."""
    start = 0
    for descriptor in sorted(set(kept)):
        if start < descriptor:  # Python takes an empty range from 0 for the whole
            os.closerange(start, descriptor)
        start = descriptor + 1
    os.closerange(start, 2**31 - 1)


def set_standard(stdin: int, stdout: int, stderr: int) -> None:
    """Makes the three descriptors 0, 1 and 2, whatever numbers they had."""
    high = [fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, 100) for descriptor in (stdin, stdout, stderr)]
    for number, descriptor in enumerate(high):
        os.dup2(descriptor, number, inheritable=True)
        os.close(descriptor)


def take_terminal() -> None:
    """Makes the terminal on descriptor 0 the controlling one of this session, with this group in the foreground."""
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


def become(uid: int, gid: int) -> None:
    """Gives up root for good; asks again for SIGKILL at the parent's end, since changing user forgets that."""
    parent = os.getppid()
    os.setgroups([])
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, uid)
    kernel.die_with_parent()
    if os.getppid() != parent:
        raise OSError(errno.ESRCH, "the process that started this one has ended")
    kernel.hide_memory()


def forget_imports() -> None:
    """From here on no module is loaded: what this process sees of the file system may be somebody else's."""
    sys.path[:] = []
    sys.meta_path[:] = []
    sys.path_hooks[:] = []
