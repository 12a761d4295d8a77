"""What stands inside for a credential that only the outside holds: recognisable, fresh for each run, and of a plausible shape.

A client that insists on a key has one; what it sends is replaced outside, where the bottle says so, and refused elsewhere.
"""

from collections.abc import Mapping

from bot_bottle.manifest.document import BottleDocument
from bot_bottle.providers.base import NeededRoute, Offered, Request

_SHAPES: Mapping[str, str] = {
    "ANTHROPIC_API_KEY": "sk-ant-api03-",
    "CLAUDE_CODE_OAUTH_TOKEN": "sk-ant-oat01-",
    "GEMINI_API_KEY": "AIza",
    "GH_TOKEN": "ghp_",
    "GITHUB_TOKEN": "ghp_",
    "GITLAB_TOKEN": "glpat-",
    "GOOGLE_GENERATIVE_AI_API_KEY": "AIza",
    "OPENAI_API_KEY": "sk-",
}
"""How a value of that variable begins: some clients look."""


def offered(bottle: BottleDocument) -> tuple[Offered, ...]:
    """The credentials that the bottle's routes name."""
    found = []
    for name, item in sorted(bottle["credentials"].items()):
        routes = [route for route in bottle["egress"]["routes"] if route["credential"] == name]
        if routes:
            found.append(
                Offered(
                    name=name,
                    header=item["name"] if item["scheme"] == "header" else "",
                    login=item["source"].startswith("oauth:"),
                    variable=item["variable"] or "",
                    routes=tuple(NeededRoute(one["host"], one["port"], one["protocol"]) for one in routes),
                )
            )
    return tuple(found)


def shaped(variable: str, name: str, token: str) -> str:
    """The placeholder of credential `name` in `variable`."""
    return f"{_SHAPES.get(variable, '')}placeholder-{name}-{token}"


def named(request: Request) -> dict[str, str]:
    """The placeholders of the credentials for which the bottle's file names a variable."""
    return {
        item.name: shaped(item.variable, item.name, request.token)
        for item in request.credentials
        if item.variable
    }
