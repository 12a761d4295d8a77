"""A pipelock for a test: each test runs with the stand-in, and with the real program where there is one."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bot_bottle.engines.pipelock.process import Pipelock, Settings
from bot_bottle.policy.model import EgressPolicy
from support.pipelock import KINDS, provide, skip_unless_there
from support.place import make_place

UID = 1_879_048_100
"""Whose process it is when root starts it."""


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that every user reaches, so that a program in it can be run by another one."""
    place = make_place(os.geteuid())
    yield place.root
    place.remove()


@pytest.fixture(params=KINDS)
def program(request: pytest.FixtureRequest, folder: Path) -> str:
    skip_unless_there(request.param)
    return str(provide(request.param, folder) / "pipelock")


@pytest.fixture
def made(folder: Path) -> Iterator[Callable[..., Pipelock]]:
    """Makes pipelocks, which are ended with the test."""
    alive: list[Pipelock] = []

    def make(program: str, policy: EgressPolicy, **more: object) -> Pipelock:
        own = folder / f"closed{len(alive)}"
        own.mkdir(mode=0o700)
        settings = Settings(program=program, folder=str(own / "pipelock"), uid=UID, gid=UID)
        alive.append(Pipelock(settings._replace(**more), policy))
        return alive[-1]

    yield make
    for pipelock in alive:
        pipelock.stop()
