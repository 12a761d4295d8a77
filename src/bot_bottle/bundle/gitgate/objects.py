"""What a push brings, read from the repository that it landed in: ids, paths, contents. Bounded in number, bytes and time.

Every object was written by the agent, so git itself is believed in nothing but what it hashes: it runs with settings of ours, reads
ids on its stdin, and is killed when it says more than a push may have or takes longer.
"""

import mmap
import os
import resource
import select
import subprocess
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from bot_bottle.bundle.gitgate import settings
from bot_bottle.bundle.gitgate.model import CheckFailed
from bot_bottle.bundle.gitgate.waiting import wait

OBJECTS, CHANGES = 2_000_000, 500_000
"""Objects of a push, and paths that its commits change, at most."""
MEMORY = 1 << 30
"""Bytes that one git process may use: it keeps all paths that a commit changes, and a few trees can stand for billions."""
_TAGS_DEEP = 8
_BLOCK = 1 << 16
_LONGEST_WORD = 1 << 16
COMMIT_BYTES, _TAG_BYTES = 1 << 20, 4 << 20
"""Bytes of one commit or tag at most; they are read whole."""
_LARGE = 1 << 20
"""Bytes of an object from which on its content is kept on the disk while it is looked at."""
Content = bytes | mmap.mmap
"""Of an object: what is large is mapped from a file without a name, so that memory does not grow with it."""
_STREAMED = (("core.bigFileThreshold", "1m"),)
"""Git has no more of a file in memory either, unless it has to be put together from a delta."""
_RAW = (
    "-r",
    "-c",
    "--root",
    "-z",
    "--raw",
    "--no-renames",
    "--no-abbrev",
    "--no-ext-diff",
    "--ignore-submodules=none",
)


class TooMuch(CheckFailed):
    """A push that has more in it than is looked at."""


class Change(NamedTuple):
    """One path that a commit changes: what stands there then. For one that is gone, `mode` is `000000`.

    `before` is what stood there in the one parent; empty for a merge.
    """

    commit: str
    path: bytes
    mode: str
    blob: str
    before: str


class Object(NamedTuple):
    """One object's name, type and content."""

    id: str
    kind: str
    data: Content


class New(NamedTuple):
    """What a push brings that the upstream lacks: commits, parents first, and the ids of everything else."""

    commits: tuple[str, ...]
    others: frozenset[str]


class Pushed:
    """The objects in one repository. `deadline` is a monotonic time; after it everything raises CheckFailed."""

    def __init__(self, repository: Path, deadline: float) -> None:
        self._repository = str(repository)
        self._environment = settings.environment(_STREAMED, {"GIT_DIR": self._repository})
        self._deadline = deadline

    def left(self) -> float:
        """Seconds until the deadline. Raises CheckFailed when there are none."""
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise TooMuch("looking at what was pushed takes too long")
        return left

    def peel(self, name: str) -> tuple[tuple[Object, ...], str]:
        """The tags that `name` is or leads through, and the commit behind them; empty when that is no commit."""
        tags: list[Object] = []
        while len(tags) < _TAGS_DEEP:
            [(kind, _)] = self.sizes([name]).values()
            if kind == "commit":
                return tuple(tags), name
            if kind != "tag":
                return tuple(tags), ""
            [tag] = self.contents([name], longest=_TAG_BYTES)
            tags.append(tag)
            name = bytes(tag.data).partition(b"\n")[0].removeprefix(b"object ").decode("ascii", "replace")
        raise TooMuch("tags of tags of tags")

    def new(self, tips: Sequence[str], known: Sequence[str]) -> New:
        """What can be reached from `tips` and not from `known`. Raises CheckFailed."""
        asked = "".join([*(f"{tip}\n" for tip in tips), *(f"^{one}\n" for one in known)])
        commits: list[str] = []
        others: set[str] = set()
        with self._git("rev-list", "--objects", "--topo-order", "--reverse", "--stdin", stdin=asked) as said:
            for line in said.words(b"\n"):
                name, space, _ = line.partition(b" ")
                if space:
                    others.add(name.decode("ascii"))
                else:
                    commits.append(name.decode("ascii"))
                if len(commits) + len(others) > OBJECTS:
                    raise TooMuch(f"the push brings more than {OBJECTS} objects")
        return New(tuple(commits), frozenset(others))

    def changes(self, commits: Sequence[str]) -> Iterator[Change]:
        """Every path that these commits change: of a merge those that are as in none of its parents. Raises CheckFailed."""
        asked = "".join(f"{one}\n" for one in commits)
        count = 0
        with self._git("diff-tree", "--stdin", *_RAW, stdin=asked) as said:
            commit = ""
            words = said.words(b"\0")
            for word in words:
                if not word.startswith(b":"):
                    commit = word.decode("ascii")
                    continue
                count += 1
                if count > CHANGES:
                    raise TooMuch(f"the push's commits change more than {CHANGES} paths")
                yield _change(commit, word.decode("ascii"), next(words, b""))

    def sizes(self, ids: Iterable[str]) -> dict[str, tuple[str, int]]:
        """Type and size of each object. Raises CheckFailed when one is not there."""
        found: dict[str, tuple[str, int]] = {}
        asked = "".join(f"{one}\n" for one in ids)
        with self._git("cat-file", "--batch-check", stdin=asked) as said:
            for line in said.words(b"\n"):
                name, kind, size = _header(line)
                found[name] = kind, size
        return found

    def contents(self, ids: Iterable[str], *, longest: int = 0) -> Iterator[Object]:
        """The objects, in this order, one at a time. Raises CheckFailed, OSError.

        Whoever asks has looked at their sizes, or says what the `longest` may be.
        """
        asked = "".join(f"{one}\n" for one in ids)
        if not asked:
            return
        with self._git("cat-file", "--batch", stdin=asked) as said:
            while (line := said.line()) is not None:
                name, kind, size = _header(line)
                if longest and size > longest:
                    raise TooMuch(f"a {kind} is longer than any {kind} has to be")
                data = said.exactly(size) if size < _LARGE else self._kept(said, size)
                said.exactly(1)
                yield Object(name, kind, data)

    def _kept(self, said: "_Said", size: int) -> mmap.mmap:
        """The next `size` bytes, in a file that is gone when nobody has them any more."""
        with tempfile.TemporaryFile(dir=self._repository, buffering=0) as file:
            said.into(file.fileno(), size)
            return mmap.mmap(file.fileno(), size, access=mmap.ACCESS_READ)

    @contextmanager
    def _git(self, *words: str, stdin: str) -> "Iterator[_Said]":
        """Git with `words`; what it says is read in the block. Raises CheckFailed when it fails, or takes too long."""
        with open(os.memfd_create("asked"), "w+b") as asked, open(os.memfd_create("said"), "w+b") as errors:
            asked.write(stdin.encode("ascii"))
            asked.seek(0)
            with subprocess.Popen(
                ["git", *words],
                env=self._environment,
                cwd="/",
                stdin=asked,
                stdout=subprocess.PIPE,
                stderr=errors,
            ) as process:
                assert process.stdout is not None
                try:
                    resource.prlimit(process.pid, resource.RLIMIT_DATA, (MEMORY, MEMORY))
                    yield _Said(process.stdout.fileno(), self)
                    code = wait(process, self.left())
                except subprocess.TimeoutExpired as error:
                    raise TooMuch("looking at what was pushed takes too long") from error
                finally:
                    process.kill()
            if code:
                raise CheckFailed(f"git {words[0]} could not read what was pushed (exit code {code})")


