"""A real git gate without a bottle: its processes, a loop for them, and git beside it as the agent's would be inside."""

import os
import selectors
import shutil
import socket
import subprocess
import tempfile
import threading
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from bot_bottle.door.passing import send_listeners
from bot_bottle.host.secrets import Held, Vault
from bot_bottle.launch.gitgate.gate import Gate
from bot_bottle.launch.outward import Outside
from bot_bottle.launch.supervisor import Notes
from bot_bottle.plan.model import Credential, GitGate, GitRemote
from bot_bottle.plan.resolve import FIRST_UNUSED_UID
from bot_bottle.policy.git import GitRules
from bot_bottle.secret import Secret
from support.gitservers import IDENTITY, Ssh, descendants
from support.waiting import wait_for

ONLY_REFS = GitRules(gitleaks=False)


class Loop:
    """As a session's, in a thread."""

    def __init__(self) -> None:
        self.selector = selectors.DefaultSelector()
        self.ticks: list[Callable[[], float | None]] = []
        self.lock = threading.RLock()
        self.over = False
        self.thread = threading.Thread(target=self._run, daemon=True)

    def watch(self, source: Any, act: Callable[[], None]) -> None:
        self.selector.register(source, selectors.EVENT_READ, act)

    def forget(self, source: Any) -> None:
        if source in self.selector.get_map():
            self.selector.unregister(source)

    def also(self, tick: Callable[[], float | None]) -> None:
        self.ticks.append(tick)

    def _run(self) -> None:
        while not self.over:
            for key, _ in self.selector.select(0.05):
                with self.lock:
                    if key.fd in self.selector.get_map():
                        key.data()
            with self.lock:
                for tick in self.ticks:
                    tick()


class Done(SimpleNamespace):
    """A git command that ended: `code`, `said` (both streams)."""

    code: int
    said: str


class Gated:
    """A gate in a folder of its own. `git("clone", gate.url())` is the agent's."""

    def __init__(
        self, folder: Path, *remotes: GitRemote, vault: Vault | None = None, outside: Outside | None = None,
        signing_key: str = "",
    ) -> None:  # fmt: skip
        self.folder = folder
        folder.mkdir(exist_ok=True)
        self.events: list[tuple[str, Mapping[str, object]]] = []
        self.warnings: list[str] = []
        apart = FIRST_UNUSED_UID if os.geteuid() == 0 else os.geteuid()
        plan: Any = SimpleNamespace(bundle_uid=apart, bundle_gid=apart)
        notes = Notes(lambda kind, data: self.events.append((kind, data)), self.warnings.append)
        self.gate = Gate(
            plan,
            GitGate(remotes, str(folder / "state/git"), signing_key),
            vault or Vault(),
            outside or Outside(),
            notes,
        )
        self.gate.open_door(self)  # type: ignore[arg-type]
        self.loop = Loop()
        self.gate.serve(self.loop)  # type: ignore[arg-type]
        self.loop.thread.start()

    def open_door(self, listeners: object, channel: socket.socket) -> None:
        """As the bottle does, but on the loopback of the tests."""
        with socket.create_server(("127.0.0.1", 0), backlog=128) as listener:
            self.port = listener.getsockname()[1]
            send_listeners(channel, [listener])

    def url(self, name: str = "origin") -> str:
        return f"http://127.0.0.1:{self.port}/{name}.git"

    def git(self, *words: str, cwd: Path | None = None, timeout: float = 120, **env: str) -> Done:
        """The agent's."""
        done = subprocess.run(
            ["git", *words], cwd=cwd or self.folder, capture_output=True, text=True, check=False, timeout=timeout, errors="replace",
            env={**IDENTITY, "HOME": str(self.folder), "GIT_CONFIG_GLOBAL": str(self.folder / "gitconfig"),
                 "GIT_TERMINAL_PROMPT": "0", **env},
        )  # fmt: skip
        return Done(code=done.returncode, said=done.stdout + done.stderr)

    def clone(self, name: str = "work", *words: str, remote: str = "origin") -> Path:
        """A clone through the gate."""
        done = self.git("clone", "-q", *words, self.url(remote), name)
        assert done.code == 0, (done.said, self.events)
        return self.folder / name

    def commit(
        self, work: Path, path: str = "new.txt", content: str = "new\n", message: str = "Change"
    ) -> str:
        """One more commit in a clone; its id."""
        (work / path).parent.mkdir(parents=True, exist_ok=True)
        (work / path).write_text(content)
        for words in (["add", "-A"], ["commit", "-q", "-m", message]):
            done = self.git(*words, cwd=work)
            assert done.code == 0, done.said
        return self.git("rev-parse", "HEAD", cwd=work).said.strip()

    def kinds(self) -> list[str]:
        return [kind for kind, _ in self.events]

    def told(self, kind: str) -> list[Mapping[str, object]]:
        return [data for found, data in self.events if found == kind]

    def pid(self, name: str) -> int:
        """The Python process of one of the three (bubblewrap's child's child)."""
        pid = wait_for(lambda: self.gate.pids.get(name), name)
        for _ in range(2):
            pid = wait_for(partial(_child_of, pid), "its child")
        return pid

    def standing(self) -> list[str]:
        """What stands in the quarantine, and in what was taken in to be checked."""
        state = self.folder / "state/git"
        return [f"{name}/{one.name}" for name in ("pushes", "held") for one in (state / name).iterdir()]

    def assert_nothing_stands(self) -> None:
        """The client hears its answer a moment before its quarantine is removed."""
        wait_for(lambda: not self.standing(), f"nothing to be left of {self.standing()}", within=20)

    def processes(self) -> list[int]:
        """All that are the gate's now."""
        return [pid for own in list(self.gate.pids.values()) for pid in (own, *descendants(own))]

    def close(self) -> None:
        self.loop.over = True
        self.loop.thread.join()
        self.gate.stop()
        self.loop.selector.close()


def _child_of(pid: int) -> int:
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return int(children[0]) if children else 0


def folder() -> Path:
    """One that every user may enter; the caller removes it."""
    made = Path(tempfile.mkdtemp(prefix="bb-gate-", dir="/tmp"))
    made.chmod(0o755)
    return made


def over_ssh(
    folder: Path, ssh: Ssh, upstream: Path, name: str = "origin", rules: GitRules = ONLY_REFS, **keys: Any
) -> GitRemote:
    """A remote behind a real sshd."""
    key = folder / f"key-{name}"
    given = {"key": ssh.key_for(os.geteuid(), key), "known_host": ssh.public(), **keys}
    return GitRemote(
        name, ssh.url(upstream), str(folder / f"mirrors/{name}-{ssh.port}.git"), rules=rules, **given
    )


def token(name: str, value: str) -> tuple[Credential, Vault]:
    """A bearer token, and the vault that has it."""
    item = Credential(name, f"env:{name.upper()}", "header", "Authorization", "Bearer ")
    return item, Vault({name: Held(Secret(f"Bearer {value}"), Secret(value))})


def remove(path: Path) -> None:
    shutil.rmtree(path, ignore_errors=True)
