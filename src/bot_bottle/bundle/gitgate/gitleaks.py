"""Gitleaks, the real program, on pieces of what was pushed: with its own rules, and with nothing of the agent's that could tell
it to look away.

A repository can tell gitleaks to pass things over: by names (lock files, pictures, `vendor/`), by a comment (`gitleaks:allow`), by
`.gitleaks.toml` and `.gitleaksignore`, and by a content that begins as a program or an archive does. So it is never given the
repository: it gets pieces under names of ours, each behind lines that hide how the content begins, and none so long that it would
be cut where a secret stands. What is packed is unpacked before (`unpacking`).
"""

import json
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

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
_CONFIG = "[extend]\nuseDefault = true\n"
_SUFFIXES = ((".php", ".php"), (".tf", ".tf"), (".hcl", ".tf"), (".yml", ".yml"), (".yaml", ".yml"),
             ("nuget.config", "nuget.config"), (".p12", ".p12"), (".pfx", ".p12"))  # fmt: skip
"""Names on which some of its rules depend; of no other name anything is told."""
_WORDS = ("--no-banner", "--no-color", "--log-level", "error", "--max-decode-depth", "3", "--ignore-gitleaks-allow",
          "--exit-code", "0",          "--report-format", "json", "--report-path", "-")  # fmt: skip
_MOST_SAID = 64 << 20


class Leak(NamedTuple):
    """One thing that it found: `key` is what was given with the piece, `line` counts from 1 in the whole text."""

    key: int
    rule: str
    line: int
    secret: str

    def __repr__(self) -> str:
        return f"Leak({self.key}, {self.rule!r}, {self.line}, <secret>)"


def find() -> str:
    """Where gitleaks is on PATH. Raises CheckFailed, which says how to get it."""
    path = shutil.which("gitleaks")
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
    """Takes texts piece by piece, and looks at them in batches. As `with Gitleaks(...) as into:`."""

    def __init__(self, program: str, left: Callable[[], float]) -> None:
        """`left` says how many seconds there are; it raises when there are none."""
        self._program = program
        self._left = left
        self._waiting: list[tuple[int, int]] = []
        self._bytes = 0
        self._folder = ""

    def __enter__(self) -> "Gitleaks":
        self._folder = tempfile.mkdtemp(prefix="leaks-")
        with open(f"{self._folder}/config.toml", "w", encoding="ascii") as config:
            config.write(_CONFIG)
        os.mkdir(f"{self._folder}/pieces")
        return self

    def __exit__(self, *_: object) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)

    def add(self, key: int, data: Content, *, name: str = "") -> Iterator[Leak]:
        """Takes a text in; what was found in this and earlier ones, when a batch is full."""
        suffix = next((ours for end, ours in _SUFFIXES if name.lower().endswith(end)), "")
        lines = at = 0
        while True:
            piece = data[at : at + PIECE]
            with open(
                f"{self._folder}/pieces/{len(self._waiting)}{'-' if suffix else ''}{suffix}", "wb"
            ) as file:
                file.write(_BEHIND + piece)
            self._waiting.append((key, lines - len(_BEHIND)))
            self._bytes += len(piece)
            if len(self._waiting) >= _BATCH_FILES or self._bytes >= _BATCH_BYTES:
                yield from self.look()
            if at + PIECE >= len(data):
                return
            lines += piece.count(b"\n", 0, PIECE - OVERLAP)
            at += PIECE - OVERLAP

    def look(self) -> Iterator[Leak]:
        """What is found in the texts that wait. Raises CheckFailed."""
        if not self._waiting:
            return
        found = self._run()
        waiting, self._waiting, self._bytes = self._waiting, [], 0
        pieces = f"{self._folder}/pieces"
        shutil.rmtree(pieces)
        os.mkdir(pieces)
        for item in found:
            number = int(re.split(r"[-.]", os.path.basename(str(item["File"])))[0])
            key, before = waiting[number]
            yield Leak(key, str(item["RuleID"]), max(0, int(item["StartLine"]) + before), str(item["Secret"]))

    def _run(self) -> list[dict[str, Any]]:
        argv = [
            self._program,
            "dir",
            f"{self._folder}/pieces",
            "--config",
            f"{self._folder}/config.toml",
            *_WORDS,
        ]
        argv += ["--gitleaks-ignore-path", f"{self._folder}/none"]
        environment = {
            "HOME": self._folder,
            "TMPDIR": self._folder,
            "GOMEMLIMIT": "512MiB",
            "LC_ALL": "C.UTF-8",
        }
        with open(os.memfd_create("found"), "w+b") as said, open(os.memfd_create("errors"), "w+b") as errors:
            try:
                done = subprocess.run(
                    argv, env=environment, cwd=self._folder, stdin=subprocess.DEVNULL, stdout=said, stderr=errors,
                    timeout=self._left(), check=False,
                )  # fmt: skip
            except subprocess.TimeoutExpired as error:
                raise CheckFailed("gitleaks took too long") from error
            except OSError as error:
                raise CheckFailed("gitleaks could not be started") from error
            said.seek(0)
            text = said.read(_MOST_SAID + 1)
        try:
            found = json.loads(text) if len(text) <= _MOST_SAID else None
        except ValueError:
            found = None
        if done.returncode or not isinstance(found, list):
            raise CheckFailed(f"gitleaks did not come to an end (exit code {done.returncode})")
        return found
