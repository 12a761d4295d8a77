"""Credentials from the operator's side to the upstream, through the whole of it; and not one place more."""

import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from support.bottles import write_agent, write_bottle, write_script
from support.leftovers import processes
from support.logins import claude_login, token_server, tokens_in
from support.tls import make_certificate
from support.waiting import wait_for

pytestmark = pytest.mark.namespace

SECRET = "s3cret-5150-9f31c7"
PATTERN = "s3cre[t]-5150"
"""Finds the secret, and not itself."""


class Echo:
    """A TLS server on the host's loopback that keeps each request's head, and answers 401 when `admit` does not like it.

    It says the number of the login's token that it saw, and nothing secret: that would be redacted on the way back.
    """

    def __init__(self, folder: Path) -> None:
        self.certificate, tls = make_certificate(folder)
        self.admit = lambda head: True
        self.seen: list[str] = []
        echo = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                head = f"{self.requestline}\n{self.headers}"
                echo.seen.append(head)
                admitted = echo.admit(head)
                number = re.search(r"access-(\d)", head)
                content = f"{'yes' if admitted else 'no'} token {number[1] if number else '-'}\n".encode()
                self.send_response(200 if admitted else 401)
                self.send_header("content-length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_) -> None:
                """Nothing."""

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *_) -> None:
                """A client that went away is no event."""

        self.server = Server(("127.0.0.1", 0), Handler)
        self.server.socket = tls.wrap_socket(
            self.server.socket, server_side=True, do_handshake_on_connect=False
        )
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()

    @property
    def environment(self) -> dict[str, str]:
        return {"SSL_CERT_FILE": str(self.certificate)}

    def route(self, credential: str | None, host: str = "api.example.org") -> dict[str, str]:
        route = {
            "host": host,
            "protocol": "http",
            "upstream": f"https://127.0.0.1:{self.server.server_address[1]}",
        }
        return {**route, "credential": credential} if credential else route

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def echo(place):
    folder = place.root / "tls"
    folder.mkdir()
    echo = Echo(folder)
    yield echo
    echo.close()


ROUTE = {"host": "a.example.org", "protocol": "http", "upstream": "https://a.example.org"}
CURL = "curl -sS -m 10 http://api.example.org/x"


def test_every_source_reaches_the_upstream_and_the_agent_sees_a_placeholder(place, cli, repository, echo):
    program = place.write("bin/op", f'#!/bin/sh\n[ "$1" = read ] && echo {SECRET}-command\n', mode=0o755)
    place.write("key", f"{SECRET}-file\n", mode=0o600)
    write_bottle(
        place,
        egress={
            "routes": [
                echo.route(name, f"{name}.example.org") for name in ("env", "file", "command", "query")
            ]
        },
        credentials={
            "env": {"from": {"env": "KEY"}, "header": "x-api-key", "env": "INSIDE_KEY"},
            "file": {"from": {"file": str(place.home / "key")}, "bearer": True},
            "command": {"from": {"command": [str(program), "read", "op://team/key"]}, "basic": "me"},
            "query": {"from": {"env": "KEY"}, "query": "key"},
        },
    )
    script = "echo held: $INSIDE_KEY; for at in env file command query; do curl -sS -m 10 http://$at.example.org/x; done"
    write_script(place, "dial", script)
    done = cli("start", "dial", "--headless", env={**echo.environment, "KEY": SECRET})
    assert done.code == 0, done.stderr + "".join(p.read_text() for p in place.home.rglob("crashes/*"))
    assert f"x-api-key: {SECRET}\n" in echo.seen[0]
    assert f"authorization: Bearer {SECRET}-file\n" in echo.seen[1]
    assert "authorization: Basic bWU6czNjcmV0LTUxNTAtOWYzMWM3LWNvbW1hbmQ=\n" in echo.seen[2]
    assert echo.seen[3].startswith(f"GET /x?key={SECRET} HTTP/1.1\n")
    assert SECRET not in done.stdout + done.stderr
    [first] = [line for line in done.stdout.splitlines() if line.startswith("held: ")]
    assert first.startswith("held: placeholder-env-")
    again = cli("start", "dial", "--headless", env={**echo.environment, "KEY": SECRET})
    assert first not in again.stdout, "a placeholder is good for one run"


