"""What the tools that work unattended have in common: their texts, how a prompt reaches them, the route to their model's API."""

from urllib.parse import urlsplit

from bot_bottle.errors import NotFoundError, UsageError
from bot_bottle.plan.model import INSIDE_HOME, File, Mount
from bot_bottle.policy.egress import matches
from bot_bottle.providers.base import INSIDE_PARTS, PROMPT_FILE, NeededRoute, Offered, Request
from bot_bottle.providers.placeholders import named, shaped

FROM_FILE = ("/bin/sh", "-c", 'exec "$@" <"$0"')
"""`… FILE PROGRAM ARGUMENT…` runs PROGRAM reading FILE, so that the prompt stands on no command line: a
bottle's processes can be seen in the host's process list, and a command line has a length limit."""


def must_be_installed(request: Request, tool: str, provider: str) -> None:
    """Raises NotFoundError when the tool's program isn't there."""
    if not request.program:
        raise NotFoundError(
            f"{tool} is not installed", resolution=f"Run `bot-bottle provider install {provider}`."
        )


def texts(request: Request, tool: str) -> tuple[str, str]:
    """The task and the instructions. The agent's text instructs; started headless without a prompt, it is
    the task. Raises UsageError when there is nothing to do."""
    prompt, text = request.prompt.strip(), request.agent["prompt"].strip()
    if prompt or not request.headless:
        return prompt, text
    if not text:
        raise UsageError(
            f"{tool} needs to be told what to do when nobody is there to ask",
            resolution=f"Give it with `--prompt TEXT`, or write it into {request.agent['file']}.",
        )
    return text, ""


def written(request: Request, task: str, instructions: str, place: str) -> tuple[File, ...]:
    """The task as the file that a headless tool reads, and the instructions at `place`, where the tool looks for them."""
    found = ((PROMPT_FILE, task if request.headless else ""), (place, instructions))
    return tuple(File(target=target, content=text.encode()) for target, text in found if text)


def route(url: str) -> NeededRoute:
    """The route that `url` needs."""
    parts = urlsplit(url)
    protocol = "http" if parts.scheme == "http" else "https"
    return NeededRoute(parts.hostname or "", parts.port or (80 if protocol == "http" else 443), protocol)


def credential_for(request: Request, api: NeededRoute) -> Offered | None:
    """The credential that the bottle puts in on the way to `api`."""
    return next(
        (item for item in request.credentials if any(_leads_to(one, api) for one in item.routes)), None
    )


def _leads_to(one: NeededRoute, api: NeededRoute) -> bool:
    return matches(one.host, api.host) and (one.port, one.protocol) == (api.port, api.protocol)


def key(request: Request, api: NeededRoute, variable: str) -> tuple[dict[str, str], dict[str, str]]:
    """For a tool that reads its key from `variable`: what that holds, and every credential's placeholder by name."""
    placeholders = named(request)
    credential = credential_for(request, api)
    if credential is None:
        return {variable: shaped(variable, "none", request.token)}, placeholders
    if credential.variable:
        return {}, placeholders
    placeholders[credential.name] = shaped(variable, credential.name, request.token)
    return {variable: placeholders[credential.name]}, placeholders


def mounted(request: Request, tool: str, program: str) -> tuple[str, tuple[Mount, ...]]:
    """Where the folder of a tool of several files is inside, and its mount; `program` is the file in it that is known."""
    inside = f"{INSIDE_PARTS}/{tool}"
    return inside, (Mount(source=request.program.removesuffix(f"/{program}"), target=inside),)


def launcher(name: str, *argv: str) -> File:
    """A command `name` on the agent's PATH that runs `argv`."""
    quoted = " ".join(f"'{word}'" for word in argv)
    return File(
        target=f"{INSIDE_HOME}/.local/bin/{name}",
        content=f'#!/bin/sh\nexec {quoted} "$@"\n'.encode(),
        mode=0o755,
    )
