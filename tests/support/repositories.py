"""Git repositories for tests, made by fast-import: quick, and with whatever a careful git would not write."""

import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

AUTHOR = "A Bot <bot@example.org>"
ENVIRONMENT = {
    "PATH": "/usr/bin:/bin",
    "HOME": "/nonexistent",
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_AUTHOR_NAME": "A Bot",
    "GIT_AUTHOR_EMAIL": "bot@example.org",
    "GIT_COMMITTER_NAME": "A Bot",
    "GIT_COMMITTER_EMAIL": "bot@example.org",
}
Content = bytes | str | None
"""What a commit puts at a path; None removes it."""


def data(text: bytes | str) -> bytes:
    raw = text.encode("utf-8", "surrogateescape") if isinstance(text, str) else text
    return b"data %d\n%b\n" % (len(raw), raw)


def quoted(path: str) -> bytes:
    raw = path.encode("utf-8", "surrogateescape")
    return b'"%b"' % b"".join(
        b"\\%03o" % one if one in b'"\\\n' or one > 126 else bytes([one]) for one in raw
    )


class Repository:
    """A bare repository in `folder`; `commit` and `tag` collect, `write` has git take in what was collected."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._marks = 0
        self._commands: list[bytes] = []
        self.git("init", "--quiet", "--bare", ".")

    def git(self, *words: str, stdin: bytes = b"") -> str:
        self.folder.mkdir(parents=True, exist_ok=True)
        done = subprocess.run(
            ["git", *words], cwd=self.folder, env=ENVIRONMENT, input=stdin, capture_output=True, check=True
        )
        return done.stdout.decode(errors="surrogateescape").strip()

    def commit(
        self,
        branch: str,
        changes: Mapping[str, Content],
        message: bytes | str = "a change\n",
        *,
        author: str = AUTHOR,
        merges: Sequence[int] = (),
        on: int = 0,
        modes: Mapping[str, str] | None = None,
    ) -> int:
        """A commit's mark; it is on top of `on` or, without one, of the branch."""
        self._marks += 1
        who = author.encode("utf-8", "surrogateescape")
        made = [b"commit refs/heads/%b\nmark :%d\n" % (branch.encode(), self._marks)]
        made.append(b"author %b 1700000000 +0000\ncommitter %b 1700000000 +0000\n" % (who, who))
        made.append(data(message))
        if on:
            made.append(b"from :%d\n" % on)
        made += [b"merge :%d\n" % one for one in merges]
        for path, content in changes.items():
            mode = (modes or {}).get(path, "100644").encode()
            if content is None:
                made.append(b"D %b\n" % quoted(path))
            elif mode == b"160000":
                made.append(b"M 160000 %b %b\n" % (str(content).encode(), quoted(path)))
            else:
                made.append(b"M %b inline %b\n%b" % (mode, quoted(path), data(content)))
        self._commands += made
        return self._marks

    def tag(self, name: str, on: int, message: bytes | str) -> None:
        who = AUTHOR.encode()
        self._commands.append(
            b"tag %b\nfrom :%d\ntagger %b 1700000000 +0000\n%b" % (name.encode(), on, who, data(message))
        )

    def write(self) -> None:
        stream = b"feature done\n" + b"".join(self._commands) + b"done\n"
        self._commands = []
        marks = str(self.folder / "marks")
        self.git(
            "fast-import", "--quiet", "--force", f"--import-marks-if-exists={marks}", f"--export-marks={marks}", stdin=stream
        )  # fmt: skip

    def id(self, name: str) -> str:
        return self.git("rev-parse", "--verify", name)
