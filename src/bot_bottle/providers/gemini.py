"""Gemini CLI: its command line, the answers to its first-run questions, and a key that is none.

It is a bundle of JavaScript that comes with a Node of its own. What stands in its key's variable is a placeholder; the route to
the model's API puts the real key in outside.
"""

import json

from bot_bottle.plan.model import INSIDE_HOME, SUPERVISE_NAME, Command, File, Registration
from bot_bottle.providers import unattended
from bot_bottle.providers.base import BEARER, CLIENT_PATIENCE, PROMPT_FILE, Request, Setup
from bot_bottle.providers.environment import environment

_API = "https://generativelanguage.googleapis.com"
_KEY = "GEMINI_API_KEY"
_PROGRAM = "bundle/gemini.js"
_HOME = f"{INSIDE_HOME}/.gemini"

_ENVIRONMENT = {
    "GEMINI_CLI_NO_RELAUNCH": "true",
    "GEMINI_CLI_TRUST_WORKSPACE": "true",
}
"""It would start itself again with more memory, and leave MCP servers alone in a folder that nobody trusted."""

_SETTINGS = {
    "general": {"enableAutoUpdate": False, "enableAutoUpdateNotification": False},
    "privacy": {"usageStatisticsEnabled": False},
    "security": {"auth": {"selectedType": "gemini-api-key"}},
    "telemetry": {"enabled": False},
}


class Gemini:
    """Gemini CLI, unattended: every tool call approved, because the bottle is what holds it."""

    name = "gemini"
    summary = "Google's Gemini CLI (npm's package with its own Node, pinned)"
    tool = "gemini"

    def setup(self, request: Request) -> Setup:
        unattended.must_be_installed(request, "Gemini CLI", self.tool)
        task, instructions = unattended.texts(request, "Gemini CLI")
        base_url = request.agent["base_url"]
        api = unattended.route(base_url or _API)
        login, placeholders = unattended.key(request, api, _KEY)
        inside, mounts = unattended.mounted(request, self.tool, _PROGRAM)
        program = (f"{inside}/node", f"{inside}/{_PROGRAM}")
        tool_env = {**_ENVIRONMENT, **login, **({"GOOGLE_GEMINI_BASE_URL": base_url} if base_url else {})}
        return Setup(
            command=Command(argv=_argv(request, program, task), env=environment(request, tool_env)),
            files=(
                File(target=f"{_HOME}/settings.json", content=json.dumps(_SETTINGS).encode()),
                unattended.launcher("gemini", *program),
                *unattended.written(request, task, instructions, f"{_HOME}/GEMINI.md"),
            ),
            mounts=mounts,
            routes=(api,),
            skills=f"{_HOME}/skills",
            placeholders=placeholders,
            registration=_registration(program, request.supervise) if request.supervise else None,
        )


def _argv(request: Request, program: tuple[str, ...], task: str) -> tuple[str, ...]:
    model = ("--model", request.agent["model"]) if request.agent["model"] else ()
    argv = (*program, "--approval-mode", "yolo", *model)
    if request.headless:
        words = (*argv, "--output-format", "stream-json", *request.arguments)
        return (*unattended.FROM_FILE, PROMPT_FILE, *words)
    # As one word, so that a first message that begins with a dash is no option.
    return (*argv, *request.arguments, *((f"--prompt-interactive={task}",) if task else ()))


def _registration(program: tuple[str, ...], url: str) -> Registration:
    settings = {"headers": {"Authorization": BEARER}, "timeout": CLIENT_PATIENCE * 1000, "trust": True}
    return Registration(
        url=url,
        tool="Gemini CLI",
        called="gemini",
        program=program,
        add=("mcp", "add", "--scope", "user", "--transport", "http", SUPERVISE_NAME, url),
        remove=("mcp", "remove", "--scope", "user", SUPERVISE_NAME),
        config=f"{_HOME}/settings.json",
        entry=("mcpServers", SUPERVISE_NAME),
        settings=json.dumps(settings),
    )
