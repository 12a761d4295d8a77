"""A real sshd on loopback, for one user with one key; and the `ssh` that finds it, put before the ordinary one in PATH."""

import contextlib
import getpass
import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from support.waiting import wait_for


class Sshd(NamedTuple):
    """`environ` is what reaches it under the name `far`; `config` is the client's configuration."""

    port: int
    config: Path
    environ: dict[str, str]
    log: Path


def missing() -> str:
    """What is not installed that it takes; empty when all is."""
    return ", ".join(name for name in ("ssh", "sshd", "ssh-keygen") if not _find(name))


def _find(name: str) -> str | None:
    return shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")


@contextlib.contextmanager
def sshd(folder: Path) -> Iterator[Sshd]:
    """Runs it as the tests' own user, until the block ends; `folder` is empty and the caller's."""
    folder.mkdir(mode=0o755, exist_ok=True)
    for name in ("host", "user"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)], check=True)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    (folder / "keys").write_text((folder / "user.pub").read_text())
    (folder / "known").write_text(f"[127.0.0.1]:{port} {(folder / 'host.pub').read_text()}")
    (folder / "sshd_config").write_text(
        f"ListenAddress 127.0.0.1:{port}\nHostKey {folder}/host\nAuthorizedKeysFile {folder}/keys\nStrictModes no\n"
        f"PasswordAuthentication no\nKbdInteractiveAuthentication no\nUsePAM no\nPidFile none\nMaxStartups 100\n"
        "PermitRootLogin prohibit-password\n"
    )
    config = folder / "ssh_config"
    config.write_text(
        f"Host far\n HostName 127.0.0.1\n Port {port}\n User {getpass.getuser()}\n IdentityFile {folder}/user\n"
        f" IdentitiesOnly yes\n UserKnownHostsFile {folder}/known\n GlobalKnownHostsFile /dev/null\n"
    )
    (folder / "bin").mkdir()
    wrapper = folder / "bin" / "ssh"
    wrapper.write_text(f'#!/bin/sh\nexec {_find("ssh")} -F {config} "$@"\n')
    wrapper.chmod(0o755)
    environ = {"PATH": f"{folder}/bin:{os.environ['PATH']}", "HOME": str(folder), "DOCKER_HOST": "ssh://far"}
    log = folder / "log"
    if os.geteuid() == 0:
        os.makedirs("/run/sshd", mode=0o755, exist_ok=True)
    with log.open("wb") as written:
        server = subprocess.Popen(
            [str(_find("sshd")), "-D", "-e", "-f", str(folder / "sshd_config")], stderr=written
        )
    try:
        wait_for(lambda: _answers(port), "sshd")
        yield Sshd(port, config, environ, log)
    finally:
        server.terminate()
        server.wait(10)


def _answers(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1) as probe:
        return probe.recv(4) == b"SSH-"
    return False
