"""What the git gate's parts say to each other about a push: what it wants, what was found, what was decided.

A push is checked by `checks.check`, in a process of its own that reads the pushed objects and nothing else:

    check(repository, updates, known, rules, secrets) -> Sequence[Finding]

`repository` is a bare repository of ours with the pushed objects in it and those of the mirror beside them (as alternates),
writable by nobody else, without a ref, a hook or a setting of the agent's. Large files are kept in it, without a name, while they
are looked at. `known` are the ids of the commits (and tags) that the upstream has: what can be reached from them is not looked
at. `secrets` are the bottle's own, by name. It answers what stands against the push; nothing when it may go. It raises
CheckFailed when it can't tell, and then nothing goes.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from bot_bottle.policy.git import GitRules as GitRules
from bot_bottle.policy.git import Update as Update
from bot_bottle.secret import Secret


class Finding(NamedTuple):
    """What stands against a push. Never the secret: `what` says in words what it is, `fingerprint` is its stable name.

    `line` is 0 and `path` empty where there is none (a message, an author). `rule` is what a person grants or allows.
    """

    rule: str
    ref: str
    commit: str
    path: str
    line: int
    fingerprint: str
    what: str


class CheckFailed(Exception):
    """The check itself could not be done (no gitleaks, too much, a broken object): says why, without a secret."""


Check = Callable[[Path, Sequence[Update], Sequence[str], GitRules, Mapping[str, Secret]], Sequence[Finding]]
