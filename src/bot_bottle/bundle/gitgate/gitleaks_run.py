"""One run of gitleaks over a folder. It can be begun before the folder is there: it reads its rules meanwhile, and waits."""

import json
import os
import subprocess
from collections.abc import Callable
from contextlib import ExitStack, suppress
from typing import Any

from bot_bottle.bundle.gitgate.model import CheckFailed
from bot_bottle.bundle.gitgate.waiting import wait

_WORDS = ("--no-banner", "--no-color", "--log-level", "error", "--max-decode-depth", "3", "--ignore-gitleaks-allow",
          "--exit-code", "0", "--report-format", "json", "--report-path", "-")  # fmt: skip
_CONFIG = "[extend]\nuseDefault = true\n"
_MOST_SAID = 64 << 20


class Broken(CheckFailed):
    """It did not come to its end, or has not looked."""


class Run:
    """Over `folder/pieces`; everything else in `folder` is its own.

    What it reads last before it looks is the list of findings to leave out. While it waits that is a pipe that nobody writes to.
    """

    def __init__(self, program: str, folder: str, *, waits: bool) -> None:
        self._list = f"{folder}/none"
        self._pipe = ExitStack()
        with open(f"{folder}/config.toml", "w", encoding="ascii") as config:
            config.write(_CONFIG)
        argv = [program, "dir", f"{folder}/pieces", "--config", config.name, *_WORDS]
        argv += ["--gitleaks-ignore-path", self._list]
        environment = {"HOME": folder, "TMPDIR": folder, "GOMEMLIMIT": "512MiB", "LC_ALL": "C.UTF-8"}
        with ExitStack() as stack:
            if waits:
                os.mkfifo(self._list)
                pipe = os.open(self._list, os.O_RDWR | os.O_CLOEXEC)
                stack.enter_context(self._pipe).callback(os.close, pipe)
            self._said = stack.enter_context(open(os.memfd_create("found"), "w+b"))
            errors = stack.enter_context(open(os.memfd_create("errors"), "w+b"))
            try:
                self._process = subprocess.Popen(
                    argv,
                    env=environment,
                    cwd=folder,
                    stdin=subprocess.DEVNULL,
                    stdout=self._said,
                    stderr=errors,
                )
            except OSError as error:
                raise CheckFailed("gitleaks could not be started") from error
            self._held = stack.pop_all()

    def found(self, token: str, left: Callable[[], float]) -> list[dict[str, Any]]:
        """What it found, `token` among it. Raises CheckFailed; Broken where another run may do better."""
        try:
            self._go_on()
            code = wait(self._process, left())
            self._said.seek(0)
            text = self._said.read(_MOST_SAID + 1)
        except subprocess.TimeoutExpired as error:
            raise CheckFailed("gitleaks took too long") from error
        finally:
            self.end()
        found = None
        with suppress(ValueError):
            found = json.loads(text) if len(text) <= _MOST_SAID else None
        if code or not isinstance(found, list):
            raise Broken(f"gitleaks did not come to an end (exit code {code})")
        if not any(item["Secret"] == token for item in found):
            raise Broken("gitleaks has not found what was put there for it to find")
        return found

    def _go_on(self) -> None:
        """It reads an empty file from now on; or the pipe to its end, if it has opened that."""
        with open(f"{self._list}-at-all", "wb") as empty:
            os.rename(empty.name, self._list)
        self._pipe.close()

    def end(self) -> None:
        """It is gone. Idempotent."""
        self._process.kill()
        self._process.wait()
        self._held.close()
