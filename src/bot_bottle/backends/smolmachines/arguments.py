"""What smolvm is told: one pure function for each of its verbs, from data to arguments.

No secret stands in any of them: smolvm stores what `create` is told and logs what `exec` is told.
"""

from collections.abc import Sequence

from bot_bottle.typed import NamedTuple

_COMMON = ("--error-format", "json")


class Folder(NamedTuple):
    """A folder of the host (absolute) that the machine shows at `target`."""

    source: str
    target: str
    writable: bool = False


class MountedSocket(NamedTuple):
    """A unix socket of the host (absolute) that the machine's processes reach at `target`."""

    source: str
    target: str


class Machine(NamedTuple):
    """All that a machine is made of. `image` is an unpacked root file system or an archive, by its absolute path."""

    name: str
    image: str
    cpus: int
    memory: int
    """In MiB."""
    storage: int
    """In GiB."""
    command: tuple[str, ...]
    folders: tuple[Folder, ...] = ()
    sockets: tuple[MountedSocket, ...] = ()
    labels: tuple[tuple[str, str], ...] = ()


def create(machine: Machine) -> list[str]:
    """Makes a machine with no network, which `start` starts with its command as root."""
    argv = [*_COMMON, "machine", "create", "--name", machine.name, "--image", machine.image]
    argv += ["--cpus", str(machine.cpus), "--mem", str(machine.memory), "--storage", str(machine.storage)]
    for folder in machine.folders:
        argv += ["--volume", f"{folder.source}:{folder.target}{'' if folder.writable else ':ro'}"]
    for sock in machine.sockets:
        argv += ["--mount-socket", f"{sock.source}:{sock.target}"]
    for key, value in machine.labels:
        argv += ["--label", f"{key}={value}"]
    return [*argv, "--user", "0:0", "--", *machine.command]


def start(name: str) -> list[str]:
    """Boots it and starts its command."""
    return [*_COMMON, "machine", "start", "--name", name]


def execute(name: str, command: Sequence[str], *, user: str, seconds: int) -> list[str]:
    """Runs a command in it to its end, without input."""
    options = ["--user", user, "--workdir", "/", "--timeout", f"{seconds}s"]
    return [*_COMMON, "machine", "exec", "--name", name, *options, "--", *command]


def copy_in(name: str, source: str, target: str, *, mode: int) -> list[str]:
    """Copies one file of the host into it, for its root."""
    return [
        *_COMMON,
        "machine",
        "cp",
        "--mode",
        f"{mode:o}",
        "--uid",
        "0",
        "--gid",
        "0",
        source,
        f"{name}:{target}",
    ]


def stop(name: str, *, seconds: int) -> list[str]:
    """Ends it; its command has `seconds` to end by itself."""
    return [*_COMMON, "machine", "stop", "--name", name, "--timeout", str(seconds)]


def delete(name: str) -> list[str]:
    """Removes it with its disks."""
    return [*_COMMON, "machine", "delete", "--name", name, "--force"]


def status(name: str) -> list[str]:
    """Tells of it, as a JSON object."""
    return [*_COMMON, "machine", "status", "--name", name, "--json"]


def listing() -> list[str]:
    """Tells of every machine, as a JSON array."""
    return [*_COMMON, "machine", "ls", "--json"]


def wrong(machine: Machine) -> list[str]:
    """What smolvm would take in silence, or understand as something else; one sentence each."""
    problems = []
    for what, source, target in [
        *(("folder", *folder[:2]) for folder in machine.folders),
        *(("socket", *sock) for sock in machine.sockets),
    ]:
        for path in (source, target):
            if not path.startswith("/") or ":" in path or {".", "..", ""} & set(path.split("/")[1:]):
                problems.append(f"a {what}'s path has to be absolute, plain and without a colon: {path!r}")
            elif any(ord(letter) < 32 for letter in path):
                problems.append(f"a {what}'s path has a control character in it: {path!r}")
        if target.split("/")[1] in ("etc", "proc", "sys", "dev", "usr", "bin", "sbin", "lib", "lib64"):
            problems.append(f"{target} is the machine's own")
    targets = [target for _, target in (*((f.source, f.target) for f in machine.folders), *machine.sockets)]
    problems += [
        f"{target} is shown twice" for target in sorted({t for t in targets if targets.count(t) > 1})
    ]
    if not machine.command or not all(machine.command):
        problems.append("a machine needs a command")
    if min(machine.cpus, machine.memory // 64, machine.storage) < 1:
        problems.append("a machine needs a processor, 64 MiB of memory and a disk of 1 GiB")
    return problems
