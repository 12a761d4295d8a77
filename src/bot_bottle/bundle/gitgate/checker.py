"""The process that looks at what was pushed. It has no network, no upstream's credential, and no way to the agent.

What git took in for the agent is not believed: the packs are copied and read again from their first byte, into a folder that nobody
else writes. What is checked there is what the courier brings upstream, object by object, by their ids.
"""

import os
import shutil
import socket
import subprocess
import threading
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NoReturn

from bot_bottle.bundle.gitgate import gitleaks, settings, worker
from bot_bottle.bundle.gitgate.line import Line, LineEnded
from bot_bottle.bundle.gitgate.model import CheckFailed, Finding, GitRules, Update
from bot_bottle.policy import git as policy
from bot_bottle.secret import Secret

_MOST_FINDINGS = 200


def serve(keeper: int, courier: int) -> NoReturn:
    """Checks what it is asked to on the descriptor `courier`; ends the process."""

    def body(order: Mapping[str, Any], line: Line) -> None:
        answering = Line(socket.socket(fileno=courier))
        checker = Checker({name: Secret(value) for name, value in order["secrets"].items()})
        threading.Thread(target=_until_it_ends, args=(line,), daemon=True).start()
        line.send({"ready": True})
        for message in answering.messages():
            threading.Thread(target=_answer, args=(checker, answering, message), daemon=True).start()
        os._exit(0)

    worker.run(keeper, body)


def _until_it_ends(line: Line) -> None:
    for _ in line.messages():
        pass
    os._exit(0)


def _answer(checker: "Checker", line: Line, message: Mapping[str, Any]) -> None:
    answer: dict[str, Any]
    try:
        answer = checker.check(message) if message["do"] == "check" else checker.drop(str(message["push"]))
    except CheckFailed as error:
        answer = {"failed": str(error)}
    except Exception as error:  # noqa: BLE001 - whatever the pushed objects made go wrong, they go nowhere
        answer = {"failed": f"the check could not be done ({type(error).__name__})"}
    try:
        line.send({**answer, "answer": message["ask"]})
    except LineEnded:
        os._exit(0)


class Checker:
    """One bottle's. `secrets` are its own, by name."""

    def __init__(self, secrets: Mapping[str, Secret]) -> None:
        self._secrets = secrets

    def check(self, message: Mapping[str, Any]) -> dict[str, Any]:
        """What stands against a push; raises CheckFailed, OSError when that can't be said."""
        remote, push = str(message["remote"]), str(message["push"])
        rules = GitRules(**{name: _plain(value) for name, value in message["rules"].items()})
        updates = [Update(*map(str, one)) for one in message["updates"]]
        mirror = f"{settings.PLACE_MIRRORS}/{remote}.git"
        held = f"{settings.PLACE_HELD}/{push}"
        make_held(held, mirror)
        quarantine = str(message["quarantine"])
        incoming = f"{settings.PLACE_PUSHES}/{push}/repo.git/objects/{quarantine}"
        program = gitleaks.installed() if rules.gitleaks and quarantine else None
        with ExitStack() as stack:
            leaks = stack.enter_context(gitleaks.Gitleaks(program)) if program else None
            size = self._take_in(incoming, held, rules) if quarantine else 0
            refusals = [found for update in updates if (found := _judge(held, update, rules)) is not None]
            if refusals:
                return {"refusals": refusals, "findings": [], "size": size}
            findings = self._search(held, updates, _known(mirror), rules, leaks)
        return {
            "refusals": [],
            "findings": findings[:_MOST_FINDINGS],
            "more": max(0, len(findings) - _MOST_FINDINGS),
            "size": size,
        }

    def drop(self, push: str) -> dict[str, Any]:
        """Forgets what was taken in of a push."""
        shutil.rmtree(f"{settings.PLACE_HELD}/{push}", ignore_errors=True)
        return {"ok": True}

    def _take_in(self, quarantine: str, held: str, rules: GitRules) -> int:
        """Reads every pack anew, strictly; the bytes that they are. Nothing else of the quarantine is looked at."""
        taken = 0
        folder = f"{quarantine}/pack"
        names = sorted(os.listdir(folder)) if os.path.isdir(folder) else []
        for name in names:
            if not name.endswith(".pack"):
                continue
            descriptor = os.open(
                f"{folder}/{name}", os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
            )
            with open(descriptor, "rb") as pack:
                taken += os.fstat(descriptor).st_size
                if taken > rules.max_push:
                    raise CheckFailed(f"it brings more than {rules.max_push >> 20} MiB")
                most = f"--max-input-size={rules.max_push}"
                done = git(held, "index-pack", "--stdin", "--strict", most, stdin=pack)
            if done.returncode:
                raise CheckFailed(f"git does not take its objects: {_last_line(done.stderr)}")
        return taken

    def _search(
        self,
        held: str,
        updates: Sequence[Update],
        known: Sequence[str],
        rules: GitRules,
        leaks: gitleaks.Gitleaks | None,
    ) -> Sequence[Finding]:
        from bot_bottle.bundle.gitgate import checks

        return checks.check(Path(held), updates, known, rules, self._secrets, leaks)


def _plain(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def git(
    repository: str, *words: str, stdin: Any = subprocess.DEVNULL, given: bytes | None = None
) -> "subprocess.CompletedProcess[bytes]":
    """Git on a repository of ours."""
    feed: dict[str, Any] = {"stdin": stdin} if given is None else {"input": given}
    return subprocess.run(
        ["git", *words],
        env=settings.environment((), {"GIT_DIR": repository}),
        cwd="/",
        capture_output=True,
        check=False,
        **feed,
    )


def make_held(path: str, mirror: str) -> None:
    """A repository without a ref for what is pushed, with the objects of `mirror` beside it."""
    for folder in ("objects/info", "objects/pack", "refs/heads"):
        os.makedirs(f"{path}/{folder}", exist_ok=True)
    contents = {
        "HEAD": b"ref: refs/heads/none\n",
        "config": settings.CONFIG,
        "objects/info/alternates": f"{mirror}/objects\n".encode(),
    }
    for name, content in contents.items():
        with open(f"{path}/{name}", "wb") as file:
            file.write(content)


def _known(mirror: str) -> list[str]:
    """The commits and tags that the upstream has, as it was mirrored last."""
    listed = git(mirror, "for-each-ref", "--format=%(objectname)")
    if listed.returncode:
        raise CheckFailed("the mirror's refs could not be read")
    return sorted(set(listed.stdout.decode().split()))


def _judge(held: str, update: Update, rules: GitRules) -> policy.Refusal | None:
    if update.new != policy.NOTHING:
        kind = git(held, "cat-file", "-t", update.new).stdout.decode().strip()
        wanted = ("commit", "tag") if update.ref.startswith(policy.TAGS) else ("commit",)
        if kind not in wanted:
            return policy.Refusal(update.ref, "ref-object", f"it would be no {' or '.join(wanted)}")
    forward = (
        policy.NOTHING not in (update.old, update.new)
        and git(held, "merge-base", "--is-ancestor", update.old, update.new).returncode == 0
    )
    return policy.judge(update, rules, forward=forward)


def _last_line(said: bytes) -> str:
    lines = [line for line in said.decode(errors="replace").splitlines() if line.strip()]
    return "".join(one for one in (lines[0] if lines else "it said nothing")[:300] if one.isprintable())
