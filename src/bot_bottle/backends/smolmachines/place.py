"""What the agent's place inside its machine is like: the list of mounts and files that the deputy makes it from. Pure.

The machine's own container has everything that its root may do, and writable. The agent's place is made of the same file system,
read-only, with nothing of the machine's in it: no device but the plain ones, an empty /sys, scratch space in memory.
"""

from collections.abc import Iterator, Sequence

from bot_bottle.plan.model import INSIDE_HOME, INSIDE_USER, INSIDE_WORKSPACE, Limits, Mount
from bot_bottle.typed import Final, NamedTuple

ROOT: Final = "/.root"
"""Where the agent's root is put together; inside it is /."""
_RDONLY, _NOSUID, _NODEV, _NOEXEC, _REMOUNT, _BIND = 1, 2, 4, 8, 32, 4096
_MIB: Final = 1024**2
_DEVICES: Final = ("null", "zero", "full", "random", "urandom", "tty")
_DEVICE_LINKS: Final = (
    ("pts/ptmx", "ptmx"),
    ("/proc/self/fd", "fd"),
    ("/proc/self/fd/0", "stdin"),
    ("/proc/self/fd/1", "stdout"),
    ("/proc/self/fd/2", "stderr"),
)
_MASKED_FILES: Final = tuple(
    f"/proc/{name}"
    for name in (
        *("cmdline", "config.gz", "interrupts", "kallsyms", "kcore", "key-users", "keys", "latency_stats"),
        *("sched_debug", "timer_list", "timer_stats", "sysrq-trigger"),
    )
)
_MASKED_FOLDERS: Final = ("/proc/acpi", "/proc/asound", "/proc/scsi", "/proc/irq", "/proc/bus", "/proc/fs")
"""What of /proc tells of the machine and not of the bottle."""


class Shown(NamedTuple):
    """A folder or file of the host as the machine has it at `source`, to be shown read-only at `target`."""

    source: str
    target: str
    is_folder: bool


class Place(NamedTuple):
    """What the list is made from. `memory` is the machine's, in bytes."""

    name: str
    uid: int
    gid: int
    memory: int
    limits: Limits
    shown: tuple[Shown, ...] = ()
    passwd: str = ""
    """The image's lists of users and groups; the agent is put into them."""
    group: str = ""


Line = tuple[str, ...]


def listed(place: Place) -> bytes:
    """The list as the deputy reads it."""
    return b"".join(word.encode() + b"\0" for line in lines(place) for word in line)


def lines(place: Place) -> list[Line]:
    """The list, in order: a letter each, and what it takes (`make_one` of inside/deputy.c)."""
    return [
        ("h", place.name),
        *_folder(ROOT, 0o755),
        _mount("/", ROOT, "", _BIND),
        *_names(place.name),
        *_users(place),
        *_proc(),
        *_dev(place),
        *_scratch(place),
        *_workspace(place),
        *_stores(place.shown),
        _again(ROOT, _RDONLY | _NOSUID | _NODEV),
        ("r", ROOT),
    ]


def _mount(source: str, target: str, kind: str, flags: int, data: str = "") -> Line:
    return ("m", source, target, kind, str(flags), data)


def _again(target: str, flags: int) -> Line:
    return _mount("none", target, "", _REMOUNT | _BIND | flags)


def _folder(path: str, mode: int, uid: int = 0, gid: int = 0) -> Iterator[Line]:
    yield ("d", path, f"{mode:o}", str(uid), str(gid))


def _names(name: str) -> Iterator[Line]:
    yield from _folder(f"{ROOT}/etc", 0o755)
    yield ("w", f"{ROOT}/etc/hostname", f"{name}\n")
    yield ("w", f"{ROOT}/etc/hosts", f"127.0.0.1 localhost {name}\n")
    yield ("w", f"{ROOT}/etc/resolv.conf", "nameserver 127.0.0.1\n")


def _users(place: Place) -> Iterator[Line]:
    """The agent has an entry with its home, and no other has its number or name."""
    uid, gid = str(place.uid), str(place.gid)
    rows = [row for row in place.passwd.splitlines() if row.count(":") >= 6] or [
        "root:x:0:0:root:/root:/bin/sh"
    ]
    own = [row.split(":") for row in rows if row.split(":")[2] == uid]
    name, shell = (own[0][0], own[0][6]) if own else (INSIDE_USER, "/bin/sh")
    rows = [row for row in rows if row.split(":")[2] != uid and row.split(":")[0] != name]
    groups = [row for row in place.group.splitlines() if row.count(":") >= 3] or ["root:x:0:"]
    if gid not in [row.split(":")[2] for row in groups]:
        groups = [*(row for row in groups if row.split(":")[0] != name), f"{name}:x:{gid}:"]
    rows.append(f"{name}:x:{uid}:{gid}::{INSIDE_HOME}:{shell}")
    yield ("w", f"{ROOT}/etc/passwd", "\n".join(rows) + "\n")
    yield ("w", f"{ROOT}/etc/group", "\n".join(groups) + "\n")


