"""Waiting for a condition, with a deadline: the tests never sleep for a fixed time."""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def wait_for(condition: Callable[[], T], what: str, *, within: float = 60.0) -> T:
    """The first truthy answer of `condition`; AssertionError naming `what` when there is none in time."""
    deadline = time.monotonic() + within
    while not (answer := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {within:.0f} s in vain for {what}")
        time.sleep(0.01)
    return answer
