"""What may be pushed through the git gate: rules as data, and the decisions about refs. Pure.

Patterns are those of a shell without `**`: `*` stands for anything, slashes too, `?` for one character. A branch's pattern is
written without `refs/heads/`, a tag's without `refs/tags/`.
"""

import re
from collections.abc import Sequence
from functools import lru_cache

from bot_bottle.typed import NamedTuple

NOTHING = "0" * 40
"""The object id that stands for none: a ref that is created, or deleted."""
BRANCHES, TAGS = "refs/heads/", "refs/tags/"
MOST_REFS = 64
"""Refs that one push may change."""


class GitRules(NamedTuple):
    """What a bottle may do with one remote. Nothing is granted but by these; patterns are matched whole."""

    push: tuple[str, ...] = ("bot/*",)
    """Branches that may be created and moved forward."""
    tags: tuple[str, ...] = ()
    """Tags that may be created; to move one takes `force` as well."""
    force: tuple[str, ...] = ()
    """Full names (`refs/heads/bot/*`) of what may be moved other than forward."""
    delete: tuple[str, ...] = ()
    """Full names of what may be deleted."""
    paths: tuple[str, ...] = ()
    """Protected paths (CI workflows, hooks, `.gitmodules`) that may be changed all the same."""
    authors: tuple[str, ...] = ()
    """Patterns of `Name <email>` that authors and committers must match; none: anybody."""
    max_file: int = 100 << 20
    """Bytes that one file may have."""
    max_push: int = 1 << 30
    """Bytes that a push may bring."""
    max_commits: int = 100_000
    """New commits that a push may bring."""
    allowed: tuple[str, ...] = ()
    """Fingerprints of findings that a person called false."""
    gitleaks: bool = True
    """Whether gitleaks has to look, too; where it is not installed, nothing is pushed then."""


class Update(NamedTuple):
    """One ref that a push wants changed: full name and object ids; NOTHING as `old` creates, as `new` deletes."""

    ref: str
    old: str
    new: str


class Refusal(NamedTuple):
    """Why a ref stays as it is: `rule` names it, `what` says it to a person, without anything secret."""

    ref: str
    rule: str
    what: str


@lru_cache(maxsize=512)
def _compiled(pattern: str) -> "re.Pattern[str]":
    parts = {"*": ".*", "?": "."}
    return re.compile("".join(parts.get(one) or re.escape(one) for one in pattern), re.DOTALL)


def matches(text: str, patterns: Sequence[str]) -> bool:
    """Whether one of `patterns` stands for the whole of `text`."""
    return any(_compiled(pattern).fullmatch(text) for pattern in patterns)


def is_granted(ref: str, rules: GitRules) -> bool:
    """Whether the ref may be created, or moved forward."""
    if ref.startswith(BRANCHES):
        return matches(ref.removeprefix(BRANCHES), rules.push)
    if ref.startswith(TAGS):
        return matches(ref.removeprefix(TAGS), rules.tags)
    return False


def judge(update: Update, rules: GitRules, *, forward: bool) -> Refusal | None:
    """Why `update` may not be; None when it may. `forward` says whether `new` has `old` among its ancestors."""
    ref = update.ref
    if not is_sound(ref):
        return Refusal(ref, "ref-name", "no such name is taken")
    if not is_granted(ref, rules):
        kind = "tags" if ref.startswith(TAGS) else "push"
        allowed = ", ".join(rules.tags if kind == "tags" else rules.push) or "none"
        return Refusal(ref, f"ref-{kind}", f"this bottle may push {_plural(kind)}: {allowed}")
    if update.new == NOTHING:
        return None if matches(ref, rules.delete) else Refusal(ref, "ref-delete", "it may not be deleted")
    moved = update.old not in (NOTHING, update.new)
    if moved and (ref.startswith(TAGS) or not forward) and not matches(ref, rules.force):
        what = "a tag may not be moved" if ref.startswith(TAGS) else "it may only be moved forward (no force)"
        return Refusal(ref, "ref-force", what)
    return None


def _plural(kind: str) -> str:
    return "these tags" if kind == "tags" else "these branches"


_UNSOUND = re.compile(r"[\x00-\x20\x7f~^:?*\[\\]|\.\.|@\{|//|/\.|\.lock(?:/|\Z)|\.(?:/|\Z)|/\Z|\A[-/.]")


def is_sound(ref: str) -> bool:
    """Whether git itself would take `ref` as a full name, and people can read it."""
    return (
        ref.startswith("refs/")
        and ref.count("/") >= 2
        and len(ref) <= 255
        and ref.isprintable()
        and _UNSOUND.search(ref) is None
    )
