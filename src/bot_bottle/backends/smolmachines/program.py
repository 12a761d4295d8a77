"""Finding smolvm, and whether it is one that we know how to talk to."""

import os
import re
import sys
from collections.abc import Iterable

from bot_bottle.errors import HostError
from bot_bottle.host.process import Finished, run
from bot_bottle.typed import Final, NamedTuple

OLDEST, FIRST_UNKNOWN = (1, 32), (2, 0)
INSTALL: Final = (
    "Install it: pip install 'bot-bottle[smolmachines]', or put a smolvm of 1.32 or newer on PATH"
)
_NEEDED: Final[dict[tuple[str, ...], tuple[str, ...]]] = {
    ("machine", "create"): (
        *("--error-format", "--state-dir", "--image", "--cpus", "--mem", "--storage", "--volume"),
        *("--mount-socket", "--label", "--user"),
    ),
    ("machine", "exec"): ("--user", "--workdir", "--timeout"),
    ("machine", "stop"): ("--timeout",),
    ("machine", "delete"): ("--force",),
}
"""Options that no bottle can do without, by the verb whose `--help` has to name them."""
_OPTION: Final = re.compile(r"(?<![\w-])--[a-z][a-z0-9-]*")


class Program(NamedTuple):
    """Where smolvm is, and the folder with its libraries when it came in the wheel."""

    path: str
    libraries: str = ""

    def environment(self, home: str) -> dict[str, str]:
        """Its whole environment: the VM process inherits it. Its own confinement is on, and `home` is a folder of ours."""
        made = {
            "PATH": os.defpath,
            "HOME": home,
            "LANG": "C.UTF-8",
            "SMOLVM_SECCOMP": "enforce",
            "SMOLVM_LANDLOCK": "enforce",
        }
        if self.libraries:
            made["SMOLVM_LIB_DIR"] = self.libraries
            made["SMOLVM_AGENT_ROOTFS_TAR"] = f"{self.libraries}/agent-rootfs.tar.zst"
        return made


def find() -> Program:
    """smolvm on PATH, else what the `smolmachines` wheel brought. Raises HostError when there is none."""
    folders = os.environ.get("PATH", os.defpath).split(os.pathsep)
    for folder in (*folders, os.path.dirname(sys.executable)):
        if (
            folder.startswith("/")
            and os.access(f"{folder}/smolvm", os.X_OK)
            and os.path.isfile(f"{folder}/smolvm")
        ):
            return Program(os.path.realpath(f"{folder}/smolvm"))
    from importlib.util import find_spec  # seldom needed

    wheel = find_spec("smol")
    for folder in (wheel.submodule_search_locations or ()) if wheel else ():
        if os.access(f"{folder}/smol-vmm", os.X_OK):
            return Program(f"{folder}/smol-vmm", folder)
    raise HostError("Smolvm was not found", resolution=INSTALL)


def version(said: str) -> tuple[int, ...]:
    """The version in `smolvm --version`'s words. Raises HostError when it is none that we know how to talk to."""
    match = re.fullmatch(r"smolvm (\d+)\.(\d+)\.(\d+)\S*", said.strip())
    if match is None:
        raise HostError("Smolvm does not say which version it is", details=said[:200], resolution=INSTALL)
    found = tuple(int(part) for part in match.groups())
    if not OLDEST <= found < FIRST_UNKNOWN:
        raise HostError(
            f"Smolvm {'.'.join(map(str, found))} is none that is supported",
            details=f"supported: {'.'.join(map(str, OLDEST))} and newer, before {'.'.join(map(str, FIRST_UNKNOWN))}",
            resolution=INSTALL,
        )
    return found


def options(help_text: str) -> frozenset[str]:
    """The long options that a `--help` names at the beginning of a line."""
    lines = (line.strip() for line in help_text.splitlines())
    return frozenset(name for line in lines if line.startswith("-") for name in _OPTION.findall(line))


def lacking(helps: Iterable[tuple[tuple[str, ...], str]]) -> list[str]:
    """What bottles need and these `--help`s don't name: `machine create --mount-socket`, …"""
    found = {verb: options(text) for verb, text in helps}
    return [
        " ".join((*verb, option))
        for verb, wanted in _NEEDED.items()
        for option in wanted
        if option not in found.get(verb, frozenset())
    ]


def check(program: Program, home: str) -> str:
    """The version of `program`, as it says it, once all that bottles need is there. Raises HostError."""
    env = program.environment(home)

    def ask(*argv: str) -> Finished:
        return run([program.path, *argv], env=env, cwd="/", timeout=60).or_raise(
            f"{program.path} does not run"
        )

    said = ask("--version").stdout.decode(errors="replace").strip()
    version(said)
    helps = [(verb, ask(*verb, "--help").stdout.decode(errors="replace")) for verb in _NEEDED]
    if missing := lacking(helps):
        raise HostError(f"{said} lacks what bottles need", details="\n".join(missing), resolution=INSTALL)
    return said
