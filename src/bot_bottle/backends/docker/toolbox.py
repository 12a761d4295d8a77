"""The image of our own containers (door helper, bundle): this Python and this bot-bottle, packed as they are installed here.

No registry is asked and nothing is built: files are packed and imported, and the tag says what is in it, so that an installation
is packed once for each engine. Nothing in it names a path, a user or a host of the machine that it comes from.
"""

import contextlib
import os
import re
import sys
import sysconfig
import tarfile
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

from bot_bottle.backends.docker.programs import look
from bot_bottle.backends.docker.wire import Engine
from bot_bottle.errors import HostError
from bot_bottle.host import process

if TYPE_CHECKING:
    from importlib.metadata import Distribution

REPOSITORY = "bot-bottle-own"
PYTHON = "/opt/python/bin/python3"
LIBRARY = "/opt/bot-bottle"
"""The package and what it needs; `-I -S` leaves it out of `sys.path`, so `RUN` puts it there."""
RUN = (PYTHON, "-I", "-S", "-B", "-c")
"""Before a program's text and its arguments."""
PREFIX = f"import sys; sys.path.insert(0, {LIBRARY!r}); "
UID = 64_998
"""Who the bundle is in its container: nobody else's number there."""
_SHARED = "/opt/lib"
_NEEDED = ("brotli", "cryptography", "google-re2", "h2", "httptools", "mcp", "starlette", "uvicorn")
"""The package's dependencies that face the agent or its upstreams; what those need comes along."""
_LEFT_OUT = {"test", "tests", "idlelib", "tkinter", "turtledemo", "ensurepip", "lib2to3", "pydoc_data", "site-packages",
             "dist-packages", "config-3"}  # fmt: skip
_BESIDE = ("libgcc_s.so.1", "libnss_files.so.2", "libnss_dns.so.2", "libresolv.so.2")
"""Libraries that are loaded when they are needed, by name."""
_MACHINES = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm"}
_FILES = {
    "etc/passwd": b"root:x:0:0:root:/:/sbin/nologin\nbundle:x:%d:%d::/:/sbin/nologin\n" % (UID, UID),
    "etc/group": b"root:x:0:\nbundle:x:%d:\n" % UID,
    "etc/nsswitch.conf": b"hosts: files dns\n",
}


def ensure(engine: Engine) -> str:
    """The image's tag on `engine`, imported there unless it is there already. Raises HostError, SandboxError."""
    tag = f"{REPOSITORY}:{fingerprint()}"
    if look(engine, tag):
        return tag
    _check_machine(engine)
    _import(engine, tag)
    return tag


def _check_machine(engine: Engine) -> None:
    found = engine.call("GET", "/version", what="say its version")
    wanted = _MACHINES.get(os.uname().machine, os.uname().machine)
    theirs = str(found.get("Os", "linux")), str(found.get("Arch", wanted))
    if theirs != ("linux", wanted):
        raise HostError(
            f"The engine at {engine.path} runs {'/'.join(theirs)}, this machine linux/{wanted}",
            details="Our own containers run the Python of this machine.",
            resolution="Use an engine of the same architecture.",
        )


def fingerprint() -> str:
    """What the image of this installation is called: everything that decides what is in it."""
    from bot_bottle.digest import sha256_hex

    said = [sys.version, os.uname().machine, _stamp(os.path.realpath(sys.executable))]
    said += [f"{one.metadata['Name']} {one.version}" for one in _distributions()]
    said += [_stamp(path) for path, _ in sorted(_tree(_package(), "bot_bottle"))]
    said.append(_stamp(__file__))
    return sha256_hex("\n".join(said).encode())[:16]


def _stamp(path: str) -> str:
    found = os.stat(path)
    return f"{os.path.basename(path)} {found.st_size} {found.st_mtime_ns}"


def _package() -> str:
    import bot_bottle

    return os.path.dirname(os.path.abspath(bot_bottle.__file__))


def _distributions() -> "list[Distribution]":
    """The installed distributions that `_NEEDED` stands for, with theirs."""
    from importlib.metadata import PackageNotFoundError, distribution

    found: dict[str, Distribution] = {}
    waiting = list(_NEEDED)
    while waiting:
        name = re.sub(r"[-_.]+", "-", waiting.pop()).lower()
        if name in found:
            continue
        try:
            found[name] = distribution(name)
        except PackageNotFoundError:
            if name in _NEEDED:
                raise
            continue  # of a requirement for another system
        for line in found[name].requires or ():
            named = re.match(r"[A-Za-z0-9._-]+", line)
            if named and "extra ==" not in line:
                waiting.append(named[0])
    return [found[name] for name in sorted(found)]


# What is packed


class _Packed(NamedTuple):
    """A file of this machine, and where it stands in the image (without the slash)."""

    source: str
    target: str


def _tree(folder: str, target: str) -> Iterator[_Packed]:
    for where, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not _is_left_out(name))
        for name in sorted(names):
            yield _Packed(
                os.path.join(where, name), os.path.join(target, os.path.relpath(where, folder), name)
            )


def _is_left_out(name: str) -> bool:
    return name in _LEFT_OUT or name.startswith("config-") or name == "__pycache__"


