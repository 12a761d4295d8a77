"""The process that goes to the upstreams: it has the network and the credentials, and the last word on a push.

The gate asks it, and is believed in nothing but what it wants: which remote, which refs. It is told the rules by the keeper,
has what was pushed looked at by the checker, and then brings upstream what was looked at, by object id and on condition that the
upstream's refs are where the agent saw them. A short-lived child of the keeper; nothing here faces the agent.
"""

import base64
import hashlib
import os
import shutil
import socket
import threading
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from typing import Any, NoReturn

from bot_bottle.bundle.gitgate import settings, worker
from bot_bottle.bundle.gitgate.line import Line, LineEnded
from bot_bottle.launch.gitgate import signing
from bot_bottle.launch.gitgate.forward import Forwarder, Pushed
from bot_bottle.launch.gitgate.mirror import Mirror
from bot_bottle.launch.gitgate.said import explain, plain
from bot_bottle.launch.gitgate.upstream import FOLDER, way
from bot_bottle.policy.git import MOST_REFS, Update

AT_ONCE = 128
"""Questions of the gate, which asks one for each connection; the next is read when one has its answer."""
Answer = dict[str, Any]
Say = Callable[[str], None]


def serve(keeper: int, gate: int, checker: int) -> NoReturn:
    """Answers what is asked on the descriptor `gate`; ends the process."""

    def body(order: Mapping[str, Any], line: Line) -> None:
        asked, checking = (Line(socket.socket(fileno=descriptor)) for descriptor in (gate, checker))
        courier = Courier(order, line, checking)
        for hearing in (courier.hear_keeper, lambda: _until_it_ends(checking)):
            threading.Thread(target=hearing, daemon=True).start()
        line.send({"ready": True})
        courier.hear_gate(asked)
        os._exit(0)

    worker.run(keeper, body)


def _until_it_ends(line: Line) -> None:
    for _ in line.messages():
        pass
    os._exit(0)


class Remote:
    """One of the bottle's: what is known of it, and its mirror."""

    def __init__(self, order: Mapping[str, Any], shared: Mapping[str, Any]) -> None:
        self.name = str(order["name"])
        self.rules: dict[str, Any] = dict(order["rules"])
        self.once: dict[str, Any] | None = order.get("once")
        """What holds for one push that would not pass by `rules`."""
        self.lacks = str(order.get("lacks", ""))
        """Why it can't be entered at all."""
        self.changes = 0
        self.turn = threading.Lock()
        """One push after the other while something is good for one alone."""
        self.way = way(order, ca=shared["ca"], proxy=shared["proxy"])
        self.mirror = Mirror(f"{settings.PLACE_MIRRORS}/{self.name}.git", self.way)
        for path, content in self.way.files:
            with open(
                os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600), "wb"
            ) as file:
                file.write(content)


