"""opencode: its command line, its configuration, and the model provider that the agent's `model:` names.

It speaks to many models. Those of Anthropic, OpenAI and Google are set up here: the key's variable holds a placeholder, and the
route to that API puts the real key in outside. For any other, the agent's or the bottle's `env:` holds what it looks for.
"""

import json

from bot_bottle.plan.model import INSIDE_HOME, SUPERVISE_NAME, Command, File, Mount, Registration
from bot_bottle.providers import unattended
from bot_bottle.providers.base import (
    BEARER,
    CLIENT_PATIENCE,
    INSIDE_TOOLS,
    PROMPT_FILE,
    NeededRoute,
    Request,
    Setup,
)
from bot_bottle.providers.environment import environment
from bot_bottle.providers.placeholders import named
from bot_bottle.typed import Any, NamedTuple

_INSIDE_PROGRAM = f"{INSIDE_TOOLS}/opencode"
_HOME = f"{INSIDE_HOME}/.config/opencode"


class _Maker(NamedTuple):
    """Who makes models: where their API is, and the variable that opencode looks for a key in."""

    api: str
    key: str


_MAKERS = {
    "anthropic": _Maker("https://api.anthropic.com/v1", "ANTHROPIC_API_KEY"),
    "openai": _Maker("https://api.openai.com/v1", "OPENAI_API_KEY"),
    "google": _Maker("https://generativelanguage.googleapis.com/v1beta", "GOOGLE_GENERATIVE_AI_API_KEY"),
}
_FIRST = "anthropic"

_ENVIRONMENT = {
    "OPENCODE_DISABLE_AUTOUPDATE": "1",
    "OPENCODE_DISABLE_LSP_DOWNLOAD": "1",
    "OPENCODE_DISABLE_MODELS_FETCH": "1",
    "OPENCODE_DISABLE_SHARE": "1",
}
_NO_PLUGINS = (
    File(
        target=f"{_HOME}/package-lock.json",
        content=json.dumps({"packages": {"": {"dependencies": {"@opencode-ai/plugin": "*"}}}}).encode(),
    ),
    File(target=f"{_HOME}/node_modules/.none", content=b""),
)
"""It would fetch the library that plugins are written with, at each start, though there are none."""


class Opencode:
    """opencode, unattended: every permission granted, because the bottle is what holds it."""

    name = "opencode"
    summary = "opencode (npm's native package, pinned)"
    tool = "opencode"

    def setup(self, request: Request) -> Setup:
        unattended.must_be_installed(request, "opencode", self.tool)
        task, instructions = unattended.texts(request, "opencode")
        name = request.agent["model"].partition("/")[0] if request.agent["model"] else _FIRST
        login, placeholders, routes = _model(request, name)
        config = _configuration(request, name)
        return Setup(
            command=Command(argv=_argv(request, task), env=environment(request, {**_ENVIRONMENT, **login})),
            files=(
                File(target=f"{_HOME}/opencode.json", content=json.dumps(config).encode()),
                *_NO_PLUGINS,
                *unattended.written(request, task, instructions, f"{_HOME}/AGENTS.md"),
            ),
            mounts=(Mount(source=request.program, target=_INSIDE_PROGRAM),),
            routes=routes,
            skills=f"{_HOME}/skills",
            placeholders=placeholders,
            registration=_registration(request.supervise) if request.supervise else None,
        )


def _model(request: Request, name: str) -> tuple[dict[str, str], dict[str, str], tuple[NeededRoute, ...]]:
    """What the key's variable holds, the placeholders, and the routes that the model of maker `name` needs."""
    maker, base_url = _MAKERS.get(name), request.agent["base_url"]
    if maker is None:
        return {}, named(request), (unattended.route(base_url),) if base_url else ()
    api = unattended.route(base_url or maker.api)
    login, placeholders = unattended.key(request, api, maker.key)
    return login, placeholders, (api,)


def _configuration(request: Request, name: str) -> dict[str, Any]:
    base_url, model = request.agent["base_url"], request.agent["model"]
    return {
        "$schema": "https://opencode.ai/config.json",
        "autoupdate": False,
        "share": "disabled",
        "permission": "allow",
        "enabled_providers": [name],
        **({"model": model} if model else {}),
        **({"provider": {name: {"options": {"baseURL": base_url}}}} if base_url else {}),
    }


def _argv(request: Request, task: str) -> tuple[str, ...]:
    if request.headless:
        words = (_INSIDE_PROGRAM, "run", "--auto", "--format", "json", *request.arguments)
        return (*unattended.FROM_FILE, PROMPT_FILE, *words)
    # As one word, so that a first message that begins with a dash is no option.
    return (_INSIDE_PROGRAM, "--auto", *request.arguments, *((f"--prompt={task}",) if task else ()))


def _registration(url: str) -> Registration:
    settings = {
        "enabled": True,
        "headers": {"Authorization": BEARER},
        "oauth": False,
        "timeout": CLIENT_PATIENCE * 1000,
    }
    return Registration(
        url=url,
        tool="opencode",
        called="opencode",
        program=(_INSIDE_PROGRAM,),
        add=("mcp", "add", SUPERVISE_NAME, "--url", url),
        config=f"{_HOME}/opencode.json",
        entry=("mcp", SUPERVISE_NAME),
        settings=json.dumps(settings),
    )
