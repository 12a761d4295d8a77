"""What a `git-block` asks for, as data: one ref, one protected path, one finding of the check, each exact. Pure."""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from bot_bottle.policy.git import BRANCHES, TAGS, GitRules, is_granted, is_sound, matches

Rules = Sequence[tuple[str, GitRules]]
"""The rules of each remote, by its name."""
_FINGERPRINT = re.compile(r"[0-9a-f]{20}")
_PATTERN = re.compile(r"[*?\\]")


FORCE, DELETE = "force", "delete"
OPERATIONS = ("push", "fetch", FORCE, DELETE)
_AND = {FORCE: ", also with force: what it has now is left behind", DELETE: ", and delete it"}


class Wish(NamedTuple):
    """What may be pushed to `remote` that may not now. Each of the others is empty where it is not asked for."""

    remote: str
    ref: str = ""
    path: str = ""
    fingerprint: str = ""
    operation: str = "push"
    """With `ref`: `force` is to move it other than forward, `delete` to delete it."""


def full_ref(text: str) -> str:
    """The full name of the branch or tag; empty when it is none, or could stand for several."""
    ref = text if text.startswith("refs/") else BRANCHES + text
    return ref if is_sound(ref) and ref.startswith((BRANCHES, TAGS)) else ""


def is_exact_path(text: str) -> bool:
    """Whether, taken for a pattern, it stands for itself alone."""
    return bool(text) and len(text) <= 400 and text.isprintable() and not _PATTERN.search(text)


def is_fingerprint(text: str) -> bool:
    """Whether a finding may be called so."""
    return _FINGERPRINT.fullmatch(text) is not None


def wish(subject: Mapping[str, Any]) -> Wish:
    """The wish that an ask's subject is."""
    return Wish(*(str(subject.get(name, "")) for name in Wish._fields))


def over(rules: GitRules, wishes: Iterable[Wish]) -> GitRules:
    """`rules` with what `wishes` ask for."""
    for one in wishes:
        if one.ref.startswith(TAGS):
            rules = rules._replace(tags=(*rules.tags, one.ref.removeprefix(TAGS)))
        elif one.ref:
            rules = rules._replace(push=(*rules.push, one.ref.removeprefix(BRANCHES)))
        if one.ref and one.operation == FORCE:
            rules = rules._replace(force=(*rules.force, one.ref))
        if one.ref and one.operation == DELETE:
            rules = rules._replace(delete=(*rules.delete, one.ref))
        if one.path:
            rules = rules._replace(paths=(*rules.paths, one.path))
        if one.fingerprint:
            rules = rules._replace(allowed=(*rules.allowed, one.fingerprint))
    return rules


def lines(one: Wish) -> tuple[str, ...]:
    """What would be granted, a line each."""
    found = []
    if one.ref:
        kind = "tag" if one.ref.startswith(TAGS) else "branch"
        found.append(
            f"- git {one.remote}: push the {kind} {one.ref.removeprefix(BRANCHES).removeprefix(TAGS)}"
            + _AND.get(one.operation, "")
        )
    if one.path:
        found.append(f"- git {one.remote}: change {one.path}")
    if one.fingerprint:
        found.append(f"- git {one.remote}: let the finding {one.fingerprint} pass")
    return tuple(found)


def problem(one: Wish, operation: str, rules: Rules) -> str:
    """Why it can't be asked for, whoever decides; empty when it can."""
    names = [name for name, _ in rules]
    if not names:
        return "This bottle has no git remote, and only its file can give it one."
    if one.remote not in names:
        return f"There is no remote of that name; this bottle has: {', '.join(names)}. Only its file can add one."
    if operation == "fetch":
        return (
            f"Fetching from {one.remote} is allowed already; if it fails, its upstream can't be reached now."
        )
    if one.operation in _AND and not one.ref:
        return f"Name the `ref` of the one branch or tag to {one.operation}."
    if not (one.ref or one.path or one.fingerprint):
        return "Name the `ref`, the `path` or the `fingerprint` that the refusal named."
    return ""


def is_allowed(one: Wish, rules: Rules) -> bool:
    """Whether all of it is allowed now."""
    held = dict(rules)[one.remote]
    return (
        (not one.ref or is_granted(one.ref, held))
        and (one.operation != FORCE or matches(one.ref, held.force))
        and (one.operation != DELETE or matches(one.ref, held.delete))
        and (not one.path or matches(one.path, held.paths))
        and (not one.fingerprint or one.fingerprint in held.allowed)
    )
