"""The bottle's process 1."""

import os
import shutil
import socket
import subprocess
from pathlib import Path

import pytest

from bot_bottle.backends.namespace.holder import program
from bot_bottle.testing.conformance import DEADLINE

EMULATORS = {"aarch64": "qemu-aarch64-static", "x86_64": "qemu-x86_64-static"}


def runner(machine: str) -> list[str]:
    if machine == os.uname().machine:
        return []
    if not shutil.which(EMULATORS[machine]):
        pytest.skip(f"no {EMULATORS[machine]} to run {machine} programs with")
    return [EMULATORS[machine]]


@pytest.mark.parametrize("machine", EMULATORS)
def test_it_says_that_it_is_there_and_lives_as_long_as_its_keeper(tmp_path: Path, machine: str) -> None:
    emulator = runner(machine)
    path = tmp_path / "holder"
    path.write_bytes(program(machine))
    path.chmod(0o755)
    ours, theirs = socket.socketpair()
    process = subprocess.Popen([*emulator, str(path)], stdin=theirs)
    theirs.close()
    ours.settimeout(DEADLINE)
    assert ours.recv(10) == b"\1"
    assert process.poll() is None
    ours.close()
    assert process.wait(DEADLINE) == 0


@pytest.mark.parametrize("machine", EMULATORS)
def test_without_a_keeper_it_does_not_stay(tmp_path: Path, machine: str) -> None:
    emulator = runner(machine)
    path = tmp_path / "holder"
    path.write_bytes(program(machine))
    path.chmod(0o755)
    ours, theirs = socket.socketpair()
    ours.close()
    assert subprocess.Popen([*emulator, str(path)], stdin=theirs).wait(DEADLINE) is not None
    theirs.close()
