"""Any command as an agent: its argument list is the agent file's `command:`, or what stands after `--`."""

from bot_bottle.errors import UsageError
from bot_bottle.plan.model import SUPERVISE_TOKEN_FILE, Command, File, Registration
from bot_bottle.providers.base import INSTRUCTIONS_FILE, PROMPT_FILE, Request, Setup
from bot_bottle.providers.environment import environment
from bot_bottle.providers.placeholders import named


class AnyCommand:
    """Runs what it is given. A prompt and the agent's text reach it as files that two variables name."""

    name = "command"
    summary = "any command, from the agent's file or after --"
    tool = ""

    def setup(self, request: Request) -> Setup:
        argv = request.arguments or tuple(request.agent["command"])
        if not argv:
            raise UsageError(
                f"Agent {request.agent['name']} names no command",
                resolution=f"Write `command: [PROGRAM, …]` into {request.agent['file']} or after `--`.",
            )
        texts = {
            "BOT_BOTTLE_PROMPT_FILE": (PROMPT_FILE, request.prompt),
            "BOT_BOTTLE_INSTRUCTIONS_FILE": (INSTRUCTIONS_FILE, request.agent["prompt"]),
        }
        given = {variable: place for variable, (place, text) in texts.items() if text.strip()}
        if request.supervise:
            given["BOT_BOTTLE_SUPERVISE_URL"] = request.supervise
            given["BOT_BOTTLE_SUPERVISE_TOKEN_FILE"] = SUPERVISE_TOKEN_FILE
        return Setup(
            command=Command(argv=argv, env=environment(request, given)),
            files=tuple(
                File(target=place, content=text.encode()) for place, text in texts.values() if text.strip()
            ),
            placeholders=named(request),
            registration=Registration(request.supervise) if request.supervise else None,
        )
