"""Codex: its command line, its configuration, and a model provider that asks for no login.

Codex is told of a model provider of ours, with its key in a variable: so it asks nobody to log in, neither headless nor on a
terminal. What stands in the variable is a placeholder; the route to the model's API puts the real key in outside.
"""

import json

from bot_bottle.plan.model import (
    INSIDE_HOME,
    INSIDE_WORKSPACE,
    SUPERVISE_NAME,
    Command,
    File,
    Registration,
)
from bot_bottle.providers import unattended
from bot_bottle.providers.base import BEARER, CLIENT_PATIENCE, PROMPT_FILE, Request, Setup
from bot_bottle.providers.environment import environment

_API = "https://api.openai.com/v1"
_KEY = "OPENAI_API_KEY"
_PROGRAM = "bin/codex"
_HOME = f"{INSIDE_HOME}/.codex"
_FREELY = ("--dangerously-bypass-approvals-and-sandbox",)

_CONFIG = """\
model_provider = "bottle"
check_for_update_on_startup = false

[model_providers.bottle]
name = "bottle"
base_url = {base_url}
env_key = "{key}"
wire_api = "responses"

[projects.{workspace}]
trust_level = "trusted"

[analytics]
enabled = false

[features]
apps = false
plugins = false
remote_plugin = false
"""
"""Analytics, apps and plugins are what it would otherwise ask other servers for than the model's."""


class Codex:
    """Codex, unattended: no approvals and no sandbox of its own, because the bottle is what holds it."""

    name = "codex"
    summary = "OpenAI's Codex CLI (npm's native package, pinned)"
    tool = "codex"

    def setup(self, request: Request) -> Setup:
        unattended.must_be_installed(request, "Codex", self.tool)
        task, instructions = unattended.texts(request, "Codex")
        base_url = request.agent["base_url"] or _API
        api = unattended.route(base_url)
        login, placeholders = unattended.key(request, api, _KEY)
        inside, mounts = unattended.mounted(request, self.tool, _PROGRAM)
        program = f"{inside}/{_PROGRAM}"
        config = _CONFIG.format(
            base_url=json.dumps(base_url), key=_KEY, workspace=json.dumps(INSIDE_WORKSPACE)
        )
        return Setup(
            command=Command(argv=_argv(request, program, task), env=environment(request, login)),
            files=(
                File(target=f"{_HOME}/config.toml", content=config.encode()),
                unattended.launcher("codex", program),
                *unattended.written(request, task, instructions, f"{_HOME}/AGENTS.md"),
            ),
            mounts=mounts,
            routes=(api,),
            skills=f"{_HOME}/skills",
            placeholders=placeholders,
            registration=_registration(program, request.supervise) if request.supervise else None,
        )


def _argv(request: Request, program: str, task: str) -> tuple[str, ...]:
    model = ("--model", request.agent["model"]) if request.agent["model"] else ()
    if request.headless:
        words = ("exec", "--json", "--skip-git-repo-check", *_FREELY, *model, *request.arguments)
        return (*unattended.FROM_FILE, PROMPT_FILE, program, *words)
    # Its background server wants the sandbox that stays out; it has no one to serve but this one terminal.
    return (program, "--no-daemon", *_FREELY, *model, *request.arguments, *(("--", task) if task else ()))


def _registration(program: str, url: str) -> Registration:
    settings = {"http_headers": {"Authorization": BEARER}, "tool_timeout_sec": CLIENT_PATIENCE}
    return Registration(
        url=url,
        tool="Codex",
        called="codex",
        program=(program,),
        add=("mcp", "add", SUPERVISE_NAME, "--url", url),
        remove=("mcp", "remove", SUPERVISE_NAME),
        config=f"{_HOME}/config.toml",
        format="toml",
        entry=("mcp_servers", SUPERVISE_NAME),
        settings=json.dumps(settings),
    )
