"""A run whose keeper is a process of its own: for `--detach`, and for terminals that come and go."""

import json
import os
import signal
from collections.abc import Callable
from typing import Any, NoReturn

from bot_bottle import errors
from bot_bottle.errors import BotBottleError, InterruptedRun, SandboxError
from bot_bottle.operate.runs import Prepared, run_here


def start_detached(prepared: Prepared, *, phase: Callable[[str], None]) -> dict[str, Any]:
    """Starts the run in a keeper of its own and returns when the agent runs: `{"id", "phases", "pid"}`.

    Raises what the keeper raised when it could not start it. Ctrl-C stops the keeper, too.
    """
    reading, writing = os.pipe()
    keeper = os.fork()
    if keeper == 0:
        os.close(reading)
        _keep(prepared, writing)
    os.close(writing)
    try:
        with open(reading, encoding="utf-8") as news:
            for line in news:
                message = json.loads(line)
                if "phase" in message:
                    phase(message["phase"])
                elif "error" in message:
                    os.waitpid(keeper, 0)
                    raise _error(message["error"])
                else:
                    return {**message, "pid": keeper}
    except KeyboardInterrupt:
        os.kill(keeper, signal.SIGTERM)
        os.waitpid(keeper, 0)
        raise InterruptedRun("Interrupted; everything made so far was removed") from None
    _, status = os.waitpid(keeper, 0)
    raise SandboxError(
        "The keeper ended while starting", details=f"exit code {os.waitstatus_to_exitcode(status)}"
    )


def _error(shape: dict[str, str]) -> BotBottleError:
    kind = getattr(errors, shape["class"], SandboxError)
    error: BotBottleError = kind(shape["brief"], details=shape["details"], resolution=shape["resolution"])
    return error


def _keep(prepared: Prepared, news: int) -> NoReturn:
    """The keeper: a session of its own, no terminal, nothing of the starter's but the pipe that tells it the news."""
    code = 70
    try:
        os.setsid()
        nothing = os.open(os.devnull, os.O_RDWR)
        for descriptor in (0, 1, 2):
            os.dup2(nothing, descriptor)
        os.closerange(3, news)
        os.closerange(news + 1, 4096)
        os.chdir("/")
        _tell = _teller(news)
        try:
            outcome = run_here(
                prepared,
                foreground=False,
                phase=lambda name: _tell({"phase": name}),
                ready=lambda begun: _tell({"id": begun.id, "phases": begun.phases}),
            )
            code = outcome.exit_code
        except BotBottleError as error:
            shape = {
                "class": type(error).__name__,
                "brief": error.brief,
                "details": error.details,
                "resolution": error.resolution,
            }
            _tell({"error": shape})
        except Exception as error:  # noqa: BLE001 - the process boundary
            from bot_bottle.host.crash import save

            _tell(
                {
                    "error": {
                        "class": "SandboxError",
                        "brief": "The keeper failed",
                        "details": f"{error!r}\n{save([])}",
                        "resolution": "",
                    }
                }
            )
    finally:
        os._exit(code)


def _teller(news: int) -> Callable[[dict[str, Any]], None]:
    def tell(message: dict[str, Any]) -> None:
        try:
            os.write(news, json.dumps(message).encode() + b"\n")
        except BrokenPipeError:
            return  # whoever started it has gone; the run goes on

    return tell
