"""nginx with settings of its own in a folder of its own: as a server, and as a proxy that opens TLS and closes it again."""

import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from measure import NotMeasured

_SEARCH = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"])
_SETTINGS = """
daemon off;
pid {folder}/pid;
error_log {folder}/error.log;
worker_processes auto;
events {{}}
http {{
    access_log {folder}/access.log;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    server {{
        listen 127.0.0.1:{port} ssl;
{server}
    }}
}}
"""
_OPENING = """
        ssl_certificate {certificate};
        ssl_certificate_key {key};
        location / {{
            proxy_pass https://127.0.0.1:{port};
            proxy_http_version 1.1;
            proxy_ssl_verify on;
            proxy_ssl_name {host};
            proxy_ssl_server_name on;
            proxy_ssl_trusted_certificate {certificate};
            proxy_max_temp_file_size 0;
            proxy_buffers 8 256k;
            proxy_buffer_size 256k;
            proxy_busy_buffers_size 512k;
        }}
"""


def tool(program: str, package: str) -> str:
    """Where the program is; NotMeasured with the package that has it."""
    found = shutil.which(program, path=_SEARCH)
    if found is None:
        raise NotMeasured(f"{program} is needed: apt-get install {package}")
    return found


@contextmanager
def started(server: Callable[[Path], str]) -> Iterator[int]:
    """The port of one whose server's settings are what `server` says for its folder."""
    nginx = tool("nginx", "nginx-light")
    with (
        tempfile.TemporaryDirectory(prefix="bb-nginx-") as name,
        socket.create_server(("127.0.0.1", 0)) as one,
    ):
        port = one.getsockname()[1]
        one.close()
        folder = Path(name)
        folder.chmod(0o755)  # as root, its workers are somebody else
        (folder / "settings").write_text(_SETTINGS.format(folder=folder, port=port, server=server(folder)))
        with open(folder / "said", "wb") as said:
            argv = [nginx, "-p", name, "-c", f"{folder}/settings", "-e", f"{folder}/error.log"]
            process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=said, stderr=said)
        try:
            _wait_for(port, process, folder)
            yield port
        finally:
            process.terminate()
            process.wait()


def opening(*, certificate: str, key: str, host: str, port: int) -> str:
    """A proxy to `host`:`port` that ends TLS on both sides, verifies as a bottle's does, and keeps nothing on disk."""
    return _OPENING.format(certificate=certificate, key=key, host=host, port=port)


def _wait_for(port: int, process: "subprocess.Popen[bytes]", folder: Path) -> None:
    """Until the server takes connections; NotMeasured with its words when it does not come to that."""
    deadline = time.monotonic() + 10
    while process.poll() is None and time.monotonic() < deadline:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            time.sleep(0.02)
        else:
            return
    raise NotMeasured(f"nginx did not start: {(folder / 'said').read_text(errors='replace').strip()[-500:]}")
