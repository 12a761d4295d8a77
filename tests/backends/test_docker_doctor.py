"""What doctor says of an engine: what it offers, what it lacks, and why nothing would start on it."""

import os
import socket

import pytest

from bot_bottle.backends.docker import doctor
from bot_bottle.errors import HostError
from support import engine as engines

ALL = {"MemoryLimit": True, "CpuCfsQuota": True, "PidsLimit": True}


def told(**info) -> dict[str, doctor.Seen]:
    return {one.name: one for one in doctor.told({**ALL, **info})}


@pytest.mark.docker
def test_the_tests_own_engine_starts_a_container_of_ours_and_leaves_none() -> None:
    found = {one.name: one for one in doctor.examine(os.environ)}
    assert found["docker containers"] == ("docker containers", "one of ours starts and ends", "")
    assert found["docker"].seen.startswith(("Docker ", "Podman "))
    assert "keeps memory, cpus, pids" in found["docker limits"].seen
    assert "runc" in found["docker runtimes"].seen or "crun" in found["docker runtimes"].seen
    with_client = engines.engine().client
    left = with_client.api.containers(all=True, filters={"name": f"bot-bottle-doctor-{os.getpid()}"})
    with_client.close()
    assert left == []


def test_a_runtime_to_which_no_door_leads_is_named() -> None:
    assert (
        "can't have runsc"
        in told(Runtimes={"runc": {}, "runsc": {}}, DefaultRuntime="runc")["docker runtimes"].seen
    )
    assert "`runtime:" not in told(Runtimes={"runc": {}}, DefaultRuntime="runc")["docker runtimes"].seen


def test_limits_that_would_not_be_kept_are_said() -> None:
    assert told()["docker limits"].do == ""
    assert "pids" in told(PidsLimit=False)["docker limits"].do


@pytest.mark.parametrize(
    ("driver", "backing", "bounded"),
    [("overlay2", "xfs", True), ("overlay2", "extfs", False), ("vfs", "extfs", False), ("btrfs", "", True)],
)
def test_whether_disk_can_be_bounded_follows_from_the_storage(
    driver: str, backing: str, bounded: bool
) -> None:
    seen = told(Driver=driver, DriverStatus=[["Backing Filesystem", backing]])["docker storage"].seen
    assert ("can be bounded" in seen) == bounded
    assert driver in seen


def test_rootless_is_told() -> None:
    assert "rootless" in told(SecurityOptions=["name=seccomp", "name=rootless"])["docker rights"].seen
    assert "as root" in told(SecurityOptions=["name=seccomp"])["docker rights"].seen


def test_little_room_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    assert doctor.room({"DockerRootDir": "/"}).seen.endswith("in /")
    monkeypatch.setattr(doctor, "LEAST_ROOM", 1 << 60)
    assert "docker system df" in doctor.room({"DockerRootDir": "/"}).do


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_an_engine_that_takes_the_connection_and_says_nothing_is_told_in_time(
    tmp_path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "ANSWER_WITHIN", 0.3)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "s"))
        server.listen()
        with pytest.raises(HostError):
            list(doctor.examine({"DOCKER_HOST": f"unix://{tmp_path}/s"}))


@pytest.mark.parametrize(
    ("words", "advice"),
    [
        ("write /x: no space left on device", "docker system df"),
        ("mkdir /sys/fs/cgroup/docker: read-only file system", "/sys/fs/cgroup"),
        ("unable to apply: operation not permitted", "privileged"),
        ("something else", "journalctl"),
    ],
)
def test_why_nothing_starts_has_an_advice(words: str, advice: str) -> None:
    assert advice in doctor._advice(words)
