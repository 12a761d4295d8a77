"""A real Podman service: it keeps the contract of every backend, and what it does otherwise than Docker, call by call.

When one of those calls is answered as Docker answers it, what is done about it can go: see decision 0041.
"""

import io
import os
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bot_bottle.backends.docker import doctor
from bot_bottle.backends.docker.dialing import traits
from bot_bottle.backends.docker.wire import Engine, EngineRefusal
from support import engine as engines
from support import podman as podmans
from support.bottles import write_bottle, write_script
from support.place import Place, program

NAME = "bb-podman-test"
ROOT = Path(__file__).parents[2]
SUITE = tuple(f"tests/backends/test_docker{part}.py" for part in ("", "_inside", "_death"))
pytestmark = pytest.mark.docker


@pytest.fixture(scope="module")
def podman() -> Iterator[Engine]:
    """Podman's service of this module's own, with the base image."""
    if why_not := podmans.missing():
        pytest.skip(why_not)
    with tempfile.TemporaryDirectory(prefix="bb-docker-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        folder.chmod(0o711)
        with podmans.serving(folder) as engine:
            base = ["import", str(engines.base_image.ARCHIVE), f"docker.io/{engines.BASE}"]
            subprocess.run([*podmans.argv(folder), *base], check=True, capture_output=True)
            yield engine


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


# It holds bottles


@pytest.mark.timeout(600)
def test_it_keeps_the_contract_of_every_backend(podman: Engine, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--basetemp={tmp_path}/there", *SUITE],
        cwd=ROOT, env={**os.environ, "DOCKER_HOST": f"unix://{podman.path}"}, capture_output=True, text=True,
    )  # fmt: skip
    print(done.stdout[-4000:], done.stderr[-2000:])
    assert done.returncode == 0
    assert " skipped" not in done.stdout


@pytest.mark.parametrize("who", [0])
def test_a_bottle_starts_works_on_a_copy_and_leaves_nothing(podman: Engine, place: Place) -> None:
    write_bottle(place, backend="docker", image={"reference": engines.BASE})
    write_script(place, "ask", "echo made > made.txt; id -u; cat /proc/cmdline; ls -ld ~\n")
    bottle = ["env", f"DOCKER_HOST=unix://{podman.path}", str(program())]
    ended = place.run([*bottle, "start", "ask", "--headless", "--workspace", "copy"])
    assert ended.code == 0, ended.stderr
    uid, home = ended.stdout.splitlines()
    assert uid == "1000"
    assert home.startswith("drwx"), "and of the machine's command line, nothing"
    assert home.split()[2] != "root"
    assert podman.call("GET", "/containers/json", all="1") == []
    assert not (place.workspace / "made.txt").exists()


def test_doctor_starts_a_container_of_it(podman: Engine) -> None:
    seen = {one.name: one for one in doctor.examine({"DOCKER_HOST": f"unix://{podman.path}"})}
    assert "Podman" in seen["docker"].seen
    assert seen["docker containers"] == ("docker containers", "one of ours starts and ends", "")


# What it does otherwise


def test_its_service_is_known(podman: Engine, own_home: Path) -> None:
    assert traits(podman).podman


def test_the_tag_of_an_imported_image_is_forgotten(podman: Engine, image: str) -> None:
    with pytest.raises(EngineRefusal) as refused:
        podman.call("GET", f"/images/{image}:one/json")
    assert refused.value.status == 404
    assert podman.call("GET", f"/images/{image}:latest/json")["RepoTags"]


def test_a_folder_in_memory_is_given_an_owner_in_another_way(podman: Engine, image: str) -> None:
    with pytest.raises(EngineRefusal, match="unknown mount option") as refused:
        created(podman, image, Tmpfs={"/home": "uid=1000,gid=1000,mode=700"})
    assert refused.value.status == 500
    podman.call("DELETE", f"/containers/{created(podman, image, Tmpfs={'/home': 'U,mode=700'})}", force="1")


def test_a_name_that_is_taken_is_a_conflict_as_docker_has_it(podman: Engine, image: str) -> None:
    wanted = {"Image": image, "Cmd": ["/program"], "HostConfig": {"NetworkMode": "none"}}
    podman.call("POST", "/containers/create", wanted, name=NAME)
    with pytest.raises(EngineRefusal) as refused:
        podman.call("POST", "/containers/create", wanted, name=NAME)
    podman.call("DELETE", f"/containers/{NAME}", force="1")
    assert refused.value.status == 409


def test_a_container_that_another_has_joined_is_not_removed(podman: Engine, image: str) -> None:
    first = created(podman, image)
    second = created(podman, image, NetworkMode=f"container:{first}")
    with pytest.raises(EngineRefusal, match="dependent containers"):
        podman.call("DELETE", f"/containers/{first}", force="1", v="1")
    for made in (second, first):
        podman.call("DELETE", f"/containers/{made}", force="1")
