"""The commit of pipelock that make installs is the one that doctor tells a person to install."""

import sys
from pathlib import Path

from bot_bottle.engines.pipelock import program

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tools"))


def test_there_is_one_pipelock():
    import bootstrap

    assert f"{program.MODULE}@{program.COMMIT}" == bootstrap.PIPELOCK
    assert bootstrap.GO_MINIMUM == program.GO
    assert bootstrap.PIPELOCK in program.INSTALL
