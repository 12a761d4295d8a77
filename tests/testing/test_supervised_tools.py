"""The real tools in supervised bottles: told of the server, speaking to it, with a key that they never hold."""

import json
import signal
from contextlib import contextmanager

import pytest
from tests.testing.conftest import data_home

from bot_bottle.testing.model import serving
from bot_bottle.testing.script import parse
from support.bottles import front_matter, write_bottle, write_script
from support.terminals import shown_until
from support.tls import make_certificate

pytestmark = [pytest.mark.claude, pytest.mark.namespace]

URL = "http://127.0.0.1:3129/mcp"
KEY = "real-5150-9f31c7"
HOSTS = {
    "claude": ("api.anthropic.com", "x-api-key"),
    "codex": ("api.openai.com", "authorization"),
    "gemini": ("generativelanguage.googleapis.com", "x-goog-api-key"),
    "opencode": ("api.anthropic.com", "x-api-key"),
}
PATHS = {"codex": "/v1", "opencode": "/v1"}
"""What their own setting for the API's address has behind the host."""
POLICY = {"tool": "mcp__supervise__policy", "input": {}}
BY_CODE = {
    "tool": "functions__exec",
    "input": {"input": "text(await tools.mcp__supervise__policy({}))"},
    "repeat_until": "api.openai.com",
    "max_repeat": 60,
    "delay": 0.5,
}
"""Codex's own models write programs that call tools; it does not wait for a server before it first asks its model."""


@contextmanager
def supervised(place, tool, turns, *, plain=False, **bottle):
    """A bottle and an agent for `tool`, whose API admits only who brings the key; gives the variables of a start.

    `plain` has it speak HTTP to the door, by its `base_url`; `bottle` is what else its file says.
    """
    name, _ = tool
    host, header = HOSTS[name]
    folder = place.root / "tls"
    folder.mkdir()
    certificate, tls = make_certificate(folder, host)
    log = place.root / "model.log"

    def admit(headers):
        return headers.get(header) == (f"Bearer {KEY}" if header == "authorization" else KEY)

    with serving(parse({"turns": turns}), admit=admit, tls=tls, log=log) as served:
        route = {"host": host, "credential": "model", "upstream": f"127.0.0.1:{served.port}"}
        keys = {"provider": name}
        if plain:
            route |= {"protocol": "http", "upstream": f"https://127.0.0.1:{served.port}"}
            keys |= {"base_url": f"http://{host}{PATHS.get(name, '')}"}
        out = {"bearer": True} if header == "authorization" else {"header": header}
        write_bottle(
            place,
            egress={"routes": [route]},
            credentials={"model": {"from": {"env": "KEY"}, **out}},
            supervise=True,
            **bottle,
        )
        place.write(".bot-bottle/agents/worker.md", front_matter(keys))
        yield {"XDG_DATA_HOME": str(data_home(place)), "SSL_CERT_FILE": str(certificate), "KEY": KEY}


def answers(place):
    """The model's turns, with what the tools had answered before each."""
    lines = [json.loads(line) for line in (place.root / "model.log").read_text().splitlines()]
    assert not [line for line in lines if line.get("refused")]
    return [(line["turn"], line["last_result"]) for line in lines if line.get("turn") not in (None, "side")]


def events(cli, kind):
    (run,) = json.loads(cli("list", "--all", "--json").stdout)
    lines = cli("events", run["id"], "--json").stdout.splitlines()
    return [found for line in lines if (found := json.loads(line))["kind"].startswith(kind)]


