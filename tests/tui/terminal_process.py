"""The inbox over made-up proposals, as a program in a terminal: `python terminal_process.py` with what to ask as JSON on a file."""

import json
import sys
from pathlib import Path

from bot_bottle.policy.approval import Effect
from bot_bottle.testing.desk import FakeDesk
from bot_bottle.tui.app import run


def main() -> None:
    """Opens the inbox; at its end, writes down what was decided."""
    asked, decided = map(Path, sys.argv[1:])
    desk = FakeDesk()
    for ask in json.loads(asked.read_text()):
        desk.ask(**{**ask, "effect": Effect(*ask["effect"])})
    run(lambda: desk)
    decided.write_text(json.dumps([[each.id for each in desk.approvals], desk.rejections]))


if __name__ == "__main__":
    main()