SEARCH = f"""
{CURL} >/dev/null; echo begun
read go < pipe
env | grep -c '{PATTERN}'
cat /proc/*/environ /proc/*/cmdline 2>/dev/null | tr '\\0' '\\n' | grep -c '{PATTERN}'
grep -rl '{PATTERN}' /home /tmp /run /etc /workspace /var 2>/dev/null | wc -l
"""


def test_it_is_nowhere_in_a_running_bottle_and_nowhere_outside_but_in_memory(place, cli, repository, echo):
    place.run(["mkfifo", "pipe"])
    write_bottle(
        place,
        egress={"routes": [echo.route("key")], "secrets": {"on_match": "block"}},
        credentials={"key": {"from": {"env": "KEY"}, "bearer": True, "env": "INSIDE"}},
        sensitive={"other": {"env": "OTHER"}},
    )
    write_script(place, "search", SEARCH)
    env = {**echo.environment, "KEY": SECRET, "OTHER": f"{SECRET}-other"}
    done = cli("start", "search", "--headless", "--detach", "--json", "--workspace", "mount", env=env)
    assert done.code == 0, done.stderr + "".join(p.read_text() for p in place.home.rglob("crashes/*"))
    run = json.loads(done.stdout)["id"]
    wait_for(lambda: "begun" in cli("logs", run).stdout, "the first request")
    found = [
        f"/proc/{pid}/{name}"
        for pid in processes(str(place.root), place.token)
        for name in ("environ", "cmdline")
        if SECRET.encode() in Path(f"/proc/{pid}/{name}").read_bytes()
    ]
    assert found == []
    for words in (
        ("list", "--json"),
        ("events", run, "--json"),
        ("logs", run),
        ("plan", "search", "--headless", "--json"),
    ):
        assert SECRET not in (shown := cli(*words)).stdout + shown.stderr
    place.run(["sh", "-c", "echo go > pipe"])
    wait_for(lambda: run not in cli("list").stdout, "the agent to end")
    assert cli("logs", run).stdout.split()[1:] == ["0", "0", "0"]
    assert SECRET in echo.seen[0], "the search would have had something to find"
    files = [
        path for path in place.root.rglob("*") if path.is_file() and SECRET.encode() in path.read_bytes()
    ]
    assert files == []


def test_the_plan_shows_references_and_reads_nothing(place, cli, repository):
    touched = place.home / "touched"
    write_bottle(
        place,
        egress={
            "routes": [
                {
                    "host": "a.example.org",
                    "protocol": "http",
                    "upstream": "https://a.example.org",
                    "credential": name,
                }
                for name in ("one",)
            ]
        },
        credentials={"one": {"from": {"command": ["touch", str(touched)]}, "bearer": True}},
    )
    write_agent(place, "true", ["true"])
    shown = cli("plan", "true", "--headless").stdout
    assert f"one from the output of touch {touched}, sent as authorization (Bearer)" in shown
    write_bottle(
        place, image="debian", egress={"routes": []}, sensitive={"one": {"command": ["touch", str(touched)]}}
    )
    refused = cli("start", "true", "--headless")
    assert "asks for what can't be kept" in refused.stderr
    assert not touched.exists()


def test_a_secret_that_can_not_be_had_ends_the_start_and_says_what_to_do(place, cli, repository, echo):
    failing = place.write("bin/op", "#!/bin/sh\necho 'not signed in' >&2; exit 6\n", mode=0o755)
    write_bottle(
        place,
        egress={"routes": [echo.route("key")]},
        credentials={"key": {"from": {"command": [str(failing), "read"]}, "bearer": True}},
    )
    write_agent(place, "true", ["true"])
    done = cli("start", "true", "--headless")
    assert done.code != 0
    assert "The credential key can't be had: its command failed" in done.stderr
    assert "not signed in" in done.stderr
    assert f"Run it yourself: {failing} read" in done.stderr


def test_a_file_in_the_workspace_is_no_place_for_a_secret(place, cli, repository, echo):
    write_bottle(
        place,
        egress={"routes": [echo.route("key")]},
        credentials={"key": {"from": {"file": str(repository / ".env")}, "bearer": True}},
    )
    write_agent(place, "true", ["true"])
    assert "lies in the workspace, which the agent sees" in cli("start", "true", "--headless").stderr


# Logins


@pytest.fixture
def tokens():
    with token_server() as server:
        yield server


