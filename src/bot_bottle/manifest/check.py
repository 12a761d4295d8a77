"""Every bottle and agent checked, one by one: what `bot-bottle validate` says."""

import os
from collections.abc import Callable, Sequence
from typing import NamedTuple

from bot_bottle.errors import BotBottleError, ManifestError, NotFoundError
from bot_bottle.manifest.load import load_bottle, load_found
from bot_bottle.manifest.places import SUFFIX, Places, file_names
from bot_bottle.manifest.source import Found, Reading, StrPath
from bot_bottle.names import RULE, is_name


class Checked(NamedTuple):
    """One file, and what is wrong with it or with what it builds on; nothing when it is right."""

    kind: str
    name: str
    file: str
    problems: tuple[str, ...]


def check_all(*, root: StrPath, repository: StrPath | None, names: Sequence[str] = ()) -> list[Checked]:
    """Checks all bottles and agents, or those called one of `names`; NotFoundError if there is none.

    A repository's agents are checked even where one of the operator's own hides them.
    """
    places = Places(root, repository)
    bottles = _files(os.path.join(places.root, "bottles"), places.root)
    agents = _files(os.path.join(places.root, "agents"), places.root)
    if places.repository_root is not None and places.repository is not None:
        folder = os.path.join(places.repository_root, "agents")
        agents += [found._replace(from_repository=True) for found in _files(folder, places.repository)]
    unknown = sorted(set(names) - {found.name for found in (*bottles, *agents)})
    if unknown:
        raise NotFoundError(
            "There is no bottle or agent " + ", ".join(f"`{name}`" for name in unknown),
            details="there is: "
            + (", ".join(sorted({found.name for found in (*bottles, *agents)})) or "none"),
        )
    checks: list[tuple[str, Found, Callable[[Found], object]]] = []
    checks += [("bottle", one, lambda one: load_bottle(one.name, root=root)) for one in bottles]
    checks += [("agent", one, lambda one: load_found(one, places, reading=Reading())) for one in agents]
    listed: set[str] = set()
    return [
        _checked(kind, one, check, listed) for kind, one, check in checks if not names or one.name in names
    ]


def _files(folder: str, within: str) -> list[Found]:
    return [Found(name, os.path.join(folder, name + SUFFIX), within) for name in file_names(folder)]


def _checked(kind: str, found: Found, check: Callable[[Found], object], listed: set[str]) -> Checked:
    """One file checked. What was `listed` with an earlier file is not listed again, only referred to."""
    problems: list[str] = []
    if not is_name(found.name):
        problems = [f"{found.path}:1: its name can't be that of a manifest file: {RULE}"]
    else:
        try:
            check(found)
        except ManifestError as error:
            lines = error.details.splitlines()
            problems = [line for line in lines if line not in listed]
            problems = problems or [
                f"{found.path}:1: builds on a bottle that is wrong; its lines are listed above"
            ]
            listed.update(lines)
        except BotBottleError as error:
            problems = [f"{found.path}:1: {error.brief}. {error.resolution}".rstrip()]
    return Checked(kind, found.name, found.path, tuple(problems))
