"""What providers answer to planning."""

import json
import os
import subprocess
import sys

import pytest

from bot_bottle.errors import NotFoundError, UsageError
from bot_bottle.plan.model import INSIDE_HOME
from bot_bottle.providers.base import INSTRUCTIONS_FILE, PROMPT_FILE, NeededRoute, Offered, Request
from bot_bottle.providers.claude import Claude
from bot_bottle.providers.command import AnyCommand
from bot_bottle.providers.placeholders import offered
from bot_bottle.providers.registry import names, provider
from bot_bottle.testing.documents import agent_document
from support.manifests import credential, egress, manifest, route

PROGRAM = "/data/providers/claude/1.2.3/claude"


def request(
    *,
    headless=True,
    prompt="",
    arguments=(),
    program=PROGRAM,
    bottle_env=None,
    text="",
    offers=(),
    supervise="",
    **agent,
):
    return Request(
        agent=agent_document(prompt=text, **agent),
        run="fixer-2345",
        headless=headless,
        prompt=prompt,
        arguments=arguments,
        program=program,
        term="xterm-kitty",
        time_zone="Europe/Berlin",
        bottle_env=bottle_env or {},
        credentials=offers,
        token="0123abcd",
        supervise=supervise,
    )


def contents(setup):
    return {file.target: file.content.decode() for file in setup.files}


COMMON = {
    "BOT_BOTTLE": "fixer-2345",
    "HOME": "/home/agent",
    "USER": "agent",
    "LOGNAME": "agent",
    "SHELL": "/bin/sh",
    "PATH": "/home/agent/.local/bin:/opt/bot-bottle:"
    "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "LANG": "C.UTF-8",
    "TERM": "dumb",
    "TZ": "Europe/Berlin",
    **dict.fromkeys(("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy"), "http://127.0.0.1:3128"),
    **dict.fromkeys(("NO_PROXY", "no_proxy"), "127.0.0.1,localhost,::1"),
}


def test_the_environment_of_a_command_is_exactly_this():
    setup = AnyCommand().setup(request(command=["true"]))
    assert dict(setup.command.env) == COMMON
    assert len(setup.command.env) == len(COMMON)


def test_the_environment_of_claude_is_exactly_this():
    setup = Claude().setup(request(prompt="do it", base_url="http://model.example.org"))
    assert dict(setup.command.env) == {
        **COMMON,
        "ANTHROPIC_API_KEY": "sk-ant-api03-placeholder-none-0123abcd",
        "ANTHROPIC_BASE_URL": "http://model.example.org",
        "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
        "DISABLE_AUTOUPDATER": "1",
        "DISABLE_INSTALLATION_CHECKS": "1",
    }


def test_nothing_of_the_hosts_environment_gets_in(monkeypatch):
    monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-ant-real")
    monkeypatch.setenv("SSH_AUTH_SOCK", "/run/agent")
    before = dict(os.environ)
    setup = Claude().setup(request(prompt="do it"))
    assert "sk-ant-real" not in repr(setup)
    assert "/run/agent" not in repr(setup)
    assert dict(os.environ) == before


def test_the_bottles_variables_win_over_the_tools_and_the_agents_over_the_bottles():
    setup = Claude().setup(
        request(prompt="x", bottle_env={"DISABLE_AUTOUPDATER": "0", "A": "bottle"}, env={"A": "agent"})
    )
    env = dict(setup.command.env)
    assert (env["DISABLE_AUTOUPDATER"], env["A"]) == ("0", "agent")


def test_headless_claude_reads_its_prompt_from_a_file_and_never_from_the_command_line():
    setup = Claude().setup(request(prompt="the task"))
    assert setup.command.argv == (
        *("/bin/sh", "-c", 'exec "$@" <"$0"', PROMPT_FILE, "/opt/bot-bottle/claude"),
        *("--dangerously-skip-permissions", "--print", "--output-format", "stream-json", "--verbose"),
    )
    assert contents(setup)[PROMPT_FILE] == "the task"


def test_interactive_claude_gets_its_first_message_after_a_double_dash():
    setup = Claude().setup(request(headless=False, prompt="--help me"))
    assert setup.command.argv == (
        "/opt/bot-bottle/claude",
        "--dangerously-skip-permissions",
        "--",
        "--help me",
    )
    assert PROMPT_FILE not in contents(setup)
    assert dict(setup.command.env)["TERM"] == "xterm-kitty"


