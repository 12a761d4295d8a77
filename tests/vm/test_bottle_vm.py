"""Bottles in real microVMs keep the contract of every backend. Runs where one boots; `make test-vm` makes such a place elsewhere.

A boot takes up to a minute there, so that tests which only run things in a bottle share one.
"""

import os
import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from bot_bottle.backends.base import Bottle, Stdio
from bot_bottle.backends.registry import backend
from bot_bottle.errors import HostError
from bot_bottle.plan.model import ImageSpec, Paths
from bot_bottle.testing.bottles import SLEEP
from bot_bottle.testing.conformance import BackendContract
from support.backends import OF_THE_IMAGE, make_plan
from support.microvms import BOOTS

pytestmark = [pytest.mark.vm, pytest.mark.timeout(300)]


class Factory:
    """Keeps `testing.conformance.MakeBottle`."""

    def __init__(self, root: Path, image: str) -> None:
        self.image = ImageSpec(reference=image)
        self.root = root
        self.uid = os.getuid()
        self.own_places = OF_THE_IMAGE
        self.workspace = root / "workspace"
        self.workspace.mkdir()
        self.backend = backend("smolmachines")
        self.number = 0
        self.shared: Bottle | None = None
        self.owned = ExitStack()

    def __call__(
        self, *argv: str, stdio: Stdio | None = None, release: bool = True, **changes: Any
    ) -> Bottle:
        if argv != SLEEP or stdio or changes or not release:
            bottle = self.make(*argv, stdio=stdio, **changes)
            self.owned.callback(bottle.destroy)
            if release:
                bottle.release()
            return bottle
        if self.shared is None or self.shared.agent.poll() is not None:
            self.end_shared()
            self.shared = self.make(*argv)
            self.shared.release()
        return self.shared

    def make(self, *argv: str, stdio: Stdio | None = None, **changes: Any) -> Bottle:
        self.number += 1
        numbered = Paths(str(self.root / f"r{self.number}"), str(self.root / "d" / f"{self.number}"))
        plan = make_plan(
            self.root, *argv, id=f"vm-{self.number}", backend="smolmachines", image=self.image, paths=numbered
        )._replace(**changes)
        os.makedirs(plan.paths.run)
        with open(os.devnull, "r+b") as nothing:
            standard = stdio or Stdio(nothing.fileno(), nothing.fileno(), nothing.fileno())
            for _ in range(BOOTS - 1):
                try:
                    return self.backend.create(plan, standard, meanwhile=lambda: None)
                except HostError as error:
                    print(f"\na boot failed: {error.brief}: {error.details}")
            return self.backend.create(plan, standard, meanwhile=lambda: None)

    def end_shared(self) -> None:
        if self.shared:
            self.shared.destroy()
            self.shared = None


@pytest.fixture(scope="module")
def factory(image: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Factory]:
    made = Factory(tmp_path_factory.mktemp("b"), image)
    yield made
    made.end_shared()


@pytest.fixture
def make_bottle(factory: Factory) -> Iterator[Factory]:
    for path in factory.workspace.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
    factory.owned = ExitStack()
    with factory.owned:
        yield factory


class TestMicroVM(BackendContract):
    """What is left out needs what an emulated machine has too little of, or looks for the agent among the host's own processes."""

    test_ten_bottles_at_once_are_ten_bottles = None
    test_a_hundred_megabytes_come_through_whole = None
    test_a_command_that_takes_too_long_is_killed_and_says_so = None
    test_teardown_leaves_no_process_mount_or_descriptor = None