def _contents() -> Iterator[_Packed]:
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    interpreter = os.path.realpath(sys.executable)
    yield _Packed(interpreter, PYTHON.lstrip("/"))
    for name in sorted({sysconfig.get_path("stdlib"), sysconfig.get_path("platstdlib")}):
        if name.startswith(sys.base_prefix):
            yield from _tree(name, f"opt/python/lib/{version}")
    library = LIBRARY.lstrip("/")
    yield from _tree(_package(), f"{library}/bot_bottle")
    for one in _distributions():
        for file in one.files or ():
            source = str(one.locate_file(file))
            kept = ".." not in file.parts and "__pycache__" not in file.parts and "tests" not in file.parts
            if kept and os.path.isfile(source):
                yield _Packed(source, f"{library}/{file}")


def _compiled(contents: list[_Packed]) -> Iterator[_Packed]:
    """What Python has compiled of them already: else every start would do it again, the image being read-only."""
    from importlib.util import cache_from_source

    for source, target in contents:
        if target.endswith(".py") and os.path.isfile(made := cache_from_source(source)):
            yield _Packed(made, os.path.join(os.path.dirname(target), "__pycache__", os.path.basename(made)))


def _libraries(objects: list[str]) -> Iterator[_Packed]:
    """The shared libraries that `objects` load, all in one folder; and the loader, which has to stand where it is named."""
    own = {os.path.basename(path) for path in objects}
    found: dict[str, str] = {}
    said = process.run(("ldd", *objects), timeout=120).stdout.decode(errors="replace")
    for line in said.splitlines():
        name, arrow, rest = line.strip().partition(" => ")
        path = (rest if arrow else name).rpartition(" (")[0]
        if not path.startswith("/") or not os.path.isfile(path):
            continue
        if not arrow:  # the loader's own line
            yield _Packed(os.path.realpath(path), path.lstrip("/"))
        elif os.path.basename(path) not in own:
            found[os.path.basename(name)] = os.path.realpath(path)
    beside = {os.path.dirname(line.rpartition(" => ")[2]) for line in said.splitlines() if "libc.so" in line}
    for name in _BESIDE:
        for folder in sorted(beside):
            if os.path.isfile(os.path.join(folder, name)):
                found.setdefault(name, os.path.realpath(os.path.join(folder, name)))
    for name, path in sorted(found.items()):
        yield _Packed(path, f"{_SHARED.lstrip('/')}/{name}")


def _certificates() -> Iterator[_Packed]:
    """The authorities that this machine's OpenSSL trusts, where that of the image looks for them."""
    import ssl

    places = ssl.get_default_verify_paths()
    listed = [
        path
        for path in (places.cafile, "/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/cert.pem")
        if path
    ]
    source = next((os.path.realpath(path) for path in listed if os.path.isfile(path)), "")
    if source:
        yield _Packed(source, (places.openssl_cafile or "/usr/lib/ssl/cert.pem").lstrip("/"))


def _pack(archive: tarfile.TarFile) -> None:
    contents = list(_contents())
    objects = [
        one.source for one in contents if one.target.endswith((".so", "/python3")) or ".so." in one.target
    ]
    contents += [*_compiled(contents), *_libraries(objects), *_certificates()]
    own = {"tmp": 0o1777, "run": 0o755, "run/door": 0o777, "proc": 0o755, "sys": 0o755}
    for name, mode in (*own.items(), *((name, 0o755) for name in _above(contents))):
        member = tarfile.TarInfo(name)
        member.type, member.mode = tarfile.DIRTYPE, mode
        archive.addfile(member)
    import io

    for name, content in _FILES.items():
        member = tarfile.TarInfo(name)
        member.size, member.mode = len(content), 0o644
        archive.addfile(member, io.BytesIO(content))
    seen: set[str] = set()
    for source, target in contents:
        target = os.path.normpath(target)
        if target in seen:
            continue
        seen.add(target)
        with contextlib.suppress(FileNotFoundError), open(source, "rb") as file:
            found = os.fstat(file.fileno())
            member = tarfile.TarInfo(target)
            member.size, member.mtime = found.st_size, int(found.st_mtime)
            member.mode = 0o755 if found.st_mode & 0o100 else 0o644
            archive.addfile(member, file)


def _above(contents: list[_Packed]) -> list[str]:
    """Every folder that `contents` lie in: left out, it would be made with whatever rights the engine's own umask leaves."""
    found: set[str] = {os.path.dirname(name) for name in _FILES}
    for one in contents:
        folder = os.path.dirname(os.path.normpath(one.target))
        while folder and folder not in found:
            found.add(folder)
            folder = os.path.dirname(folder)
    return sorted(found)


def _import(engine: Engine, tag: str) -> None:
    """Packs it into a file without a name, and has the engine take that in."""
    import tempfile

    changes = "\n".join(
        ('LABEL bot-bottle.kind="own"', f"ENV LD_LIBRARY_PATH={_SHARED}", "ENV LC_ALL=C.UTF-8")
    )
    repository, _, name = tag.partition(":")
    with tempfile.TemporaryFile() as file:
        try:
            with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as archive:
                _pack(archive)
            file.seek(0)
        except OSError as error:
            raise HostError("Our own image can't be packed", details=str(error)) from error
        what = "take our own image"
        engine.call(
            "POST", "/images/create", file, what=what, fromSrc="-", repo=repository, tag=name, changes=changes
        )
    if not look(engine, tag):
        raise HostError("The engine did not take our own image")