def test_the_agents_text_instructs_beside_a_prompt_and_is_the_task_without_one():
    both = Claude().setup(request(prompt="the task", text="be kind"))
    assert contents(both)[INSTRUCTIONS_FILE] == "be kind"
    assert "--append-system-prompt-file" in both.command.argv
    alone = Claude().setup(request(text="be kind"))
    assert contents(alone)[PROMPT_FILE] == "be kind"
    assert "--append-system-prompt-file" not in alone.command.argv


def test_headless_claude_without_anything_to_do_is_a_usage_error():
    with pytest.raises(UsageError, match="told what to do"):
        Claude().setup(request(prompt="  "))


def test_claude_that_is_not_installed_says_how_to_install_it():
    with pytest.raises(NotFoundError, match="provider install claude"):
        Claude().setup(request(prompt="x", program=""))


def test_claude_is_mounted_read_only_and_its_questions_are_answered():
    setup = Claude().setup(request(prompt="x", model="opus", arguments=("--max-turns", "3")))
    (mount,) = setup.mounts
    assert (mount.source, mount.target, mount.writable) == (PROGRAM, "/opt/bot-bottle/claude", False)
    state = json.loads(contents(setup)[f"{INSIDE_HOME}/.claude.json"])
    assert state["projects"] == {"/workspace": {"hasTrustDialogAccepted": True}}
    assert state["customApiKeyResponses"]["approved"] == [dict(setup.command.env)["ANTHROPIC_API_KEY"][-20:]]
    assert setup.command.argv[-2:] == ("--max-turns", "3")
    assert "--model opus" in " ".join(setup.command.argv)
    assert all(file.mode == 0o600 for file in setup.files)


@pytest.mark.parametrize(
    ("base_url", "route"),
    [
        (None, "https://api.anthropic.com:443"),
        ("http://model.example.org", "http://model.example.org:80"),
        ("https://gateway.example.org:8443/v1", "https://gateway.example.org:8443"),
    ],
)
def test_claude_needs_the_route_to_its_api(base_url, route):
    setup = Claude().setup(request(prompt="x", base_url=base_url))
    assert [str(one) for one in setup.routes] == [route]


def test_a_command_comes_from_the_agents_file_unless_one_is_given():
    assert AnyCommand().setup(request(command=["make", "test"])).command.argv == ("make", "test")
    assert AnyCommand().setup(request(command=["make"], arguments=("ls", "-l"))).command.argv == ("ls", "-l")
    with pytest.raises(UsageError, match="names no command"):
        AnyCommand().setup(request())


def test_a_command_without_texts_needs_no_file():
    assert AnyCommand().setup(request(command=["true"])).files == ()


def test_a_commands_prompt_is_a_file_that_a_variable_names():
    setup = AnyCommand().setup(request(command=["codex"], prompt="the task"))
    assert contents(setup) == {PROMPT_FILE: "the task"}
    assert dict(setup.command.env)["BOT_BOTTLE_PROMPT_FILE"] == PROMPT_FILE


def test_every_provider_is_found_by_its_name():
    assert names() == ("claude", "codex", "command", "gemini", "opencode")
    assert [provider(name).name for name in names()] == list(names())
    with pytest.raises(NotFoundError, match="One of: claude, codex, command, gemini, opencode"):
        provider("cladue")


