"""Reading manifest files from disk, safely and once, remembering everything the answer depended on.

No heavy import: a start that finds its manifest in the cache goes through here and nowhere else.
"""

import os
import stat
from collections.abc import Mapping

from bot_bottle.digest import sha256_hex
from bot_bottle.errors import ManifestError
from bot_bottle.typed import NamedTuple

FILE_LIMIT = 256 * 1024
SHOWN_PROBLEMS = 40

StrPath = str | os.PathLike[str]


class Problem(NamedTuple):
    """One thing that is wrong, and where; `what` says what to do as well."""

    file: str
    line: int
    what: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.what}"


class SeenFile(NamedTuple):
    """A file that was read: where it had to lie (`within`), and the hash of its bytes."""

    path: str
    within: str
    digest: str


class SeenSkill(NamedTuple):
    """A skill that was found; `places` are pairs of a skills folder and what it must lie within."""

    name: str
    places: tuple[tuple[str, str], ...]
    folder: str


class UnreadableError(ValueError):
    """A file is there but can't be used; says why, and what to do. Never leaves this room."""


class Found(NamedTuple):
    """Where a manifest file is or may be, by its name; `within` is the folder that it must really lie in."""

    name: str
    path: str
    within: str
    from_repository: bool = False


class Reading:
    """One reading of a manifest: what it looked at, and what was wrong with it. No file is read twice.

    `instead` has texts that are taken for what stands in files: what would be, if they were written.
    """

    def __init__(self, instead: Mapping[str, str] | None = None) -> None:
        self._read: dict[str, bytes | None] = {path: text.encode() for path, text in (instead or {}).items()}
        self.files: list[SeenFile] = []
        self.absent: list[str] = []
        self.skills: list[SeenSkill] = []
        self.problems: list[Problem] = []

    def wrong(self, file: str, line: int, what: str) -> None:
        """Remembers a problem; a second one of the same words on the same line is not listed."""
        problem = Problem(file, line, what)
        if problem not in self.problems:
            self.problems.append(problem)

    def read(self, path: str, within: str) -> bytes | None:
        """The bytes of `path`; None when there is no such file, or when it is unusable (a problem then)."""
        if path in self._read:
            return self._read[path]
        try:
            data = self._read[path] = read_file(path, within)
        except UnreadableError as error:
            self.wrong(path, 1, str(error))
            self._read[path] = None
            return None
        if data is None:
            self.absent.append(path)
        else:
            self.files.append(SeenFile(path, within, sha256_hex(data)))
        return data

    def has(self, found: Found) -> bool:
        """Whether there is a file, usable or not."""
        self.read(found.path, found.within)
        return found.path not in self.absent

    def raise_problems(self, brief: str) -> None:
        """Raises ManifestError with every problem so far, by file and line, if there is one."""
        if self.problems:
            raise manifest_error(brief, self.problems)


def manifest_error(brief: str, problems: list[Problem]) -> ManifestError:
    """The error that lists `problems`, one a line."""
    lines = [str(problem) for problem in sorted(problems)]
    hidden = len(lines) - SHOWN_PROBLEMS
    if hidden > 0:
        lines = [*lines[:SHOWN_PROBLEMS], f"… and {hidden} more"]
    return ManifestError(
        brief,
        details="\n".join(lines),
        resolution="Correct the lines above; `bot-bottle validate` checks every file.",
    )


def read_file(path: str, within: str) -> bytes | None:
    """The bytes of the regular file `path`, which must really lie within the folder `within`; None if absent.

    What is checked is the file that was opened, so a link that is swapped meanwhile changes nothing.
    Raises UnreadableError.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as error:
        raise UnreadableError(f"can't be read: {_reason(error)}") from error
    try:
        return _read_open(descriptor, within)
    except OSError as error:
        raise UnreadableError(f"can't be read: {_reason(error)}") from error
    finally:
        os.close(descriptor)


def _read_open(descriptor: int, within: str) -> bytes:
    facts = os.fstat(descriptor)
    real = os.readlink(f"/proc/self/fd/{descriptor}")
    if not lies_within(real, os.path.realpath(within)):
        raise UnreadableError(f"is a link that leads out of {within}; put the file itself there")
    if not stat.S_ISREG(facts.st_mode):
        raise UnreadableError("is not a regular file; write a Markdown file there")
    if facts.st_mode & stat.S_IWOTH:
        raise UnreadableError(f"can be written by everyone; run: chmod o-w {path_for_shell(real)}")
    parts: list[bytes] = []
    wanted = FILE_LIMIT + 1
    while wanted > 0 and (part := os.read(descriptor, wanted)):
        parts.append(part)
        wanted -= len(part)
    if wanted <= 0:
        raise UnreadableError(f"is larger than {FILE_LIMIT // 1024} KiB; long texts belong into a skill")
    return b"".join(parts)


def lies_within(path: str, folder: str) -> bool:
    """Whether the real path `path` is `folder` itself or below it."""
    return path == folder or path.startswith(folder.rstrip("/") + "/")


def path_for_shell(path: str) -> str:
    """`path` as a person would paste it."""
    import shlex

    return shlex.quote(path)


def _reason(error: Exception) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error)
