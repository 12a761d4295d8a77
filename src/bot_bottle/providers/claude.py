"""Claude Code: its command line, the answers to its first-run questions, and how it logs in without a secret.

The agent never holds a key. It is given a placeholder that says so; a route with a credential puts the real
key in outside.
"""

import json
from urllib.parse import urlsplit

from bot_bottle.errors import NotFoundError, UsageError
from bot_bottle.plan.model import INSIDE_HOME, INSIDE_WORKSPACE, Command, File, Mount
from bot_bottle.providers.base import (
    INSIDE_TOOLS,
    INSTRUCTIONS_FILE,
    PROMPT_FILE,
    NeededRoute,
    Request,
    Setup,
)
from bot_bottle.providers.environment import environment

PLACEHOLDER = "sk-ant-placeholder-held-outside-the-bottle"
"""What stands where the tool wants an API key."""

_REMEMBERED = 20
"""Claude Code remembers a key that it asked about by its last 20 characters."""

_INSIDE_PROGRAM = f"{INSIDE_TOOLS}/claude"

_ENVIRONMENT = {
    "ANTHROPIC_API_KEY": PLACEHOLDER,
    "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
    "DISABLE_AUTOUPDATER": "1",
    "DISABLE_INSTALLATION_CHECKS": "1",
}

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
        tool_env = dict(_ENVIRONMENT)
        if agent["base_url"]:
            tool_env["ANTHROPIC_BASE_URL"] = agent["base_url"]
        texts = [(PROMPT_FILE, task if request.headless else ""), (INSTRUCTIONS_FILE, instructions)]
        return Setup(
            command=Command(argv=_argv(request, task, instructions), env=environment(request, tool_env)),
            files=(
                *_configuration(),
                *(File(target=place, content=text.encode()) for place, text in texts if text),
            ),
            mounts=(Mount(source=request.program, target=_INSIDE_PROGRAM),),
            routes=(_route(agent["base_url"] or "https://api.anthropic.com"),),
            skills=f"{INSIDE_HOME}/.claude/skills",
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


def _configuration() -> tuple[File, ...]:
    """The answers to what Claude Code asks a person when it first starts."""
    state = {
        "hasCompletedOnboarding": True,
        "projects": {INSIDE_WORKSPACE: {"hasTrustDialogAccepted": True}},
        "customApiKeyResponses": {"approved": [PLACEHOLDER[-_REMEMBERED:]], "rejected": []},
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