class _Said:
    """What a program says, in words and blocks."""

    def __init__(self, descriptor: int, pushed: Pushed) -> None:
        self._descriptor = descriptor
        self._pushed = pushed
        self._buffer = bytearray()
        self._at = 0

    def words(self, end: bytes) -> Iterator[bytes]:
        """Everything up to each `end`."""
        while (word := self._until(end)) is not None:
            yield word

    def line(self) -> bytes | None:
        """The next line; None at the end."""
        return self._until(b"\n")

    def exactly(self, size: int) -> bytes:
        """The next `size` bytes."""
        while len(self._buffer) - self._at < size:
            if not self._more():
                raise CheckFailed("git stopped in the midst of an object")
        data = bytes(memoryview(self._buffer)[self._at : self._at + size])
        self._at += size
        self._forget()
        return data

    def into(self, descriptor: int, size: int) -> None:
        """The next `size` bytes, written there as they come."""
        while size:
            if len(self._buffer) == self._at and not self._more():
                raise CheckFailed("git stopped in the midst of an object")
            with memoryview(self._buffer) as held, held[self._at : self._at + size] as part:
                written = os.write(descriptor, part)
            self._at += written
            size -= written
        self._forget()

    def _until(self, end: bytes) -> bytes | None:
        start = self._at
        while (found := self._buffer.find(end, start)) < 0:
            start = max(self._at, len(self._buffer))
            if len(self._buffer) - self._at > _LONGEST_WORD:
                raise TooMuch("a path is longer than any path has to be")
            taken = self._at
            if not self._more():
                if len(self._buffer) > self._at:
                    raise CheckFailed("git stopped in the midst of a line")
                return None
            start -= taken - self._at
        word = bytes(memoryview(self._buffer)[self._at : found])
        self._at = found + 1
        return word

    def _forget(self) -> None:
        if self._at > _BLOCK:
            del self._buffer[: self._at]
            self._at = 0

    def _more(self) -> bool:
        self._forget()
        if not select.select([self._descriptor], [], [], self._pushed.left())[0]:
            raise TooMuch("looking at what was pushed takes too long")
        block = os.read(self._descriptor, _BLOCK * 16)
        self._buffer += block
        return bool(block)


def _header(line: bytes) -> tuple[str, str, int]:
    parts = line.decode("ascii", "replace").split(" ")
    if len(parts) != 3 or not parts[2].isdigit():
        raise CheckFailed("an object that the push needs is not there")
    return parts[0], parts[1], int(parts[2])


def _change(commit: str, word: str, path: bytes) -> Change:
    """From `:OLD NEW OLDID NEWID S`, or for a merge of n parents n colons, n+1 modes, n+1 ids."""
    colons = len(word) - len(word.lstrip(":"))
    parts = word[colons:].split(" ")
    mode, blob = parts[colons], parts[2 * colons + 1]
    return Change(commit, path, mode, blob, parts[colons + 1] if colons == 1 else "")
