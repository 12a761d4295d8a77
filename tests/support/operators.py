"""Operators that die: `bot-bottle` commands, each in a process of its own that kills itself at a given call of a function of ours.

`python -m support.operators` (with the tests' folder on the path) reads a line of JSON for each command, and answers with one: so
that hundreds of them do not each wait for an interpreter to begin. What is run is the program's own entry.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from support.place import Place, python

TESTS = Path(__file__).resolve().parents[1]


class Ended(NamedTuple):
    """How a command ended; `calls` is how many calls of ours it made, if it lived to count them."""

    code: int
    stdout: str
    stderr: str
    calls: int

    @property
    def killed(self) -> bool:
        return self.code == -signal.SIGKILL


class Operators:
    """The commands of one place's user."""

    def __init__(self, place: Place) -> None:
        self._process = subprocess.Popen(
            place.argv([*python(), "-m", "support.operators"]),
            env={**place.environment, "PYTHONPATH": str(TESTS)}, cwd=place.home,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip

    def run(self, *words: str, dies_at: int = 0) -> Ended:
        """Runs `bot-bottle WORDS`; with `dies_at`, it kills itself at that call."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps({"argv": words, "dies_at": dies_at}) + "\n")
        self._process.stdin.flush()
        return Ended(**json.loads(self._process.stdout.readline()))

    def json(self, *words: str) -> Any:
        """What a command that lives says."""
        done = self.run(*words, "--json")
        assert done.stdout, done
        return json.loads(done.stdout)

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(20)
        assert self._process.stdout is not None
        self._process.stdout.close()


def _live(argv: list[str], dies_at: int, counted: int) -> None:
    """The forked side: the program, counting."""
    from bot_bottle.cli.main import entry

    calls = 0

    def count(frame: Any, event: str, _: object) -> None:
        nonlocal calls
        if event == "call" and "/bot_bottle/" in frame.f_code.co_filename:
            calls += 1
            if calls == dies_at:
                os.kill(os.getpid(), signal.SIGKILL)

    leave = os._exit

    def counted_exit(code: int) -> NoReturn:
        sys.setprofile(None)
        os.write(counted, str(calls).encode())
        leave(code)

    os._exit = counted_exit  # type: ignore[assignment] # the program's last call
    code = 70
    try:
        sys.argv = ["bot-bottle", *argv]
        threading.setprofile(count)
        sys.setprofile(count)
        entry()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    finally:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError):
                stream.flush()
        counted_exit(code)


def _serve() -> None:
    import bot_bottle.cli.commands.approvals
    import bot_bottle.operate.approvals  # noqa: F401

    for line in sys.stdin:
        order = json.loads(line)
        with tempfile.TemporaryDirectory() as folder:
            files = [os.path.join(folder, name) for name in ("stdout", "stderr", "calls")]
            pid = os.fork()
            if pid == 0:
                descriptors = [os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600) for file in files]
                nothing = os.open(os.devnull, os.O_RDONLY)
                for number, descriptor in enumerate((nothing, *descriptors[:2])):
                    os.dup2(descriptor, number)
                _live(order["argv"], order["dies_at"], descriptors[2])
            code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
            texts = [Path(file).read_text(errors="replace") for file in files]
        said = {"code": code, "stdout": texts[0], "stderr": texts[1], "calls": int(texts[2] or 0)}
        sys.stdout.write(json.dumps(said) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    _serve()