def write_login(place, echo, tokens, **login):
    file = place.write(".claude/.credentials.json", claude_login(**login), mode=0o600)
    write_bottle(
        place,
        egress={"routes": [echo.route("login")]},
        credentials={
            "login": {
                "from": {"oauth": {"file": str(file), "token_url": tokens.url, "client_id": "me"}},
                "bearer": True,
            }
        },
    )
    return file


UNTIL = "while :; do out=$(" + CURL + '); echo "$out"; case "$out" in *"{}"*) break; esac; sleep 0.1; done'


def test_a_login_is_renewed_at_launch_and_again_while_the_agent_runs(place, cli, repository, echo, tokens):
    file = write_login(place, echo, tokens, lasts=-100)
    tokens.lives = 4
    write_script(place, "dial", UNTIL.format("token 2"))
    done = cli("start", "dial", "--headless", "--json", env=echo.environment, timeout=60)
    assert done.code == 0, done.stderr + "".join(p.read_text() for p in place.home.rglob("crashes/*"))
    run = json.loads(done.stdout)["id"]
    assert re.search(r"authorization: Bearer access-2\n", echo.seen[-1])
    assert not [head for head in echo.seen if "access-0" in head]
    assert "access-" not in cli("logs", run).stdout
    assert tokens.seen == ["refresh-0", "refresh-1"]
    assert tokens_in(file) == ("access-2", "refresh-2")
    events = cli("events", run, "--json").stdout
    assert [
        json.loads(line)["data"]["name"] for line in events.splitlines() if '"credential.renewed"' in line
    ] == ["login"]
    assert "access-" not in events
    assert "refresh-" not in events


def test_a_login_that_the_upstream_refuses_is_renewed_before_its_time(place, cli, repository, echo, tokens):
    file = write_login(place, echo, tokens, lasts=3600)
    echo.admit = lambda head: "access-0" not in head
    write_script(place, "dial", UNTIL.format("token 1"))
    done = cli("start", "dial", "--headless", env=echo.environment, timeout=60)
    assert done.code == 0, done.stderr + "".join(p.read_text() for p in place.home.rglob("crashes/*"))
    assert done.stdout.startswith("no token 0\n")
    assert tokens.seen == ["refresh-0"]
    assert tokens_in(file) == ("access-1", "refresh-1")


def test_a_refusal_that_renewing_does_not_mend_is_no_reason_to_renew_again(
    place, cli, repository, echo, tokens
):
    write_login(place, echo, tokens, lasts=3600)
    echo.admit = lambda head: False
    write_script(place, "dial", "for i in 1 2 3 4 5 6 7 8 9 10 11 12; do " + CURL + "; sleep 0.2; done")
    assert cli("start", "dial", "--headless", env=echo.environment).code == 0
    assert tokens.seen == ["refresh-0"]


def test_two_bottles_renew_one_login_once(place, cli, repository, echo, tokens):
    file = write_login(place, echo, tokens, lasts=3600)
    echo.admit = lambda head: "access-0" not in head
    write_script(place, "dial", UNTIL.format("token 1") + "; echo ended")
    runs = [
        json.loads(cli("start", "dial", "--headless", "--detach", "--json", env=echo.environment).stdout)[
            "id"
        ]
        for _ in range(2)
    ]
    for run in runs:
        wait_for(lambda run=run: "ended" in cli("logs", run).stdout, "the renewed token", within=30)
    assert tokens.seen == ["refresh-0"]
    assert tokens_in(file) == ("access-1", "refresh-1")


def test_a_login_that_has_ended_is_said_and_the_agent_goes_on(place, cli, repository, echo, tokens):
    write_login(place, echo, tokens, lasts=3600)
    tokens.good = "another"
    echo.admit = lambda head: False
    write_script(place, "dial", CURL + "; sleep 1; " + CURL)
    done = cli("start", "dial", "--headless", env=echo.environment)
    assert done.code == 0
    assert "could not be renewed" in done.stderr
    assert "invalid_grant" in done.stderr
    assert "refresh-0" not in done.stdout + done.stderr


def test_without_a_good_login_nothing_starts(place, cli, repository, echo, tokens):
    write_login(place, echo, tokens, lasts=-100)
    tokens.good = "another"
    write_agent(place, "true", ["true"])
    done = cli("start", "true", "--headless", env=echo.environment)
    assert done.code != 0
    assert "could not be renewed" in done.stderr
    assert "/login" in done.stderr