def test_asking_for_one_provider_imports_no_other_and_the_names_import_none():
    script = (
        "import sys\n"
        "from bot_bottle.providers import registry\n"
        "registry.names()\n"
        "assert not {'bot_bottle.providers.claude', 'bot_bottle.providers.command'} & set(sys.modules)\n"
        "registry.provider('command')\n"
        "assert 'bot_bottle.providers.claude' not in sys.modules\n"
        "heavy = {'subprocess', 'yaml', 'pydantic', 'rich', 'tarfile', 'urllib.parse'}\n"
        "assert not heavy & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True, env={"PYTHONPATH": "src", "PATH": os.defpath})


API = NeededRoute("api.anthropic.com", 443, "https")
GATEWAY = NeededRoute("*.example.org", 443, "https")


def offer(*routes, name="model", header="authorization", login=False, variable=""):
    return Offered(name, header, login, variable, routes or (API,))


LOGINS = ("ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN", "CLAUDE_CODE_OAUTH_TOKEN", "MINE")


@pytest.mark.parametrize(
    ("offers", "agent", "held"),
    [
        ((), {}, {"ANTHROPIC_API_KEY": "sk-ant-api03-placeholder-none-0123abcd"}),
        ((offer(header="x-api-key"),), {}, {"ANTHROPIC_API_KEY": "sk-ant-api03-placeholder-model-0123abcd"}),
        ((offer(),), {}, {"CLAUDE_CODE_OAUTH_TOKEN": "sk-ant-oat01-placeholder-model-0123abcd"}),
        ((offer(login=True),), {}, {"CLAUDE_CODE_OAUTH_TOKEN": "sk-ant-oat01-placeholder-model-0123abcd"}),
        (
            (offer(GATEWAY),),
            {"base_url": "https://gate.example.org"},
            {"ANTHROPIC_AUTH_TOKEN": "placeholder-model-0123abcd"},
        ),
        (
            (offer(GATEWAY, login=True),),
            {"base_url": "https://gate.example.org"},
            {"CLAUDE_CODE_OAUTH_TOKEN": "sk-ant-oat01-placeholder-model-0123abcd"},
        ),
        ((offer(variable="MINE"),), {}, {"MINE": "placeholder-model-0123abcd"}),
        (
            (offer(GATEWAY, name="other", variable="MINE"), offer(header="x-api-key")),
            {},
            {
                "MINE": "placeholder-other-0123abcd",
                "ANTHROPIC_API_KEY": "sk-ant-api03-placeholder-model-0123abcd",
            },
        ),
    ],
)
def test_claude_finds_its_login_where_it_looks_for_that_kind(offers, agent, held):
    setup = Claude().setup(request(prompt="x", offers=offers, **agent))
    env = dict(setup.command.env)
    assert {name: env[name] for name in LOGINS if name in env} == held
    placeholders = {f"placeholder-{name}-0123abcd": text for name, text in setup.placeholders.items()}
    assert all(text.endswith(end) for end, text in placeholders.items())
    assert {one.name for one in offers} == set(setup.placeholders)
    state = json.loads(contents(setup)[f"{INSIDE_HOME}/.claude.json"])
    key = held.get("ANTHROPIC_API_KEY")
    assert state["customApiKeyResponses"]["approved"] == ([key[-20:]] if key else [])


def test_a_command_has_the_placeholders_that_its_bottle_names():
    offers = (offer(name="hub", variable="GH_TOKEN"), offer(name="unnamed"))
    setup = AnyCommand().setup(request(command=["true"], offers=offers))
    assert dict(setup.command.env)["GH_TOKEN"] == "ghp_placeholder-hub-0123abcd"
    assert setup.placeholders == {"hub": "ghp_placeholder-hub-0123abcd"}


def test_what_is_offered_is_what_a_route_names():
    routes = [route("api.example.org", credential="a"), route("*.example.net", port=8443, credential="a")]
    named = {
        "a": credential("oauth:{}", variable="A"),
        "b": credential("env:B"),
        "q": credential("env:Q", scheme="query"),
    }
    bottle = {"egress": egress(*routes, route("q.org", credential="q")), "credentials": named}
    found = offered(manifest(bottle=bottle)["bottle"])
    first = (NeededRoute("api.example.org", 443, "https"), NeededRoute("*.example.net", 8443, "https"))
    assert found == (
        Offered("a", "x-api-key", True, "A", first),
        Offered("q", "", False, "", (NeededRoute("q.org", 443, "https"),)),
    )


URL = "http://127.0.0.1:3129/mcp"
PROGRAMS = {
    "codex": "/data/providers/codex/1.2.3/bin/codex",
    "gemini": "/data/providers/gemini/1.2.3/bundle/gemini.js",
    "opencode": "/data/providers/opencode/1.2.3/opencode",
}
FROM_FILE = ("/bin/sh", "-c", 'exec "$@" <"$0"', PROMPT_FILE)
CODEX = "/opt/bot-bottle/lib/codex/bin/codex"
GEMINI = ("/opt/bot-bottle/lib/gemini/node", "/opt/bot-bottle/lib/gemini/bundle/gemini.js")
OPENCODE = "/opt/bot-bottle/opencode"


def setup_of(name, **options):
    return provider(name).setup(request(program=PROGRAMS.get(name, PROGRAM), **options))


@pytest.mark.parametrize(
    ("name", "headless", "terminal"),
    [
        (
            "codex",
            (CODEX, "exec", "--json", "--skip-git-repo-check", "--dangerously-bypass-approvals-and-sandbox"),
            (CODEX, "--no-daemon", "--dangerously-bypass-approvals-and-sandbox"),
        ),
        (
            "gemini",
            (*GEMINI, "--approval-mode", "yolo"),
            (*GEMINI, "--approval-mode", "yolo"),
        ),
        ("opencode", (OPENCODE, "run", "--auto", "--format", "json"), (OPENCODE, "--auto")),
    ],
)
def test_the_command_lines_of_the_other_tools(name, headless, terminal):
    more = ("--output-format", "stream-json") if name == "gemini" else ()
    assert setup_of(name, prompt="the task").command.argv == (*FROM_FILE, *headless, *more)
    assert contents(setup_of(name, prompt="the task"))[PROMPT_FILE] == "the task"
    first = {
        "codex": ("--", "--say it"),
        "gemini": ("--prompt-interactive=--say it",),
        "opencode": ("--prompt=--say it",),
    }[name]
    interactive = setup_of(name, headless=False, prompt="--say it", arguments=("--more",))
    assert interactive.command.argv == (*terminal, "--more", *first)
    assert PROMPT_FILE not in contents(interactive)
    assert setup_of(name, headless=False).command.argv == terminal


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("codex", ".codex/AGENTS.md"),
        ("gemini", ".gemini/GEMINI.md"),
        ("opencode", ".config/opencode/AGENTS.md"),
    ],
)
def test_the_agents_text_stands_where_the_tool_reads_instructions(name, place):
    both = contents(setup_of(name, prompt="the task", text="be kind"))
    assert (both[PROMPT_FILE], both[f"{INSIDE_HOME}/{place}"]) == ("the task", "be kind")
    alone = contents(setup_of(name, text="be kind"))
    assert alone[PROMPT_FILE] == "be kind"
    assert f"{INSIDE_HOME}/{place}" not in alone
    with pytest.raises(UsageError, match="told what to do"):
        setup_of(name)


