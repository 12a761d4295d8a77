"""Starting the host's own programs (git, npm, tar …) and hearing what they said.

Argument lists only, the environment always given whole, no shell, no inherited descriptor. What runs inside a bottle is not
started here but by its backend.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager

from bot_bottle.errors import HostError
from bot_bottle.typed import IO, Any, NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pathlib import Path


class Finished(NamedTuple):
    """A program that ran to its end: that it failed is a result, not an exception."""

    argv: tuple[str, ...]
    code: int
    stdout: bytes
    stderr: bytes

    @property
    def said(self) -> str:
        """What it said about itself: stderr, else stdout; stripped, the last 2,000 characters."""
        return (self.stderr.strip() or self.stdout.strip()).decode(errors="replace")[-2000:]

    def or_raise(self, brief: str, *, resolution: str = "") -> "Finished":
        """Itself when the code is 0; else raises HostError with the command to paste and what it said."""
        if self.code:
            details = f"{display(self.argv)}: exit code {self.code}\n{self.said}"
            raise HostError(brief, details=details, resolution=resolution)
        return self


def display(argv: Sequence[str]) -> str:
    """`argv` as a person would paste it. Secrets never stand on a command line, so nothing is left out."""
    import shlex

    return shlex.join(argv)


def base_environment() -> dict[str, str]:
    """The environment for the host's programs: PATH, HOME, locale and certificates of ours, and nothing else."""
    kept = ("PATH", "HOME", "TMPDIR", "SSL_CERT_FILE", "SSL_CERT_DIR", "NODE_EXTRA_CA_CERTS")
    environment = {name: os.environ[name] for name in kept if name in os.environ}
    return {"PATH": os.defpath, **environment, "LANG": "C.UTF-8", "LC_ALL": "C.UTF-8"}


def run(
    argv: Sequence[str],
    *,
    env: Mapping[str, str] | None = None,
    cwd: "str | Path | None" = None,
    stdin: bytes | IO[bytes] = b"",
    timeout: float | None = None,
) -> Finished:
    """Runs `argv` to its end with `env` (default: `base_environment()`), at most `timeout` seconds. `stdin` may be an open file.

    Raises HostError when it can't be started or takes longer; it is killed then.
    """
    import subprocess

    given: dict[str, Any] = {"input": stdin} if isinstance(stdin, bytes) else {"stdin": stdin}
    try:
        done = subprocess.run(
            list(argv),
            env=dict(base_environment() if env is None else env),
            cwd=cwd,
            capture_output=True,
            timeout=timeout,
            check=False,
            **given,
        )
    except FileNotFoundError as error:
        raise HostError(f"{argv[0]} was not found", details=str(error)) from error
    except OSError as error:
        raise HostError(f"{argv[0]} could not be started", details=str(error)) from error
    except subprocess.TimeoutExpired as error:
        raise HostError(f"{argv[0]} took longer than {timeout:.0f} s", details=display(argv)) from error
    return Finished(tuple(argv), done.returncode, done.stdout, done.stderr)


class Begun:
    """A program that runs beside us until `finish`; what it says is kept until then."""

    def __init__(self, argv: Sequence[str], *, env: Mapping[str, str], cwd: str) -> None:
        """Raises HostError when it can't be started."""
        import subprocess

        self._argv = tuple(argv)
        with ExitStack() as files:
            out, err = (files.enter_context(os.fdopen(os.memfd_create("said"), "w+b")) for _ in range(2))
            try:
                self._child = subprocess.Popen(
                    list(argv), env=dict(env), cwd=cwd, stdin=subprocess.DEVNULL, stdout=out, stderr=err
                )
            except OSError as error:
                raise HostError(f"{argv[0]} could not be started", details=str(error)) from error
            self.pid = self._child.pid
            self._said = out, err
            self._files = files.pop_all()

    def finish(self, timeout: float) -> Finished:
        """Waits for its end, at most `timeout` seconds. Raises HostError when it takes longer; it is killed then."""
        import subprocess

        try:
            code = self._child.wait(timeout)
        except subprocess.TimeoutExpired as error:
            self.drop()
            raise HostError(
                f"{self._argv[0]} took longer than {timeout:.0f} s", details=display(self._argv)
            ) from error
        said = []
        for file in self._said:
            file.seek(0)
            said.append(file.read())
        self._files.close()
        return Finished(self._argv, code, said[0], said[1])

    def drop(self) -> None:
        """Kills it unless it has ended. Idempotent."""
        if self._child.poll() is None:
            self._child.kill()
            self._child.wait()
        self._files.close()


@contextmanager
def background(argv: Sequence[str], *, env: Mapping[str, str] | None = None) -> Iterator[IO[bytes]]:
    """Runs `argv` beside us while the block lasts, and yields its standard output.

    Its standard input is a pipe that nothing is written to: it ends when the block or we do, so a program
    that stops at the end of its input outlives nobody. Raises HostError when it can't be started.
    """
    import subprocess

    try:
        child = subprocess.Popen(
            list(argv),
            env=dict(base_environment() if env is None else env),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
    except OSError as error:
        raise HostError(f"{argv[0]} could not be started", details=str(error)) from error
    with child:
        try:
            assert child.stdout is not None
            yield child.stdout
        finally:
            child.terminate()
