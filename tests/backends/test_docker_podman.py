"""A real Podman service: it is refused by name, and what it does otherwise than Docker, call by call.

When one of these calls is answered as Docker answers it, the reason it is refused for is gone: see decision 0036.
"""

import io
import os
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bot_bottle.backends.docker import doctor
from bot_bottle.backends.docker.dialing import refuse_podman, traits
from bot_bottle.backends.docker.wire import Engine, EngineRefusal
from bot_bottle.errors import HostError
from support.bottles import write_bottle, write_script
from support.place import Place, program
from support.waiting import wait_for

NAME = "bb-podman-test"


@pytest.fixture(scope="module")
def podman() -> Iterator[Engine]:
    """Podman's service of this module's own, with everything of it in one folder."""
    if shutil.which("podman") is None or os.geteuid() != 0:
        pytest.skip("no Podman of the test's own: it is not installed, or this is not root")
    with tempfile.TemporaryDirectory(
        prefix="bb-", ignore_cleanup_errors=True
    ) as name:  # its paths have to be short
        yield from serving(Path(name))


def serving(folder: Path) -> Iterator[Engine]:
    places = [f"--{name}={folder / name}" for name in ("root", "runroot", "tmpdir")]
    path = folder / "podman.sock"
    argv = [
        "podman",
        *places,
        "--cgroup-manager=cgroupfs",
        "--storage-driver=vfs",
        "system",
        "service",
        "--time=0",
    ]
    with subprocess.Popen(
        [*argv, f"unix://{path}"],
    ) as service:
        try:
            wait_for(path.exists, "Podman's socket")
            yield Engine(str(path))
        finally:
            service.terminate()


@pytest.fixture
def image(podman: Engine) -> str:
    """An image with one file, imported as it is imported into Docker."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("program"), io.BytesIO())
    podman.call("POST", "/images/create", packed.getvalue(), fromSrc="-", repo=NAME, tag="one")
    return NAME


def created(engine: Engine, image: str, **host: Any) -> str:
    wanted = {"Image": image, "Cmd": ["/program"], "HostConfig": {"NetworkMode": "none", **host}}
    made: dict[str, str] = engine.call("POST", "/containers/create", wanted)
    return made["Id"]


def test_its_service_is_known_and_refused_by_name(podman: Engine, own_home: Path) -> None:
    found = traits(podman)
    assert found.podman
    with pytest.raises(HostError, match="Podman"):
        refuse_podman(found)


def test_doctor_says_that_nothing_would_start_on_it(podman: Engine) -> None:
    seen = {one.name: one for one in doctor.examine({"DOCKER_HOST": f"unix://{podman.path}"})}
    assert any("Podman" in one.seen + one.do and one.do for one in seen.values()), seen


@pytest.mark.parametrize("who", [0])
def test_a_start_on_it_is_refused_and_leaves_nothing(podman: Engine, place: Place) -> None:
    write_bottle(place, backend="docker")
    write_script(place, "ask", "true\n")
    ended = place.run(
        ["env", f"DOCKER_HOST=unix://{podman.path}", str(program()), "start", "ask", "--headless"]
    )
    assert ended.code != 0
    assert "Podman's Docker service can't hold bottles" in ended.stderr
    assert podman.call("GET", "/containers/json", all="1") == []


def test_the_tag_of_an_imported_image_is_forgotten(podman: Engine, image: str) -> None:
    with pytest.raises(EngineRefusal) as refused:
        podman.call("GET", f"/images/{image}:one/json")
    assert refused.value.status == 404
    assert podman.call("GET", f"/images/{image}:latest/json")["RepoTags"]


def test_a_folder_in_memory_can_t_be_given_an_owner(podman: Engine, image: str) -> None:
    with pytest.raises(EngineRefusal, match="unknown mount option") as refused:
        created(podman, image, Tmpfs={"/home": "uid=1000,gid=1000,mode=700"})
    assert refused.value.status == 500


def test_a_container_that_another_has_joined_is_not_removed(podman: Engine, image: str) -> None:
    first = created(podman, image)
    second = created(podman, image, NetworkMode=f"container:{first}")
    with pytest.raises(EngineRefusal, match="dependent containers"):
        podman.call("DELETE", f"/containers/{first}", force="1", v="1")
    for made in (second, first):
        podman.call("DELETE", f"/containers/{made}", force="1")
