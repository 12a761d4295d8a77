"""Where bottles, agents and skills are looked for, and what is there. No heavy import: completion uses it."""

import os

from bot_bottle.manifest.source import Found, StrPath
from bot_bottle.names import is_name

IN_REPOSITORY = ".bot-bottle"
SUFFIX = ".md"


class Places:
    """The operator's own folder, and the repository's when there is one and it is not the operator's own."""

    def __init__(self, root: StrPath, repository: StrPath | None) -> None:
        self.root = os.path.abspath(os.fspath(root))
        self.repository = None if repository is None else os.path.abspath(os.fspath(repository))
        self.repository_root: str | None = None
        if self.repository is not None:
            candidate = os.path.join(self.repository, IN_REPOSITORY)
            if os.path.realpath(candidate) != os.path.realpath(self.root):
                self.repository_root = candidate

    def bottle(self, name: str) -> Found:
        """Where bottle `name` has to be: only the operator's own folder, so a repository never grants."""
        return Found(name, os.path.join(self.root, "bottles", name + SUFFIX), self.root)

    def agents(self, name: str) -> list[Found]:
        """Where agent `name` may be; the first that exists is meant."""
        found = [Found(name, os.path.join(self.root, "agents", name + SUFFIX), self.root)]
        if self.repository_root is not None and self.repository is not None:
            path = os.path.join(self.repository_root, "agents", name + SUFFIX)
            found.append(Found(name, path, self.repository, from_repository=True))
        return found

    def skills(self, *, from_repository: bool) -> tuple[tuple[str, str], ...]:
        """The folders in which an agent's skills may be, each with the folder they must really lie in."""
        own = (os.path.join(self.root, "skills"), self.root)
        if from_repository and self.repository_root is not None and self.repository is not None:
            return own, (os.path.join(self.repository_root, "skills"), self.repository)
        return (own,)


def find_repository(folder: StrPath) -> str:
    """The repository of `folder`: the nearest folder above it (or itself) with `.git`, else `folder`.

    A home that is a repository (of somebody's settings) is not one for the projects in it.
    """
    start = os.path.realpath(os.fspath(folder))
    home = os.path.realpath(os.path.expanduser("~"))
    current = start
    while current == home or not os.path.lexists(os.path.join(current, ".git")):
        parent = os.path.dirname(current)
        if parent == current:
            return start
        current = parent
    return current


def known_agents(root: StrPath, repository: StrPath | None) -> list[str]:
    """The names of all agents that could be started, sorted. An unreadable folder has none."""
    places = Places(root, repository)
    folders = [os.path.join(place, "agents") for place in (places.root, places.repository_root) if place]
    return sorted({name for folder in folders for name in file_names(folder) if is_name(name)})


def known_bottles(root: StrPath) -> list[str]:
    """The names of all bottles, sorted."""
    folder = os.path.join(Places(root, None).root, "bottles")
    return sorted(name for name in file_names(folder) if is_name(name))


def file_names(folder: str) -> list[str]:
    """The names of the Markdown files in `folder`, right or wrong as names; README is not one."""
    try:
        names = os.listdir(folder)
    except (OSError, ValueError):
        return []
    found = [name.removesuffix(SUFFIX) for name in names if name.endswith(SUFFIX)]
    return sorted(name for name in found if name and name != "README" and not name.startswith("."))
