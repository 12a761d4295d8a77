"""Telling the agent's tool of the supervise server: by the tool's own CLI, inside, as the agent's user, before the agent runs.

The CLI is told the URL and no secret, because a command line and an environment can be read by others. The bearer token, and
how long the tool's client waits, then go into the file that the CLI wrote. A failure is not fatal: the bottle runs on with a
warning that says how to register by hand. The CLI takes its time (Claude Code's about half a second), so it is begun early
and finished late.
"""

from collections.abc import Callable
from contextlib import ExitStack
from typing import NamedTuple

from bot_bottle.backends.base import Bottle
from bot_bottle.backends.execution import Completed, Running, run
from bot_bottle.errors import BotBottleError
from bot_bottle.plan.model import INSIDE_HOME, SUPERVISE_TOKEN_FILE, Command, File, Registration
from bot_bottle.provision import clientconfig
from bot_bottle.secret import Secret

PATIENCE = 60.0
"""Seconds that a tool's CLI has."""
LARGEST_CONFIG = 16 << 20
_MOST_SAID = 1 << 20

Report = Callable[[str], None]


class Failed(NamedTuple):
    """Why the server is not registered: the CLI's exit code (None when it gave none), what was said, what to do by hand."""

    tool: str
    code: int | None
    said: str
    command: str

    def __str__(self) -> str:
        how = "" if self.code is None else f" (exit code {self.code})"
        told = f"{self.tool or 'The agent'} could not be told of supervise{how}: {self.said or 'it said nothing'}"
        by_hand = f"\nTo register it by hand, run this inside the bottle: {self.command}"
        return told + by_hand if self.command else told


class _NotDoneError(Exception):
    """It did not work: the exit code and what was said."""

    def __init__(self, code: int | None, said: str) -> None:
        super().__init__(said)
        self.code = code


class Registering:
    """One registration: `begin` sets the tool's CLI going, `finish` completes it; `close` is to follow, always."""

    def __init__(
        self,
        bottle: Bottle,
        registration: Registration,
        env: tuple[tuple[str, str], ...],
        url: str,
        report: Report,
    ) -> None:
        """`env` is the agent's; `report` hears the URL before anything is done."""
        self._bottle = bottle
        self._registration = registration
        self._env = env
        self._opened = ExitStack()
        self._running: Running | None = None
        self._problem = ""
        report(f"registering supervise at {url}")
        if registration.add:
            try:
                self._running = Running(bottle, self._command(registration.add), limit=_MOST_SAID)
                self._opened.callback(self._running.close)
            except BotBottleError as error:
                self._problem = _said(error)

    def finish(self, token: Secret) -> Failed | None:
        """Waits for the CLI and gives the tool the token; why that did not work, or None."""
        registration = self._registration
        try:
            if not registration.add:
                self._leave_token(token)
                return None
            self._complete(self._registered(), token)
        except _NotDoneError as error:
            said = str(error)
            if registration.add:
                said = self._also_leave_token(said, token)
            return Failed(registration.tool, error.code, said, registration.by_hand)
        return None

    def close(self) -> None:
        """Ends what still runs. Idempotent."""
        self._opened.close()

    def _registered(self) -> Completed:
        """The CLI's end, once the tool knows the server; what was registered under the name before gives way."""
        if self._running is None:
            raise _NotDoneError(None, self._problem)
        done = self._running.finish(PATIENCE)
        if done.code and clientconfig.has_entry(self._config(), self._registration):
            self._run(self._registration.remove)
            done = self._run(self._registration.add)
        if done.code:
            late = f"it took longer than {PATIENCE:.0f} s" if done.timed_out else ""
            raise _NotDoneError(done.code, done.said or late)
        return done

    def _complete(self, done: Completed, token: Secret) -> None:
        try:
            content = clientconfig.completed(self._config(), self._registration, token.reveal())
        except clientconfig.NotThereError as error:
            raise _NotDoneError(done.code, f"{error}; it said: {done.said}") from error
        try:
            self._bottle.write_files([File(target=self._registration.config, content=content)])
        except BotBottleError as error:
            raise _NotDoneError(done.code, _said(error)) from error

    def _leave_token(self, token: Secret) -> None:
        try:
            self._bottle.write_files([File(target=SUPERVISE_TOKEN_FILE, content=token.reveal().encode())])
        except BotBottleError as error:
            raise _NotDoneError(None, _said(error)) from error

    def _also_leave_token(self, said: str, token: Secret) -> str:
        """Whoever registers by hand needs the token inside."""
        try:
            self._leave_token(token)
        except _NotDoneError as error:
            return f"{said}\nThe token could not be written either: {error}"
        return said

    def _config(self) -> bytes:
        path = self._registration.config
        try:
            return run(
                self._bottle, self._command(("cat", "--", path)), timeout=PATIENCE, limit=LARGEST_CONFIG
            ).stdout
        except BotBottleError as error:
            raise _NotDoneError(None, _said(error)) from error

    def _run(self, argv: tuple[str, ...]) -> Completed:
        try:
            return run(self._bottle, self._command(argv), timeout=PATIENCE, limit=_MOST_SAID)
        except BotBottleError as error:
            raise _NotDoneError(None, _said(error)) from error

    def _command(self, argv: tuple[str, ...]) -> Command:
        """In the home, not in the workspace: a repository's own settings are none of this."""
        return Command(argv=argv, env=self._env, cwd=INSIDE_HOME)


def _said(error: BotBottleError) -> str:
    return f"{error.brief}: {error.details}" if error.details else error.brief