@pytest.mark.parametrize("name", ["claude", "codex", "gemini", "opencode"])
def test_a_tool_that_is_not_installed_says_how_to_install_it(name):
    with pytest.raises(NotFoundError, match=f"provider install {name}"):
        provider(name).setup(request(prompt="x", program=""))


@pytest.mark.parametrize(
    ("name", "base_url", "route", "variable", "value"),
    [
        ("codex", None, "https://api.openai.com:443", "OPENAI_API_KEY", "sk-placeholder-none-0123abcd"),
        ("gemini", None, "https://generativelanguage.googleapis.com:443", "GEMINI_API_KEY", "AIzaplaceholder-none-0123abcd"),
        ("opencode", None, "https://api.anthropic.com:443", "ANTHROPIC_API_KEY", "sk-ant-api03-placeholder-none-0123abcd"),
        *(
            (name, "http://m.example.org:8/v1", "http://m.example.org:8", None, None)
            for name in ("codex", "gemini", "opencode")
        ),
    ],
)  # fmt: skip
def test_the_other_tools_need_the_route_to_their_api_and_hold_a_placeholder(
    name, base_url, route, variable, value
):
    setup = setup_of(name, prompt="x", base_url=base_url)
    assert [str(one) for one in setup.routes] == [route]
    if variable:
        assert dict(setup.command.env)[variable] == value
    else:
        assert base_url in "".join(contents(setup).values()) + repr(setup.command.env)


