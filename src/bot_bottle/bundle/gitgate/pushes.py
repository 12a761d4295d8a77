"""One push while it is received: a repository of its own, made for it and removed with it, and the hook that asks what to do.

The repository has the mirror's refs, as the client saw them, and the mirror's objects beside its own. Git puts what comes into a
quarantine of its own there; then the hook tells what is wanted, the courier has it checked and brought upstream, and only
after that git says that it was done. What git does with its own refs then is thrown away.
"""

import os
import re
import secrets
import select
import shutil
import subprocess
import threading
from types import TracebackType

from bot_bottle.bundle.gitgate import settings
from bot_bottle.bundle.gitgate.backend import Call
from bot_bottle.bundle.gitgate.line import Line, LineEnded
from bot_bottle.policy.git import MOST_REFS

_LONGEST_ASK = 1 << 20
_MOST_SAID = 32_000
"""Bytes; they fit into the pipe even when nobody reads it any more."""
_UPDATE = re.compile(rb"([0-9a-f]{40}) ([0-9a-f]{40}) (.{1,4096})", re.DOTALL)
_QUARANTINE = re.compile(r"(?:(?:tmp_objdir-)?incoming-[A-Za-z0-9]{1,40})?")
"""Git's name for it; there is none when nothing is brought."""


class Push:
    """As a context: made at its beginning, gone at its end, whatever happened."""

    def __init__(self, remote: str, courier: Line, most: int) -> None:
        self.name = secrets.token_hex(8)
        self.remote = remote
        self._most = most
        self._courier = courier
        self._folder = f"{settings.PLACE_PUSHES}/{self.name}"
        self._over, self._end_it = os.pipe()
        self._thread = threading.Thread(target=self._mediate, daemon=True)

    def __enter__(self) -> "Push":
        make_repository(f"{self._folder}/repo.git", f"{settings.PLACE_MIRRORS}/{self.remote}.git")
        for name in ("ask", "answer"):
            os.mkfifo(f"{self._folder}/{name}")
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._end_it)
        self._thread.join()
        os.close(self._over)
        shutil.rmtree(self._folder, ignore_errors=True)

    def call(self) -> Call:
        """How git takes it in."""
        more = {
            "GIT_PROJECT_ROOT": self._folder,
            "PATH_INFO": "/repo.git/git-receive-pack",
            "QUERY_STRING": "",
            "GIT_HTTP_EXPORT_ALL": "1",
        }
        return Call(settings.environment(settings.receiving(self._most), more))

    def _mediate(self) -> None:
        """Between the hook and the courier; ends when the push is over, whether the hook came or not."""
        ask, answer = (
            os.open(f"{self._folder}/{name}", os.O_RDWR | os.O_CLOEXEC) for name in ("ask", "answer")
        )
        try:
            asked = self._hear(ask)
            if asked is not None:
                os.write(answer, self._decide(asked, answer))
                self._wait_for_the_end()
        except OSError:
            return
        finally:
            os.close(ask)
            os.close(answer)

    def _hear(self, ask: int) -> bytes | None:
        heard = b""
        while not heard.endswith(b"\n.\n"):
            ready, _, _ = select.select([ask, self._over], [], [])
            if self._over in ready or len(heard) > _LONGEST_ASK:
                return None
            heard += os.read(ask, 65536)
        return heard

    def _wait_for_the_end(self) -> None:
        select.select([self._over], [], [])

    def _decide(self, asked: bytes, answer: int) -> bytes:
        left = _MOST_SAID

        def say(text: str) -> None:
            nonlocal left
            for line in text.splitlines() or [""]:
                data = f" {line[:500]}\n".encode()
                left -= len(data)
                if left > 0:
                    os.write(answer, data)

        place, *lines = asked.decode("utf-8", "surrogateescape").removesuffix("\n.\n").split("\n")
        updates = [_UPDATE.fullmatch(line.encode("utf-8", "surrogateescape")) for line in lines]
        quarantine = os.path.basename(place)
        if not _QUARANTINE.fullmatch(quarantine) or None in updates or len(updates) > MOST_REFS:
            say(f"bot-bottle: a push changes at most {MOST_REFS} refs")
            return b"-\n"
        wanted = [
            [update[3].decode("utf-8", "replace"), update[1].decode(), update[2].decode()]
            for update in updates
            if update is not None
        ]
        message = {
            "do": "push",
            "remote": self.remote,
            "push": self.name,
            "quarantine": quarantine,
            "updates": wanted,
        }
        try:
            answered = self._courier.ask(message, say)
        except LineEnded:
            say("bot-bottle: the gate was interrupted; fetch to see what the upstream has")
            return b"-\n"
        return b"+\n" if answered.get("ok") is True else b"-\n"


def make_repository(path: str, mirror: str) -> None:
    """A bare repository with the refs of `mirror` as they are now, and its objects beside its own. Raises OSError."""
    for folder in ("objects/info", "objects/pack", "refs/heads", "refs/tags"):
        os.makedirs(f"{path}/{folder}")
    listed = subprocess.run(
        ["git", "for-each-ref", "--format=%(objectname) %(refname)"],
        env=settings.environment(more={"GIT_DIR": mirror}),
        cwd="/",
        capture_output=True,
        check=False,
    )
    if listed.returncode:
        raise OSError("the mirror's refs could not be read")
    with open(f"{mirror}/HEAD", "rb") as head:
        contents = {
            "HEAD": head.read(4096),
            "config": settings.CONFIG,
            "objects/info/alternates": f"{mirror}/objects\n".encode(),
            "packed-refs": b"# pack-refs with: sorted \n" + listed.stdout,
        }
    for name, content in contents.items():
        with open(f"{path}/{name}", "wb") as file:
            file.write(content)
