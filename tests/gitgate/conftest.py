"""Real servers, and gates before them."""

import pytest

from support import gates
from support.gitservers import Ssh, make_upstream


@pytest.fixture
def place_for_git():
    """A folder that every user may enter."""
    made = gates.folder()
    yield made
    gates.remove(made)


@pytest.fixture
def ssh(place_for_git):
    """A real sshd."""
    server = Ssh(place_for_git / "ssh")
    yield server
    server.stop()


@pytest.fixture
def upstream(place_for_git):
    """A bare repository with three commits on `main` and a tag."""
    return make_upstream(place_for_git / "srv/project.git")


@pytest.fixture
def gated(place_for_git):
    """Makes gates: `gated(remote, …)`; they are closed when the test ends, and leave nothing."""
    made = []

    def make(*remotes, **options):
        gate = gates.Gated(place_for_git, *remotes, **options)
        made.append(gate)
        return gate

    yield make
    for gate in made:
        gate.close()
        assert not (place_for_git / "state/git").exists()


@pytest.fixture
def gate(gated, place_for_git, ssh, upstream):
    """One before the upstream, over ssh; refs are judged, and contents are not searched by gitleaks."""
    return gated(gates.over_ssh(place_for_git, ssh, upstream))
