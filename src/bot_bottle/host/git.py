"""The only way the host runs git on anything that an agent could have written.

Git runs with a repository of ours (`GIT_DIR`, always given), so that no config, hook, alternate or `commondir` that came
from a workspace is ever read; with no config of the machine or the person; and with attributes of ours that undo whatever a
`.gitattributes` asks for. Contents are handed to it over a pipe (`Import`): it does not open the workspace's files itself.
"""

import os
import re
from collections.abc import Mapping

from bot_bottle.errors import HostError
from bot_bottle.host import files, process
from bot_bottle.host.commits import Commands

TYPE_CHECKING = False
if TYPE_CHECKING:
    from subprocess import Popen

TIMEOUT = 300.0
_NOT_TAKEN_IN = "Git could not take in the workspace's files"
_SPACE = "See that the disk has room; bot-bottle doctor checks git."
_IMPORT_OPTIONS = ("fast-import", "--quiet", "--done", "--force", "--depth=0", "--date-format=raw-permissive")

_SETTINGS = (
    ("core.hooksPath", "/dev/null"),
    ("core.fsmonitor", "false"),
    ("core.untrackedCache", "false"),
    ("core.attributesFile", "/dev/null"),
    ("core.excludesFile", "/dev/null"),
    ("core.autocrlf", "false"),
    ("core.safecrlf", "false"),
    ("core.fileMode", "true"),
    ("core.symlinks", "true"),
    ("core.ignoreCase", "false"),
    ("core.precomposeUnicode", "false"),
    ("core.quotePath", "true"),
    ("core.compression", "0"),
    ("core.fsync", "none"),
    ("core.pager", "cat"),
    ("core.editor", "false"),
    ("core.askPass", "false"),
    ("core.sshCommand", "false"),
    ("credential.helper", ""),
    ("protocol.allow", "never"),
    ("submodule.recurse", "false"),
    ("diff.external", ""),
    ("diff.renameLimit", "1000"),
    ("diff.ignoreSubmodules", "all"),
    ("diff.noprefix", "false"),
    ("diff.mnemonicPrefix", "false"),
    ("apply.whitespace", "nowarn"),
    ("apply.ignoreWhitespace", "no"),
    ("fastimport.unpackLimit", "0"),
    ("gc.auto", "0"),
    ("maintenance.auto", "false"),
    ("safe.directory", "*"),
    ("trace2.normalTarget", "0"),
)

_ATTRIBUTES = "* " + " ".join(
    f"!{name}"
    for name in (
        "binary", "conflict-marker-size", "crlf", "delta", "diff", "encoding", "eol", "export-ignore", "export-subst",
        "filter", "ident", "merge", "text", "whitespace", "working-tree-encoding",
    )
)  # fmt: skip


def environment(repository: str, *, worktree: str | None = None) -> dict[str, str]:
    """Git's whole environment for `repository`, one of ours; nothing of the person's gets in."""
    found = {
        "PATH": os.environ.get("PATH", os.defpath),
        "HOME": "/nonexistent",
        "LANG": "C",
        "LC_ALL": "C",
        "GIT_DIR": repository,
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_GLOBAL": "/dev/null",
        "GIT_ATTR_NOSYSTEM": "1",
        "GIT_CEILING_DIRECTORIES": "/",
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_PAGER": "cat",
        "GIT_OPTIONAL_LOCKS": "0",
        "GIT_NO_REPLACE_OBJECTS": "1",
        "GIT_CONFIG_COUNT": str(len(_SETTINGS)),
    }
    for number, (name, value) in enumerate(_SETTINGS):
        found[f"GIT_CONFIG_KEY_{number}"], found[f"GIT_CONFIG_VALUE_{number}"] = name, value
    if worktree is not None:
        found["GIT_WORK_TREE"] = worktree
    return found


def create(repository: str, *, objects_of: str | None = None, only_import: bool = False) -> None:
    """Makes an empty bare repository of ours; it also sees the objects of `objects_of`, another of ours. Raises OSError.

    One that nothing is done in but an `Import` gets the little that this needs: every file made takes its time.
    """
    folders = ["", "objects", "refs", "refs/heads"]
    contents = {"HEAD": "ref: refs/heads/start\n"}
    if not only_import:
        folders.append("info")
        contents["config"] = "[core]\n\trepositoryformatversion = 0\n\tbare = true\n"
        contents["info/attributes"] = _ATTRIBUTES + "\n"
    if objects_of is not None:
        folders.append("objects/info")
        contents["objects/info/alternates"] = f"{objects_of}/objects\n"
    for folder in folders:
        os.makedirs(os.path.join(repository, folder), mode=0o700, exist_ok=True)
    os.chmod(repository, 0o700)
    for name, text in contents.items():
        files.write(os.path.join(repository, name), text.encode())


