"""One running pipelock: started confined, proven, told its policy, heard, ended. Whoever made it keeps it: it dies with them.

It reads its config folder, `/usr`, what resolving names and checking certificates needs, and nothing else (Landlock); it writes no
file, has no variable of ours, no privilege, and under root a user of its own. It may open connections: that is what it is for.
"""

import fcntl
import os
import resource
import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from typing import NamedTuple

from bot_bottle.bundle import landlock
from bot_bottle.bundle.record import clean
from bot_bottle.engines.pipelock import config, log, probe
from bot_bottle.errors import HostError, SandboxError
from bot_bottle.host import kernel, spawn
from bot_bottle.policy.model import EgressPolicy

CONFIG = "pipelock.yaml"
READY_WITHIN = 20.0
APPLY_WITHIN = 10.0
"""Seconds; on an idle machine each takes a tenth of one."""

_MOUNTED = "/mnt"
"""Where root's pipelock sees its config, in a mount namespace of its own: the way to the run's folder is closed to it."""
_MS_BIND = 4096
_PROGRAMS = ("/usr", "/lib", "/lib64", "/bin")
_NEEDED = ("/dev/null", "/dev/urandom", "/sys/kernel/mm/transparent_hugepage")
_FILES_AT_ONCE = 8192
_ERRORS, _LAST_WORDS = 64 * 1024, 4096
_PAUSE = 0.01


class Settings(NamedTuple):
    """How one is run. `folder` is its own, made by it; `uid` and `gid` are taken on when root starts it."""

    program: str
    folder: str
    uid: int
    gid: int
    trusted: tuple[str, ...] = ()
    """Names that may have private addresses: for measuring, never for a bottle."""


