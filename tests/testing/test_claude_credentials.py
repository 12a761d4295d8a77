"""The real Claude Code in a real bottle, with a key and with logins that it never holds."""

import json

import pytest

from bot_bottle.testing.model import serving
from bot_bottle.testing.script import parse
from support.bottles import front_matter, write_bottle
from support.logins import claude_login, token_server, tokens_in
from support.tls import make_certificate

pytestmark = [pytest.mark.claude, pytest.mark.namespace]

as_a_user = pytest.mark.parametrize("who", ["user"], indirect=True)
KEY = "sk-ant-api03-real-5150-9f31c7"
SEARCH = "env | sort; ls -A ~/.claude; grep -rl 're[a]l-5150\\|acces[s]-' ~ /tmp /proc/self/environ; sleep 3"


@pytest.fixture
def tokens():
    with token_server() as server:
        yield server


@pytest.fixture
def start(place, cli, repository, claude_data):
    """Starts Claude Code with `credential` on its route, against a model that admits by headers; gives what it printed.

    It speaks TLS to the API, which the bundle opens; `plain`: HTTP to the door.
    """

    def run(credential, admit, *, env=None, plain=False):
        folder = place.root / "tls"
        folder.mkdir()
        certificate, tls = make_certificate(folder, "api.anthropic.com")
        script = parse({"turns": [{"tool": "Bash", "input": {"command": SEARCH}}, {"text": "bye"}]})
        with serving(script, admit=admit, tls=tls) as served:
            route = {
                "host": "api.anthropic.com",
                "credential": "model",
                "upstream": f"127.0.0.1:{served.port}",
            }
            keys = {"provider": "claude"}
            if plain:
                route |= {"protocol": "http", "upstream": f"https://127.0.0.1:{served.port}"}
                keys |= {"base_url": "http://api.anthropic.com"}
            write_bottle(place, egress={"routes": [route]}, credentials={"model": credential})
            place.write(".bot-bottle/agents/worker.md", front_matter(keys))
            words = ("start", "worker", "--headless", "--prompt", "Look around.")
            outside = {"XDG_DATA_HOME": str(claude_data), "SSL_CERT_FILE": str(certificate), **(env or {})}
            done = cli(*words, env=outside, timeout=110)
        assert done.code == 0, done.stdout + done.stderr
        return done

    return run


def seen_inside(done):
    """What the agent's search found, after checking that the model's second answer came."""
    lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert lines[-1]["result"] == "bye"
    return done.stdout


def test_with_an_api_key(start):
    done = start(
        {"from": {"env": "KEY"}, "header": "x-api-key"},
        lambda headers: headers.get("x-api-key") == KEY and "authorization" not in headers,
        env={"KEY": KEY},
    )
    shown = seen_inside(done)
    assert "ANTHROPIC_API_KEY=sk-ant-api03-placeholder-model-" in shown
    assert "CLAUDE_CODE_OAUTH_TOKEN" not in shown
    assert "real-5150" not in shown


@as_a_user
def test_with_a_token_of_setup_token(start):
    done = start(
        {"from": {"env": "TOKEN"}, "bearer": True},
        lambda headers: (
            headers.get("authorization") == f"Bearer {KEY}" and "oauth" in headers["anthropic-beta"]
        ),
        env={"TOKEN": KEY},
        plain=True,
    )
    shown = seen_inside(done)  # Claude Code takes its token out of what its commands inherit
    assert "ANTHROPIC_API_KEY" not in shown
    assert "real-5150" not in shown


@as_a_user
def test_with_the_operators_own_login_which_is_renewed_outside_while_it_works(start, place, tokens):
    file = place.write(".claude/.credentials.json", claude_login(lasts=-100), mode=0o600)
    tokens.lives = 4
    admitted = []

    def admit(headers):
        admitted.append(headers.get("authorization"))
        tokens.lives = 28800
        return headers.get("authorization") == f"Bearer access-{tokens.number}" and "x-api-key" not in headers

    origin = {"oauth": {"file": str(file), "token_url": tokens.url, "client_id": "me"}}
    done = start({"from": origin, "bearer": True}, admit)
    shown = seen_inside(done)
    assert "access-" not in shown.replace("acces[s]-", "")
    assert set(admitted) <= {"Bearer access-1", "Bearer access-2"}
    assert admitted[-1] == "Bearer access-2"
    assert tokens.seen == ["refresh-0", "refresh-1"]
    assert tokens_in(file) == ("access-2", "refresh-2")


@as_a_user
def test_a_login_that_is_refused_is_renewed_and_the_agent_goes_on(start, place, tokens):
    file = place.write(".claude/.credentials.json", claude_login(lasts=3600), mode=0o600)
    origin = {"oauth": {"file": str(file), "token_url": tokens.url, "client_id": "me"}}
    done = start(
        {"from": origin, "bearer": True}, lambda headers: headers.get("authorization") == "Bearer access-1"
    )
    seen_inside(done)
    assert tokens_in(file) == ("access-1", "refresh-1")
