"""Gitleaks, the real program, on pieces of what was pushed: with its own rules, and with nothing of the agent's that could tell
it to look away.

A repository can tell gitleaks to pass things over: by names (lock files, pictures, `vendor/`), by a comment (`gitleaks:allow`), by
`.gitleaks.toml` and `.gitleaksignore`, and by a content that begins as a program or an archive does. So it is never given the
repository: it gets pieces under names of ours, each behind lines that hide how the content begins, and none so long that it would
be cut where a secret stands. What is packed is unpacked before (`unpacking`).
"""

import os
import random
import re
import shutil
import string
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any, NamedTuple

from bot_bottle.bundle.gitgate.gitleaks_run import Broken, Run
from bot_bottle.bundle.gitgate.model import CheckFailed
from bot_bottle.bundle.gitgate.objects import Content

MODULE = "github.com/zricethezav/gitleaks/v8"
VERSION = "v8.30.1"
MINIMUM = (8, 24)
INSTALL = f"Install it with Go, and put it on PATH: go install {MODULE}@{VERSION}"
PIECE, OVERLAP = 24_000, 6_000
"""Bytes of one piece; two have so many in common that a secret is whole in one of them."""
_BEHIND = b"\n" * 520
"""What it takes for binary it passes over; that is decided by bytes up to the 514th, and once, for disk images, by some beyond
the whole piece."""
_BATCH_BYTES, _BATCH_FILES = 24 << 20, 4000
_SUFFIXES = ((".php", ".php"), (".tf", ".tf"), (".hcl", ".tf"), (".yml", ".yml"), (".yaml", ".yml"),
             ("nuget.config", "nuget.config"), (".p12", ".p12"), (".pfx", ".p12"))  # fmt: skip
"""Names on which some of its rules depend; of no other name anything is told."""
_LETTERS = string.ascii_letters + string.digits
_UNTOLD = 60.0


class Leak(NamedTuple):
    """One thing that it found: `key` is what was given with the piece, `line` counts from 1 in the whole text."""

    key: int
    rule: str
    line: int
    secret: str

    def __repr__(self) -> str:
        return f"Leak({self.key}, {self.rule!r}, {self.line}, <secret>)"


def installed() -> str | None:
    """Where gitleaks is on PATH."""
    return shutil.which("gitleaks")


def find() -> str:
    """The same. Raises CheckFailed, which says how to get it."""
    path = installed()
    if path is None:
        raise CheckFailed("gitleaks is not installed where the bottle runs, and nothing is pushed unchecked")
    return path


def version(path: str) -> tuple[str, bool]:
    """What it says of its version, and whether that is new enough; one that `go install` built says nothing."""
    try:
        done = subprocess.run(
            [path, "version"], env={}, stdin=subprocess.DEVNULL, capture_output=True, timeout=20, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise CheckFailed(f"{path} does not run") from error
    said = done.stdout.decode(errors="replace").strip()[:60]
    found = re.match(r"v?([0-9]+)\.([0-9]+)", said)
    return said, done.returncode == 0 and (found is None or (int(found[1]), int(found[2])) >= MINIMUM)


class Gitleaks:
    """Takes texts piece by piece, and looks at them in batches. As `with Gitleaks(program) as into:`.

    Reading its rules takes it longer than a small push does. So it is begun with this, and waits for the first batch before it
    looks for any. Whether it has looked at a batch is seen by a made-up token in it, which it has to find.
    """

    left: Callable[[], float]
    """Says how many seconds there are; it raises when there are none."""

    def __init__(self, program: str) -> None:
        self._program = program
        self.left = lambda: _UNTOLD
        self._waiting: list[tuple[int, int]] = []
        self._bytes = 0
        self._folder = ""
        self._begun: Run | None = None

    def __enter__(self) -> "Gitleaks":
        self._folder = tempfile.mkdtemp(prefix="leaks-")
        try:
            os.mkdir(f"{self._folder}/filling")
            self._begun = Run(self._program, self._folder, waits=True)
        except BaseException:
            shutil.rmtree(self._folder, ignore_errors=True)
            raise
        return self

    def __exit__(self, *_: object) -> None:
        if self._begun is not None:
            self._begun.end()
        shutil.rmtree(self._folder, ignore_errors=True)

    def add(self, key: int, data: Content, *, name: str = "") -> Iterator[Leak]:
        """Takes a text in; what was found in this and earlier ones, when a batch is full."""
        suffix = next((ours for end, ours in _SUFFIXES if name.lower().endswith(end)), "")
        lines = at = 0
        while True:
            piece = data[at : at + PIECE]
            self._write(f"{len(self._waiting)}{'-' if suffix else ''}{suffix}", piece)
            self._waiting.append((key, lines - len(_BEHIND)))
            self._bytes += len(piece)
            if len(self._waiting) >= _BATCH_FILES or self._bytes >= _BATCH_BYTES:
                yield from self.look()
            if at + PIECE >= len(data):
                return
            lines += piece.count(b"\n", 0, PIECE - OVERLAP)
            at += PIECE - OVERLAP

    def _write(self, name: str, piece: bytes) -> None:
        with open(f"{self._folder}/filling/{name}", "wb") as file:
            file.write(_BEHIND + piece)

    def look(self) -> Iterator[Leak]:
        """What is found in the texts that wait. Raises CheckFailed."""
        if not self._waiting:
            return
        waiting, self._waiting, self._bytes = self._waiting, [], 0
        token = "gh" + "p_" + "".join(random.sample(_LETTERS, 36))
        self._write(str(len(waiting)), token.encode())
        os.rename(f"{self._folder}/filling", f"{self._folder}/pieces")
        found = []
        for item in self._run(token):
            number = int(re.split(r"[-.]", os.path.basename(str(item["File"])))[0])
            if number == len(waiting):
                continue
            key, before = waiting[number]
            found.append(
                Leak(key, str(item["RuleID"]), max(0, int(item["StartLine"]) + before), str(item["Secret"]))
            )
        shutil.rmtree(f"{self._folder}/pieces")
        os.mkdir(f"{self._folder}/filling")
        yield from found

    def _run(self, token: str) -> list[dict[str, Any]]:
        """All that it finds in the batch, `token` among it. Raises CheckFailed.

        One that did not wait, because it is a version that does not, has found nothing, and another is begun.
        """
        begun, self._begun = self._begun, None
        if begun is not None:
            with suppress(Broken):
                return begun.found(token, self.left)
        return Run(self._program, self._folder, waits=False).found(token, self.left)
