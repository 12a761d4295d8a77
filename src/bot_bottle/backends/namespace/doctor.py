"""Whether bottles of this kind can be made here: found out by making the simplest one."""

import os

from bot_bottle.backends.namespace import failures, program
from bot_bottle.host.process import run
from bot_bottle.plan.resolve import FIRST_UNUSED_UID

_SIMPLEST = (
    "--unshare-all",
    "--disable-userns",
    "--unshare-user",
    "--ro-bind",
    "/usr",
    "/usr",
    "--proc",
    "/proc",
)
_PROGRAM = (
    "--symlink", "usr/lib", "/lib", "--symlink", "usr/lib64", "/lib64", "--symlink", "usr/bin", "/bin", "--", "/bin/true",
)  # fmt: skip


def bubblewrap() -> tuple[str, str]:
    """Where bubblewrap is, and the version that it says it is. Raises HostError."""
    path = program.find()
    said = run([path, "--version"]).or_raise(f"{path} does not run").stdout.decode(errors="replace")
    return path, said.strip()


def try_a_sandbox(path: str) -> None:
    """Makes a sandbox and ends it, as an unprivileged user. Raises what `failures` makes of bubblewrap's words."""
    argv = [path, *_SIMPLEST, *_PROGRAM]
    if os.geteuid() == 0:
        argv = [
            "setpriv",
            f"--reuid={FIRST_UNUSED_UID}",
            f"--regid={FIRST_UNUSED_UID}",
            "--clear-groups",
            "--",
            *argv,
        ]
    done = run(argv, cwd="/", timeout=30)
    if done.code:
        raise failures.explain(done.said, failures.read_settings())
