"""Claude Code: its command line, the answers to its first-run questions, and how it logs in without a secret.

The agent never holds a key or a login. It is given a placeholder; the route to the model's API puts the real one in outside.
A placeholder in CLAUDE_CODE_OAUTH_TOKEN has no expiry and nothing to renew it with, so the tool never tries to: that is done
outside, too.
"""

import json
from urllib.parse import urlsplit

from bot_bottle.plan.model import (
    INSIDE_HOME,
    INSIDE_WORKSPACE,
    SUPERVISE_NAME,
    Command,
    File,
    Mount,
    Registration,
)
from bot_bottle.providers.base import (
    BEARER,
    CLIENT_PATIENCE,
    INSIDE_TOOLS,
    INSTRUCTIONS_FILE,
    PROMPT_FILE,
    NeededRoute,
    Offered,
    Request,
    Setup,
)
from bot_bottle.providers.environment import environment
from bot_bottle.providers.placeholders import named, shaped
from bot_bottle.providers.unattended import FROM_FILE, credential_for, must_be_installed, route, texts

_API = "https://api.anthropic.com"
_KEY, _OAUTH, _GATEWAY = "ANTHROPIC_API_KEY", "CLAUDE_CODE_OAUTH_TOKEN", "ANTHROPIC_AUTH_TOKEN"

_REMEMBERED = 20
"""Claude Code remembers a key that it asked about by its last 20 characters."""

_INSIDE_PROGRAM = f"{INSIDE_TOOLS}/claude"

_ENVIRONMENT = {
    "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
    "DISABLE_AUTOUPDATER": "1",
    "DISABLE_INSTALLATION_CHECKS": "1",
}

_SUPERVISED = {
    "MCP_TOOL_TIMEOUT": str(CLIENT_PATIENCE * 1000),
    "CLAUDE_CODE_MCP_TOOL_IDLE_TIMEOUT": "0",
    "CLAUDE_CODE_MCP_AUTO_BACKGROUND_MS": "0",
}
"""An answer that a person has to give takes its time: the tool neither gives up nor goes on without it."""


class Claude:
    """Claude Code, unattended: every permission granted, because the bottle is what holds it."""

    name = "claude"
    summary = "Claude Code (npm's native package, pinned)"
    tool = "claude"

    def setup(self, request: Request) -> Setup:
        must_be_installed(request, "Claude Code", self.tool)
        agent = request.agent
        task, instructions = texts(request, "Claude Code")
        api = route(agent["base_url"] or _API)
        login, placeholders = _login(request, api)
        tool_env = {**_ENVIRONMENT, **login, **(_SUPERVISED if request.supervise else {})}
        if agent["base_url"]:
            tool_env["ANTHROPIC_BASE_URL"] = agent["base_url"]
        written = [(PROMPT_FILE, task if request.headless else ""), (INSTRUCTIONS_FILE, instructions)]
        env = environment(request, tool_env)
        return Setup(
            command=Command(argv=_argv(request, task, instructions), env=env),
            files=(
                *_configuration(dict(env).get(_KEY, "")),
                *(File(target=place, content=text.encode()) for place, text in written if text),
            ),
            mounts=(Mount(source=request.program, target=_INSIDE_PROGRAM),),
            routes=(api,),
            skills=f"{INSIDE_HOME}/.claude/skills",
            placeholders=placeholders,
            registration=_registration(request.supervise) if request.supervise else None,
        )


def _registration(url: str) -> Registration:
    """The server may hold an answer back as long as a person takes; its tools are shown to the model from the start."""
    settings = {
        "headers": {"Authorization": BEARER},
        "timeout": CLIENT_PATIENCE * 1000,
        "alwaysLoad": True,
    }
    return Registration(
        url=url,
        tool="Claude Code",
        called="claude",
        program=(_INSIDE_PROGRAM,),
        add=("mcp", "add", "--scope", "user", "--transport", "http", SUPERVISE_NAME, url),
        remove=("mcp", "remove", "--scope", "user", SUPERVISE_NAME),
        config=f"{INSIDE_HOME}/.claude.json",
        entry=("mcpServers", SUPERVISE_NAME),
        before=("projects", INSIDE_WORKSPACE, "mcpServers", SUPERVISE_NAME),
        settings=json.dumps(settings),
    )


def _argv(request: Request, task: str, instructions: str) -> tuple[str, ...]:
    argv = [_INSIDE_PROGRAM, "--dangerously-skip-permissions"]
    if request.agent["model"]:
        argv += ["--model", request.agent["model"]]
    if instructions:
        argv += ["--append-system-prompt-file", INSTRUCTIONS_FILE]
    if request.headless:
        argv += ["--print", "--output-format", "stream-json", "--verbose", *request.arguments]
        return (*FROM_FILE, PROMPT_FILE, *argv)
    # Interactive, standard input is the terminal: only the command line is left for the first message.
    return (*argv, *request.arguments, *(["--", task] if task else []))


def _login(request: Request, api: NeededRoute) -> tuple[dict[str, str], dict[str, str]]:
    """The variable in which the tool finds its login, and every credential's placeholder by name."""
    placeholders = named(request)
    credential = credential_for(request, api)
    if credential is None:
        return {_KEY: shaped(_KEY, "none", request.token)}, placeholders
    if credential.variable:
        return {}, placeholders
    variable = _variable(credential, api)
    placeholders[credential.name] = shaped(variable, credential.name, request.token)
    return {variable: placeholders[credential.name]}, placeholders


def _variable(credential: Offered, api: NeededRoute) -> str:
    """What makes the tool send what the API expects: an OAuth login is sent with other headers than a gateway's token."""
    if credential.header != "authorization":
        return _KEY
    return _OAUTH if credential.login or api.host == urlsplit(_API).hostname else _GATEWAY


def _configuration(key: str) -> tuple[File, ...]:
    """The answers to what Claude Code asks a person when it first starts; `key` is the API key that it finds."""
    state = {
        "hasCompletedOnboarding": True,
        "projects": {INSIDE_WORKSPACE: {"hasTrustDialogAccepted": True}},
        "customApiKeyResponses": {"approved": [key[-_REMEMBERED:]] if key else [], "rejected": []},
    }
    settings = {"skipDangerousModePermissionPrompt": True}
    return (
        File(target=f"{INSIDE_HOME}/.claude.json", content=json.dumps(state).encode()),
        File(target=f"{INSIDE_HOME}/.claude/settings.json", content=json.dumps(settings).encode()),
    )