class Pipelock:
    """`start` it, `wait_ready`, then `read` what it says and `apply` new policies; `stop` in the end. `port` stays the same."""

    def __init__(self, settings: Settings, policy: EgressPolicy) -> None:
        self.settings = settings
        self.port = probe.free_port()
        self._policy = policy
        self.config = b""
        """The file's bytes."""
        self._child: spawn.Child | None = None
        self._output = -1
        self._errors = -1
        self._buffer = b""
        self._lines: list[log.Line] = []
        self._overlong = False
        self.unreadable = 0
        """Lines that were not pipelock's, since it was last set to 0."""

    # Its life

    def start(self) -> None:
        """Starts it with the policy that was applied last. Raises SandboxError."""
        os.makedirs(self.settings.folder, mode=0o755, exist_ok=True)
        os.chmod(self.settings.folder, 0o755)  # noqa: S103 - its parent is closed; under root another user reads it
        self._write(self._rendered(self._policy))
        with ExitStack() as ours:
            nothing = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
            ours.callback(os.close, nothing)
            self._output, out = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
            ours.callback(os.close, out)
            os.set_blocking(out, True)
            self._errors = _bounded_file()
            try:
                self._child = self._spawn((nothing, out, self._errors))
            except (spawn.ChildFailed, OSError) as error:
                self._close_pipes()
                raise SandboxError("Pipelock could not be started", details=str(error)) from error

    def wait_ready(self) -> None:
        """Until it runs with our config, listens, and has been seen to refuse and to say so. Raises SandboxError, HostError."""
        deadline = time.monotonic() + READY_WITHIN
        wanted = config.fingerprint(self.config)
        begun = self._hear(lambda line: log.startup(line) is not None, deadline, "say that it starts")
        if log.startup(begun) != wanted:
            raise SandboxError(
                "Pipelock started with another config than ours", details=log.startup(begun) or ""
            )
        while not probe.accepts(self.port):
            self._check_alive()
            if time.monotonic() > deadline:
                raise SandboxError("Pipelock did not listen in time", details=self._last_words())
            time.sleep(_PAUSE)
        probe.check_owner(self.port, probe.own_uid(self.settings.uid))
        probe.check_refusals(self.port)
        for _ in range(probe.REFUSALS):
            self._hear(_is_probed, deadline, "record what it refused")
        self._lines = [line for line in self._lines if not _is_probed(line)]

    def stop(self) -> None:
        """Ends it at once. Idempotent."""
        if self._child is not None:
            self._child.kill()
            self._child.wait()
            self._child.close()
            self._child = None
        self._close_pipes()

    def fileno(self) -> int:
        """Its log: readable when there is something to `read`, or when it has ended."""
        return self._output

    @property
    def pid(self) -> int:
        return self._child.pid if self._child else 0

    # What it says

    def read(self) -> list[log.Line] | None:
        """The lines that have come; None when it has ended and everything was read."""
        ended = not self._fill()
        lines, self._lines = self._lines, []
        return lines or (None if ended else [])

    # Its policy

    def apply(self, policy: EgressPolicy) -> None:
        """Makes it enforce `policy`, and returns when it has said so of exactly these bytes.

        Raises SandboxError when it doesn't: then it enforces what it did before, or is ended when even that is not certain.
        """
        before = self.config
        wanted = self._rendered(policy)
        if wanted == before:
            self._policy = policy
            return
        try:
            self._swap(wanted)
        except SandboxError as refused:
            try:
                self._swap(before)
            except SandboxError as error:
                self.stop()
                raise SandboxError(
                    "Pipelock took neither the new policy nor the old one, and was ended",
                    details=f"{refused}\n{error}",
                ) from error
            raise
        self._policy = policy

    def _swap(self, wanted: bytes) -> None:
        self._check_alive()
        self._fill()
        self._lines = [line for line in self._lines if log.reload(line) is None]  # of earlier configs
        self._write(wanted)
        digest = config.fingerprint(wanted)
        deadline = time.monotonic() + APPLY_WITHIN

        def answers(line: log.Line) -> bool:
            said = log.reload(line)
            return said is not None and (said.digest == digest or not said.taken)

        said = log.reload(self._hear(answers, deadline, "take a new config"))
        if said is None or not said.taken:
            raise SandboxError("Pipelock refused a new config", details=said.said if said else "")

    def _rendered(self, policy: EgressPolicy) -> bytes:
        return config.render(policy, port=self.port, trusted=self.settings.trusted)

    def _write(self, content: bytes) -> None:
        """In one step, so that it never reads half of it."""
        path = os.path.join(self.settings.folder, CONFIG)
        descriptor = os.open(f"{path}.new", os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
        with open(descriptor, "wb") as file:
            os.fchmod(descriptor, 0o644)
            file.write(content)
        os.replace(f"{path}.new", path)
        self.config = content

    # Below

    def _hear(self, wanted: Callable[[log.Line], bool], deadline: float, what: str) -> log.Line:
        """The first line that is `wanted`, taken out of those that wait to be read. Raises SandboxError."""
        while True:
            for line in self._lines:
                if wanted(line):
                    self._lines.remove(line)
                    return line
            left = deadline - time.monotonic()
            if left <= 0 or not spawn.readable(self._output, left):
                raise SandboxError(f"Pipelock did not {what} in time", details=self._last_words())
            if not self._fill():
                raise SandboxError("Pipelock ended", details=self._last_words())

    def _fill(self) -> bool:
        """Takes what has come; False at the end."""
        while self._output >= 0:
            try:
                data = os.read(self._output, 65536)
            except BlockingIOError:
                return True
            if not data:
                return False
            self._take(data)
        return False

    def _take(self, data: bytes) -> None:
        *lines, self._buffer = (self._buffer + data).split(b"\n")
        for line in lines:
            if self._overlong:
                self._overlong = False
                continue
            try:
                self._lines.append(log.parse(line))
            except log.BadLine:
                self.unreadable += 1
        if len(self._buffer) > log.LONGEST:
            self.unreadable += not self._overlong
            self._overlong, self._buffer = True, b""

    def _check_alive(self) -> None:
        if self._child is None or self._child.poll() is not None:
            raise SandboxError("Pipelock ended", details=self._last_words())

    def _last_words(self) -> str:
        """The end of what it wrote to standard error, as text that can be shown."""
        said = os.pread(self._errors, _ERRORS, 0).rstrip(b"\0") if self._errors >= 0 else b""
        lines = said[-_LAST_WORDS:].decode(errors="replace").strip().split("\n")
        return "\n".join(clean(line, _LAST_WORDS) for line in lines)

    def _close_pipes(self) -> None:
        for descriptor in (self._output, self._errors):
            if descriptor >= 0:
                os.close(descriptor)
        self._output = self._errors = -1

    def _spawn(self, standard: tuple[int, int, int]) -> spawn.Child:
        settings, as_root = self.settings, os.geteuid() == 0
        place = _MOUNTED if as_root else settings.folder
        argv = ("pipelock", "run", "--config", f"{place}/{CONFIG}")
        steps = [spawn.Step("streams", partial(spawn.set_standard, *standard))]
        if as_root:
            steps.append(spawn.Step("mount", partial(_show, settings.folder, place)))
        steps += [
            spawn.Step("folder", partial(os.chdir, "/")),
            spawn.Step("limits", _limit),
            spawn.Step("privileges", kernel.forbid_new_privileges),
            spawn.Step("landlock", partial(_restrict, place, settings.program, self.port)),
        ]
        if as_root:
            if not settings.uid or not settings.gid:
                raise HostError("Pipelock was to run as root")
            steps.append(spawn.Step("user", partial(spawn.become, settings.uid, settings.gid)))
        with ExitStack() as held:
            executable: str | int = settings.program
            if as_root and not _everybody_reaches(settings.program):
                executable = os.open(settings.program, os.O_RDONLY | os.O_CLOEXEC)
                held.callback(os.close, executable)
            opened = (executable,) if isinstance(executable, int) else ()
            environment = {"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8", "HOME": "/nonexistent"}
            return spawn.start(
                steps,
                spawn.Program(executable, argv, environment),
                keep=(),
                for_steps=(*standard, *opened),
            )


def _bounded_file() -> int:
    """A file in memory that takes so much and no more: nobody has to read it, and it can't grow."""
    descriptor = os.memfd_create("errors", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.ftruncate(descriptor, _ERRORS)
    fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK)
    return descriptor


def _show(folder: str, place: str) -> None:
    kernel.unshare(kernel.CLONE_NEWNS)
    kernel.mount("none", "/", "", kernel.MS_REC_PRIVATE)
    kernel.mount(folder, place, "", _MS_BIND)


def _limit() -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    most = _FILES_AT_ONCE if hard == resource.RLIM_INFINITY else min(_FILES_AT_ONCE, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def _restrict(place: str, program: str, port: int) -> None:
    landlock.restrict((*landlock.READABLE, *_NEEDED, place), executable=(*_PROGRAMS, program), port=port)


def _everybody_reaches(path: str) -> bool:
    places: list[str] = [path]
    while places[-1] != "/":
        places.append(os.path.dirname(places[-1]))
    return all(os.stat(place).st_mode & 0o001 for place in places)


def _is_probed(line: log.Line) -> bool:
    return line.event == "blocked" and log.where(line)["host"] == probe.HOST
