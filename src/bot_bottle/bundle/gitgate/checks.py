"""What stands against a push: secrets in whatever it brings, paths and sizes and authors that the bottle was not granted.

Only what the upstream lacks is looked at: files of every new commit (also of merges, and of those that a later one removes),
messages, authors, tags, and the names of paths and refs. What is found is told by place and rule, never by its text.
"""

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import NamedTuple

from bot_bottle.bundle.gitgate import gitleaks
from bot_bottle.bundle.gitgate.model import CheckFailed, Finding, GitRules, Update
from bot_bottle.bundle.gitgate.objects import COMMIT_BYTES, Change, Content, Object, Pushed
from bot_bottle.bundle.gitgate.unpacking import Budget, unpacked
from bot_bottle.digest import sha256_hex
from bot_bottle.host import git
from bot_bottle.policy.approval_text import clean
from bot_bottle.policy.git import NOTHING, matches
from bot_bottle.policy.git_paths import protected
from bot_bottle.policy.secrets.known import Known
from bot_bottle.policy.secrets.scanner import Scanner, TooTangled
from bot_bottle.policy.secrets.unpack import Unreadable
from bot_bottle.secret import Secret

SECONDS = 900.0
"""How long the check of one push may take."""
MOST = 50
"""Findings of one push that are told."""
_BLOCK, _OVERLAP = 1 << 20, 1 << 16
_NAME, _NAMES = 400, 1000
_FIELDS_LEFT_OUT = (b"tree ", b"parent ")
_NEAR = 400
_WITHHELD = "(withheld: it has a secret in it)"


class Place(NamedTuple):
    """Where a text stands. `id` is the object's; `what` says it in words."""

    ref: str
    commit: str
    path: str
    id: str
    what: str = "the file"


class Seen(NamedTuple):
    """One secret as it was found: `own` is the name of the bottle's own that it is, `how` what was around it."""

    rule: str
    text: bytes
    own: str = ""
    how: str = ""

    def __repr__(self) -> str:
        return f"Seen({self.rule!r}, <secret>, {self.own!r}, {self.how!r})"


class Enough(Exception):
    """There are so many findings that more would say nothing."""


def check(
    repository: Path,
    updates: Sequence[Update],
    known: Sequence[str],
    rules: GitRules,
    secrets: Mapping[str, Secret],
    leaks: gitleaks.Gitleaks | None = None,
) -> Sequence[Finding]:
    """What stands against the push `updates`, at most 50 findings; see `model`. Raises CheckFailed.

    `leaks` was begun before, for this check; without, one is begun here where the rules want it.
    """
    program = gitleaks.find() if rules.gitleaks and leaks is None else ""
    checking = _Checking(Pushed(repository, time.monotonic() + SECONDS), rules, secrets)
    try:
        with ExitStack() as stack:
            if program:
                leaks = stack.enter_context(gitleaks.Gitleaks(program))
            if leaks is not None:
                leaks.left = checking.pushed.left
                checking.leaks = leaks
            with suppress(Enough):
                checking.run(updates, known)
            return checking.told()
    except (ValueError, IndexError, OSError, MemoryError, RecursionError) as error:
        raise CheckFailed(f"the check broke off ({type(error).__name__})") from error


