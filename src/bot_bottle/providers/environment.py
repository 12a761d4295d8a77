"""The environment that every agent gets, whatever its provider: this and nothing of the host's."""

from collections.abc import Mapping

from bot_bottle.door.model import PROXY_ADDRESS, PROXY_PORT
from bot_bottle.plan.model import INSIDE_HOME, INSIDE_USER
from bot_bottle.providers.base import INSIDE_TOOLS, Request
from bot_bottle.providers.placeholders import named

PROXY = f"http://{PROXY_ADDRESS}:{PROXY_PORT}"
NO_PROXY = "127.0.0.1,localhost,::1"
PATH = f"{INSIDE_HOME}/.local/bin:{INSIDE_TOOLS}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def environment(request: Request, tool: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    """The whole environment, sorted: the common part, the placeholders that the bottle's file names, `tool`'s
    own, the bottle's `env:`, the agent's; later ones win.

    The proxy variables are a convenience for clients that know them, in both spellings because clients
    differ; what ignores them, or is told others, meets the same policy on the door.
    """
    common = {
        "BOT_BOTTLE": request.run,
        "HOME": INSIDE_HOME,
        "USER": INSIDE_USER,
        "LOGNAME": INSIDE_USER,
        "SHELL": "/bin/sh",
        "PATH": PATH,
        "LANG": "C.UTF-8",
        "TERM": "dumb" if request.headless else request.term or "xterm-256color",
        **({"TZ": request.time_zone} if request.time_zone else {}),
    }
    for name, value in (("HTTP_PROXY", PROXY), ("HTTPS_PROXY", PROXY), ("NO_PROXY", NO_PROXY)):
        common[name] = common[name.lower()] = value
    held = named(request)
    placeholders = {item.variable: held[item.name] for item in request.credentials if item.variable}
    return tuple(
        sorted({**common, **placeholders, **tool, **request.bottle_env, **request.agent["env"]}.items())
    )
