"""What fails in an emulated machine is tried once more; a machine that is gone is no try as long as something passed."""

import time
from pathlib import Path

import pytest


@pytest.mark.parametrize(
    ("attempts", "passes"),
    [
        ([(0, 3)], True),
        ([(1, 2), (0, 1)], True),
        ([(1, 2), (1, 1)], False),
        ([(255, 2), (124, 2), (255, 1), (0, 1)], True),
        ([(255, 1), (1, 0), (1, 0)], False),
        ([(255, 0), (255, 0)], False),
        ([(255, 1)] * 5, False),
    ],
)
def test_a_share_is_tried_as_often_as_it_may_be(
    monkeypatch: pytest.MonkeyPatch, attempts: list[tuple[int, int]], passes: bool
) -> None:
    """Each attempt ends with a code after so many more have passed."""
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "tools"))
    import test_vm

    class Machine:
        def __init__(self, *_: object) -> None:
            self.passed: set[int] = set()

        def up(self) -> bool:
            return True

        def down(self) -> None:
            pass

        def tests(self, _timeout: float) -> int:
            code, more = attempts.pop(0)
            self.passed |= {len(self.passed) + number for number in range(more)}
            return code

    monkeypatch.setattr(test_vm, "Guest", Machine)
    assert test_vm.share("program", 0, Path(), time.monotonic() + 1000) is passes
    assert attempts == []
