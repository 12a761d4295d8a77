"""What the backends' tests share: a plan, and a factory of bottles that are destroyed at the end."""

import itertools
import os
from contextlib import ExitStack
from pathlib import Path

import pytest

from bot_bottle.backends.base import Backend, Bottle, Stdio
from bot_bottle.plan.model import INSIDE_UID, Command, ImageSpec, Paths, RunPlan, Workspace
from bot_bottle.testing.conformance import ENVIRONMENT

NO_IMAGE = ImageSpec()
_numbers = itertools.count()
EVERY = [
    pytest.param("namespace", marks=pytest.mark.namespace),
    pytest.param("docker", marks=pytest.mark.docker),
]
on_every_backend = pytest.mark.parametrize("backend", EVERY, indirect=True)
"""For tests of the whole whose claims a backend could break: `place` writes bottles of that backend."""
OF_THE_IMAGE = frozenset(
    (
        *("/root", "/var/lib", "/var/log", "/srv", "/mnt", "/boot", "/etc/shadow", "/opt", "/sys"),
        "/etc/ssl/private",
    )
)
"""Places that every Debian image has; /sys is empty."""
AGENT_ID = 2_000_000
"""The agent's user on the host when the tests run as root; nobody's."""


def make_plan(root: Path, *argv: str, **changes) -> RunPlan:
    """A plan for `argv` with its workspace and paths below `root`."""
    base = RunPlan(
        id=f"test-{os.getpid()}-{next(_numbers)}",
        agent="test",
        bottle="test",
        bottle_file="",
        backend="namespace",
        provider="command",
        command=Command(argv=argv or ("sleep", "1000"), env=ENVIRONMENT),
        tty=False,
        workspace=Workspace(source=str(root / "workspace"), mode="mount"),
        paths=Paths(run=str(root / "run"), state=str(root / "state")),
        uid=os.getuid() or AGENT_ID,
        gid=os.getgid() or AGENT_ID,
        bundle_uid=os.getuid() or AGENT_ID + 1,
        bundle_gid=os.getgid() or AGENT_ID + 1,
    )
    return base._replace(**changes)


class Factory:
    """Keeps `testing.conformance.MakeBottle`."""

    def __init__(
        self,
        root: Path,
        made_by: Backend,
        owned: ExitStack,
        *,
        uid: int = INSIDE_UID,
        own_places: frozenset[str] = frozenset(),
        image: ImageSpec = NO_IMAGE,
    ) -> None:
        self.uid = uid
        self.own_places = own_places
        self._image = image
        self.plan = make_plan(root)
        """The last one that a bottle was made from."""
        self.workspace = root / "workspace"
        self.workspace.mkdir()
        self.root = root
        self.backend = made_by
        self._owned = owned

    def __call__(self, *argv: str, stdio: Stdio | None = None, release: bool = True, **changes) -> Bottle:
        plan = make_plan(self.root, *argv, **{"backend": self.backend.name, "image": self._image, **changes})
        self.plan = plan
        with open(os.devnull, "r+b") as nothing:
            standard = stdio or Stdio(nothing.fileno(), nothing.fileno(), nothing.fileno())
            bottle = self.backend.create(plan, standard)
        self._owned.callback(bottle.destroy)
        if release:
            bottle.release()
        return bottle
