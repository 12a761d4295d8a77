"""A bare copy of an upstream: made, brought up to date, and what the upstream said when it could not be.

One for all bottles that enter the same upstream in the same way; a lock beside it is held while it is written. Readers need none.
"""

import fcntl
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO, NamedTuple

from bot_bottle.bundle.gitgate import settings
from bot_bottle.launch.gitgate.upstream import Way

REFS = ("+refs/heads/*:refs/heads/*", "+refs/tags/*:refs/tags/*")
_FETCHING = (("fetch.unpackLimit", "1"), ("fetch.writeCommitGraph", "false"), ("fetch.showForcedUpdates", "false"),
             ("core.fsync", "committed"))  # fmt: skip
_PACKS = 24
"""More than so many are made fewer."""


class Said(NamedTuple):
    """What git ended with, and what it and the upstream said."""

    code: int
    stdout: str
    stderr: str


class Mirror:
    """The one at `path`, of the upstream that `way` leads to."""

    def __init__(self, path: str, way: Way) -> None:
        self.path = path
        self._way = way

    def git(self, *words: str, repository: str = "", extra: tuple[tuple[str, str], ...] = ()) -> Said:
        """Git with the upstream's settings; may be asked for the upstream's URL."""
        return _collect(self.start(*words, repository=repository, extra=extra))

    def start(self, *words: str, repository: str = "", extra: tuple[tuple[str, str], ...] = ()) -> "Running":
        more = {"GIT_DIR": repository or self.path, **dict(self._way.more)}
        environment = settings.environment((*_FETCHING, *self._way.settings, *extra), more)
        out, err = tempfile.TemporaryFile(), tempfile.TemporaryFile()  # noqa: SIM115 - closed when collected
        process = subprocess.Popen(
            ["git", *words], env=environment, cwd="/", stdin=subprocess.DEVNULL, stdout=out, stderr=err
        )
        return Running(process, (out, err))

    def refresh(self, *, head: bool = True) -> Said:
        """Has it as the upstream is now; a code other than 0 when that can't be had, and then it is as it was.

        Where HEAD is takes a session of its own: without `head`, it stays.
        """
        with self._locked():
            if not os.path.exists(f"{self.path}/HEAD"):
                self._make()
            asked = ("ls-remote", "--symref", "--", self._way.url, "HEAD")
            heading = self.start(*asked) if head else None
            said = self.git("fetch", "--quiet", "--prune", "--atomic", "--no-tags", "--no-write-fetch-head",
                            "--no-auto-maintenance", "--no-recurse-submodules", "--", self._way.url, *REFS)  # fmt: skip
            found = _collect(heading) if heading is not None else None
            if said.code == 0:
                if found is not None:
                    self._point(found)
                self._tidy()
        return said

    @contextmanager
    def _locked(self) -> Iterator[None]:
        descriptor = os.open(f"{self.path}/lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def _make(self) -> None:
        for folder in ("objects/info", "objects/pack", "refs/heads", "refs/tags"):
            os.makedirs(f"{self.path}/{folder}", exist_ok=True)
        for name, content in (("config", settings.CONFIG), ("HEAD", b"ref: refs/heads/main\n")):
            with open(f"{self.path}/{name}", "wb") as file:
                file.write(content)

    def _point(self, head: Said) -> None:
        """HEAD where the upstream's is; where that can't be told, it stays."""
        for line in head.stdout.splitlines():
            target, _, name = line.removeprefix("ref: ").partition("\t")
            if line.startswith("ref: refs/heads/") and name == "HEAD":
                if target != self._head():
                    self.git("symbolic-ref", "HEAD", target)
                return

    def _head(self) -> str:
        with open(f"{self.path}/HEAD", encoding="utf-8", errors="replace") as file:
            return file.read().removeprefix("ref: ").removesuffix("\n")

    def _tidy(self) -> None:
        packs = [name for name in os.listdir(f"{self.path}/objects/pack") if name.endswith(".pack")]
        if len(packs) > _PACKS:
            self.git("repack", "--quiet", "-d", "--geometric=2")
        if any(files for _, _, files in os.walk(f"{self.path}/refs")):
            self.git("pack-refs", "--all", "--prune")


class Running(NamedTuple):
    """Git at work; what it says is kept in files, since helpers of ssh may hold them open for longer than it runs."""

    process: "subprocess.Popen[bytes]"
    files: tuple[BinaryIO, BinaryIO]


def _collect(running: Running) -> Said:
    code = running.process.wait()
    texts = []
    for file in running.files:
        file.seek(0)
        texts.append(file.read(1 << 20).decode(errors="replace"))
        file.close()
    return Said(code, *texts)


def make_sender(path: str, *objects: str) -> None:
    """A repository without a ref or an object of its own, that sees those of `objects`."""
    shutil.rmtree(path, ignore_errors=True)
    for folder in ("objects/info", "objects/pack", "refs/heads"):
        os.makedirs(f"{path}/{folder}")
    contents = {
        "HEAD": b"ref: refs/heads/none\n",
        "config": settings.CONFIG,
        "objects/info/alternates": "".join(f"{one}\n" for one in objects).encode(),
    }
    for name, content in contents.items():
        with open(f"{path}/{name}", "wb") as file:
            file.write(content)
