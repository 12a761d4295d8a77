"""The real smolvm does what we take it to do: everything but a boot, which needs KVM, and that failing as it has to."""

import os
import shutil
from pathlib import Path

import pytest

from bot_bottle.backends.smolmachines import program
from bot_bottle.backends.smolmachines.arguments import Folder, Machine, MountedSocket
from bot_bottle.backends.smolmachines.program import Program
from bot_bottle.backends.smolmachines.smolvm import Smolvm
from bot_bottle.errors import HostError, SandboxError


@pytest.fixture
def without_kvm(tmp_path: Path) -> Program:
    """The real program where there is no /dev/kvm, whatever this machine has."""
    found = program.find()
    script = tmp_path / "smolvm-without-kvm"
    script.write_text(f'#!/bin/sh\nexec bwrap --bind / / --dev /dev --proc /proc -- {found.path} "$@"\n')
    script.chmod(0o755)
    return Program(str(script), found.libraries)


@pytest.fixture
def image(tmp_path: Path) -> Path:
    root = tmp_path / "image"
    (root / "bin").mkdir(parents=True)
    shutil.copy("/bin/true", root / "bin/true")
    return root


@pytest.fixture
def smolvm(without_kvm: Program, tmp_path: Path) -> Smolvm:
    return Smolvm(without_kvm, str(tmp_path / "state"))


def machine(root: Path, **changes) -> Machine:
    made = Machine(name="one", image=str(root), cpus=1, memory=128, storage=1, command=("/bin/true",))
    return made._replace(**changes)


def test_it_is_a_version_that_we_know_and_has_every_option_that_bottles_need(without_kvm, tmp_path):
    assert program.check(without_kvm, str(tmp_path)).startswith("smolvm 1.")


def test_a_machine_is_created_seen_and_deleted_and_nothing_is_left(smolvm, image, tmp_path):
    shared = tmp_path / "shared"
    shared.mkdir()
    smolvm.create(
        machine(
            image,
            folders=(Folder(str(shared), "/workspace", writable=True),),
            sockets=(MountedSocket(str(tmp_path / "door.sock"), "/.door/door"),),
            labels=(("bot-bottle", "one"),),
        )
    )
    assert smolvm.names() == ["one"]
    seen = smolvm.status("one")
    assert (seen["state"], seen["network"], seen["mounts"], seen["ports"]) == ("created", False, 1, 0)
    assert (seen["cpus"], seen["memory_mib"], seen["labels"]) == (1, 128, {"bot-bottle": "one"})
    assert seen["cmd"] == ["/bin/true"]
    assert smolvm.stop("one")
    assert smolvm.delete("one")
    assert smolvm.names() == []
    assert not list((tmp_path / "state").rglob("vms/*/name"))


def test_its_state_is_ours_alone(smolvm, image, tmp_path):
    smolvm.create(machine(image))
    assert (tmp_path / "state").is_dir()
    home = Path(os.environ["HOME"])
    assert not [path for path in home.rglob("*smolvm*") if tmp_path not in path.parents]
    smolvm.delete("one")


def test_what_is_not_there_is_missing_and_no_error(smolvm):
    assert smolvm.status("nobody") is None
    assert not smolvm.stop("nobody")
    assert not smolvm.delete("nobody")


def test_a_name_is_taken_once(smolvm, image):
    smolvm.create(machine(image))
    with pytest.raises(SandboxError) as caught:
        smolvm.create(machine(image))
    assert "exists" in caught.value.details
    smolvm.delete("one")


@pytest.mark.parametrize(
    "change",
    [
        {"name": "Bad Name"},
        {"image": "/nowhere"},
        {"image": "/nowhere.tar"},
        {"folders": (Folder("/nonexistent", "/x"),)},
        {"folders": (Folder("/etc/passwd", "/x"),)},
        {"cpus": 0},
        {"memory": 1},
        {"folders": (Folder("/tmp", "/etc"),)},
        {"sockets": (MountedSocket("relative", "/x"),)},
    ],
)
def test_what_can_t_be_is_refused_and_leaves_nothing(smolvm, image, change):
    with pytest.raises(SandboxError) as caught:
        smolvm.create(machine(image, **change))
    assert caught.value.details
    assert smolvm.names() == []


def test_nothing_runs_in_a_machine_that_does_not(smolvm, image):
    smolvm.create(machine(image))
    assert smolvm.execute("one", ["true"], seconds=5).code == 1
    with pytest.raises(SandboxError):
        smolvm.copy_in("one", "/etc/hostname", "/x")
    smolvm.delete("one")


def test_a_start_without_kvm_says_that_and_leaves_a_machine_that_can_be_deleted(smolvm, image):
    smolvm.create(machine(image))
    with pytest.raises(HostError) as caught:
        smolvm.start("one")
    assert caught.value.brief == "A microVM needs KVM, and there is none here", caught.value.details
    assert "firmware" in caught.value.resolution
    assert smolvm.status("one")["state"] != "running"
    assert smolvm.delete("one")
    assert smolvm.names() == []


def test_the_machine_s_process_gets_none_of_our_environment(without_kvm, monkeypatch):
    monkeypatch.setenv("ANTHROPIC_API_KEY", "secret")
    env = without_kvm.environment("/home")
    assert "ANTHROPIC_API_KEY" not in env
    assert (env["SMOLVM_SECCOMP"], env["SMOLVM_LANDLOCK"]) == ("enforce", "enforce")
    assert env["HOME"] == "/home"


def test_its_own_branch_wants_a_machine_that_runs(smolvm, image):
    """Which is why it can't be had of a stopped bottle: its machine is gone."""
    smolvm.create(machine(image))
    argv = ["--error-format", "json", "machine", "branch", "--from", "one", "--name", "two"]
    done = smolvm._call(argv, 60)
    assert done.code == 1
    assert b"is not running" in done.stderr
    assert smolvm.names() == ["one"]
    smolvm.delete("one")
