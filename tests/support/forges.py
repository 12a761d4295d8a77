"""What GitHub and GitLab are like to git, by their documentation: how they ask who you are, what they say, where they send you.

Behind it is git's own http-backend. It shows what the gate does with such an answer, not that the forges still give it.
"""

import base64
import ssl
import threading
from collections.abc import Mapping
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import IO

from support.authorities import Authority
from support.gitservers import _Backend

NAME = "/group/project"


class _Forge(_Backend):
    """`logins` are the user names that the token goes with; empty: any."""

    name = NAME
    realm = ""
    token = ""
    logins: tuple[str, ...] = ()
    asked: list[tuple[str, str]]
    elsewhere = ""
    redirects_to_git = False

    def _serve(self) -> None:
        path, mark, query = self.path.partition("?")
        said = self.headers.get("authorization", "")
        self.asked.append((path, said))
        if self.elsewhere and path.startswith("/group/renamed"):
            self._plain(
                301,
                "Moved",
                location=f"{self.elsewhere}{NAME}.git{path.partition('renamed.git')[2]}{mark}{query}",
            )
        elif not self._knows(said):
            self._plain(401, "Authentication required", **{"www-authenticate": f'Basic realm="{self.realm}"'})
        elif not path.startswith((f"{self.name}/", f"{self.name}.git/")):
            self._plain(404, "Repository not found.")
        elif self.redirects_to_git and path.startswith(f"{self.name}/"):
            host = self.headers["host"]
            self._plain(
                301,
                "Moved",
                location=f"https://{host}{path.replace(self.name, f'{self.name}.git', 1)}{mark}{query}",
            )
        else:
            rest = path.removeprefix(self.name).removeprefix(".git")
            self.path = f"/project.git{rest}{mark}{query}"
            super()._serve()

    def _answer(self, said: IO[bytes]) -> None:
        """With its length, since TLS does not end well here."""
        head, _, content = said.read().partition(b"\r\n\r\n")
        headers = dict(line.split(": ", 1) for line in head.decode().split("\r\n"))
        status = int(headers.pop("Status", "200").split()[0])
        self._respond(status, content, headers)

    def _knows(self, said: str) -> bool:
        kind, _, value = said.partition(" ")
        if kind.lower() != "basic":
            return False
        user, _, password = base64.b64decode(value).decode().partition(":")
        return password == self.token and (not self.logins or user in self.logins)

    def _plain(self, status: int, text: str, **headers: str) -> None:
        self._respond(status, text.encode(), headers)

    def _respond(self, status: int, content: bytes, headers: Mapping[str, str]) -> None:
        self.send_response(status)
        for name, value in {**headers, "content-length": str(len(content)), "connection": "close"}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)
        self.close_connection = True

    do_GET = do_POST = _serve  # noqa: N815 - the library's names


class Forge:
    """One that serves the repository `root`/project.git as `name`, over TLS; `asked` are the requests that came."""

    def __init__(self, folder: Path, root: Path, authority: Authority, **shape: object) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.asked: list[tuple[str, str]] = []
        handler = type("Handler", (_Forge,), {"root": str(root), "asked": self.asked, **shape})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(authority.leaf(folder, "127.0.0.1", "localhost"))
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    @property
    def host(self) -> str:
        return f"https://localhost:{self._server.server_address[1]}"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
