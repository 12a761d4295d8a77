"""The versions of pipelock and gitleaks that make installs are those that doctor tells a person to install."""

import sys
from pathlib import Path

from bot_bottle.bundle.gitgate import gitleaks
from bot_bottle.engines.pipelock import program

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tools"))


def test_there_is_one_pipelock():
    import bootstrap

    assert f"{program.MODULE}@{program.COMMIT}" == bootstrap.PIPELOCK.package
    assert bootstrap.GO_MINIMUM == program.GO
    assert bootstrap.PIPELOCK.package in program.INSTALL


def test_there_is_one_gitleaks():
    import bootstrap

    assert f"{gitleaks.MODULE}@{gitleaks.VERSION}" == bootstrap.GITLEAKS.package
    assert bootstrap.GITLEAKS.package in gitleaks.INSTALL
