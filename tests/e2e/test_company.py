"""Behind a company's proxy, from the environment and from the bottle's file: real agents, a real proxy, nothing told twice."""

import base64
import json
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest
from tests.bundle.proxies import tinyproxy

from support.authorities import Authority, serving
from support.bottles import write_bottle, write_script

pytestmark = pytest.mark.namespace
HOST = "ok.example.org"
PASSWORD = "pa55-word_odd"


@pytest.fixture(scope="module")
def company(tmp_path_factory):
    """Its proxy with a login, its authority, and a server of its that only the proxy can reach by name."""
    folder, site = tmp_path_factory.mktemp("company"), tmp_path_factory.mktemp("site")
    (site / "yes").write_text("yes\n")
    authority = Authority("Company")
    plain = ThreadingHTTPServer(("127.0.0.1", 0), lambda *args: Quiet(*args, directory=str(site)))
    threading.Thread(target=plain.serve_forever, args=(0.05,), daemon=True).start()
    with (
        serving(site, authority.leaf(folder, HOST)) as tls,
        tinyproxy(folder, HOST, login=f"me {PASSWORD}") as port,
    ):
        yield Company(authority, tls.port, plain.server_address[1], port)
    plain.shutdown()
    plain.server_close()


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_) -> None:
        """Nothing."""


class Company:
    def __init__(self, authority: Authority, tls: int, plain: int, proxy: int) -> None:
        self.authority, self.tls, self.plain, self.proxy = authority, tls, plain, proxy

    def bottle(self, place, *, rules=None, upstream=None, **keys) -> None:
        """A bottle whose routes lead to the company's server."""
        ca = place.write("company.pem", self.authority.pem)
        routes = [
            {"host": HOST, "port": self.tls, **(rules or {})},
            {"host": HOST, "port": self.plain, "protocol": "http"},
        ]
        write_bottle(
            place, egress={"routes": routes, "upstream": {"ca": str(ca), **(upstream or {})}}, **keys
        )

    def agent(self, place) -> None:
        """Asks for the same in both ways, and shows its environment."""
        ask = f"curl -sS https://{HOST}:{self.tls}/yes; curl -sS http://{HOST}:{self.plain}/yes"
        write_script(place, "ask", f"{ask}; env | grep -i proxy")


@pytest.mark.parametrize("rules", [None, {"paths": ["/yes"]}], ids=["tunnel", "opened"])
def test_the_hosts_proxy_is_gone_through_and_its_password_is_nowhere(place, cli, repository, company, rules):
    company.bottle(place, rules=rules)
    company.agent(place)
    login = f"http://me:{PASSWORD}@127.0.0.1:{company.proxy}"
    env = {"https_proxy": login, "http_proxy": login}
    done = cli("start", "ask", "--headless", env=env)
    assert done.stdout.split()[:2] == ["yes", "yes"], done.stdout + done.stderr
    run = next((place.home / ".local/state/bot-bottle/runs").iterdir()).name
    asked = [
        ["plan", "ask", "--headless"],
        ["plan", "ask", "--headless", "--json"],
        ["events", run, "--json"],
    ]
    shown = [cli(*words, env=env).stdout for words in (*asked, ["logs", run], ["doctor"])]
    assert f"http://127.0.0.1:{company.proxy} (from https_proxy)" in shown[0]
    assert f"http://127.0.0.1:{company.proxy}" in shown[-1]
    for secret in (PASSWORD, base64.b64encode(f"me:{PASSWORD}".encode()).decode()):
        assert not [text for text in (*shown, done.stdout, done.stderr) if secret in text]
        kept = [path for path in (place.home / ".local").rglob("*") if path.is_file()]
        assert not [path for path in kept if secret.encode() in path.read_bytes()]


def test_the_bottles_proxy_wins_and_its_login_is_a_credential(place, cli, repository, company):
    place.write("password", PASSWORD, mode=0o600)
    company.bottle(
        place,
        upstream={"proxy": f"http://127.0.0.1:{company.proxy}", "credential": "company"},
        credentials={"company": {"from": {"file": "~/password"}, "basic": "me"}},
    )
    company.agent(place)
    done = cli(
        "start",
        "ask",
        "--headless",
        env={"https_proxy": "http://127.0.0.1:9", "http_proxy": "http://127.0.0.1:9"},
    )
    assert done.stdout.split()[:2] == ["yes", "yes"], done.stdout + done.stderr
    assert PASSWORD not in cli("plan", "ask", "--headless", "--json").stdout


def test_without_its_login_the_proxys_refusal_is_told_and_recorded(place, cli, repository, company):
    company.bottle(place)
    company.agent(place)
    env = {
        "https_proxy": f"http://127.0.0.1:{company.proxy}",
        "http_proxy": f"http://127.0.0.1:{company.proxy}",
    }
    done = cli("start", "ask", "--headless", env=env)
    assert "proxy_authentication" in done.stdout
    run = next((place.home / ".local/state/bot-bottle/runs").iterdir()).name
    lines = [json.loads(line) for line in cli("events", run, "--json").stdout.splitlines()]
    assert [one["data"]["reason"] for one in lines if one["kind"] == "egress.failed"] == [
        "proxy_authentication"
    ] * 2


def test_a_proxy_of_another_kind_starts_nothing(place, cli, repository, company):
    company.bottle(place)
    company.agent(place)
    done = cli("start", "ask", "--headless", env={"HTTPS_PROXY": f"socks5://me:{PASSWORD}@127.0.0.1:1080"})
    assert done.code != 0
    assert "HTTPS_PROXY names no HTTP proxy" in done.stderr
    assert PASSWORD not in done.stderr


def test_authorities_that_can_t_be_read_start_nothing(place, cli, repository, company):
    company.bottle(place, upstream={"ca": "~/none.pem"})
    company.agent(place)
    done = cli("start", "ask", "--headless")
    assert done.code != 0
    assert "none.pem can't be used as `egress.upstream.ca`" in done.stderr


def test_a_login_that_no_credential_is_is_wrong_in_the_file(place, cli, repository, company):
    company.bottle(place, upstream={"proxy": "http://proxy.example.org:3128", "credential": "nobody"})
    company.agent(place)
    assert (
        "egress.upstream.credential: `nobody` is not in `credentials:`"
        in cli("start", "ask", "--headless").stderr
    )
