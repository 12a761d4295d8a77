"""Telling the agent's tool of the supervise server: by the tool's own CLI, inside, as the agent's user, before the agent runs.

The CLI is told the URL and no secret, because a command line and an environment can be read by others. The bearer token, and
how long the tool's client waits, then go into the file that the CLI wrote. A failure is not fatal: the bottle runs on with a
warning that says how to register by hand. The CLI takes its time, so it is begun early and finished late.
"""

import re
from collections.abc import Callable
from contextlib import ExitStack

from bot_bottle.backends.base import Bottle
from bot_bottle.backends.execution import Completed, Running, run
from bot_bottle.errors import BotBottleError
from bot_bottle.plan.model import INSIDE_HOME, SUPERVISE_TOKEN_FILE, Command, File, Registration
from bot_bottle.provision import clientconfig
from bot_bottle.secret import Secret
from bot_bottle.typed import NamedTuple

PATIENCE = 60.0
"""Seconds that a tool's CLI has."""
LARGEST_CONFIG = 16 << 20
_MOST_SAID = 1 << 20
_MOST_TOLD = 2000
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")

Report = Callable[[str], None]


class Failed(NamedTuple):
    """Why the server is not registered: the CLI's exit code (None when it gave none), what was said, what to do by hand."""

    tool: str
    code: int | None
    said: str
    command: str

    def __str__(self) -> str:
        how = "" if self.code is None else f" (exit code {self.code})"
        said = self.said or "it said nothing"
        if not self.tool:
            return f"The agent can't ask supervise{how}: {said}"
        by_hand = f"To register it by hand, run this inside the bottle: {self.command}"
        return f"{self.tool} could not be told of supervise{how}: {said}\n{by_hand}"


class _NotDoneError(Exception):
    """It did not work: the exit code and what was said."""

    def __init__(self, code: int | None, said: str) -> None:
        super().__init__(said)
        self.code = code


class Registering:
    """One registration: made, the tool's CLI runs; `finish` completes it; `close` is to follow, always."""

    def __init__(
        self, bottle: Bottle, registration: Registration, env: tuple[tuple[str, str], ...], report: Report
    ) -> None:
        """`env` is the agent's; `report` hears the URL before anything is done."""
        self._bottle = bottle
        self._registration = registration
        self._env = env
        self._opened = ExitStack()
        self._running: Running | None = None
        self._problem = ""
        report(f"registering supervise at {registration.url}")
        if registration.program:
            try:
                self._running = Running(bottle, self._cli(registration.add), limit=_MOST_SAID)
                self._opened.callback(self._running.close)
            except BotBottleError as error:
                self._problem = _said(error)

    def finish(self, token: Secret) -> Failed | None:
        """Waits for the CLI and gives the tool the token; why that did not work, or None."""
        registration = self._registration
        try:
            if registration.program:
                self._complete(self._registered(), token)
            else:
                self._leave_token(token)
        except _NotDoneError as error:
            said = self._also_leave_token(str(error), token) if registration.program else str(error)
            return Failed(registration.tool, error.code, said, clientconfig.by_hand(registration))
        return None

    def close(self) -> None:
        """Ends what still runs. Idempotent."""
        self._opened.close()

    def _registered(self) -> Completed:
        """The CLI's end, once the tool knows the server; what was registered under the name before gives way."""
        if self._running is None:
            raise _NotDoneError(None, self._problem)
        registration = self._registration
        done = self._running.finish(PATIENCE)
        if done.code and registration.remove and clientconfig.has_entry(self._config(), registration):
            self._run(self._cli(registration.remove))
            done = self._run(self._cli(registration.add))
        if done.code:
            late = f"it took longer than {PATIENCE:.0f} s" if done.timed_out else ""
            raise _NotDoneError(done.code, _heard(done) or late)
        return done

    def _complete(self, done: Completed, token: Secret) -> None:
        try:
            content = clientconfig.completed(self._config(), self._registration, token.reveal())
        except clientconfig.NotThereError as error:
            said = "\n".join(part for part in (_heard(done), str(error)) if part)
            raise _NotDoneError(done.code, said) from error
        self._write(self._registration.config, content, done.code)

    def _leave_token(self, token: Secret) -> None:
        self._write(SUPERVISE_TOKEN_FILE, token.reveal().encode(), None)

    def _also_leave_token(self, said: str, token: Secret) -> str:
        """Whoever registers by hand needs the token inside."""
        try:
            self._leave_token(token)
        except _NotDoneError as error:
            return f"{said}\nThe token could not be written either: {error}"
        return said

    def _write(self, target: str, content: bytes, code: int | None) -> None:
        try:
            self._bottle.write_files([File(target=target, content=content)])
        except BotBottleError as error:
            raise _NotDoneError(code, _said(error)) from error

    def _config(self) -> bytes:
        return self._run(self._inside(("cat", "--", self._registration.config)), limit=LARGEST_CONFIG).stdout

    def _run(self, command: Command, *, limit: int = _MOST_SAID) -> Completed:
        try:
            return run(self._bottle, command, timeout=PATIENCE, limit=limit)
        except BotBottleError as error:
            raise _NotDoneError(None, _said(error)) from error

    def _cli(self, arguments: tuple[str, ...]) -> Command:
        return self._inside(self._registration.program + arguments)

    def _inside(self, argv: tuple[str, ...]) -> Command:
        """In the home, not in the workspace: a repository's own settings are none of this."""
        return Command(argv=argv, env=self._env, cwd=INSIDE_HOME)


def _heard(done: Completed) -> str:
    """What the CLI said: stderr, else stdout, without what only colours a terminal; the last of it."""
    texts = (
        _COLOURS.sub("", stream.decode(errors="replace")).strip() for stream in (done.stderr, done.stdout)
    )
    return next(filter(None, texts), "")[-_MOST_TOLD:]


def _said(error: BotBottleError) -> str:
    return f"{error.brief}: {error.details}" if error.details else error.brief
