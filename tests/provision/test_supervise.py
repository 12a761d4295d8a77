"""Telling a tool of supervise: by stand-ins for its CLI, which fail in every way, in a real bottle."""

import json
import os
import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot_bottle.backends.base import Stdio
from bot_bottle.backends.execution import run
from bot_bottle.backends.registry import backend
from bot_bottle.plan.model import INSIDE_HOME, SUPERVISE_TOKEN_FILE, Command, Registration
from bot_bottle.provision import clientconfig, supervise
from bot_bottle.provision.clientconfig import NotThereError, by_hand, completed, has_entry
from bot_bottle.provision.supervise import Registering
from bot_bottle.secret import Secret
from bot_bottle.testing.bottles import ENVIRONMENT
from support.backends import make_plan

URL = "http://127.0.0.1:3129/mcp"
TOKEN = "t0ken-5150-VGhpcyBpcyBub3QgYSByZWFsIHRva2VuIQ"
CONFIG = f"{INSIDE_HOME}/.tool.json"
JSON = Registration(
    url=URL,
    tool="The Tool",
    called="tool",
    program=("/bin/sh", "-c"),
    config=CONFIG,
    entry=("servers", "supervise"),
    settings=json.dumps({"headers": {"Authorization": "Bearer {token}"}, "timeout": 5}),
)
TOML = JSON._replace(
    format="toml",
    config=f"{INSIDE_HOME}/.tool.toml",
    settings=json.dumps({"http_headers": {"Authorization": "Bearer {token}"}, "timeout": 5}),
)
WRITES = f'echo \'{{"servers": {{"supervise": {{"url": "{URL}"}}}}, "mine": 1}}\' > {CONFIG}'


class Told:
    """A bottle whose agent is held, and what became of a registration in it."""

    def __init__(self, root):
        (root / "workspace").mkdir()
        with open(os.devnull, "r+b") as nothing:
            number = nothing.fileno()
            plan = make_plan(root, "sh", "-c", "exit 7")
            self.bottle = backend("namespace").create(plan, Stdio(number, number, number))
        self.reported = []

    def register(self, script, *, registration=JSON, again="exit 1"):
        known = registration._replace(add=(script,), remove=(again,))
        registering = Registering(self.bottle, known, ENVIRONMENT, self.reported.append)
        try:
            return registering.finish(Secret(TOKEN))
        finally:
            registering.close()

    def read(self, path):
        return run(self.bottle, Command(("cat", path), ENVIRONMENT), timeout=30).stdout.decode()

    def runs_on(self):
        self.bottle.release()
        return self.bottle.agent.wait(30) == 7


@pytest.fixture
def told(tmp_path):
    made = Told(tmp_path)
    yield made
    made.bottle.destroy()


namespace = pytest.mark.namespace


@namespace
def test_the_url_is_said_first_and_the_token_ends_up_in_the_file_alone(told):
    assert told.register(WRITES) is None
    assert told.reported == [f"registering supervise at {URL}"]
    entry = {"url": URL, "headers": {"Authorization": f"Bearer {TOKEN}"}, "timeout": 5}
    assert json.loads(told.read(CONFIG)) == {"servers": {"supervise": entry}, "mine": 1}
    assert told.read(SUPERVISE_TOKEN_FILE) == ""
    assert told.runs_on()


@namespace
@pytest.mark.parametrize(
    ("script", "code", "said"),
    [
        ("echo to-stdout; echo to-stderr >&2; exit 3", 3, "to-stderr"),
        ("echo to-stdout; exit 1", 1, "to-stdout"),
        ("printf '\\033[31mto-stdout\\033[0m'; printf '\\033[0m\\n' >&2; exit 1", 1, "to-stdout"),
        ("exit 1", 1, ""),
        ("kill -9 $$", 137, ""),
        ("echo done", 0, f"done\n{CONFIG} is not there"),
        (f"echo '{{}}' > {CONFIG}", 0, f"{CONFIG} has no servers.supervise"),
        (f"echo '[]' > {CONFIG}", 0, f"{CONFIG} holds no settings"),
        (f"mkdir -p {CONFIG}/x; exit 1", 1, ""),
    ],
)
def test_a_failure_is_told_with_code_and_words_and_command_and_the_agent_runs(told, script, code, said):
    failed = told.register(script)
    assert (failed.code, failed.said) == (code, said)
    assert str(failed) == (
        f"The Tool could not be told of supervise (exit code {code}): {said or 'it said nothing'}\n"
        f"To register it by hand, run this inside the bottle: {failed.command}"
    )
    assert failed.command.startswith("tool ")
    assert told.read(SUPERVISE_TOKEN_FILE) == TOKEN
    assert told.runs_on()


@namespace
def test_a_file_that_is_no_settings_at_all_is_named(told):
    failed = told.register(f"echo '{{' > {CONFIG}")
    assert failed.said.startswith(f"{CONFIG} can't be read: ")


@namespace
def test_a_cli_that_hangs_is_ended_and_told_of(told, monkeypatch):
    monkeypatch.setattr(supervise, "PATIENCE", 0.2)
    failed = told.register("sleep 1000")
    assert (failed.code, failed.said) == (124, "it took longer than 0 s")
    assert told.runs_on()


@namespace
def test_a_cli_that_says_very_much_is_no_trouble(told):
    failed = told.register("yes | head -c 3000000; exit 1")
    assert failed.code == 1
    assert len(failed.said) == 2000


