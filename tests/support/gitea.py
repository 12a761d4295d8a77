"""A real Gitea: HTTPS and its own ssh server on loopback, one user, one repository at a time made by its API."""

import base64
import json
import os
import ssl
import subprocess
import urllib.request
from pathlib import Path
from typing import Any

from support.authorities import Authority
from support.gitservers import Server, free_port

ROOT = Path(__file__).resolve().parents[2]
PLACES = sorted((ROOT / "build" / "gitea").glob("v*/gitea"))
WHY_NOT = ROOT / "build" / "gitea" / "why-not"
USER, PASSWORD = "worker", "made-up-password-0123456789"


def missing() -> str:
    """Why it is not there; empty when it is."""
    if PLACES:
        return ""
    said = WHY_NOT.read_text().strip() if WHY_NOT.exists() else "`make gitea` builds it, in some minutes"
    return f"Gitea is not built: {said}"


class Gitea(Server):
    """One in `folder`. `token` may write repositories; `key` is the file of the ssh key that it takes."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True)
        folder.chmod(0o755)
        self.folder, self._program = folder, PLACES[-1]
        self.authority = Authority("gitea test")
        self.ssh_port = free_port()
        port = free_port()
        for name in ("host", "key"):
            words = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", str(folder / name)]
            subprocess.run(words, check=True)
        self.key = folder / "key"
        self.host_key = " ".join((folder / "host.pub").read_text().split()[:2])
        self._configure(port, self.authority.leaf(folder, "127.0.0.1", "localhost"))
        self._tell("migrate")
        self._tell("admin", "user", "create", "--username", USER, "--password", PASSWORD, "--email", f"{USER}@example.org",
                   "--must-change-password=false", "--admin")  # fmt: skip
        scopes = "write:repository,write:user"
        made = self._tell("admin", "user", "generate-access-token", "--username", USER, "--raw", "--token-name", "gate",
                          "--scopes", scopes)  # fmt: skip
        self.token = made.split()[-1]
        super().__init__(
            [str(self._program), "--config", str(folder / "app.ini"), "web"], port, folder / "log"
        )
        self.ask("POST", "user/keys", title="gate", key=(folder / "key.pub").read_text())

    def _configure(self, port: int, leaf: Path) -> None:
        lines = [
            f"I_AM_BEING_UNSAFE_RUNNING_AS_ROOT = {str(os.geteuid() == 0).lower()}", f"WORK_PATH = {self.folder}",
            "[server]", "PROTOCOL = https", f"CERT_FILE = {leaf}", f"KEY_FILE = {leaf}",
            "HTTP_ADDR = 127.0.0.1", f"HTTP_PORT = {port}", f"ROOT_URL = https://localhost:{port}/",
            "START_SSH_SERVER = true", "SSH_LISTEN_HOST = 127.0.0.1", f"SSH_LISTEN_PORT = {self.ssh_port}",
            "BUILTIN_SSH_SERVER_USER = git", f"SSH_SERVER_HOST_KEYS = {self.folder}/host",
            f"STATIC_ROOT_PATH = {self._program.parent}", "OFFLINE_MODE = true",
            "[database]", "DB_TYPE = sqlite3", f"PATH = {self.folder}/gitea.db",
            "[repository]", f"ROOT = {self.folder}/repositories",
            "[security]", "INSTALL_LOCK = true", "PASSWORD_HASH_ALGO = pbkdf2_v1",
            "[log]", "LEVEL = warn", "[cron]", "ENABLED = false", "[indexer]", "ISSUE_INDEXER_TYPE = db",
        ]  # fmt: skip
        (self.folder / "app.ini").write_text("\n".join(lines) + "\n")

    def _tell(self, *words: str) -> str:
        argv = [str(self._program), "--config", str(self.folder / "app.ini"), *words]
        done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=120)
        assert done.returncode == 0, (words, done.stdout, done.stderr)
        return done.stdout

    def ask(self, method: str, path: str, **body: Any) -> Any:
        """What its API answers."""
        login = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
        request = urllib.request.Request(
            f"https://localhost:{self.port}/api/v1/{path}", json.dumps(body).encode() if body else None, method=method,
            headers={"authorization": f"Basic {login}", "content-type": "application/json"},
        )  # fmt: skip
        trust = ssl.create_default_context(cadata=self.authority.pem)
        with urllib.request.urlopen(request, context=trust, timeout=60) as answer:
            return json.loads(answer.read() or b"null")

    def repository(self, name: str) -> str:
        """A new one with one commit on `main`; `OWNER/NAME`."""
        self.ask("POST", "user/repos", name=name, auto_init=True, default_branch="main")
        return f"{USER}/{name}"

    def heads(self, repository: str) -> dict[str, str]:
        """Its branches, by its own word."""
        return {
            one["name"]: one["commit"]["id"] for one in self.ask("GET", f"repos/{repository}/branches") or ()
        }