def run(
    repository: str,
    *words: str,
    worktree: str | None = None,
    cwd: str | None = None,
    stdin: bytes = b"",
    extra: Mapping[str, str] | None = None,
) -> process.Finished:
    """Runs `git WORDS` in `cwd` (default: the repository's own folder). Raises HostError when there is no git."""
    found = {**environment(repository, worktree=worktree), **(extra or {})}
    try:
        return process.run(["git", *words], env=found, cwd=cwd or repository, stdin=stdin, timeout=TIMEOUT)
    except HostError as error:
        raise _missing() if isinstance(error.__cause__, FileNotFoundError) else error from error


def _missing() -> HostError:
    return HostError("Git was not found", resolution="Install git (apt install git).")


def head(repository: str, *, branch: str = "start") -> str:
    """The commit that `branch` is at; empty when there is none."""
    try:
        name = files.read(os.path.join(repository, "refs/heads", branch)).decode(errors="replace").strip()
    except OSError:
        return ""
    return name if re.fullmatch("[0-9a-f]{40,64}", name) else ""


def must_be_there() -> None:
    """Raises HostError when there is no git: better said before a run than when its work is to be saved."""
    folders = os.environ.get("PATH", os.defpath).split(os.pathsep)
    if not any(os.access(os.path.join(folder, "git"), os.X_OK) for folder in folders):
        raise _missing()


def take_in(repository: str, path: str) -> None:
    """Makes the commit whose commands are kept in the file `path` (`commits.Kept`). Raises HostError, OSError."""
    with open(path, "rb") as kept:
        done = process.run(
            ["git", *_IMPORT_OPTIONS],
            env=environment(repository),
            cwd=repository,
            stdin=kept,
            timeout=TIMEOUT,
        )
    done.or_raise(_NOT_TAKEN_IN, resolution=_SPACE)


class Import(Commands):
    """One commit, made from what is passed in: `git fast-import` on a pipe.

    As `with Import(...) as into:`; the commit exists once the block ends without an exception. `into.commit` is its name.
    When nothing is passed in, it is the parent's, and git is not even started.
    """

    def __init__(self, repository: str, branch: str, *, parent: str = "") -> None:
        super().__init__(branch, parent=parent)
        self.commit = ""
        self._repository = repository
        self._process: Popen[bytes] | None = None

    def __enter__(self) -> "Import":
        return self

    def _start(self) -> None:
        import subprocess

        self._said = open(os.memfd_create("said"), "w+b")  # noqa: SIM115 - tempfile takes longer to import than git to run
        try:
            self._process = subprocess.Popen(
                ["git", *_IMPORT_OPTIONS],
                env=environment(self._repository),
                cwd=self._repository,
                stdin=subprocess.PIPE,
                stdout=self._said,
                stderr=self._said,
                bufsize=1 << 17,
            )
        except FileNotFoundError as error:
            self._said.close()
            raise _missing() from error
        except OSError as error:
            self._said.close()
            raise HostError("Git could not be started", details=str(error)) from error

    def _write(self, data: bytes) -> None:
        if self._process is None:
            self._start()
        assert self._process is not None
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(data)
        except BrokenPipeError as error:
            raise self._failed() from error

    def __exit__(self, kind: type[BaseException] | None, _error: object, _trace: object) -> None:
        try:
            if kind is None and (self._process or self._tree or not self._parent):
                self._finish()
            elif kind is None:
                self.commit = self._parent
        finally:
            if self._process:
                self._process.kill()
                self._close()
                self._process.wait()
                self._said.close()

    def _close(self) -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        try:
            self._process.stdin.close()
        except BrokenPipeError:
            return

    def _finish(self) -> None:
        self._commit()
        self._close()
        if self._process is None or self._process.wait():
            raise self._failed()
        self.commit = head(self._repository, branch=self._branch)
        if not self.commit:
            raise self._failed()

    def _failed(self) -> HostError:
        assert self._process is not None
        self._process.wait()
        self._said.seek(0)
        details = self._said.read(4000).decode(errors="replace").strip()
        return HostError(_NOT_TAKEN_IN, details=details, resolution=_SPACE)


_IGNORABLE = re.compile("[\u200c-\u200f\u202a-\u202e\u206a-\u206f\ufeff]")


def is_reserved(path: str, *, link: bool = False) -> bool:
    """Whether git refuses the path, or a file system could take a part of it for `.git`: never part of any change."""
    parts = path.split("/")
    plain = [_IGNORABLE.sub("", part).split(":")[0].split("\\")[0].rstrip(" .").lower() for part in parts]
    if link and (plain[-1] == ".gitmodules" or plain[-1].startswith("gitmod~")):
        return True
    return any(part in ("", ".", "..") for part in parts) or any(part in (".git", "git~1") for part in plain)
