"""The page over the operator's own store: an agent's ask shows, is decided there, and its door does it. And no agent gets there."""

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from test_approvals import URL, Supervised  # type: ignore[import-not-found]

from support.place import program
from support.waiting import wait_for
from web.client import Client
from web.feed import Feed

pytestmark = pytest.mark.namespace


class Page:
    """`bot-bottle inbox --web`, as the operator starts it, and a client that came by its link."""

    def __init__(self, place, *words: str, **variables: str) -> None:
        self.process = subprocess.Popen(
            place.argv([str(program()), "inbox", "--web", *words]),
            env={**place.environment, **variables}, cwd=place.workspace, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        self.said: list[str] = []
        self.reader = threading.Thread(
            target=lambda: self.said.extend(map(bytes.decode, self.process.stderr)), daemon=True
        )
        self.reader.start()
        self.link = wait_for(
            lambda: next((line.strip() for line in self.said if "#key=" in line), ""), "the link"
        )
        name, _, port = self.link.removeprefix("http://").partition("/")[0].partition(":")
        self.client = Client(int(port), name)

    def close(self, number: int = signal.SIGINT) -> int:
        """Ends it, and gives its exit code."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        code = self.process.wait(20)
        self.reader.join()
        if not self.process.stdout.closed:
            assert self.process.stdout.read() == b"", "standard output is for data"
        self.process.stdout.close()
        self.process.stderr.close()
        return code


@pytest.fixture
def watched(place, cli, repository):
    made = Supervised(place, cli)
    yield made
    made.close()


@pytest.fixture
def page(place):
    made = Page(place)
    yield made
    made.close()


def test_an_ask_is_decided_on_the_page_and_the_door_does_it(watched, page):
    assert page.client.sign_in(page.link).status == 200
    assert watched.reaches() == "403"
    with Feed(page.client) as feed:
        assert feed.next()[1]["waiting"] == []
        call = watched.asker.ask("pipelock-block", urls=[URL], reason="I need it\u202e\x1b[2J")
        answer = watched.asker.answer(call)
        assert (answer["state"], answer["present"]) == ("pending", True)
        [row] = feed.until(lambda _, data: data["waiting"])["waiting"]
        [shown] = page.client.post(
            "/api/look", {"ids": [row["id"]], "on": {"scope": "time", "minutes": 10}}
        ).json["shown"]
        assert ["/new" in line for line in shown["added"]] == [True]
        assert (shown["requests"] >= 1, shown["problem"]) == (True, "")
        body = {
            "approvals": [
                {"id": shown["id"], "digest": shown["digest"], "on": {"scope": "time", "minutes": 10}}
            ]
        }
        wrong = {"approvals": [{**body["approvals"][0], "digest": "0" * 64}]}
        assert page.client.post("/api/approve", wrong).json["decided"][0]["problem"]
        assert page.client.post("/api/approve", body).json["decided"][0]["state"] == "approved"
        assert watched.asker.final(call)["state"] == "applied"
        assert watched.reaches() == "200"
        [grant] = feed.until(lambda _, data: data["grants"])["grants"]
        assert page.client.post("/api/withdraw", {"id": grant["id"]}).status == 200
        assert watched.reaches() == "403"
        feed.until(lambda _, data: not data["grants"])
    assert [item["state"] for item in page.client.post("/api/history", {}).json["decided"]] == ["applied"]
    assert page.close() == 0
    assert watched.cli("verify").code == 0


def test_an_agent_does_not_reach_the_page(watched, page):
    """Its loopback is its own, and its door knows neither the name nor the address; the operator's curl does."""
    port = page.client.port
    for name in (page.client.name, "127.0.0.1", "localhost", "[::1]", "0.0.0.0"):
        for words in ("", "--noproxy * ", "--http1.0 --noproxy * "):
            assert watched.reaches(f"{words}http://{name}:{port}/") in ("000", "403"), (name, words)
    for words in ("-x http://127.0.0.1:3128 -p ", f"--resolve one.example.org:{port}:127.0.0.1 "):
        assert watched.reaches(f"{words}http://one.example.org:{port}/") in ("000", "403")
        assert watched.reaches(f"{words}http://127.0.0.1:{port}/") in ("000", "403")
    assert page.client.get("/").status == 200
    assert page.client.sign_in(page.link).status == 200, "nobody used the link"


def test_the_key_is_on_no_command_line_and_in_no_file(place, page, tmp_path):
    key = page.link.partition("#key=")[2].encode()
    command = (
        Path(f"/proc/{page.process.pid}/cmdline").read_bytes()
        + Path(f"/proc/{page.process.pid}/environ").read_bytes()
    )
    assert key not in command
    found = [path for path in place.home.rglob("*") if path.is_file() and key in path.read_bytes()]
    assert found == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_it_ends_in_order_while_a_page_is_open(page, number):
    page.client.sign_in(page.link)
    with Feed(page.client) as feed:
        feed.next()
        assert page.close(number) == 0
    assert [line for line in page.said if "Traceback" in line or "rror" in line] == []


def test_a_port_that_is_taken_is_said(place, page, cli):
    done = cli("inbox", "--web", "--port", str(page.client.port))
    assert done.code == 69
    assert "--port" in done.stderr


OPENER = """#!{python}
import os, sys, time
path = sys.argv[1].removeprefix("file://")
with open({out!r}, "w") as out:
    print(oct(os.stat(path).st_mode & 0o777), path, open(path).read(), file=out)
"""


def test_a_browser_is_opened_without_the_key_on_its_command_line(place):
    out = place.home / "opened"
    opener = place.home / "browser"
    opener.write_text(OPENER.format(python=sys.executable, out=str(out)))
    opener.chmod(0o755)
    os.chown(place.home, place.uid, place.uid)
    page = Page(place, "--open", DISPLAY=":0", BROWSER=f"{opener} %s")
    try:
        said = wait_for(lambda: out.exists() and out.read_text(), "the browser")
        mode, path, rest = said.split(" ", 2)
        assert mode == "0o600"
        assert "#key=" in rest
        assert "#key=" not in path
        link = rest.partition("url=")[2].partition('"')[0]
        assert page.client.sign_in(link).status == 200
        assert Path(path).exists()
    finally:
        assert page.close() == 0
    assert not Path(path).exists()
