"""A real terminal that a test can type into and read: tmux, on a socket of its own."""

import os
import pty
import select
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from support.waiting import wait_for


class Terminal:
    """One pane. `lines` is what a person sees in it."""

    def __init__(self, socket: Path, environment: Mapping[str, str]) -> None:
        self._tmux = ["tmux", "-S", str(socket), "-f", "/dev/null"]
        self._environment = dict(environment)

    def tmux(self, *words: str) -> str:
        """What that command of tmux says."""
        done = subprocess.run(
            [*self._tmux, *words], env=self._environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    @property
    def lines(self) -> list[str]:
        """The screen, without blanks at the ends of lines, and with blanks of one kind."""
        shown = self.tmux("capture-pane", "-p").replace("\N{NO-BREAK SPACE}", " ")
        return [line.rstrip() for line in shown.split("\n")[:-1]]

    @property
    def screen(self) -> str:
        """The screen."""
        return "\n".join(self.lines)

    def type(self, *keys: str) -> None:
        """Presses keys, by tmux's names."""
        self.tmux("send-keys", *keys)

    def ends(self) -> None:
        """Waits until the program has ended."""
        wait_for(lambda: self.tmux("display", "-p", "#{pane_dead}").strip() == "1", "its end", within=60.0)

    def sees(self, text: str) -> None:
        """Waits until `text` is on the screen."""
        try:
            wait_for(lambda: text in self.screen, repr(text), within=60.0)
        except AssertionError as error:
            raise AssertionError(f"{error}; the screen:\n{self.screen}") from None


@contextmanager
def terminal(folder: Path, argv: Sequence[str], *, size: tuple[int, int] = (80, 24)) -> Iterator[Terminal]:
    """`argv` in a terminal of that size; it is ended with the test. Skips where tmux is missing."""
    if shutil.which("tmux") is None:
        pytest.skip("tmux is not installed")
    whole = {**os.environ, "LC_ALL": "C.UTF-8", "TERM": "xterm-256color"}
    for name in ("COLUMNS", "LINES"):  # a runner's, which a program would believe more than its terminal
        whole.pop(name, None)
    pane = Terminal(folder / "tmux", whole)
    width, height = map(str, size)
    # Only once the pane is as large as it should be: a program that is just starting would miss that it grew.
    pane.tmux("new-session", "-d", "-x", width, "-y", height, "sleep", "600")
    for option, value in (("status", "off"), ("remain-on-exit", "on"), ("window-size", "manual")):
        pane.tmux("set", "-g", option, value)
    pane.tmux("resize-window", "-x", width, "-y", height)
    measure = ("display", "-p", "#{pane_width} #{pane_height}")
    wait_for(lambda: pane.tmux(*measure).split() == [width, height], "a terminal of that size")
    pane.tmux("respawn-pane", "-k", *argv)
    try:
        yield pane
    finally:
        pane.tmux("kill-server")


def shown_until(
    mark: bytes,
    argv: Sequence[str],
    environment: Mapping[str, str],
    *,
    ends_by: signal.Signals,
    cwd: str | Path = ".",
    within: float = 60.0,
) -> bytes:
    """What a program shows on a terminal until `mark` is on it, or the time is over; then it is ended by a signal."""
    child, terminal = pty.fork()
    if child == 0:
        os.chdir(cwd)
        os.execvpe(argv[0], [str(word) for word in argv], dict(environment))
    try:
        return _read_until(terminal, mark, within)
    finally:
        os.kill(child, ends_by)
        os.waitpid(child, 0)
        os.close(terminal)


def _read_until(terminal: int, mark: bytes, seconds: float) -> bytes:
    shown, deadline = b"", time.monotonic() + seconds
    while mark not in shown and time.monotonic() < deadline:
        if select.select([terminal], [], [], 0.5)[0]:
            try:
                shown += os.read(terminal, 65536)
            except OSError:
                break
    return shown
