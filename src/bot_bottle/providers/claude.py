"""Claude Code: its command line, the answers to its first-run questions, and how it logs in without a secret.

The agent never holds a key or a login. It is given a placeholder; the route to the model's API puts the real one in outside.
A placeholder in CLAUDE_CODE_OAUTH_TOKEN has no expiry and nothing to renew it with, so the tool never tries to: that is done
outside, too.
"""

import json
import shlex
from urllib.parse import urlsplit

from bot_bottle.errors import NotFoundError, UsageError
from bot_bottle.plan.model import (
    INSIDE_HOME,
    INSIDE_WORKSPACE,
    SUPERVISE_NAME,
    SUPERVISE_TOKEN_FILE,
    TOKEN,
    Command,
    File,
    Mount,
    Registration,
)
from bot_bottle.policy.egress import matches
from bot_bottle.providers.base import (
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

_MCP = (_INSIDE_PROGRAM, "mcp")
_USER_SCOPE = ("--scope", "user")

_FROM_FILE = ("/bin/sh", "-c", 'exec "$@" <"$0"')
"""`… FILE PROGRAM ARGUMENT…` runs PROGRAM reading FILE, so that the prompt stands on no command line: a
bottle's processes can be seen in the host's process list, and a command line has a length limit."""


class Claude:
    """Claude Code, unattended: every permission granted, because the bottle is what holds it."""

    name = "claude"
    summary = "Claude Code (npm's native package, pinned)"
    tool = "claude"

    def setup(self, request: Request) -> Setup:
        if not request.program:
            raise NotFoundError(
                "Claude Code is not installed", resolution="Run `bot-bottle provider install claude`."
            )
        agent = request.agent
        task, instructions = _texts(request)
        api = _route(agent["base_url"] or _API)
        login, placeholders = _login(request, api)
        tool_env = {**_ENVIRONMENT, **login, **(_SUPERVISED if request.supervise else {})}
        if agent["base_url"]:
            tool_env["ANTHROPIC_BASE_URL"] = agent["base_url"]
        texts = [(PROMPT_FILE, task if request.headless else ""), (INSTRUCTIONS_FILE, instructions)]
        env = environment(request, tool_env)
        return Setup(
            command=Command(argv=_argv(request, task, instructions), env=env),
            files=(
                *_configuration(dict(env).get(_KEY, "")),
                *(File(target=place, content=text.encode()) for place, text in texts if text),
            ),
            mounts=(Mount(source=request.program, target=_INSIDE_PROGRAM),),
            routes=(api,),
            skills=f"{INSIDE_HOME}/.claude/skills",
            placeholders=placeholders,
            registration=_registration(request.supervise) if request.supervise else None,
        )


def _registration(url: str) -> Registration:
    """The server may hold an answer back as long as a person takes; its tools are shown to the model from the start."""
    add = (*_MCP, "add", *_USER_SCOPE, "--transport", "http", SUPERVISE_NAME, url)
    header = f'--header "Authorization: Bearer $(cat {SUPERVISE_TOKEN_FILE})"'
    settings = {
        "headers": {"Authorization": f"Bearer {TOKEN}"},
        "timeout": CLIENT_PATIENCE * 1000,
        "alwaysLoad": True,
    }
    return Registration(
        tool="Claude Code",
        add=add,
        remove=(*_MCP, "remove", *_USER_SCOPE, SUPERVISE_NAME),
        config=f"{INSIDE_HOME}/.claude.json",
        entry=("mcpServers", SUPERVISE_NAME),
        settings=json.dumps(settings),
        by_hand=f"{shlex.join(add)} {header}",
    )


def _texts(request: Request) -> tuple[str, str]:
    """The task and the instructions. The agent's text instructs; started headless without a prompt, it is
    the task."""
    prompt, text = request.prompt.strip(), request.agent["prompt"].strip()
    if prompt or not request.headless:
        return prompt, text
    if not text:
        raise UsageError(
            "Claude Code needs to be told what to do when nobody is there to ask",
            resolution=f"Give it with `--prompt TEXT`, or write it into {request.agent['file']}.",
        )
    return text, ""


def _argv(request: Request, task: str, instructions: str) -> tuple[str, ...]:
    argv = [_INSIDE_PROGRAM, "--dangerously-skip-permissions"]
    if request.agent["model"]:
        argv += ["--model", request.agent["model"]]
    if instructions:
        argv += ["--append-system-prompt-file", INSTRUCTIONS_FILE]
    if request.headless:
        argv += ["--print", "--output-format", "stream-json", "--verbose", *request.arguments]
        return (*_FROM_FILE, PROMPT_FILE, *argv)
    # Interactive, standard input is the terminal: only the command line is left for the first message.
    return (*argv, *request.arguments, *(["--", task] if task else []))


def _login(request: Request, api: NeededRoute) -> tuple[dict[str, str], dict[str, str]]:
    """The variable in which the tool finds its login, and every credential's placeholder by name."""
    placeholders = named(request)
    leads = (item for item in request.credentials if any(_leads_to(route, api) for route in item.routes))
    credential = next(leads, None)
    if credential is None:
        return {_KEY: shaped(_KEY, "none", request.token)}, placeholders
    if credential.variable:
        return {}, placeholders
    variable = _variable(credential, api)
    placeholders[credential.name] = shaped(variable, credential.name, request.token)
    return {variable: placeholders[credential.name]}, placeholders


def _leads_to(route: NeededRoute, api: NeededRoute) -> bool:
    return matches(route.host, api.host) and (route.port, route.protocol) == (api.port, api.protocol)


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


def _route(url: str) -> NeededRoute:
    parts = urlsplit(url)
    protocol = "http" if parts.scheme == "http" else "https"
    return NeededRoute(parts.hostname or "", parts.port or (80 if protocol == "http" else 443), protocol)
