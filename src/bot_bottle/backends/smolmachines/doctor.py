"""Whether a microVM can be had here: found out by booting the smallest one."""

import os
import shutil
import tempfile

from bot_bottle.backends.smolmachines import kvm, program
from bot_bottle.backends.smolmachines.arguments import Machine
from bot_bottle.backends.smolmachines.program import Program
from bot_bottle.backends.smolmachines.smolvm import Smolvm
from bot_bottle.door import relayed
from bot_bottle.host import files

_NAME = "doctor"
_FOLDERS = ("bin", "dev", "etc", "proc", "run", "sys", "tmp", "usr")
"""What smolvm knows a root file system by: one with a single file in it is none to it."""


def smolvm() -> tuple[Program, str]:
    """The program, and the version that it says it is. Raises HostError."""
    found = program.find()
    with tempfile.TemporaryDirectory(prefix="bot-bottle-doctor-") as home:
        return found, program.check(found, home)


def try_a_machine(found: Program) -> None:
    """Boots a machine with nothing in it but one program, and removes it. Raises HostError, SandboxError."""
    kvm.check()
    with tempfile.TemporaryDirectory(prefix="bot-bottle-doctor-") as folder:
        os.chmod(folder, 0o755)  # noqa: S103 - started by root, the machine's process is somebody else
        image = _smallest_image(folder)
        machines = Smolvm(found, os.path.join(folder, "state"))
        machines.create(
            Machine(name=_NAME, image=image, cpus=1, memory=256, storage=1, command=("/bin/relay",))
        )
        try:
            machines.start(_NAME)
        finally:
            machines.stop(_NAME)
            machines.delete(_NAME)


def _smallest_image(folder: str) -> str:
    image = os.path.join(folder, "image")
    for name in _FOLDERS:
        os.makedirs(os.path.join(image, name), mode=0o755)
    shutil.copy(relayed.program(), os.path.join(image, "bin", "relay"))
    files.write(os.path.join(image, "etc", "passwd"), b"root:x:0:0::/:/bin/relay\n")
    os.chmod(os.path.join(image, "etc", "passwd"), 0o644)
    return image