def test_it_asks_the_server_of_its_bottle_and_never_holds_its_key(place, cli, repository, tool):
    call = BY_CODE if tool[0] == "codex" else POLICY
    plain = place.uid != 0  # both ways to the API, each once
    with supervised(place, tool, [call, {"text": "bye"}], plain=plain) as env:
        done = cli("start", "worker", "--headless", "--prompt", "Look.", env=env, timeout=110)
    assert done.code == 0, done.stdout + done.stderr
    assert f"registering supervise at {URL}\n" in done.stderr
    assert "bye" in done.stdout
    assert KEY not in done.stdout + done.stderr
    (first, before), *_, (last, result) = answers(place)
    assert (first, before, last) == ("0", "", "1")
    assert HOSTS[tool[0]][0] in result
    kinds = [found["kind"] for found in events(cli, "supervise")]
    assert kinds[:3] == ["supervise.registering", "supervise.registered", "supervise.began"]


@pytest.mark.parametrize("who", ["user"], indirect=True)
def test_on_a_terminal_it_asks_no_first_question_and_begins_with_the_first_message(place, repository, tool):
    from support.place import program

    with supervised(place, tool, [{"text": "ANSWERMARK"}]) as env:
        argv = place.argv([str(program()), "start", "worker", "--prompt", "--say it"])
        environment = {**place.environment, **env}
        shown = shown_until(b"ANSWERMARK", argv, environment, cwd=place.workspace, ends_by=signal.SIGTERM)
    assert b"ANSWERMARK" in shown, shown[-3000:].decode(errors="replace")


@pytest.mark.parametrize("who", ["user"], indirect=True)
@pytest.mark.parametrize("tool", ["claude"], indirect=True)
def test_a_tool_that_cant_be_told_is_a_warning_at_once_and_in_the_record_and_the_agent_works(
    place, cli, repository, tool
):
    with supervised(place, tool, [{"text": "bye"}], env={"CLAUDE_CONFIG_DIR": "/proc/nowhere"}) as env:
        done = cli("start", "worker", "--headless", "--prompt", "Look.", env=env, timeout=110)
    assert done.code == 0, done.stdout + done.stderr
    assert "bye" in done.stdout
    said = done.stderr.splitlines()
    told = next(
        place for place, line in enumerate(said) if "could not be told of supervise (exit code " in line
    )
    assert f"claude mcp add --scope user --transport http supervise {URL}" in done.stderr
    assert done.stderr.count("could not be told of supervise") == 1
    assert told < len(said) - 2
    (event,) = events(cli, "supervise.unregistered")
    assert event["data"]["command"] in done.stderr
    assert event["data"]["tool"] == "Claude Code"


@pytest.mark.parametrize("who", ["user"], indirect=True)
@pytest.mark.parametrize("tool", ["claude"], indirect=True)
def test_a_bottle_that_is_not_supervised_is_told_nothing(place, cli, repository, tool):
    with supervised(place, tool, [{"text": "bye"}]) as env:
        file = place.home / ".bot-bottle/bottles/default.md"
        file.write_text(file.read_text().replace("supervise: true", "supervise: false"))
        done = cli("start", "worker", "--headless", "--prompt", "Look.", env=env, timeout=110)
    assert (done.code, "registering" in done.stderr) == (0, False)
    assert '"mcp_servers":[]' in done.stdout
    assert events(cli, "supervise") == []


def test_any_command_finds_url_and_token_and_reaches_the_server(place, cli, repository):
    ask = 'curl -s -m 20 -o /dev/null -w "%{http_code}\\n" -H "Content-Type: application/json"'
    lines = (
        'f="$BOT_BOTTLE_SUPERVISE_TOKEN_FILE"; stat -c %a "$f"; env | grep -c -e "$(cat "$f")"',
        'printf "Authorization: Bearer %s" "$(cat "$f")" > h',
        'for header in @h "A: b"; do',
        f'{ask} -H "Accept: application/json, text/event-stream" -H "$header" -d "$BODY" "$BOT_BOTTLE_SUPERVISE_URL"',
        "done",
    )
    write_bottle(place, supervise=True, env={"BODY": '{"jsonrpc": "2.0", "id": 1, "method": "ping"}'})
    write_script(place, "asker", "\n".join(lines))
    done = cli("start", "asker", "--headless", "--workspace", "mount", timeout=60)
    assert done.stdout.split() == ["600", "0", "200", "401"], done.stderr
