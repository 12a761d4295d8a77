"""What programs that stand in for a keeper have in common: they go on to the phase that is named by their second argument."""

import os
import signal
import sys
from collections.abc import Callable
from typing import Any


def stop(phase: str) -> None:
    """Says that `phase` has come and stays there for good, if that is the one."""
    if phase == sys.argv[2]:
        os.write(1, b"here\n")
        while True:
            signal.pause()


def stopping_after(function: Callable[..., Any], phase: str) -> Callable[..., Any]:
    """`function`, after which `phase` has come."""

    def run(*arguments: object, **options: object) -> object:
        result = function(*arguments, **options)
        stop(phase)
        return result

    return run
