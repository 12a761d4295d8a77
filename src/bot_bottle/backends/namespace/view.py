"""What of the host's own system a bottle shows: looked at once for each bottle, a few dozen `lstat` calls."""

import os
import stat
from collections.abc import Callable

from bot_bottle.host import files
from bot_bottle.typed import NamedTuple

_MERGED = ("/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32")
_FOLDERS = (
    "/etc/alternatives",
    "/etc/ca-certificates",
    "/etc/crypto-policies",
    "/etc/fonts",
    "/etc/ld.so.conf.d",
    "/etc/perl",
    "/etc/pki/ca-trust",
    "/etc/pki/tls/certs",
    "/etc/python3",
    "/etc/ssl/certs",
    "/etc/terminfo",
)
"""Folders of public settings that programs below /usr need. Not /etc/ssl and /etc/pki whole: private keys live there."""
_FILES = (
    "/etc/debian_version",
    "/etc/ld.so.cache",
    "/etc/ld.so.conf",
    "/etc/localtime",
    "/etc/mime.types",
    "/etc/os-release",
    "/etc/protocols",
    "/etc/services",
    "/etc/shells",
    "/etc/ssl/openssl.cnf",
    "/etc/timezone",
)
_MASKED_FILES = ("/proc/cmdline", "/proc/config.gz", "/proc/kallsyms", "/proc/kcore", "/proc/key-users", "/proc/keys",
                 "/proc/latency_stats", "/proc/sched_debug", "/proc/timer_list")  # fmt: skip
_MASKED_FOLDERS = ("/proc/acpi", "/proc/asound", "/proc/scsi")
"""What of /proc tells of the machine and not of the bottle."""
_LARGEST = 4 * 1024 * 1024


class View(NamedTuple):
    """`links` are made (target, path), `folders` are shown read-only, `files` are copied, what is masked is hidden."""

    links: tuple[tuple[str, str], ...] = ()
    folders: tuple[str, ...] = ("/usr",)
    files: tuple[tuple[str, bytes], ...] = ()
    masked_files: tuple[str, ...] = ()
    masked_folders: tuple[str, ...] = ()


def look() -> View:
    """The view of this host. Only what everybody may read is in it."""
    links, folders = [], ["/usr"]
    for path in _MERGED:
        if os.path.islink(path):
            links.append((os.readlink(path), path))
        elif os.path.isdir(path):
            folders.append(path)
    with os.scandir("/etc") as entries:
        java = sorted(entry.path for entry in entries if entry.name.startswith("java-"))
    folders += [path for path in (*_FOLDERS, *java) if _everybody(path, stat.S_ISDIR)]
    contents = [(path, files.read(path)) for path in _FILES if _everybody(path, stat.S_ISREG)]
    return View(
        links=tuple(links),
        folders=tuple(folders),
        files=tuple(contents),
        masked_files=tuple(filter(os.path.exists, _MASKED_FILES)),
        masked_folders=tuple(filter(os.path.isdir, _MASKED_FOLDERS)),
    )


def _everybody(path: str, kind: Callable[[int], bool]) -> bool:
    """Whether `path` is of this kind and everybody may read it."""
    try:
        status = os.stat(path)
    except OSError:
        return False
    return bool(kind(status.st_mode) and status.st_mode & stat.S_IROTH and status.st_size <= _LARGEST)