class _Checking:
    def __init__(self, pushed: Pushed, rules: GitRules, secrets: Mapping[str, Secret]) -> None:
        self.pushed = pushed
        self.findings: list[Finding] = []
        self.leaks: gitleaks.Gitleaks | None = None
        self._rules = rules
        known = [Known(name, secret.reveal().encode()) for name, secret in secrets.items()]
        self._scanner = Scanner(known)
        self._places: list[Place | list[Place]] = []
        """Whose each text is that waits for gitleaks; of a text of names, whose each line."""
        self._names: dict[str, Place] = {}
        self._texts: set[str] = set()
        """Digests of those that were looked at: a text can be long."""
        self._told: set[tuple[str, str, str]] = set()
        self._bytes = 0
        self._commits = 0

    def run(self, updates: Sequence[Update], known: Sequence[str]) -> None:
        """Looks at everything; what is found is in `findings`. Raises CheckFailed, Enough."""
        there = [one for one in known if one != NOTHING]
        for update in updates:
            self._names[update.ref] = Place(update.ref, "", "", update.ref, "the ref's name")
            if update.new == NOTHING:
                continue
            tags, commit = self.pushed.peel(update.new)
            for tag in tags:
                if tag.id not in there:
                    self._message(tag, update.ref)
            if commit:
                self._history(update.ref, commit, there)
                there.append(commit)
            else:
                place = Place(update.ref, "", "", update.new)
                self._add("not-a-commit", place, "what it names is no commit")
        self._look_at_names()
        if self.leaks is not None:
            self._leaks(self.leaks.look())

    # What there is to look at

    def _history(self, ref: str, commit: str, known: Sequence[str]) -> None:
        new = self.pushed.new([commit], known)
        self._commits += len(new.commits)
        if self._commits > self._rules.max_commits:
            place = Place(ref, commit, "", commit)
            self._add("too-many-commits", place, f"it brings more than {self._rules.max_commits} commits")
            return
        for one in self.pushed.contents(new.commits, longest=COMMIT_BYTES):
            self._message(one, ref)
        blobs: dict[str, Place] = {}
        for change in self.pushed.changes(new.commits):
            path = change.path.decode("utf-8", "backslashreplace")
            place = Place(ref, change.commit, path, change.blob)
            self._path(change, place)
            if change.mode not in ("000000", "160000") and change.blob in new.others:
                blobs.setdefault(change.blob, place)
        self._files(blobs)

    def _files(self, blobs: Mapping[str, Place]) -> None:
        small: list[str] = []
        for name, (_, size) in self.pushed.sizes(blobs).items():
            self._bytes += size
            if size > self._rules.max_file:
                self._add(
                    "file-size", blobs[name], f"it has {size} bytes, and {self._rules.max_file} are allowed"
                )
            else:
                small.append(name)
        if self._bytes > self._rules.max_push:
            place = next(iter(blobs.values()))._replace(path="")
            self._add(
                "push-size", place, f"the push brings {self._bytes} bytes, {self._rules.max_push} are allowed"
            )
            raise Enough
        for one in self.pushed.contents(small):
            self._file(one.data, blobs[one.id])

    def _file(self, data: Content, place: Place) -> None:
        self._text(data, place)
        for inner in unpacked(data, Budget()):
            inside = place._replace(path=place.path + clean(inner.inside, _NAME), what="within the file")
            if inner.problem:
                self._add("unreadable", inside, inner.problem)
            if inner.data:
                self._text(inner.data, inside)

    def _message(self, one: Object, ref: str) -> None:
        """The texts of a commit or tag: its message; its header, without what is an id or a time."""
        header, _, message = bytes(one.data).partition(b"\n\n")
        place = Place(ref, one.id, "", one.id)
        people = []
        others = []
        for line in header.split(b"\n"):
            if line.startswith((b"author ", b"committer ", b"tagger ")):
                who = line.partition(b" ")[2].rpartition(b"> ")[0] + b">"
                people.append(who)
            elif not line.startswith((*_FIELDS_LEFT_OUT, b"object ", b"type ")):
                others.append(line)
        for who in dict.fromkeys(people):
            self._author(who, place)
            self._once(who, place._replace(what="the author's name"))
        self._once(b"\n".join(others), place._replace(what="the header"))
        kind = "tag" if one.kind == "tag" else "commit"
        self._once(message, place._replace(what=f"the {kind}'s message"))

    def _author(self, who: bytes, place: Place) -> None:
        text = who.decode("utf-8", "replace")
        if self._rules.authors and not matches(text, self._rules.authors):
            allowed = ", ".join(self._rules.authors)
            self._add("author", place, f"the author or committer is another one than: {allowed}")

    def _path(self, change: Change, place: Place) -> None:
        self._names.setdefault(place.path, place._replace(what="the path's name"))
        if git.is_reserved(place.path) or "\\x" in place.path:
            self._add("path-reserved", place, "git keeps the name for itself, or it can't be read by all")
        found = protected(place.path, change.mode)
        if found is not None and not matches(place.path, self._rules.paths):
            self._add(found.rule, place, f"the path is not granted: {found.what}")

    def _look_at_names(self) -> None:
        """Names are looked at as one text, a line each: the line says whose it is."""
        places = list(self._names.values())
        lines = [name.replace("\n", " ").encode("utf-8", "replace") for name in self._names]
        for start in range(0, len(lines), _NAMES):
            text = b"\n".join(lines[start : start + _NAMES])
            these = places[start : start + _NAMES]
            for line, seen in self._own(text):
                self._secret(seen, these[line - 1], 0)
            if self.leaks is not None:
                self._places.append(these)
                self._leaks(self.leaks.add(len(self._places) - 1, text))

    # Looking

    def _once(self, text: bytes, place: Place) -> None:
        digest = sha256_hex(text)
        if digest not in self._texts:
            self._texts.add(digest)
            self._text(text, place)

    def _text(self, data: Content, place: Place) -> None:
        """Looks for secrets in `data`."""
        self.pushed.left()
        try:
            for line, seen in self._own(data):
                self._secret(seen, place, line)
        except (TooTangled, Unreadable):
            self._add("unreadable", place, "so much is encoded in it that it can't be looked into")
        if self.leaks is not None:
            self._places.append(place)
            self._leaks(self.leaks.add(len(self._places) - 1, data, name=place.path))

    def _leaks(self, found: Iterable[gitleaks.Leak]) -> None:
        for leak in found:
            place = self._places[leak.key]
            if isinstance(place, list):
                self._secret(_seen(leak), place[min(leak.line, len(place)) - 1], 0)
            else:
                self._secret(_seen(leak), place, leak.line)

    def _own(self, data: Content) -> Iterator[tuple[int, Seen]]:
        """The bottle's own secrets and tokens of known shapes, in whatever encoding: the line, and what."""
        lines = 0
        for at in range(0, max(1, len(data)), _BLOCK):
            block = data[at : at + _BLOCK + _OVERLAP]
            for match in self._scanner.scan(block):
                line = lines + self._line(block, match.detector, match.text)
                own = match.known.name if match.known else ""
                yield line, Seen("own-secret" if own else match.detector, match.text, own, match.encoding)
            lines += block.count(b"\n", 0, _BLOCK)

    def _line(self, block: bytes, detector: str, text: bytes) -> int:
        """The line in which it begins, from 1: as it stands, else by halving what it is still found in."""
        low, high = block.find(text), len(block)
        if low < 0:
            low = 0
            while high - low > 2 * _NEAR:
                middle = (low + high) // 2
                if self._is_in(block[low : middle + _NEAR], detector):
                    high = middle + _NEAR
                elif self._is_in(block[middle - _NEAR : high], detector):
                    low = middle - _NEAR
                else:
                    break
                if high - low <= 3 * _NEAR:
                    break
            while (end := block.find(b"\n", low, high)) >= 0 and self._is_in(block[end + 1 : high], detector):
                low = end + 1
        return block.count(b"\n", 0, low) + 1

    def _is_in(self, part: bytes, detector: str) -> bool:
        try:
            return any(match.detector == detector for match in self._scanner.scan(part))
        except (TooTangled, Unreadable):
            return False

    # Telling

    def told(self) -> list[Finding]:
        """The findings, with nothing of a path or ref that has a secret in its name."""
        secret = self._telling({name for one in self.findings for name in (one.path, one.ref)})
        return [
            one._replace(
                path=_WITHHELD if one.path in secret else one.path,
                ref=_WITHHELD if one.ref in secret else one.ref,
            )
            for one in self.findings
        ]

    def _telling(self, names: Iterable[str]) -> set[str]:
        """Those that have a secret in them."""
        listed = sorted(names)
        found = set()
        for name in listed:
            try:
                if self._scanner.scan(name.encode("utf-8", "replace")):
                    found.add(name)
            except (TooTangled, Unreadable):
                found.add(name)
        if self.leaks is not None and listed:
            leaks = list(self.leaks.look())  # what still waits is of no interest any more
            for number, name in enumerate(listed):
                leaks += self.leaks.add(-1 - number, name.encode("utf-8", "replace"))
            found |= {listed[-1 - leak.key] for leak in (*leaks, *self.leaks.look()) if leak.key < 0}
        return found

    def _secret(self, seen: Seen, place: Place, line: int) -> None:
        stable = "" if seen.own else fingerprint("secret", place.path, seen.text)
        name = f"the bottle's own secret {seen.own}" if seen.own else f"a secret ({seen.rule})"
        how = f", {seen.how}" if seen.how not in ("", "plain") else ""
        within = "" if place.what.startswith("within") else "in "
        self._tell(seen.rule, place, line, stable, f"{name} {within}{place.what}{how}")

    def _add(self, rule: str, place: Place, what: str) -> None:
        self._tell(rule, place, 0, fingerprint(rule, place.path, place.id.encode()), what)

    def _tell(self, rule: str, place: Place, line: int, stable: str, what: str) -> None:
        if stable in self._rules.allowed and stable:
            return
        same = (rule, stable or what, place.path or place.commit)
        if same in self._told:
            return
        self._told.add(same)
        path = clean(place.path, _NAME)
        self.findings.append(Finding(rule, place.ref, place.commit, path, line, stable, what))
        if len(self.findings) >= MOST:
            raise Enough


def _seen(leak: gitleaks.Leak) -> Seen:
    return Seen(leak.rule, leak.secret.encode("utf-8", "replace"))


def fingerprint(rule: str, path: str, text: bytes) -> str:
    """The stable name of what was found: of this text (which it does not tell) at this path."""
    return sha256_hex(b"\0".join((rule.encode(), path.encode("utf-8", "replace"), text)))[:20]
