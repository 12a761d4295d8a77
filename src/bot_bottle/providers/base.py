"""The contract that every provider keeps: what knows one agent tool, asked before anything is made.

A provider is pure. Planning gives it a `Request` and gets a `Setup` back: the command with its whole
environment, the files and mounts that the tool needs inside, and the routes without which it can't work.
Fetching the tool is `providers/install.py`'s; writing the files is `provision/`'s.
"""

from collections.abc import Mapping
from types import MappingProxyType

from bot_bottle.manifest.document import AgentDocument
from bot_bottle.plan.model import INSIDE_HOME, TOKEN, Command, File, Mount, Registration
from bot_bottle.typed import NamedTuple, Protocol

INSIDE_TOOLS = "/opt/bot-bottle"
"""Where installed tools are mounted inside, read-only; on the agent's PATH."""

INSIDE_PARTS = f"{INSIDE_TOOLS}/lib"
"""Where those that are more than one file are mounted, a folder each; not on PATH."""

INSIDE_NOTES = f"{INSIDE_HOME}/.bot-bottle"
"""Where the prompt and the agent's instructions are written inside."""

PROMPT_FILE = f"{INSIDE_NOTES}/prompt.md"
INSTRUCTIONS_FILE = f"{INSIDE_NOTES}/instructions.md"


class Offered(NamedTuple):
    """A credential that the bottle puts in outside, as far as a provider may know it: how it goes out, and where.

    `header` is empty when it goes out another way; `login` is whether it is an OAuth login. `variable` is the one that the
    bottle's file wants to hold the placeholder, empty when it says nothing.
    """

    name: str
    header: str
    login: bool
    variable: str
    routes: tuple["NeededRoute", ...]


class Request(NamedTuple):
    """What is asked of a provider for one run.

    `program` is the tool on the host (absolute; empty when it isn't installed, which only the providers
    that bring a tool mind); `arguments` is what stood after `--`; `bottle_env` is the bottle's own `env:`.
    """

    agent: AgentDocument
    run: str
    headless: bool
    prompt: str = ""
    arguments: tuple[str, ...] = ()
    program: str = ""
    term: str = ""
    time_zone: str = ""
    bottle_env: Mapping[str, str] = MappingProxyType({})
    credentials: tuple[Offered, ...] = ()
    token: str = ""
    """What makes this run's placeholders its own."""
    supervise: str = ""
    """The URL of the server that the agent may ask for help; empty when it is not supervised."""


class NeededRoute(NamedTuple):
    """A route without which the tool can't work; planning warns when the bottle's policy lacks it."""

    host: str
    port: int
    protocol: str

    def __str__(self) -> str:
        return f"{self.protocol}://{self.host}:{self.port}"


class Setup(NamedTuple):
    """A provider's answer: everything that the tool needs inside, and nothing that is made yet.

    `skills` is the folder inside that the tool reads skills from; empty when it knows none. `placeholders` has what stands
    inside for each offered credential that something inside holds.
    """

    command: Command
    files: tuple[File, ...] = ()
    mounts: tuple[Mount, ...] = ()
    routes: tuple[NeededRoute, ...] = ()
    skills: str = ""
    placeholders: Mapping[str, str] = MappingProxyType({})
    notes: tuple[str, ...] = ()
    registration: Registration | None = None
    """How the tool is told of `Request.supervise`; None when there is none."""


BEARER = f"Bearer {TOKEN}"
"""What a tool's MCP client sends to supervise, in a registration's settings."""

CLIENT_PATIENCE = 90_000
"""Seconds that a tool's MCP client waits for an answer of supervise: longer than a proposal lives (24 hours)."""


class Provider(Protocol):
    """Knows one agent tool. Found by name through `providers/registry.py`."""

    name: str
    summary: str
    """One line for `bot-bottle provider list`."""
    tool: str
    """The file name of the program that `bot-bottle provider install` fetches; empty when there is nothing
    to install."""

    def setup(self, request: Request) -> Setup:
        """What the run needs.

        Raises UsageError when the request lacks something that this tool needs (a prompt, a command), and
        NotFoundError when the tool isn't installed; both say what to do.
        """
