"""What a broken-in supervise process could do: tried from inside a real one, after it has confined itself."""

import os
import socket
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from bot_bottle.bundle import landlock
from bot_bottle.launch import supervise_process
from bot_bottle.launch.supervise_process import Process, beside, spawn_server
from support.supervised import NOBODY, descriptors, until
from tests.bundle.test_confinement import ATTEMPTS, NEEDS_LANDLOCK, REFUSED

HOOK = """
import sys; sys.path[:0] = sys.argv[3:]
from bot_bottle.bundle import confine
real = confine.confine
def confine_then_try(program, **options):
    confined = real(program, **options)
    exec(compiled, scope)
    return {**confined, "found": scope["found"]}
confine.confine = confine_then_try
scope = {"found": {}}
exec("import ctypes, errno, os, resource, signal, socket, threading", scope)
compiled = compile(ATTEMPTS, "hook", "exec")
from bot_bottle.bundle.supervise import main
main.serve(*map(int, sys.argv[1:3]))
"""
MORE = """
def or_not_permitted(action):
    try:
        action()
    except (RuntimeError, ImportError) as error:
        raise OSError(errno.EPERM, str(error))

attempt("connect out", lambda: socket.create_connection(("127.0.0.1", 9), 1))
attempt("a thread", lambda: or_not_permitted(threading.Thread(target=lambda: None).start))
attempt("a pair", lambda: socket.socketpair())
attempt("take descriptors", lambda: call(47 if X86 else 212, 3, 0, 0))
attempt("import what is not loaded", lambda: or_not_permitted(lambda: __import__("sqlite3")))
"""
NOT_EVEN = (
    "read resolv.conf",
    "tcp",
    "udp",
    "connect out",
    "a pair",
    "take descriptors",
    "import what is not loaded",
)
"""What the bundle may, and this may not."""


class Line:
    """A server's process, and what it says to its keeper."""

    def __init__(self, **more: Any) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        order = {"keeper": os.getpid(), "token": "t", "uid": NOBODY, "gid": NOBODY, "hold": 1,
                 "port": self.listener.getsockname()[1]}  # fmt: skip
        begin = partial(beside, partial(spawn_server, self.listener.fileno()))
        self.process = Process(begin, {**order, **more})
        self.heard: list[dict[str, Any]] = []

    def hear(self, wanted: str) -> dict[str, Any]:
        def found() -> dict[str, Any] | None:
            self.heard += self.process.read() or []
            return next((message for message in self.heard if wanted in message), None)

        message: dict[str, Any] = until(found)
        return message

    def close(self) -> None:
        self.process.end()
        self.listener.close()


@pytest.fixture(scope="module")
def tried() -> Iterator[dict[str, Any]]:
    secret = Path("/tmp") / f"bot-bottle-supervise-{os.getpid()}"
    secret.write_text("a file that everybody may read")
    secret.chmod(0o644)
    # It can have no thread, so there are no attempts of one.
    attempts = ATTEMPTS.partition("import threading\n")[0] + MORE
    code = f"SECRET = {str(secret)!r}\nX86 = {os.uname().machine == 'x86_64'}\n{attempts}"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(supervise_process, "_START", f"ATTEMPTS = {code!r}\n{HOOK}")
        line = Line()
        try:
            ready = line.hear("ready")
            yield {**ready["confined"], "pid": line.process.child.pid}
        finally:
            line.close()
            secret.unlink()


@pytest.mark.parametrize("what", [name for name in REFUSED if not name.endswith("in a thread")])
def test_it_cannot_what_a_bundle_cannot(what: str, tried: dict[str, Any]) -> None:
    if what == "listen":  # on a socket that it can't have: asyncio asks for it on the one that listens
        assert tried["found"]["bind"] in ("EPERM", "EACCES")
        return
    assert tried["found"][what] in ("EPERM", "EACCES")


@pytest.mark.parametrize("what", NOT_EVEN)
def test_it_cannot_even(what: str, tried: dict[str, Any]) -> None:
    assert tried["found"][what] in ("EPERM", "EACCES")


@pytest.mark.skipif(not landlock.version(), reason="this kernel has no Landlock")
@pytest.mark.parametrize("what", NEEDS_LANDLOCK)
def test_it_reads_nothing(what: str, tried: dict[str, Any]) -> None:
    assert tried["landlock"] > 0
    assert tried["found"][what] in ("EPERM", "EACCES")


def test_it_has_one_listener_one_line_and_what_its_loop_needs(tried: dict[str, Any]) -> None:
    if os.geteuid() != 0:
        pytest.skip("a confined process can't be looked into but by root")
    kinds = sorted(target.partition(":")[0] for target in descriptors(tried["pid"]))
    assert kinds == ["/dev/null", "anon_inode", "socket", "socket", "socket", "socket"]


def test_it_takes_no_more_memory_than_it_may() -> None:
    if os.geteuid() != 0:
        pytest.skip("a confined process can't be looked into but by root")
    line = Line()
    try:
        line.hear("ready")
        limits = Path(f"/proc/{line.process.child.pid}/limits").read_text().splitlines()
        by_name = {words[:24].strip(): words[26:].split() for words in limits}
        assert int(by_name["Max data size"][0]) <= 384 << 20
        assert int(by_name["Max open files"][0]) <= 256
        assert by_name["Max core file size"][:2] == ["0", "0"]
    finally:
        line.close()


def test_told_by_another_than_its_keeper_it_serves_nobody() -> None:
    line = Line(keeper=1)
    try:
        until(lambda: line.process.child.poll() is not None)
        line.heard += line.process.read() or []
        assert not [message for message in line.heard if "ready" in message]
    finally:
        line.close()


def test_it_imports_no_client_no_store_and_nothing_that_starts_programs() -> None:
    code = (
        "import sys; sys.path[:0] = sys.argv[1:]; from bot_bottle.bundle.supervise import lean; lean.load();"
        "print(*sorted(sys.modules))"
    )
    import subprocess

    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", code, *sys.path], capture_output=True, text=True, check=True
    )
    loaded = set(done.stdout.split())
    assert "mcp.server.lowlevel.server" in loaded
    assert not loaded & {"mcp.client", "mcp.server.mcpserver", "httpx2", "cryptography", "sqlite3", "bot_bottle.state",
                         "bot_bottle.manifest", "bot_bottle.host.process", "bot_bottle.launch"}  # fmt: skip