def _proc() -> Iterator[Line]:
    yield from _folder(f"{ROOT}/proc", 0o555)
    yield _mount("proc", f"{ROOT}/proc", "proc", _NOSUID | _NODEV | _NOEXEC)
    yield _mount(f"{ROOT}/proc/sys", f"{ROOT}/proc/sys", "", _BIND)
    yield _again(f"{ROOT}/proc/sys", _RDONLY | _NOSUID | _NODEV | _NOEXEC)
    for path in _MASKED_FILES:
        yield ("o", "/dev/null", ROOT + path, "", str(_BIND), "")
    empty = str(_RDONLY | _NOSUID | _NODEV | _NOEXEC)
    for path in _MASKED_FOLDERS:
        yield ("o", "tmpfs", ROOT + path, "tmpfs", empty, "mode=0555,size=4k")
    yield from _folder(f"{ROOT}/sys", 0o555)
    yield _mount("tmpfs", f"{ROOT}/sys", "tmpfs", int(empty), "mode=0555,size=4k")


def _dev(place: Place) -> Iterator[Line]:
    dev = f"{ROOT}/dev"
    yield from _folder(dev, 0o755)
    yield _mount("tmpfs", dev, "tmpfs", _NOSUID | _NOEXEC, "mode=0755,size=64k")
    for name in _DEVICES:
        yield ("t", f"{dev}/{name}")
        yield _mount(f"/dev/{name}", f"{dev}/{name}", "", _BIND)
    yield from _folder(f"{dev}/pts", 0o755)
    yield _mount("/dev/pts", f"{dev}/pts", "", _BIND)
    yield from _folder(f"{dev}/shm", 0o755)
    yield _mount("tmpfs", f"{dev}/shm", "tmpfs", _NOSUID | _NODEV, f"mode=1777,size={_share(place, 1)}")
    for target, name in _DEVICE_LINKS:
        yield ("l", target, f"{dev}/{name}")
    yield _again(dev, _RDONLY | _NOSUID | _NOEXEC)


def _share(place: Place, sixteenths: int) -> int:
    """What one place of the scratch space may hold: of what the bottle's file states, its share; of memory, at most half."""
    size = place.memory // 2
    return min(size, place.limits.disk * sixteenths // 16) if place.limits.disk else size


def _scratch(place: Place) -> Iterator[Line]:
    own = f"mode=0700,uid={place.uid},gid={place.gid}"
    for path, mode, share in (
        ("/tmp", "mode=1777", 5),  # noqa: S108 - inside
        ("/var/tmp", "mode=1777", 1),  # noqa: S108 - inside
        ("/run", "mode=0755", 1),
        (INSIDE_HOME, own, 8),
    ):
        size = min(_share(place, share), 64 * _MIB) if path == "/run" else _share(place, share)
        yield from _folder(ROOT + path, 0o755)
        yield _mount("tmpfs", ROOT + path, "tmpfs", _NOSUID | _NODEV, f"{mode},size={size}")


def _workspace(place: Place) -> Iterator[Line]:
    yield from _folder(ROOT + INSIDE_WORKSPACE, 0o755, place.uid, place.gid)
    yield _mount(INSIDE_WORKSPACE, ROOT + INSIDE_WORKSPACE, "", _BIND)
    yield _again(ROOT + INSIDE_WORKSPACE, _NOSUID | _NODEV)


def _stores(shown: Sequence[Shown]) -> Iterator[Line]:
    for one in shown:
        target = ROOT + one.target
        yield from _folder(target if one.is_folder else target.rpartition("/")[0], 0o755)
        if not one.is_folder:
            yield ("t", target)
        yield _mount(one.source, target, "", _BIND)
        yield _again(target, _RDONLY | _NOSUID | _NODEV)


def outer_first(mounts: Sequence[Mount]) -> list[Mount]:
    """`mounts` in an order in which none hides another."""
    return sorted(mounts, key=lambda mount: (mount.target.count("/"), mount.target))
