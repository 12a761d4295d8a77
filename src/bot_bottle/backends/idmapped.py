"""As root: a user namespace that says whose files on disk are shown as whose, for idmapped mounts."""

import contextlib
import os
from collections.abc import Iterator

from bot_bottle.host import kernel, spawn


@contextlib.contextmanager
def mapping(user: tuple[int, int], group: tuple[int, int]) -> Iterator[int]:
    """A user namespace in which the first id of each pair (on disk) is the second (as seen)."""
    waiting, going = os.pipe()

    def be_namespace(_: spawn.Say) -> None:
        os.read(waiting, 1)

    pid, report = spawn.fork(be_namespace, keep=(waiting,), namespaces=kernel.CLONE_NEWUSER)
    try:
        os.close(waiting)
        for name, (on_disk, seen) in (("uid_map", user), ("gid_map", group)):
            with open(f"/proc/{pid}/{name}", "w", encoding="ascii") as file:
                file.write(f"{on_disk} {seen} 1\n")
        namespace = os.open(f"/proc/{pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
        try:
            yield namespace
        finally:
            os.close(namespace)
    finally:
        os.close(going)
        os.close(report)
        os.waitpid(pid, 0)