@pytest.mark.parametrize(
    ("model", "host", "variable"),
    [
        ("openai/gpt-6", "api.openai.com", "OPENAI_API_KEY"),
        ("google/gemini-3", "generativelanguage.googleapis.com", "GOOGLE_GENERATIVE_AI_API_KEY"),
        ("anthropic/claude", "api.anthropic.com", "ANTHROPIC_API_KEY"),
    ],
)
def test_opencodes_model_says_which_api_and_which_key(model, host, variable):
    offers = (offer(NeededRoute(host, 443, "https")),)
    setup = setup_of("opencode", prompt="x", model=model, offers=offers)
    assert [one.host for one in setup.routes] == [host]
    assert dict(setup.command.env)[variable] == setup.placeholders["model"]
    config = json.loads(contents(setup)[f"{INSIDE_HOME}/.config/opencode/opencode.json"])
    assert (config["model"], config["enabled_providers"]) == (model, [model.partition("/")[0]])


def test_a_model_that_opencode_knows_and_we_do_not_needs_its_own_variables():
    setup = setup_of(
        "opencode", prompt="x", model="mistral/large", offers=(offer(variable="MISTRAL_API_KEY"),)
    )
    assert setup.routes == ()
    assert dict(setup.command.env)["MISTRAL_API_KEY"] == setup.placeholders["model"]


def test_a_base_url_cannot_write_codexs_configuration():
    import tomllib

    evil = 'http://x.example.org/"\n[mcp_servers.evil]\nurl="y'
    config = contents(setup_of("codex", prompt="x", base_url=evil))[f"{INSIDE_HOME}/.codex/config.toml"]
    parsed = tomllib.loads(config)
    assert "mcp_servers" not in parsed
    assert parsed["model_providers"]["bottle"]["base_url"] == evil


def test_tools_of_several_files_are_mounted_whole_and_called_by_their_name():
    for name, program in (("codex", (CODEX,)), ("gemini", GEMINI)):
        setup = setup_of(name, prompt="x")
        (mount,) = setup.mounts
        assert mount == (f"/data/providers/{name}/1.2.3", f"/opt/bot-bottle/lib/{name}", False)
        (launcher,) = (file for file in setup.files if file.target == f"{INSIDE_HOME}/.local/bin/{name}")
        quoted = " ".join(f"'{word}'" for word in program)
        assert (launcher.mode, launcher.content.decode()) == (0o755, f'#!/bin/sh\nexec {quoted} "$@"\n')


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("claude", ("claude", "mcp", "add", "--scope", "user", "--transport", "http", "supervise", URL)),
        ("codex", ("codex", "mcp", "add", "supervise", "--url", URL)),
        ("gemini", ("gemini", "mcp", "add", "--scope", "user", "--transport", "http", "supervise", URL)),
        ("opencode", ("opencode", "mcp", "add", "supervise", "--url", URL)),
    ],
)
def test_each_tool_says_how_it_is_told_of_supervise_and_has_no_token(name, said):
    setup = setup_of(name, prompt="x", supervise=URL)
    registration = setup.registration
    assert (registration.called, *registration.add) == said
    assert registration.program == setup.command.argv[4 : 4 + len(registration.program)]
    assert "{token}" in registration.settings
    assert registration.config in contents(setup)
    assert setup_of(name, prompt="x").registration is None


def test_claude_waits_for_an_answer_of_supervise_as_long_as_it_takes():
    def env(url):
        return dict(setup_of("claude", prompt="x", supervise=url).command.env)

    added = dict(env(URL).items() - env("").items())
    assert added == {
        "MCP_TOOL_TIMEOUT": "90000000",
        "CLAUDE_CODE_MCP_TOOL_IDLE_TIMEOUT": "0",
        "CLAUDE_CODE_MCP_AUTO_BACKGROUND_MS": "0",
    }
    assert "127.0.0.1" in env(URL)["NO_PROXY"].split(",")


def test_a_command_that_is_supervised_has_the_url_and_a_file_with_the_token():
    setup = AnyCommand().setup(request(command=["true"], supervise=URL))
    env = dict(setup.command.env)
    assert env["BOT_BOTTLE_SUPERVISE_URL"] == URL
    assert env["BOT_BOTTLE_SUPERVISE_TOKEN_FILE"] == f"{INSIDE_HOME}/.bot-bottle/supervise.token"
    assert (setup.registration.url, setup.registration.program) == (URL, ())
    assert AnyCommand().setup(request(command=["true"])).registration is None
