"""Real git servers for tests: OpenSSH with a host key of its own, and nginx in front of git's own http-backend."""

import getpass
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
from collections.abc import Sequence
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import IO

from support.authorities import Authority
from support.waiting import wait_for

IDENTITY = {
    "GIT_AUTHOR_NAME": "Someone", "GIT_AUTHOR_EMAIL": "someone@example.org",
    "GIT_COMMITTER_NAME": "Someone", "GIT_COMMITTER_EMAIL": "someone@example.org",
    "GIT_CONFIG_NOSYSTEM": "1", "GIT_CONFIG_GLOBAL": "/nonexistent/gitconfig",
    "PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C.UTF-8",
}  # fmt: skip


def git(folder: Path, *words: str, stdin: str | bytes | None = None, **env: str) -> str:
    """What `git WORDS` in `folder` says; AssertionError when it fails."""
    given = stdin.encode() if isinstance(stdin, str) else stdin
    done = subprocess.run(
        ["git", "-c", "safe.directory=*", *words],
        cwd=folder, env={**IDENTITY, **env}, input=given, capture_output=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, (words, done.stderr.decode(errors="replace"))
    return done.stdout.decode(errors="replace").strip()


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


def make_upstream(path: Path, commits: int = 3) -> Path:
    """A bare repository at `path` with a branch `main` of some commits, and a tag."""
    path.mkdir(parents=True)
    git(path, "init", "-q", "--bare", "-b", "main")
    lines = []
    for number in range(1, commits + 1):
        content = f"line {number}\n"
        lines += [
            "commit refs/heads/main",
            f"committer Someone <someone@example.org> {1_700_000_000 + number} +0000",
            f"data {len(f'Commit {number}')}",
            f"Commit {number}",
            f"M 100644 inline file-{number % 100}.txt",
            f"data {len(content)}",
            content,
        ]
    git(path, "fast-import", "--quiet", stdin="\n".join(lines) + "\n")
    git(path, "tag", "v1", "main")
    return path


def answers(port: int) -> bool:
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


def descendants(pid: int) -> list[int]:
    """What a process has started, and what that has, the nearest first."""
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        with suppress(OSError):
            for child in map(int, task.read_text().split()):
                found += [child, *descendants(child)]
    return found


class Server:
    """A server process of the test's own."""

    def __init__(self, argv: Sequence[str], port: int, log: Path) -> None:
        self.port = port
        self._argv = argv
        self._log = log
        self.start()

    def start(self) -> None:
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(
                self._argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        wait_for(lambda: answers(self.port) or self.process.poll() is not None, "the server", within=20)
        assert self.process.poll() is None, self._log.read_text()

    def stop(self) -> None:
        """Ends it and what it has started, connections too. Idempotent."""
        theirs = descendants(self.process.pid) if self.process.poll() is None else []
        self.process.kill()  # first: nginx would start another worker for each that ends
        for pid in theirs:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait()


class Ssh(Server):
    """sshd with one host key, that takes one key of a user: whoever runs the tests."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o755)
        for name in ("host", "user", "other"):
            argv = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", str(folder / name)]
            subprocess.run(argv, check=True)
        shutil.copy(folder / "user.pub", folder / "authorized")
        port = free_port()
        if os.geteuid() == 0:
            Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
        lines = [
            f"ListenAddress 127.0.0.1:{port}", f"HostKey {folder}/host", f"AuthorizedKeysFile {folder}/authorized",
            "StrictModes no", "UsePAM no", "PasswordAuthentication no", "PermitRootLogin yes", "PidFile none",
            "AcceptEnv GIT_PROTOCOL", "MaxStartups 100", "LogLevel ERROR",
            f"SetEnv HOME={folder}",  # the person's own start-up files can take longer than git
        ]  # fmt: skip
        (folder / "config").write_text("\n".join(lines) + "\n")
        self.folder = folder
        self.user = getpass.getuser()
        sshd = shutil.which("sshd", path="/usr/sbin:/usr/local/sbin:/usr/bin")
        assert sshd, "openssh-server is not installed"
        super().__init__([sshd, "-D", "-e", "-f", str(folder / "config")], port, folder / "log")

    def url(self, repository: Path) -> str:
        return f"ssh://{self.user}@127.0.0.1:{self.port}{repository}"

    def public(self, name: str = "host") -> str:
        return " ".join((self.folder / f"{name}.pub").read_text().split()[:2])

    def key_for(self, uid: int, path: Path, name: str = "user") -> str:
        """The private key as a file of `uid`."""
        shutil.copy(self.folder / name, path)
        path.chmod(0o600)
        os.chown(path, uid, uid)
        return str(path)


class _Backend(BaseHTTPRequestHandler):
    """git's own http-backend, as a CGI program of the repositories below `root`."""

    protocol_version = "HTTP/1.1"
    root = ""

    def log_message(self, *_) -> None:
        "Nothing."

    def _serve(self) -> None:
        path, _, query = self.path.partition("?")
        env = {
            **IDENTITY, "GIT_PROJECT_ROOT": self.root, "GIT_HTTP_EXPORT_ALL": "1", "PATH_INFO": path, "QUERY_STRING": query,
            "REQUEST_METHOD": self.command, "CONTENT_TYPE": self.headers.get("content-type", ""), "REMOTE_USER": "test",
            "HTTP_CONTENT_ENCODING": self.headers.get("content-encoding", ""), "GIT_PROTOCOL": self.headers.get("git-protocol", ""),
            "GIT_CONFIG_COUNT": "2", "GIT_CONFIG_KEY_0": "safe.directory", "GIT_CONFIG_VALUE_0": "*",
            "GIT_CONFIG_KEY_1": "http.receivepack", "GIT_CONFIG_VALUE_1": "true",
        }  # fmt: skip
        length = int(self.headers.get("content-length") or 0)
        env["CONTENT_LENGTH"] = str(length)
        with tempfile.TemporaryFile() as body:
            while length > 0:
                data = self.rfile.read(min(length, 1 << 20))
                body.write(data)
                length -= len(data)
            body.seek(0)
            with subprocess.Popen(
                ["git", "http-backend"], env=env, stdin=body, stdout=subprocess.PIPE
            ) as process:
                self._answer(process.stdout)

    def _answer(self, said: IO[bytes]) -> None:
        status, headers = 200, []
        while line := said.readline().strip().decode():
            name, _, value = line.partition(": ")
            if name.lower() == "status":
                status = int(value.split()[0])
            else:
                headers.append((name, value))
        self.send_response(status)
        for name, value in headers:
            self.send_header(name, value)
        self.send_header("connection", "close")
        self.end_headers()
        self.close_connection = True
        shutil.copyfileobj(said, self.wfile)

    do_GET = do_POST = _serve  # noqa: N815 - the library's names


class Https(Server):
    """nginx with TLS before git's http-backend. Whoever does not say `authorization` is not let in."""

    def __init__(self, folder: Path, root: Path, authorization: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o755)
        self.authority = Authority("git test")
        self.folder = folder
        leaf = self.authority.leaf(folder, "127.0.0.1", "localhost")
        handler = type("Handler", (_Backend,), {"root": str(root)})
        self.backend = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        threading.Thread(target=self.backend.serve_forever, args=(0.05,), daemon=True).start()
        port = free_port()
        who = "user root;" if os.geteuid() == 0 else ""
        (folder / "nginx.conf").write_text(f"""
            {who} daemon off; pid {folder}/pid; error_log stderr warn; worker_processes 1;
            events {{ worker_connections 256; }}
            http {{
                access_log {folder}/access.log; client_max_body_size 0; proxy_read_timeout 600s;
                client_body_temp_path {folder}/b; proxy_temp_path {folder}/p; fastcgi_temp_path {folder}/f;
                uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
                server {{
                    listen 127.0.0.1:{port} ssl; ssl_certificate {leaf}; ssl_certificate_key {leaf};
                    location /moved/ {{ return 301 https://127.0.0.1:{port}/project.git$is_args$args; }}
                    location / {{
                        if ($http_authorization != "{authorization}") {{ return 401; }}
                        proxy_buffering off; proxy_http_version 1.1;
                        proxy_pass http://127.0.0.1:{self.backend.server_address[1]};
                    }}
                }}
            }}
        """)
        nginx = shutil.which("nginx", path="/usr/sbin:/usr/local/sbin:/usr/bin")
        assert nginx, "nginx is not installed"
        super().__init__([nginx, "-c", str(folder / "nginx.conf"), "-e", "stderr"], port, folder / "log")

    def url(self, path: str = "project.git") -> str:
        return f"https://localhost:{self.port}/{path}"

    def close(self) -> None:
        self.stop()
        self.backend.shutdown()
        self.backend.server_close()
