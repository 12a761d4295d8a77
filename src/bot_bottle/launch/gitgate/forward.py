"""Bringing a checked push upstream: all of its refs or none, each only if it is where the agent saw it; knowing what became of it.

When the connection breaks, nobody has said whether the upstream took it. Then it is asked, and the agent is told what it has.
"""

from collections.abc import Sequence
from typing import NamedTuple

from bot_bottle.launch.gitgate.mirror import Mirror, Said, make_sender
from bot_bottle.launch.gitgate.said import explain, upstreams_words
from bot_bottle.launch.gitgate.upstream import Way
from bot_bottle.policy.git import NOTHING, Update


class Pushed(NamedTuple):
    """Whether the upstream has all of it; if not, `why`. `said` are the upstream's own words."""

    ok: bool
    why: str = ""
    said: tuple[str, ...] = ()


class Forwarder:
    """One push: `sender` is a repository for it that sees `objects`."""

    def __init__(self, mirror: Mirror, way: Way, sender: str, objects: Sequence[str]) -> None:
        self._mirror = mirror
        self._way = way
        self._sender = sender
        make_sender(sender, *objects)

    def push(self, updates: Sequence[Update]) -> Pushed:
        """Raises OSError."""
        words = [
            "push",
            "--porcelain",
            "--no-verify",
            "--no-follow-tags",
            "--recurse-submodules=no",
            "--no-signed",
        ]
        words += ["--atomic"] if len(updates) > 1 else []
        for one in updates:
            expected = "" if one.old == NOTHING else one.old
            words.append(f"--force-with-lease={one.ref}:{expected}")
        words += ["--", self._way.url]
        words += [f"{'' if one.new == NOTHING else one.new}:{one.ref}" for one in updates]
        said = self._mirror.git(*words, repository=self._sender)
        heard = upstreams_words(said.stderr)
        if said.code == 0:
            return Pushed(ok=True, said=heard)
        if refused := _refused(said):
            return Pushed(ok=False, why="; ".join(refused), said=heard)
        return self._after_a_break(updates, said, heard)

    def _after_a_break(self, updates: Sequence[Update], said: Said, heard: tuple[str, ...]) -> Pushed:
        """What the upstream has, when nobody said whether it took the push."""
        listed = self._mirror.git("ls-remote", "--", self._way.url, *(one.ref for one in updates))
        if listed.code:
            why = f"the upstream went away ({explain(said.stderr)}), and whether it has it could not be asked; fetch to see"
            return Pushed(ok=False, why=why, said=heard)
        there: dict[str, str] = {}
        for line in listed.stdout.splitlines():
            found, _, ref = line.partition("\t")
            there[ref] = found
        done = [one.ref for one in updates if there.get(one.ref, NOTHING) == one.new]
        if len(done) == len(updates):
            return Pushed(ok=True, said=heard)
        state = f"it has {', '.join(done)} alone" if done else "it has nothing of it"
        return Pushed(ok=False, why=f"{explain(said.stderr)}; {state}", said=heard)


def _refused(said: Said) -> list[str]:
    """The refs that the upstream did not take, and why; empty when it said nothing of any."""
    refused = []
    for line in said.stdout.splitlines():
        flag, _, rest = line.partition("\t")
        if flag == "!":
            names, _, summary = rest.partition("\t")
            refused.append(f"{names.rpartition(':')[2]}: {_meaning(summary)}")
    return refused


def _meaning(summary: str) -> str:
    if "stale info" in summary:
        return "the upstream has moved meanwhile; fetch, and push again"
    if "atomic push" in summary:
        return "not taken, as another ref of the push was not"
    return f"the upstream refused it: {''.join(one for one in summary if one.isprintable())[:300]}"
