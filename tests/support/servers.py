"""Real servers on the host's loopback, for clients inside a bottle.

Those that would start a service on the machine when their package is installed are used where they are there already.
"""

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from pathlib import Path

from support.waiting import wait_for

_PRIVILEGES = Path("/run/sshd")
"""Where sshd empties itself; as root it does not start without."""
_CONFIG = """\
ListenAddress 127.0.0.1
Port {port}
HostKey {folder}/host
AuthorizedKeysFile {folder}/client.pub
PidFile none
UsePAM no
StrictModes no
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin prohibit-password
LogLevel VERBOSE
"""


def free_port() -> int:
    """A port of the loopback that nobody serves."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
        return port


class SshServer:
    """OpenSSH's own, for the user who runs the tests, with a key of its own in `folder`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        self.user = pwd.getpwuid(os.getuid()).pw_name
        self.key = folder / "client"

    @staticmethod
    def program() -> str | None:
        return shutil.which("sshd", path="/usr/sbin:/usr/bin:" + os.environ.get("PATH", ""))

    def __enter__(self) -> "SshServer":
        program = self.program()
        assert program, "sshd is not installed"
        if os.geteuid() == 0:
            _PRIVILEGES.mkdir(mode=0o755, exist_ok=True)
        for name in ("host", "client"):
            argv = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(self.folder / name)]
            subprocess.run(argv, check=True, capture_output=True)
        config = self.folder / "config"
        config.write_text(_CONFIG.format(port=self.port, folder=self.folder))
        self._log = (self.folder / "log").open("wb")
        self._process = subprocess.Popen([program, "-D", "-e", "-f", str(config)], stderr=self._log, cwd="/")
        wait_for(lambda: b"listening on" in (self.folder / "log").read_bytes(), "sshd to listen")
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait(20)
        self._log.close()

    def known_host(self, name: str) -> str:
        """The line of a known_hosts file that says which key `name` has."""
        return f"{name} {' '.join((self.folder / 'host.pub').read_text().split()[:2])}\n"

    def options(self, name: str) -> list[str]:
        """What makes a client take this server for `name`, and nothing else for it."""
        known = self.folder / f"known-{name}"
        known.write_text(self.known_host(name))
        chosen = {
            "UserKnownHostsFile": known,
            "StrictHostKeyChecking": "yes",
            "BatchMode": "yes",
            "IdentitiesOnly": "yes",
        }
        return ["-F", "none", "-i", str(self.key), *(f"-o{key}={value}" for key, value in chosen.items())]


class PostgresServer:
    """PostgreSQL, with a superuser `me` whom it asks for nothing. Its folder is below /tmp, where another user can be."""

    def __init__(self) -> None:
        self.port = free_port()

    @staticmethod
    def program(name: str) -> str | None:
        places = ["/usr/bin", "/usr/local/bin", *map(str, Path("/usr/lib/postgresql").glob("*/bin"))]
        return shutil.which(name, path=":".join(places))

    @classmethod
    def is_installed(cls) -> bool:
        return all(map(cls.program, ("initdb", "postgres", "psql")))

    def __enter__(self) -> "PostgresServer":
        other = []
        self._folder = tempfile.TemporaryDirectory(prefix="postgres-", dir="/tmp")
        folder = Path(self._folder.name)
        if os.geteuid() == 0:  # it refuses to be root
            other = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--"]
            shutil.chown(folder, 65534, 65534)
        data = folder / "data"
        surroundings = {"env": {"PATH": "/usr/bin:/bin", "LC_ALL": "C"}, "cwd": folder}
        make = [*other, self.program("initdb"), "-D", data, "-U", "me", "--auth=trust", "--no-sync"]
        subprocess.run(make, check=True, capture_output=True, **surroundings)
        serve = [
            *other,
            self.program("postgres"),
            "-D",
            data,
            "-p",
            str(self.port),
            "-h",
            "127.0.0.1",
            "-k",
            "",
            "-F",
        ]
        null = subprocess.DEVNULL
        self._process = subprocess.Popen(serve, stdout=null, stderr=null, **surroundings)
        said = data / "postmaster.pid"
        wait_for(lambda: said.exists() and "ready" in said.read_text(), "PostgreSQL to be ready")
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait(20)
        self._folder.cleanup()