@namespace
def test_what_stood_under_the_name_before_gives_way(told):
    assert told.register(WRITES) is None
    refuses = f"[ -e {CONFIG} ] && {{ echo already there; exit 1; }}; {WRITES}"
    assert told.register(refuses, again=f"rm {CONFIG}") is None
    assert json.loads(told.read(CONFIG))["servers"]["supervise"]["timeout"] == 5


@namespace
def test_where_nothing_can_be_written_that_is_said_too(told):
    told.register(f"mkdir -p {INSIDE_HOME}/.bot-bottle/supervise.token/x; exit 1")
    failed = told.register("exit 1")
    assert "The token could not be written either: " in failed.said
    assert TOKEN not in str(failed)
    assert told.runs_on()


@namespace
def test_a_bottle_that_is_gone_is_a_failure_and_no_exception(told):
    told.bottle.destroy()
    failed = told.register(WRITES)
    assert (failed.code, failed.said.partition("\n")[0]) == (None, "The bottle has ended")


@namespace
def test_without_a_tool_the_token_is_left_in_its_own_file(told):
    assert told.register("unused", registration=Registration(URL)) is None
    assert told.read(SUPERVISE_TOKEN_FILE) == TOKEN
    mode = run(told.bottle, Command(("stat", "-c", "%a", SUPERVISE_TOKEN_FILE), ENVIRONMENT), timeout=30)
    assert mode.stdout == b"600\n"


@namespace
def test_without_a_tool_a_token_that_cant_be_left_is_told_of(told):
    told.register(f"mkdir -p {INSIDE_HOME}/.bot-bottle/supervise.token/x; exit 1")
    failed = told.register("unused", registration=Registration(URL))
    assert str(failed).startswith("The agent can't ask supervise: The bottle's files can't be written")


@namespace
@pytest.mark.parametrize("registration", [JSON, TOML], ids=["json", "toml"])
def test_the_command_for_a_person_does_the_same_as_we_do(told, registration):
    written = {
        "json": f'{{\n  "servers": {{\n    "supervise": {{\n      "url": "{URL}"\n    }}\n  }},\n  "mine": 1\n}}\n',
        "toml": f'a = 1\n[servers.supervise]\nurl = "{URL}"\n\n[other]\nb = 2\n',
    }[registration.format]
    script = f"cat > {registration.config} <<'END'\n{written}END\n"
    told.register("exit 1", registration=registration)
    command = by_hand(registration._replace(called="true"))
    done = run(told.bottle, Command(("sh", "-c", f"{script}{command}"), ENVIRONMENT), timeout=30)
    assert done.code == 0, done
    parse = {"json": json.loads, "toml": tomllib.loads}[registration.format]
    assert parse(told.read(registration.config)) == parse(
        completed(written.encode(), registration, TOKEN).decode()
    )


NAMES = st.text("abcdefghij_-", min_size=1, max_size=6)
LEAVES = st.one_of(st.text(max_size=8), st.integers(-(2**31), 2**31), st.booleans())
TREES = st.recursive(LEAVES, lambda inner: st.dictionaries(NAMES, inner, max_size=3), max_leaves=8)


@given(st.dictionaries(NAMES, TREES, max_size=4), st.dictionaries(NAMES, LEAVES, max_size=3))
def test_everything_else_in_the_file_stays_as_it_was(others, own):
    document = {**others, "servers": {"x": others, "supervise": {"url": URL, **own}}}
    after = json.loads(completed(json.dumps(document).encode(), JSON, TOKEN))
    entry = after["servers"].pop("supervise")
    assert after == {**others, "servers": {"x": others}}
    assert entry["url"] == own.get("url", URL)
    assert (entry["timeout"], entry["headers"]["Authorization"]) == (5, f"Bearer {TOKEN}")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a = ",
        "a = 1\n",
        "[servers]\nsupervise = { url = 'x' }\n",
        "servers.supervise.url = 'x'\n",
        "[servers.supervise]\nurl = 'x'\ntimeout = 9\n",
        "a = '''\n[servers.supervise]\n'''\n[servers.'supervise']\nurl = 'x'\n",
        "\xff",
    ],
)
def test_toml_that_we_would_get_wrong_is_left_alone(text):
    with pytest.raises(NotThereError):
        completed(text.encode("latin-1"), TOML, TOKEN)


def test_toml_keeps_its_comments_and_its_order():
    text = "# mine\nz = 1\n\n[servers.supervise]\n# theirs\nurl = 'x'\n\n[a]\nb = 2\n"
    made = completed(text.encode(), TOML, TOKEN).decode()
    added = f'http_headers = {{ "Authorization" = "Bearer {TOKEN}" }}\ntimeout = 5\n'
    assert made == text.replace("[servers.supervise]\n", f"[servers.supervise]\n{added}")


@pytest.mark.parametrize("content", [b"", b"nonsense", b"[]", b"{}", b'{"servers": []}', b"[" * 100_000])
def test_a_file_without_the_entry_has_none(content):
    assert not has_entry(content, JSON)
    with pytest.raises(NotThereError):
        clientconfig.completed(content, JSON, TOKEN)


def test_the_token_shows_in_no_warning_and_no_registration():
    assert TOKEN not in by_hand(JSON) + repr(JSON)
    assert by_hand(Registration(URL)) == ""
