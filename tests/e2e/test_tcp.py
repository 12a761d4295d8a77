"""tcp routes through the whole of it: a real ssh client in a bottle, a real sshd outside."""

import json
import shutil
import socket
import threading
from collections.abc import Iterator

import pytest

from support.bottles import write_agent, write_bottle, write_script
from support.servers import SshServer

pytestmark = pytest.mark.namespace


@pytest.fixture
def sshd(place, tmp_path) -> Iterator[SshServer]:
    """A server that the bottle knows as `git.example.org:22` and nothing else, and whose key is in the repository."""
    if not SshServer.program():
        pytest.skip("OpenSSH's server is not installed")
    with SshServer(tmp_path) as server:
        write_bottle(
            place,
            egress={
                "routes": [
                    {"host": "git.example.org", "protocol": "tcp", "port": 22, "upstream": f"127.0.0.1:{server.port}"},
                    {"host": "web.example.org", "protocol": "http", "upstream": f"127.0.0.1:{server.port}"},
                ]
            },
        )  # fmt: skip
        (place.workspace / "known").write_text(server.known_host("git.example.org"))
        shutil.copy(server.key, place.workspace / "key")
        for name in ("known", "key"):
            shutil.chown(place.workspace / name, place.uid, place.uid)
        yield server


SSH = """
cp key /tmp/key && chmod 600 /tmp/key
dial() { ssh -F none -n -i /tmp/key -oUserKnownHostsFile=$PWD/known -oHostKeyAlias=git.example.org -oBatchMode=yes \
-oStrictHostKeyChecking=yes -oConnectTimeout=10 "$@" "echo reached; true" 2>/tmp/why || echo refused; }
"""


def test_ssh_reaches_the_route_and_nothing_beside_it(place, cli, repository, sshd):
    lines = [
        f"dial {sshd.user}@git.example.org",
        f"dial -oProxyCommand='/usr/bin/python3 /workspace/connect.py %h %p' {sshd.user}@git.example.org",
        f"dial -p 80 {sshd.user}@git.example.org",
        f"dial -p {sshd.port} {sshd.user}@git.example.org",
        f"dial {sshd.user}@web.example.org",
        f"dial {sshd.user}@127.0.0.1",
        f"dial -p {sshd.port} {sshd.user}@127.0.0.1",
        f"dial {sshd.user}@203.0.113.9",
        f"dial {sshd.user}@other.example.org",
    ]
    (place.workspace / "connect.py").write_text(CONNECT)
    write_script(place, "dial", SSH + "\n".join(lines))
    done = cli("start", "dial", "--headless", "--workspace", "mount")
    assert done.stdout.split() == ["reached", "reached"] + ["refused"] * 7, done.stdout + done.stderr
    run = json.loads(cli("list", "--all", "--json").stdout)[0]["id"]
    events = [json.loads(line) for line in cli("events", run, "--json").stdout.splitlines()]
    refused = {
        (event["data"]["host"], event["data"]["reason"])
        for event in events
        if event["kind"] == "egress.refused"
    }
    assert ("web.example.org", "port_not_allowed") in refused
    assert ("203.0.113.9", "no_name") in refused


CONNECT = """
import os, socket, sys, threading
sock = socket.create_connection(("127.0.0.1", 3128))
sock.sendall(f"CONNECT {sys.argv[1]}:{sys.argv[2]} HTTP/1.1\\r\\nHost: {sys.argv[1]}:{sys.argv[2]}\\r\\n\\r\\n".encode())
head = b""
while not head.endswith(b"\\r\\n\\r\\n"):
    head += sock.recv(1)
def up():
    while data := os.read(0, 65536):
        sock.sendall(data)
    sock.shutdown(socket.SHUT_WR)
threading.Thread(target=up, daemon=True).start()
while data := sock.recv(65536):
    os.write(1, data)
"""


def test_rules_of_plain_http_hold_for_real_clients(place, cli, repository):
    seen: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=answer, args=(server, seen), daemon=True).start()
        where = f"127.0.0.1:{server.getsockname()[1]}"
        route = {
            "host": "docs.example.org",
            "protocol": "http",
            "upstream": where,
            "methods": ["GET"],
            "paths": ["/3/**"],
        }
        write_bottle(place, egress={"routes": [route]})
        urls = " ".join(f"http://docs.example.org{path}" for path in ("/3/a", "/2/a", "/3/%2e%2e/2", "/3/b"))
        script = f"for url in {urls}; do curl -sS -m 10 --path-as-is -o /dev/null -w '%{{http_code}}\\n' $url; done"
        write_agent(place, "dial", ["sh", "-c", script])
        done = cli("start", "dial", "--headless")
        assert done.stdout.split() == ["200", "403", "403", "200"], done.stdout + done.stderr
    assert seen == [b"GET /3/a HTTP/1.1", b"GET /3/b HTTP/1.1"]


def answer(server: socket.socket, seen: list[bytes]) -> None:
    while True:
        try:
            sock, _ = server.accept()
        except OSError:
            return
        with sock:
            seen.append(sock.recv(65536).partition(b"\r\n")[0])
            sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