class Courier:
    """Answers the gate's questions, each in a thread of its own."""

    def __init__(self, order: Mapping[str, Any], keeper: Line, checker: Line) -> None:
        self._keeper = keeper
        self._checker = checker
        self._remotes = {str(one["name"]): Remote(one, order) for one in order["remotes"]}
        self._signing_key = str(order.get("signing_key") or "")
        self._signing = threading.Semaphore(2)
        self._room = threading.Semaphore(AT_ONCE)

    def hear_gate(self, gate: Line) -> None:
        """Answers every question of the gate, until it has ended."""
        for message in gate.messages():
            self._room.acquire()
            threading.Thread(target=self._take, args=(gate, message), daemon=True).start()

    def _take(self, gate: Line, message: Mapping[str, Any]) -> None:
        try:
            self.answer(gate, message)
        finally:
            self._room.release()

    def hear_keeper(self) -> None:
        """Changed rules; without a keeper it ends."""
        for message in self._keeper.messages():
            remote = self._remotes.get(str(message.get("remote")))
            if remote is not None and isinstance(message.get("rules"), dict):
                remote.changes += 1
                remote.rules, remote.once = message["rules"], message.get("once")
                self._keeper.send({"in_force": message.get("change")})
        os._exit(0)

    def answer(self, gate: Line, message: Mapping[str, Any]) -> None:
        """One question of the gate."""
        number = message.get("ask")

        def say(text: str) -> None:
            gate.send({"answer": number, "said": text})

        try:
            gate.send({**self._answer(message, say), "answer": number})
        except LineEnded:
            os._exit(0)

    def _answer(self, message: Mapping[str, Any], say: Say) -> Answer:
        if message.get("do") == "sign":
            return self._sign(message)
        remote = self._remotes.get(str(message.get("remote")))
        if remote is None:
            return {"ok": False, "why": "no such remote"}
        try:
            if message.get("do") == "refresh":
                return self._refresh(remote, str(message.get("service")))
            if message.get("do") == "push":
                return self._push(remote, message, say)
        except OSError as error:
            self._event("git.failed", remote, {"why": plain(str(error))})
            say(f"bot-bottle: the push could not be carried out: {error.strerror or 'an error of the host'}")
        return {"ok": False, "why": "the gate could not do it"}

    def _sign(self, message: Mapping[str, Any]) -> Answer:
        if not self._signing_key:
            return {"ok": False, "why": "this bottle has no key to sign with"}
        try:
            content = base64.b64decode(str(message.get("content")), validate=True)
        except ValueError:
            content = b""
        kind = signing.kind(content)
        if not kind:
            return {"ok": False, "why": "only commits and tags are signed, as git makes them"}
        with self._signing:
            signature, why = signing.sign(content, self._signing_key)
        data = {
            "object": kind,
            "digest": hashlib.sha256(content).hexdigest()[:16],
            **({"why": why} if why else {}),
        }
        self._say("git.unsigned" if why else "git.signed", data)
        return {"ok": False, "why": why} if why else {"ok": True, "signature": signature.decode()}

    def _refresh(self, remote: Remote, service: str) -> Answer:
        operation = "push" if service == "git-receive-pack" else "fetch"
        if remote.lacks:
            self._event("git.unavailable", remote, {"operation": operation, "why": remote.lacks})
            return {"ok": False, "why": f"{remote.name} can't be reached now: {remote.lacks}"}
        said = remote.mirror.refresh(head=operation == "fetch")
        if said.code:
            self._event("git.unavailable", remote, {"operation": operation, "why": plain(said.stderr)})
            return {"ok": False, "why": f"{remote.name} can't be reached now: {explain(said.stderr)}"}
        if operation == "fetch":
            self._event("git.fetched", remote, {})
        return {"ok": True}

    def _push(self, remote: Remote, message: Mapping[str, Any], say: Say) -> Answer:
        try:
            updates = [Update(*map(str, one)) for one in message["updates"]]
            push, quarantine = str(message["push"]), str(message["quarantine"])
        except (KeyError, TypeError, ValueError):
            return {"ok": False, "why": "no push"}
        if (
            not 0 < len(updates) <= MOST_REFS
            or not push.isalnum()
            or "/" in quarantine
            or quarantine.startswith(".")
        ):
            return {"ok": False, "why": "no push"}
        asked = {
            "do": "check",
            "remote": remote.name,
            "push": push,
            "quarantine": quarantine,
            "updates": updates,
        }
        with remote.turn if remote.once else nullcontext():
            try:
                found, once = self._look(remote, asked)
                if not self._may_go(remote, updates, found, say):
                    return {"ok": False}
                pushed = self._forward(remote, push, updates)
            finally:
                self._checker.ask({"do": "drop", "push": push})
            if pushed.ok:
                if once:
                    remote.once = None
                refs = [plain(one.ref) for one in updates]
                self._keeper.send({"pushed": remote.name, "refs": refs, "once": once})
        return self._tell(remote, updates, pushed, say)

    def _look(self, remote: Remote, asked: Answer) -> tuple[Mapping[str, Any], bool]:
        """What the checker finds by the rules that hold when it is done; and whether it took what is good for one use."""
        while True:
            changes, rules, once = remote.changes, remote.rules, remote.once
            found = self._checker.ask({**asked, "rules": rules})
            needed = once is not None and not _passes(found)
            if needed:
                self._checker.ask({"do": "drop", "push": asked["push"]})
                found = self._checker.ask({**asked, "rules": once})
            if changes == remote.changes and (not needed or remote.once is once):
                return found, needed
            self._checker.ask({"do": "drop", "push": asked["push"]})

    def _forward(self, remote: Remote, push: str, updates: list[Update]) -> Pushed:
        sender = f"{FOLDER}/send-{push}.git"
        objects = (f"{remote.mirror.path}/objects", f"{settings.PLACE_HELD}/{push}/objects")
        try:
            return Forwarder(remote.mirror, remote.way, sender, objects).push(updates)
        finally:
            shutil.rmtree(sender, ignore_errors=True)

    def _may_go(self, remote: Remote, updates: list[Update], found: Mapping[str, Any], say: Say) -> bool:
        if "failed" in found:
            say(f"bot-bottle: refused: {found['failed']}")
            self._event(
                "git.refused",
                remote,
                {**_refs(updates), "rule": "check-failed", "why": plain(str(found["failed"]))},
            )
        for ref, rule, what in found.get("refusals", ()):
            say(f"bot-bottle: refused: {ref}: {what} [{rule}]")
            self._event("git.refused", remote, {"ref": plain(ref), "rule": plain(rule), "why": plain(what)})
        for one in found.get("findings", ()):
            rule, ref, commit, path, line, fingerprint, what = one
            place = f"{path}:{line}" if line else path
            where = " in ".join(
                part for part in (plain(place), f"commit {commit[:12]}" if commit else "") if part
            )
            say(f"bot-bottle: refused: {where}: {plain(what)} [{rule}] fingerprint {plain(fingerprint)}")
            data = {"ref": plain(ref), "rule": plain(rule), "commit": plain(commit), "path": plain(path), "line": int(line),
                    "fingerprint": plain(fingerprint), "why": plain(what)}  # fmt: skip
            self._event("git.refused", remote, data)
        if found.get("more"):
            say(f"bot-bottle: and {found['more']} more")
        ok = _passes(found)
        if not ok:
            say("bot-bottle: nothing of this push was taken; the upstream is as it was")
        return ok

    def _tell(self, remote: Remote, updates: list[Update], pushed: Pushed, say: Say) -> Answer:
        for line in pushed.said:
            say(line)
        kind = "git.pushed" if pushed.ok else "git.failed"
        self._event(kind, remote, {**_refs(updates), **({} if pushed.ok else {"why": plain(pushed.why)})})
        if not pushed.ok:
            say(f"bot-bottle: not done: {pushed.why}")
        return {"ok": pushed.ok}

    def _event(self, kind: str, remote: Remote, data: Mapping[str, Any]) -> None:
        self._say(kind, {"remote": remote.name, **data})

    def _say(self, kind: str, data: Mapping[str, Any]) -> None:
        try:
            self._keeper.send({"event": kind, "data": data})
        except LineEnded:
            os._exit(0)


def _passes(found: Mapping[str, Any]) -> bool:
    """Whether the checker has nothing against it, and says so."""
    return (
        "failed" not in found and not found.get("refusals") and not found.get("findings") and "size" in found
    )


def _refs(updates: list[Update]) -> dict[str, str]:
    shown = [f"{plain(one.ref)} {one.old[:12]}..{one.new[:12]}" for one in updates[:8]]
    more = len(updates) - len(shown)
    return {"refs": ", ".join([*shown, *([f"and {more} more"] if more else [])])}
